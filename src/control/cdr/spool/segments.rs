//! Segments as files: their names, where their sound part ends, windows of their bytes.

use super::frame::{HEAD, LONGEST, MARK, Piece, Window};
use super::{Damage, KEPT, SpoolError, WINDOW};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A segment: the number of its first record, which names it, and how many of its bytes are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub number: u64,
    pub len: u64,
}

/// The end of a segment as a start finds it.
pub(super) struct End {
    pub records: u64,
    /// What was cut.
    pub torn: Option<Damage>,
    /// Bytes that are left.
    pub len: u64,
}

pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.spool"))
}

/// All segments of the directory, in order.
pub(super) fn list(dir: &Path) -> Result<VecDeque<Segment>, SpoolError> {
    let failed = |e| SpoolError::at(dir, e);
    let mut found = vec![];
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.strip_suffix(".spool")?.parse::<u64>().ok());
        if let Some(number) = number.filter(|n| path(dir, *n) == entry.path()) {
            found.push(Segment { number, len: entry.metadata().map_err(failed)?.len() });
        }
    }
    found.sort_by_key(|s| s.number);
    Ok(found.into())
}

/// A new segment. One of that number that is there has no record that anybody was told of.
pub(super) fn create(dir: &Path, number: u64) -> Result<File, SpoolError> {
    let path = path(dir, number);
    let made = || {
        fs::create_dir_all(dir)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        // Else a loss of power could take the name with it.
        File::open(dir)?.sync_all().map(|()| file)
    };
    made().map_err(|e| SpoolError::at(&path, e))
}

/// Reads at most `size` bytes from `offset`, none at or behind `end`; whether there are no more.
pub(super) fn window(file: &File, offset: u64, end: u64, size: usize, out: &mut Vec<u8>) -> io::Result<bool> {
    let size = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX).min(size);
    out.resize(size, 0);
    let mut have = 0;
    while have < size {
        match file.read_at(&mut out[have..], offset + have as u64) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    out.truncate(have);
    // A file may have become shorter than it was.
    Ok(have < size || offset + have as u64 >= end)
}

/// Counts the records of a segment and cuts what is torn from its end.
pub(super) fn end(dir: &Path, segment: Segment) -> Result<End, SpoolError> {
    let path = path(dir, segment.number);
    let looked = || {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let found = look(&file, segment)?;
        if found.torn.is_some() {
            file.set_len(found.len)?;
            file.sync_all()?;
        }
        Ok(found)
    };
    looked().map_err(|e| SpoolError::at(&path, e))
}

fn look(file: &File, segment: Segment) -> io::Result<End> {
    // Up to where it is sound, and the records before that and before where we are.
    let mut sound = End { records: 0, torn: None, len: 0 };
    let (mut offset, mut records) = (0, 0);
    let (mut bytes, mut wide) = (vec![], WINDOW);
    while offset < segment.len {
        let last = window(file, offset, segment.len, wide, &mut bytes)?;
        let here = Window { segment: segment.number, offset, bytes: &bytes, last };
        let mut at = 0;
        loop {
            match here.at(at) {
                Piece::Record { end, .. } => {
                    (at, records) = (end, records + 1);
                    (sound.len, sound.records) = (offset + at as u64, records);
                }
                Piece::Damaged { end } => (at, records) = (end, records + 1),
                Piece::Torn => return torn(file, segment, sound),
                Piece::More | Piece::End => break,
            }
        }
        if bytes.is_empty() {
            break;
        }
        wide = if at == 0 { LONGEST + HEAD + MARK.len() } else { WINDOW };
        offset += at as u64;
    }
    Ok(sound)
}

fn torn(file: &File, segment: Segment, sound: End) -> io::Result<End> {
    let mut bytes = vec![];
    window(file, sound.len, segment.len, KEPT, &mut bytes)?;
    let why = "it was torn when the process or the machine stopped".to_owned();
    Ok(End { torn: Some(Damage { segment: segment.number, offset: sound.len, why, bytes }), ..sound })
}
