//! Segments as files: their names, where their sound part ends, windows of their bytes.

use super::frame::{HEAD, LONGEST, MARK, Piece, Window};
use super::{Damage, Disk, KEPT, SpoolError, WINDOW, failed};
use std::collections::VecDeque;
use std::io;

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

pub(super) fn name(number: u64) -> String {
    format!("{number:020}.spool")
}

/// All segments, in order.
pub(super) fn list(disk: &dyn Disk) -> Result<VecDeque<Segment>, SpoolError> {
    let mut found = vec![];
    for (file, len) in disk.list().map_err(failed(disk, ""))? {
        let number = file.strip_suffix(".spool").and_then(|n| n.parse::<u64>().ok());
        if let Some(number) = number.filter(|n| name(*n) == file) {
            found.push(Segment { number, len });
        }
    }
    found.sort_by_key(|s| s.number);
    Ok(found.into())
}

/// A new segment. One of that number that is there has no record that anybody was told of.
pub(super) fn create(disk: &dyn Disk, number: u64) -> Result<(), SpoolError> {
    let name = name(number);
    disk.create(&name).map_err(failed(disk, &name))
}

/// Reads at most `size` bytes from `offset`, none behind the segment's end; whether there are no more.
pub(super) fn window(disk: &dyn Disk, s: Segment, offset: u64, size: usize, out: &mut Vec<u8>) -> io::Result<bool> {
    let size = usize::try_from(s.len.saturating_sub(offset)).unwrap_or(usize::MAX).min(size);
    out.resize(size, 0);
    let have = disk.read(&name(s.number), offset, out)?;
    out.truncate(have);
    // A file may have become shorter than it was.
    Ok(have < size || offset + have as u64 >= s.len)
}

/// Counts the records of a segment and cuts what is torn from its end.
pub(super) fn end(disk: &dyn Disk, segment: Segment) -> Result<End, SpoolError> {
    let name = name(segment.number);
    let found = look(disk, segment).map_err(failed(disk, &name))?;
    if found.torn.is_some() {
        disk.cut(&name, found.len).map_err(failed(disk, &name))?;
    }
    Ok(found)
}

fn look(disk: &dyn Disk, segment: Segment) -> io::Result<End> {
    // Up to where it is sound, and the records before that and before where we are.
    let mut sound = End { records: 0, torn: None, len: 0 };
    let (mut offset, mut records) = (0, 0);
    let (mut bytes, mut wide) = (vec![], WINDOW);
    while offset < segment.len {
        let last = window(disk, segment, offset, wide, &mut bytes)?;
        let here = Window { segment: segment.number, offset, bytes: &bytes, last };
        let mut at = 0;
        loop {
            match here.at(at) {
                Piece::Record { end, .. } => {
                    (at, records) = (end, records + 1);
                    (sound.len, sound.records) = (offset + at as u64, records);
                }
                Piece::Damaged { end } => (at, records) = (end, records + 1),
                Piece::Torn => return torn(disk, segment, sound),
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

fn torn(disk: &dyn Disk, segment: Segment, sound: End) -> io::Result<End> {
    let mut bytes = vec![];
    window(disk, segment, sound.len, KEPT, &mut bytes)?;
    let why = "it was torn when the process or the machine stopped".to_owned();
    Ok(End { torn: Some(Damage { segment: segment.number, offset: sound.len, why, bytes }), ..sound })
}
