//! The spool: records on disk that the database could not take, in the order in which they came.
//!
//! A directory of segments, each named by the number of its first record ([`frame`] tells their form), and a [`cursor`].
//!
//! Invariants
//! - A record is in the spool when [`Spool::append`] has returned: it is on the disk then.
//! - A segment is removed only when the cursor is behind its last record: when the database has all of it.
//! - What an append that failed has left is cut off; if that fails, too, what is appended next begins another segment.
//! - A start cuts what a crash has torn from the end of the last segment, and appends to a new one.
//! - One process at a time: a lock on the directory holds the others off.
//!
//! Every call blocks on the disk.

mod cursor;
pub mod frame;
mod segments;

pub use strowger_cdr::{Damage, Loaded, Place};

use frame::{HEAD, LONGEST, Piece, Window};
use segments::Segment;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};
use strowger_engine::CdrRow;
use thiserror::Error;

/// Bytes that are read at once.
const WINDOW: usize = 256 << 10;
/// Bytes of damage that are kept.
const KEPT: usize = 64 << 10;
/// How long a start waits for the lock.
const LOCK: Duration = Duration::from_millis(500);

/// What the spool cannot do.
#[derive(Debug, Error)]
pub enum SpoolError {
    #[error("CDR spool: {}: {source}{}", path.display(), fix(source))]
    File { path: PathBuf, source: io::Error },
    #[error("CDR spool: {} is in use by another process; set [cdr] spool_dir to a directory of its own", .0.display())]
    Taken(PathBuf),
}

impl SpoolError {
    fn at(path: &Path, source: io::Error) -> SpoolError {
        SpoolError::File { path: path.to_owned(), source }
    }
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

/// See the module.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    /// No append begins in a segment that has so many bytes.
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    /// The last segment, open for more.
    active: Option<File>,
    /// Records ever spooled here.
    next: u64,
    cursor: Place,
    buffer: Vec<u8>,
    /// Held as long as the spool is open.
    _lock: File,
}

impl Spool {
    /// Opens the directory, or makes it; says what was torn from its end.
    ///
    /// # Errors
    /// When it cannot be read or written, or another process has it.
    pub fn open(dir: &Path, segment_bytes: u64) -> Result<(Spool, Option<Damage>), SpoolError> {
        fs::create_dir_all(dir).map_err(|e| SpoolError::at(dir, e))?;
        let lock = lock(dir)?;
        let cursor = cursor::read(dir)?;
        let mut segments = segments::list(dir)?;
        while segments.front().is_some_and(|s| cursor.is_some_and(|c| s.number < c.segment)) {
            remove(dir, segments.pop_front())?;
        }
        let mut cursor = cursor.unwrap_or_default();
        let mut next = cursor.ordinal;
        let mut torn = None;
        if let Some(last) = segments.back_mut() {
            let end = segments::end(dir, *last)?;
            (last.len, torn) = (end.len, end.torn);
            next = next.max(last.number + end.records);
            if last.len == 0 {
                remove(dir, segments.pop_back())?;
            }
        }
        match segments.front() {
            Some(s) if s.number == cursor.segment => cursor.offset = cursor.offset.min(s.len),
            Some(s) => cursor = Place { ordinal: s.number, segment: s.number, offset: 0 },
            None => cursor = Place { ordinal: next, segment: next, offset: 0 },
        }
        // Whoever may not write here shall learn of it at the start; a full disk holds up no start.
        match cursor::write(dir, cursor, true) {
            Err(SpoolError::File { source, path }) if !is_full(&source) => return Err(SpoolError::at(&path, source)),
            Err(error) => tracing::error!(%error, "the disk of the CDR spool is full"),
            Ok(()) => {}
        }
        let (dir, buffer) = (dir.to_owned(), vec![]);
        Ok((Spool { dir, segment_bytes, segments, active: None, next, cursor, buffer, _lock: lock }, torn))
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
        if self.segments.back().is_some_and(|s| s.len >= self.segment_bytes) {
            self.active = None;
        }
        if self.active.is_none() {
            self.active = Some(segments::create(&self.dir, self.next)?);
            self.segments.push_back(Segment { number: self.next, len: 0 });
        }
        let (Some(file), Some(segment)) = (&self.active, self.segments.back_mut()) else { return Ok(()) };
        self.buffer.clear();
        let mut count = 0;
        for row in rows {
            let at = segment.len + self.buffer.len() as u64;
            frame::write(&mut self.buffer, segment.number, at, |out| row.encode(out));
            count += 1;
        }
        let written = file.write_all_at(&self.buffer, segment.len).and_then(|()| file.sync_data());
        if let Err(e) = written {
            let path = segments::path(&self.dir, segment.number);
            self.undo();
            return Err(SpoolError::at(&path, e));
        }
        segment.len += self.buffer.len() as u64;
        self.next += count;
        Ok(())
    }

    /// After a failed append: pages that a disk has refused to sync count as written, so nothing more goes to this file.
    fn undo(&mut self) {
        let (Some(file), Some(segment)) = (self.active.take(), self.segments.back()) else { return };
        let _ = file.set_len(segment.len).and_then(|()| file.sync_data());
        if segment.len == 0 {
            let _ = remove(&self.dir, self.segments.pop_back());
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
        let path = segments::path(&self.dir, segment.number);
        match File::open(&path) {
            Ok(file) => read(&file, segment, max, &mut found).map_err(|e| SpoolError::at(&path, e))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let why = format!("the segment {} is gone", path.display());
                found.damaged.push(Damage { segment: segment.number, offset: found.next.offset, why, bytes: vec![] });
                found.next.offset = segment.len;
            }
            Err(e) => return Err(SpoolError::at(&path, e)),
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
            self.active = None;
            self.cursor = Place { ordinal: self.next, segment: self.next, offset: 0 };
        }
        let mut outcome = cursor::write(&self.dir, self.cursor, self.cursor.segment != before);
        // With an old cursor, too: a start begins at the first segment that is there. And a full disk gets room.
        while self.segments.front().is_some_and(|s| s.number < self.cursor.segment) {
            outcome = outcome.and(remove(&self.dir, self.segments.pop_front()));
        }
        outcome
    }
}

fn lock(dir: &Path) -> Result<File, SpoolError> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(|e| SpoolError::at(&path, e))?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // Whoever has just ended may hold it a moment longer, by a child that it was starting.
            Err(fs::TryLockError::WouldBlock) if began.elapsed() < LOCK => sleep(LOCK / 50),
            Err(fs::TryLockError::WouldBlock) => return Err(SpoolError::Taken(dir.to_owned())),
            Err(fs::TryLockError::Error(e)) => return Err(SpoolError::at(&path, e)),
        }
    }
}

fn remove(dir: &Path, segment: Option<Segment>) -> Result<(), SpoolError> {
    let Some(segment) = segment else { return Ok(()) };
    let path = segments::path(dir, segment.number);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(SpoolError::at(&path, e)),
        _ => Ok(()),
    }
}

/// Reads on in the segment from `found.next`.
fn read(file: &File, segment: Segment, max: usize, found: &mut Loaded) -> io::Result<()> {
    let (mut bytes, mut wide) = (vec![], WINDOW);
    while found.rows.len() < max && found.next.offset < segment.len {
        let offset = found.next.offset;
        let last = segments::window(file, offset, segment.len, wide, &mut bytes)?;
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

#[cfg(test)]
mod tests;
