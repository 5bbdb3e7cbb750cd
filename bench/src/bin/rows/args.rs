//! The command line: which rows, and how they are measured.

use std::path::PathBuf;

pub const USAGE: &str = "\
usage: bench/rows ROW... | all | --list  [OPTIONS]

  --runs N             runs whose median counts [5]
  --seconds S          how long calls arrive in a run [12]; of overload, how long it lasts [60]
  --max RATE           calls a second that this machine's server bears, if known: else it is sought first
  --minutes M          length of the soak [60]
  --waiting N          waiting calls of the row memory [100000]
  --quota SHARE        part of a core that the server gets in the row overload [0.25]
  --under COMMAND      goes before server and generator: \"chrt --rr 1\" where the machine has other work that cannot stop
                       (not with overload)
  --before COMMAND     runs before each run, for quiet: stops other work
  --after COMMAND      runs after each run
  --set KEY=VALUE      any key of the server's configuration; repeatable
  --strowger PATH      the server [beside this program]
  --loadtest PATH      the generator [beside this program]";

#[derive(Debug, Clone)]
pub struct Options {
    /// Names of rows, or `all`.
    pub rows: Vec<String>,
    pub list: bool,
    pub runs: usize,
    pub seconds: Option<f64>,
    pub max: Option<f64>,
    pub minutes: f64,
    pub waiting: u32,
    pub quota: f64,
    pub under: Vec<String>,
    pub before: Option<String>,
    pub after: Option<String>,
    pub sets: Vec<String>,
    pub strowger: PathBuf,
    pub loadtest: PathBuf,
}

impl Options {
    /// Reads the arguments; `beside` is the folder where the programs are, if nothing else is said.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(mut args: impl Iterator<Item = String>, beside: &std::path::Path) -> Result<Self, String> {
        let mut o = Self {
            rows: Vec::new(),
            list: false,
            runs: 5,
            seconds: None,
            max: None,
            minutes: 60.0,
            waiting: 100_000,
            quota: 0.25,
            under: Vec::new(),
            before: None,
            after: None,
            sets: Vec::new(),
            strowger: beside.join("strowger"),
            loadtest: beside.join("loadtest"),
        };
        while let Some(arg) = args.next() {
            if arg == "--help" {
                return Err(USAGE.to_owned());
            } else if arg == "--list" {
                o.list = true;
            } else if let Some(name) = arg.strip_prefix("--") {
                let value = args.next().ok_or_else(|| format!("{arg} wants a value\n\n{USAGE}"))?;
                o.take(name, value)?;
            } else {
                o.rows.push(arg);
            }
        }
        if o.rows.is_empty() && !o.list {
            return Err(USAGE.to_owned());
        }
        Ok(o)
    }

    fn take(&mut self, name: &str, value: String) -> Result<(), String> {
        match name {
            "runs" => self.runs = positive(name, &value)?,
            "seconds" => self.seconds = Some(positive(name, &value)?),
            "max" => self.max = Some(positive(name, &value)?),
            "minutes" => self.minutes = positive(name, &value)?,
            "waiting" => self.waiting = positive(name, &value)?,
            "quota" => self.quota = positive(name, &value)?,
            "under" => self.under = value.split_whitespace().map(str::to_owned).collect(),
            "before" => self.before = Some(value),
            "after" => self.after = Some(value),
            "set" => self.sets.push(value),
            "strowger" => self.strowger = value.into(),
            "loadtest" => self.loadtest = value.into(),
            _ => return Err(format!("there is no --{name}\n\n{USAGE}")),
        }
        Ok(())
    }
}

fn positive<T: std::str::FromStr + PartialOrd + Default>(name: &str, value: &str) -> Result<T, String> {
    let number = value.parse().ok().filter(|n| *n > T::default());
    number.ok_or_else(|| format!("--{name} wants a positive number, not `{value}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options, String> {
        Options::read(line.split(' ').map(str::to_owned), std::path::Path::new("/there"))
    }

    #[test]
    fn rows_and_options_in_any_order() {
        let o = read("cpu --runs 3 --set a.b=1 idle --set c.d=2 --max 900.5").unwrap();
        assert_eq!((o.rows, o.runs, o.max), (vec!["cpu".to_owned(), "idle".to_owned()], 3, Some(900.5)));
        assert_eq!(o.sets, ["a.b=1", "c.d=2"]);
        assert_eq!(o.strowger, PathBuf::from("/there/strowger"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, said) in
            [("cpu --runs", "--runs"), ("cpu --runs 0", "`0`"), ("cpu --max x", "`x`"), ("cpu --rums 1", "--rums")]
        {
            let why = read(line).unwrap_err();
            assert!(why.contains(said), "{why}");
        }
        assert!(Options::read(std::iter::empty(), std::path::Path::new("")).is_err());
    }
}
