//! Planted bugs (`--cfg mutant`), each with the tool that must catch it: the checks can fail.
//!
//! The simulator runs each dispatch operation whole; orderings and fences are for loom and shuttle.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

/// What must catch a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    Simulator,
    /// With the process killed now and then.
    Crashes,
    Loom,
    Shuttle,
}

/// Each planted bug's name in the source, and its tool.
const MUTANTS: &[(&str, Tool)] = &[
    ("abandoned-uncounted", Tool::Simulator),
    ("cancel-before-provisional", Tool::Simulator),
    ("capture-shifted", Tool::Simulator),
    ("chat-wrapups-overlap", Tool::Simulator),
    ("crossed-match-kept", Tool::Simulator),
    ("description-version-kept", Tool::Simulator),
    ("drain-ignored", Tool::Simulator),
    ("dissuading-hangup-ignored", Tool::Simulator),
    ("double-booking", Tool::Simulator),
    ("early-hang-up-refused", Tool::Simulator),
    ("failure-ends-the-rules", Tool::Simulator),
    ("forged-param-passed", Tool::Simulator),
    ("gauge-drifts", Tool::Simulator),
    ("idle-order-kept", Tool::Simulator),
    ("late-answer-left-up", Tool::Simulator),
    ("login-match-dropped", Tool::Simulator),
    ("logout-code-logs-in", Tool::Simulator),
    ("min-talk-ignored", Tool::Simulator),
    ("music-left-up", Tool::Simulator),
    ("nobody-there-admitted", Tool::Simulator),
    ("onhold-limit-late", Tool::Simulator),
    ("param-lost", Tool::Simulator),
    ("place-lost-after-refusal", Tool::Simulator),
    ("queue-size-exceeds", Tool::Simulator),
    ("record-keys-repeat", Tool::Simulator),
    ("record-missing", Tool::Simulator),
    ("record-twice", Tool::Simulator),
    ("refusal-without-pause", Tool::Simulator),
    ("release-forgotten", Tool::Simulator),
    ("release-not-settled", Tool::Simulator),
    ("retransmission-taken-anew", Tool::Simulator),
    ("talk-by-the-wall-clock", Tool::Simulator),
    ("talk-from-offer", Tool::Simulator),
    ("withheld-slot-given", Tool::Simulator),
    ("worst-call-first", Tool::Simulator),
    ("wrapup-after-cancel", Tool::Simulator),
    ("wrapup-ceiling-ignored", Tool::Simulator),
    ("wrapup-never-ends", Tool::Simulator),
    ("cleaned-without-a-copy", Tool::Crashes),
    ("came-back-unread", Tool::Crashes),
    ("tidied-without-a-mark", Tool::Crashes),
    ("journal-header-before-data", Tool::Crashes),
    ("record-not-in-journal", Tool::Crashes),
    ("restart-forgets-answered-invites", Tool::Crashes),
    ("restart-forgets-logins", Tool::Crashes),
    ("restart-forgets-who-waits", Tool::Crashes),
    ("restart-forgets-wrapups", Tool::Crashes),
    ("restart-reuses-tickets", Tool::Crashes),
    ("torn-turn-counted", Tool::Crashes),
    ("unwritten-forgotten", Tool::Crashes),
    ("agent-fence-dropped", Tool::Loom),
    ("call-fence-dropped", Tool::Loom),
    ("failed-commit-keeps-claim", Tool::Loom),
    ("generation-not-compared", Tool::Loom),
    ("switch-fence-dropped", Tool::Loom),
    ("agent-does-not-look-again", Tool::Shuttle),
];

/// Seeds in which the simulator must find a bug, and find nothing without one.
const SEEDS: &str = "600";
/// Longest hunt for one bug, seconds.
const MOST_S: &str = "300";

impl Tool {
    fn flags(self) -> &'static str {
        match self {
            Tool::Simulator | Tool::Crashes => "--cfg mutant",
            Tool::Loom => "--cfg mutant --cfg loom",
            Tool::Shuttle => "--cfg mutant --cfg shuttle",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Tool::Simulator | Tool::Crashes => "mutants",
            Tool::Loom => "mutants-loom",
            Tool::Shuttle => "mutants-shuttle",
        }
    }

    fn arguments(self) -> Vec<&'static str> {
        let mut all = match self {
            Tool::Simulator | Tool::Crashes => vec!["run", "-p", "strowger-sim"],
            Tool::Loom => vec!["test", "-p", "strowger-dispatch", "--test", "loom"],
            Tool::Shuttle => vec!["test", "-p", "strowger-dispatch", "--test", "shuttle"],
        };
        all.extend(["--quiet", "--profile", "model"]);
        match self {
            Tool::Simulator => all.extend(["--", "--seeds", SEEDS]),
            Tool::Crashes => all.extend(["--", "--seeds", SEEDS, "--crashes"]),
            Tool::Loom | Tool::Shuttle => {}
        }
        all
    }

    /// Runs the tool with a bug, or with none; whether it found anything. `None`: it could not be run, or not to its end.
    fn finds(self, bug: &str) -> Option<bool> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
        let mut command = Command::new("timeout");
        command.args(["--kill-after=10", MOST_S, "cargo"]).args(self.arguments());
        command.env("RUSTFLAGS", self.flags()).env("CARGO_TARGET_DIR", target.join(self.folder()));
        command.env("STROWGER_MUTANT", bug).env("LOOM_MAX_PREEMPTIONS", "2");
        let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        match done.ok()?.code()? {
            0 => Some(false),
            // A deadlock that a bug causes is a find of loom's and shuttle's; these end by themselves.
            124 | 137 => None,
            _ => Some(true),
        }
    }

    /// Builds it, so that what fails afterwards is no build.
    fn is_built(self) -> bool {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
        let mut arguments: Vec<&str> = self.arguments().into_iter().take_while(|a| *a != "--").collect();
        match self {
            Tool::Simulator | Tool::Crashes => arguments[0] = "build",
            Tool::Loom | Tool::Shuttle => arguments.push("--no-run"),
        }
        let mut command = Command::new("cargo");
        command.args(arguments).env("RUSTFLAGS", self.flags());
        command.env("CARGO_TARGET_DIR", target.join(self.folder())).status().is_ok_and(|s| s.success())
    }
}

/// Plants each bug (those whose names contain `only`), and reports whether its tool catches it.
#[must_use]
pub fn hunt(only: &str) -> ExitCode {
    let mut missed = 0;
    for tool in [Tool::Simulator, Tool::Crashes, Tool::Loom, Tool::Shuttle] {
        let bugs: Vec<_> = MUTANTS.iter().filter(|(name, t)| *t == tool && name.contains(only)).collect();
        if bugs.is_empty() {
            continue;
        }
        if !tool.is_built() || tool.finds("") != Some(false) {
            println!("{tool:?}: fails without any planted bug, or cannot be built");
            return ExitCode::FAILURE;
        }
        for (name, _) in bugs {
            let started = Instant::now();
            let what = match tool.finds(name) {
                Some(true) => "caught",
                Some(false) => "MISSED",
                None => "MISSED (not done in time)",
            };
            missed += u32::from(what != "caught");
            println!("{what:<8} {name} by {tool:?} in {:.1} s", started.elapsed().as_secs_f64());
        }
    }
    println!("{missed} of {} missed", MUTANTS.iter().filter(|(name, _)| name.contains(only)).count());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The names of all planted bugs.
pub fn names() -> impl Iterator<Item = &'static str> {
    MUTANTS.iter().map(|(name, _)| *name)
}
