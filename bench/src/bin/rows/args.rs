//! The command line: which rows, and how they are measured.

use clap::Parser;
use std::path::PathBuf;

/// Measures rows of bench/README.md's table that need a whole server and a load generator.
#[derive(Debug, Clone, Parser)]
#[command(name = "bench/rows", bin_name = "bench/rows", max_term_width = 120)]
pub struct Options {
    /// Names of rows, or `all`: all but the soak
    #[arg(value_name = "ROW", required_unless_present = "list")]
    pub rows: Vec<String>,
    /// Tell what rows there are
    #[arg(long)]
    pub list: bool,
    /// Runs whose median counts
    #[arg(long, value_name = "N", default_value = "5", value_parser = positive::<usize>)]
    pub runs: usize,
    /// How long calls arrive in a run [default: 12]; of overload, how long it lasts [default: 60]
    #[arg(long, value_name = "S", value_parser = positive::<f64>)]
    pub seconds: Option<f64>,
    /// Calls a second that this machine's server bears, if known: else it is sought first
    #[arg(long, value_name = "RATE", value_parser = positive::<f64>)]
    pub max: Option<f64>,
    /// Length of the soak
    #[arg(long, value_name = "M", default_value = "60", value_parser = positive::<f64>)]
    pub minutes: f64,
    /// Waiting calls of the row memory
    #[arg(long, value_name = "N", default_value = "100000", value_parser = positive::<u32>)]
    pub waiting: u32,
    /// Part of a core that the server gets in the row overload
    #[arg(long, value_name = "SHARE", default_value = "0.25", value_parser = positive::<f64>)]
    pub quota: f64,
    /// Goes before server and generator: "chrt --rr 1" where the machine has other work that cannot stop (not with overload)
    #[arg(long, value_name = "COMMAND", value_delimiter = ' ')]
    pub under: Vec<String>,
    /// Runs before each run, for quiet: stops other work
    #[arg(long, value_name = "COMMAND")]
    pub before: Option<String>,
    /// Runs after each run
    #[arg(long, value_name = "COMMAND")]
    pub after: Option<String>,
    /// Any key of the server's configuration; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// The server [default: beside this program]
    #[arg(long, value_name = "PATH", default_value_os_t = beside("strowger"), hide_default_value = true)]
    pub strowger: PathBuf,
    /// The generator [default: beside this program]
    #[arg(long, value_name = "PATH", default_value_os_t = beside("loadtest"), hide_default_value = true)]
    pub loadtest: PathBuf,
}

/// A program in the folder of this one.
fn beside(name: &str) -> PathBuf {
    std::env::current_exe().map_or_else(|_| name.into(), |here| here.with_file_name(name))
}

fn positive<T: std::str::FromStr + PartialOrd + Default>(value: &str) -> Result<T, String> {
    value.parse().ok().filter(|n| *n > T::default()).ok_or_else(|| "wants a positive number".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options, String> {
        Options::try_parse_from(std::iter::once("rows").chain(line.split_whitespace())).map_err(|e| e.to_string())
    }

    #[test]
    fn rows_and_options_in_any_order() {
        let o = read("cpu --runs 3 --set a.b=1 idle --set c.d=2 --max 900.5").unwrap();
        assert_eq!((o.rows, o.runs, o.max), (vec!["cpu".to_owned(), "idle".to_owned()], 3, Some(900.5)));
        assert_eq!(o.sets, ["a.b=1", "c.d=2"]);
        assert_eq!(o.strowger.file_name().unwrap(), "strowger");
        assert_eq!(o.strowger.parent(), std::env::current_exe().unwrap().parent());
        let under = Options::try_parse_from(["rows", "cpu", "--under", "chrt --rr 1"]).unwrap().under;
        assert_eq!(under, ["chrt", "--rr", "1"]);
        assert!(read("--list").unwrap().list);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, said) in
            [("cpu --runs", "--runs"), ("cpu --runs 0", "'0'"), ("cpu --max x", "'x'"), ("cpu --rums 1", "--rums")]
        {
            let why = read(line).unwrap_err();
            assert!(why.contains(said), "{why}");
        }
        assert!(read("").unwrap_err().contains("ROW"));
    }
}
