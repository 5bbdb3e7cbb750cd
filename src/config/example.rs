//! The documented example file, made from the schema so that it can neither lack a key nor tell another default.

use super::schema::{Rule, Section};
use super::{Config, each_section};
use std::fmt::Write;

/// `strowger.example.toml`: every section and key with its default and its explanation.
#[must_use]
pub fn example_toml() -> String {
    let mut out = String::from(
        "# Every section and key of a Strowger configuration, with its default.\n\
         # Copy what you change to strowger.toml. A key can be set on the command line too:\n\
         #   strowger --set call_center.wrapup_time=2\n\
         # Keys marked (later) belong to parts that this build does not have yet: only the default is accepted.\n",
    );
    each_section!(&mut Config::default(), s => section(&mut out, s, ""));
    out.push_str("\n# A rule is written so, as often as needed:\n");
    section(&mut out, &Rule::default(), "# ");
    out
}

fn section<S: Section>(out: &mut String, section: &S, mark: &str) {
    out.push('\n');
    for line in S::DOC.lines() {
        let _ = writeln!(out, "# {}", line.trim());
    }
    let _ =
        writeln!(out, "{mark}{}", if mark.is_empty() { format!("[{}]", S::NAME) } else { format!("[[{}]]", S::NAME) });
    for (key, value) in S::KEYS.iter().zip(section.show()) {
        for line in key.doc.lines() {
            let _ = writeln!(out, "# {}{}", line.trim(), if key.later.is_some() { " (later)" } else { "" });
        }
        let _ = writeln!(out, "{mark}{} = {value}", key.name);
    }
}
