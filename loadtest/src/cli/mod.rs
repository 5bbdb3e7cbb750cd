//! The command: reads its line, plays, and writes what came of it.

mod args;
mod session;
mod watch;

use std::{path::Path, process::ExitCode};

use clap::Parser as _;
use loadtest::{Outcome, Scenario, html_of, json_of, text_of, write_percentiles};

use args::{Cli, Command, Output};
use session::{Session, Target};

/// What stops the program before or after a run, in words that name the thing.
type Fault = String;

pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("loadtest: {fault}");
            ExitCode::from(2)
        }
    }
}

/// Plays; returns whether all was well.
fn run(cli: Cli) -> Result<bool, Fault> {
    let nobody = || vec![Target { name: "loopback".to_owned(), address: None, pid: None }];
    let (scenario, targets, goal, output, wait) = match cli.command {
        Command::Loopback(args) => {
            (args.scenario(), nobody(), args.limit.goal(), args.output, Some(std::time::Duration::ZERO))
        }
        Command::Answer(args) => {
            let targets = vec![Target { name: "answered".to_owned(), address: None, pid: None }];
            (args.scenario(), targets, None, args.output, Some(std::time::Duration::ZERO))
        }
        Command::Run(args) => {
            let first = (Some(args.target), args.name.clone(), args.pid);
            let second = (args.vs, args.vs_name.clone(), args.vs_pid);
            let targets = [first, second].into_iter().filter_map(|(address, name, pid)| {
                let address = address?;
                Some(Target { name: name.unwrap_or_else(|| address.to_string()), address: Some(address), pid })
            });
            (args.scenario(), targets.collect(), args.limit.goal(), args.output.clone(), args.wait_ready)
        }
    };
    let outcomes = Session::open(scenario.clone(), goal, &output, &targets)?.play(wait, &targets)?;
    write(&outcomes, &output, &scenario)?;
    Ok(outcomes.iter().all(|outcome| match &outcome.limit {
        Some(limit) => limit.max_rate > 0.0,
        None => outcome.report.clean(),
    }))
}

/// Writes the files, and then the end on standard output.
fn write(outcomes: &[Outcome], output: &Output, scenario: &Scenario) -> Result<(), Fault> {
    if let Some(path) = &output.html {
        let page = html_of(outcomes, scenario);
        std::fs::write(path, page).map_err(|error| cannot_write(path, &error))?;
    }
    if let Some(prefix) = &output.hgrm {
        for outcome in outcomes {
            let mut prefix = prefix.as_os_str().to_owned();
            if outcomes.len() > 1 {
                prefix.push(format!(".{}", outcome.name.replace('/', "_")));
            }
            write_percentiles(Path::new(&prefix), &outcome.report.histograms)
                .map_err(|error| format!("cannot write percentiles: {error}"))?;
        }
    }
    if output.json {
        println!("{}", json_of(outcomes))
    } else {
        println!("{}", text_of(outcomes))
    }
    Ok(())
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Fault {
    format!("cannot write {}: {error}", path.display())
}
