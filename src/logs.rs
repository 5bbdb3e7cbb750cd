//! Logs to standard error, and their level while the server runs, in the field's numbers.

use crate::config::{Config, LogFormat};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Levels that can be set: -3 (alerts) to 4 (debug).
pub const LEVELS: std::ops::RangeInclusive<i64> = -3..=4;

/// Puts another filter in the place of the present one.
type Change = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

static CHANGE: OnceLock<Change> = OnceLock::new();
/// The level that was set last; `UNSET` before.
static SET: AtomicI64 = AtomicI64::new(UNSET);
const UNSET: i64 = i64::MIN;

/// Begins to log, as `[log]` says.
pub fn start(config: &Config) {
    let filter = EnvFilter::try_new(&config.log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second subscriber in one process: the first stays.
    match config.log.format.0 {
        LogFormat::Text => {
            let logs = logs.with_ansi(false).with_filter_reloading();
            let handle = logs.reload_handle();
            if logs.try_init().is_ok() {
                let _ = CHANGE.set(Box::new(move |filter| handle.reload(filter).is_ok()));
            }
        }
        LogFormat::Json => {
            let logs = logs.json().with_filter_reloading();
            let handle = logs.reload_handle();
            if logs.try_init().is_ok() {
                let _ = CHANGE.set(Box::new(move |filter| handle.reload(filter).is_ok()));
            }
        }
    }
}

/// The level: what was set last, else what the filter lets through.
pub fn level() -> i64 {
    match SET.load(Relaxed) {
        UNSET => number(LevelFilter::current()),
        set => set,
    }
}

/// Sets one of [`LEVELS`] in place of the filter of `[log] level`; false when this process does not log by [`start`].
pub fn set_level(level: i64) -> bool {
    let word = match level {
        ..=0 => "error",
        1 => "warn",
        2 | 3 => "info",
        _ => "debug",
    };
    let done = CHANGE.get().is_some_and(|change| change(EnvFilter::new(word)));
    if done {
        SET.store(level, Relaxed);
    }
    done
}

/// The field's number of a level of ours.
fn number(level: LevelFilter) -> i64 {
    match level {
        LevelFilter::OFF => -3,
        LevelFilter::ERROR => -1,
        LevelFilter::WARN => 1,
        LevelFilter::INFO => 3,
        LevelFilter::DEBUG | LevelFilter::TRACE => 4,
    }
}
