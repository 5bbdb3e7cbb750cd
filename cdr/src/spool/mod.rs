//! The spool: records on disk that the database could not take, in the order in which they came.
//!
//! A directory of segments, each named by the number of its first record ([`frame`] tells their form), and a [`cursor`].
//!
//! Invariants
//! - A record is in the spool when [`Spool::append`] has returned: it is on the disk then.
//! - A segment is removed only when the cursor is behind its last record: when the database has all of it.
//! - What an append that failed has left is cut off; if that fails, too, what is appended next begins another segment.
//! - A start cuts what a crash has torn from the end of the last segment, and appends to a new one. Of an append that a loss of
//!   power has torn, whole records may lie behind others that are not: nothing tells it from damage, so they count, and what is
//!   before them is told as damage.
//!
//! The directory is a [`Disk`]: files (`src/control/cdr/spool`), or what a simulation has. Every call blocks on it. One process
//! at a time may have it: whoever opens it sees to that.

mod cursor;
mod disk;
pub mod frame;
mod segments;

pub use cursor::NAME as CURSOR;
pub use disk::Disk;

use crate::{Damage, Loaded, Place};
use frame::{HEAD, LONGEST, Piece, Window};
use segments::Segment;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use strowger_engine::CdrRow;
use thiserror::Error;

/// Bytes that are read at once.
pub const WINDOW: usize = 256 << 10;
/// Bytes of damage that are kept.
const KEPT: usize = 64 << 10;

/// What the spool cannot do.
#[derive(Debug, Error)]
pub enum SpoolError {
    #[error("CDR spool: {}: {source}{}", path.display(), fix(source))]
    File { path: PathBuf, source: io::Error },
    #[error("CDR spool: {} is in use by another process; set [cdr] spool_dir to a directory of its own", .0.display())]
    Taken(PathBuf),
}

fn fix(e: &io::Error) -> &'static str {
    use io::ErrorKind::{AlreadyExists, NotADirectory, PermissionDenied, ReadOnlyFilesystem};
    match e.kind() {
        _ if is_full(e) => "; make room on its disk",
        AlreadyExists | NotADirectory | PermissionDenied | ReadOnlyFilesystem => {
            "; let this user write there, or set [cdr] spool_dir to another directory"
        }
        _ => "",
    }
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// A spool that has been opened.
#[derive(Debug)]
pub struct Opened {
    pub spool: Spool,
    /// What was torn from its end.
    pub torn: Option<Damage>,
    /// The cursor was damaged: all that is there is replayed.
    pub cursor_damaged: bool,
    /// The disk is full, so that the cursor could not be written: that holds up no start.
    pub full: Option<SpoolError>,
}

/// See the module.
#[derive(Debug)]
pub struct Spool {
    disk: Box<dyn Disk>,
    /// No append begins in a segment that has so many bytes.
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    /// The last segment takes more.
    active: bool,
    /// Records ever spooled here.
    next: u64,
    cursor: Place,
    buffer: Vec<u8>,
}

