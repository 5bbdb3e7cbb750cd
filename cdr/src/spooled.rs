//! What the spool hands out, as values.

use strowger_engine::CdrRow;

/// A place between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// How many records are before it, of all that were ever spooled here.
    pub ordinal: u64,
    /// Number of its segment, and bytes from its beginning.
    pub segment: u64,
    pub offset: u64,
}

/// Bytes that are no record, or none that this program can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub segment: u64,
    pub offset: u64,
    pub why: String,
    /// The first of them, up to 64 KiB.
    pub bytes: Vec<u8>,
}

/// What lies behind the cursor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    pub rows: Vec<CdrRow>,
    pub damaged: Vec<Damage>,
    /// Behind them.
    pub next: Place,
}
