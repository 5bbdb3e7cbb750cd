//! Planted bugs, compiled in by `--cfg mutant` alone, to show that the checks can fail (`cargo sim -- --mutants`).

use std::sync::OnceLock;

/// Whether the bug of this name is planted in this process.
pub fn is(name: &str) -> bool {
    static CHOSEN: OnceLock<String> = OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("STROWGER_MUTANT").unwrap_or_default()) == name
}