impl Spool {
    /// Opens what is on the disk.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn open(disk: Box<dyn Disk>, segment_bytes: u64) -> Result<Opened, SpoolError> {
        let (cursor, cursor_damaged) = match cursor::read(&*disk)? {
            cursor::Found::Place(place) => (Some(place), false),
            cursor::Found::None => (None, false),
            cursor::Found::Damaged => (None, true),
        };
        let mut segments = segments::list(&*disk)?;
        while segments.front().is_some_and(|s| cursor.is_some_and(|c| s.number < c.segment)) {
            remove(&*disk, segments.pop_front())?;
        }
        let mut cursor = cursor.unwrap_or_default();
        let mut next = cursor.ordinal;
        let mut torn = None;
        if let Some(last) = segments.back_mut() {
            let end = segments::end(&*disk, *last)?;
            (last.len, torn) = (end.len, end.torn);
            next = next.max(last.number + end.records);
            if last.len == 0 {
                remove(&*disk, segments.pop_back())?;
            }
        }
        match segments.front() {
            Some(s) if s.number == cursor.segment => cursor.offset = cursor.offset.min(s.len),
            Some(s) => cursor = Place { ordinal: s.number, segment: s.number, offset: 0 },
            None => cursor = Place { ordinal: next, segment: next, offset: 0 },
        }
        // Whoever may not write here shall learn of it at the start; a full disk holds up no start.
        let full = match cursor::write(&*disk, cursor, true) {
            Err(SpoolError::File { source, path }) if !is_full(&source) => {
                return Err(SpoolError::File { path, source });
            }
            written => written.err(),
        };
        let spool = Spool { disk, segment_bytes, segments, active: false, next, cursor, buffer: vec![] };
        Ok(Opened { spool, torn, cursor_damaged, full })
    }

    /// Records that the database has not got. Damaged ones are counted until they are found.
    #[must_use]
    pub fn left(&self) -> u64 {
        match self.segments.back() {
            Some(s) if (self.cursor.segment, self.cursor.offset) < (s.number, s.len) => {
                self.next.saturating_sub(self.cursor.ordinal).max(1)
            }
            _ => 0,
        }
    }

    /// Adds records, all or none; they are on the disk when this returns.
    ///
    /// # Errors
    /// When the disk does not take them. What was there before is not touched.
    pub fn append<'a>(&mut self, rows: impl Iterator<Item = &'a CdrRow>) -> Result<(), SpoolError> {
        if self.segments.back().is_none_or(|s| s.len >= self.segment_bytes) {
            self.active = false;
        }
        if !self.active {
            segments::create(&*self.disk, self.next)?;
            self.active = true;
            self.segments.push_back(Segment { number: self.next, len: 0 });
        }
        let Some(segment) = self.segments.back_mut() else { return Ok(()) };
        self.buffer.clear();
        let mut count = 0;
        for row in rows {
            let at = segment.len + self.buffer.len() as u64;
            frame::write(&mut self.buffer, segment.number, at, |out| row.encode(out));
            count += 1;
        }
        let name = segments::name(segment.number);
        if let Err(e) = self.disk.write(&name, segment.len, &self.buffer) {
            self.undo(&name);
            return Err(failed(&*self.disk, &name)(e));
        }
        segment.len += self.buffer.len() as u64;
        self.next += count;
        Ok(())
    }

    /// After a failed append: pages that a disk has refused to sync count as written, so nothing more goes to this file.
    fn undo(&mut self, name: &str) {
        self.active = false;
        let Some(segment) = self.segments.back() else { return };
        let _ = self.disk.cut(name, segment.len);
        if segment.len == 0 {
            let _ = remove(&*self.disk, self.segments.pop_back());
        }
    }

    /// Reads on behind the cursor: at most `max` records, of one segment.
    ///
    /// # Errors
    /// When the disk does not give them.
    pub fn load(&self, max: usize) -> Result<Loaded, SpoolError> {
        let mut found = Loaded { next: self.cursor, ..Loaded::default() };
        let Some(mut segment) = self.segments.front().copied() else { return Ok(found) };
        if let (true, Some(after)) = (found.next.offset >= segment.len, self.segments.get(1)) {
            segment = *after;
            found.next = Place { ordinal: segment.number, segment: segment.number, offset: 0 };
        }
        let name = segments::name(segment.number);
        match read(&*self.disk, segment, max, &mut found) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let why = format!("the segment {} is gone", self.disk.path(&name).display());
                found.damaged.push(Damage { segment: segment.number, offset: found.next.offset, why, bytes: vec![] });
                found.next.offset = segment.len;
            }
            Err(e) => return Err(failed(&*self.disk, &name)(e)),
        }
        Ok(found)
    }

    /// The database has everything before that place, which a [`Spool::load`] gave.
    ///
    /// # Errors
    /// When the cursor cannot be written or a segment not removed; the place counts all the same.
    pub fn advance(&mut self, to: Place) -> Result<(), SpoolError> {
        let before = self.cursor.segment;
        self.cursor = to;
        let drained = self.segments.back().is_none_or(|s| (to.segment, to.offset) >= (s.number, s.len));
        if drained {
            self.active = false;
            self.cursor = Place { ordinal: self.next, segment: self.next, offset: 0 };
        }
        let mut outcome = cursor::write(&*self.disk, self.cursor, self.cursor.segment != before);
        // With an old cursor, too: a start begins at the first segment that is there. And a full disk gets room.
        while self.segments.front().is_some_and(|s| s.number < self.cursor.segment) {
            outcome = outcome.and(remove(&*self.disk, self.segments.pop_front()));
        }
        outcome
    }
}

/// An operation on that file has failed.
fn failed(disk: &dyn Disk, name: &str) -> impl FnOnce(io::Error) -> SpoolError {
    let path = disk.path(name);
    |source| SpoolError::File { path, source }
}

fn remove(disk: &dyn Disk, segment: Option<Segment>) -> Result<(), SpoolError> {
    let Some(segment) = segment else { return Ok(()) };
    let name = segments::name(segment.number);
    match disk.remove(&name) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(disk, &name)(e)),
        _ => Ok(()),
    }
}

/// Reads on in the segment from `found.next`.
fn read(disk: &dyn Disk, segment: Segment, max: usize, found: &mut Loaded) -> io::Result<()> {
    let (mut bytes, mut wide) = (vec![], WINDOW);
    while found.rows.len() < max && found.next.offset < segment.len {
        let offset = found.next.offset;
        let last = segments::window(disk, segment, offset, wide, &mut bytes)?;
        let window = Window { segment: segment.number, offset, bytes: &bytes, last };
        let mut at = 0;
        while found.rows.len() < max {
            let damage = |end: usize, why: String| {
                let bytes = window.bytes[at..end.min(at + KEPT)].to_vec();
                Damage { segment: segment.number, offset: offset + at as u64, why, bytes }
            };
            let end = match window.at(at) {
                Piece::Record { bytes, end } => {
                    found.next.ordinal += 1;
                    match CdrRow::decode(bytes) {
                        Ok(row) => found.rows.push(row),
                        Err(e) => found.damaged.push(damage(end, e.to_string())),
                    }
                    end
                }
                Piece::Damaged { end } => {
                    found.next.ordinal += 1;
                    found.damaged.push(damage(end, "its checksum is wrong".to_owned()));
                    end
                }
                Piece::Torn => {
                    found.damaged.push(damage(bytes.len(), "it is no whole record".to_owned()));
                    bytes.len()
                }
                Piece::More | Piece::End => break,
            };
            at = end;
        }
        // A record that does not fit asks for a window that holds the longest.
        wide = if at == 0 { LONGEST + HEAD + frame::MARK.len() } else { WINDOW };
        found.next.offset += at as u64;
        if bytes.is_empty() {
            found.next.offset = segment.len;
        }
    }
    Ok(())
}
