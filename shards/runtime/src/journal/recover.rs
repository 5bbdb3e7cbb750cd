//! Reading a journal: the last committed record of each entity that was not removed.
//!
//! Nothing in a file is believed without its check. What is damaged is stepped over and told ([`Fault`]); every intact
//! committed record counts.

use super::JournalError;
use super::record::{self, ALIGN, HEAD, Head, Op, Salt};
use super::segment::{self, HEADER, Header};
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use strowger_engine::journal::{Entity, Kind, Recovered};

/// What a generation holds.
#[derive(Debug, Default)]
pub struct Found {
    /// By the shard that wrote them; without CDRs.
    pub shards: Vec<Recovered>,
    /// CDRs that nothing else is known to have.
    pub cdrs: Vec<Box<[u8]>>,
    pub faults: Vec<Fault>,
}

/// Something that should be there and is not, or is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub path: PathBuf,
    pub trouble: Trouble,
    /// Committed records that are missing because of it (or of it and the faults before it); `None`: nobody knows.
    pub lost: Option<u64>,
}

/// See [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Bytes that are no record.
    Damaged { at: usize, bytes: usize },
    /// The file ends early.
    Truncated { size: usize, expected: u64 },
    /// Neither copy of the segment's header is intact.
    Header,
    /// There is no segment of that number.
    Missing { number: u64 },
    /// There is no directory of that shard.
    NoShard,
    /// Nothing is left of that shard, which has a record of its own from the beginning.
    NoRecord,
    /// The file that says that the generation is complete is not as it was written.
    Mark,
    /// The last turn was not committed: nothing of it had been sent.
    Torn { records: usize },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match self.trouble {
            Trouble::Damaged { at, bytes } => write!(f, "{bytes} bytes from byte {at} on are damaged")?,
            Trouble::Truncated { size, expected } => write!(f, "the file has {size} bytes of {expected}")?,
            Trouble::Header => f.write_str("the segment's header is damaged")?,
            Trouble::Missing { number } => write!(f, "segment number {number} is missing")?,
            Trouble::NoRecord => f.write_str("no record of the shard is left")?,
            Trouble::NoShard => f.write_str("the shard's directory is missing")?,
            Trouble::Mark => f.write_str("the mark of a complete generation is damaged")?,
            Trouble::Torn { records } => return write!(f, "{records} records of a turn that did not end are left out"),
        }
        match self.lost {
            Some(n) => write!(f, "; {n} records lost"),
            None => f.write_str("; how many records are lost is not known"),
        }
    }
}

/// A segment's file in memory.
struct Loaded {
    path: PathBuf,
    header: Header,
    bytes: Vec<u8>,
}

/// The records of one shard, in order of entities. A segment is read from the first of the directories that have it; the last
/// is the one that faults name.
///
/// # Errors
/// When a file cannot be read, or is of another version.
pub(super) fn read_shard(
    dirs: &[PathBuf],
    generation: u64,
    shard: u16,
    faults: &mut Vec<Fault>,
) -> Result<Recovered, JournalError> {
    let mut segments: Vec<Loaded> = vec![];
    for dir in dirs {
        load(dir, &mut segments, faults)?;
    }
    let dir = dirs.last().map_or(Path::new(""), PathBuf::as_path);
    Ok(replay(segments, dir, generation, shard, faults))
}

/// As [`read_shard`], of files that are read already.
///
/// # Errors
/// When one is of another version.
pub(super) fn read_files(
    files: Vec<(PathBuf, Vec<u8>)>,
    generation: u64,
    shard: u16,
    faults: &mut Vec<Fault>,
) -> Result<Recovered, JournalError> {
    let mut segments: Vec<Loaded> = vec![];
    for (path, bytes) in files {
        match segment::read_header(&path, &bytes[..HEADER.min(bytes.len())])? {
            Some(header) if is_new(&header, &segments) => segments.push(Loaded { path, header, bytes }),
            Some(_) => {}
            None => faults.push(Fault { path, trouble: Trouble::Header, lost: None }),
        }
    }
    Ok(replay(segments, Path::new(""), generation, shard, faults))
}

/// What the segments hold, in order of entities.
fn replay(mut segments: Vec<Loaded>, dir: &Path, generation: u64, shard: u16, faults: &mut Vec<Fault>) -> Recovered {
    segments.sort_by_key(|s| s.header.number);
    let oldest = segments.iter().filter_map(|s| s.header.oldest).max().unwrap_or(0);
    // Which are needed is known from the others at best: what has been removed since may come back.
    for segment in segments.iter().filter(|s| s.header.oldest.is_none()) {
        faults.push(Fault { path: segment.path.clone(), trouble: Trouble::Header, lost: None });
    }
    segments.retain(|s| s.header.number >= oldest);
    let mut replay = Replay { segments: &segments, oldest, faults, latest: HashMap::new(), pending: vec![], seen: 0 };
    replay.run(dir, generation, shard);
    let mut found: Vec<_> = replay.latest.into_iter().collect();
    found.sort_unstable_by_key(|(entity, _)| *entity);
    let record = |(i, range): (usize, Range<usize>)| Box::from(segments[i].bytes.get(range).unwrap_or_default());
    Recovered { shard, records: found.into_iter().map(|(entity, at)| (entity, record(at))).collect() }
}

/// Reads the segments of a directory that are in use and that no directory before has.
fn load(dir: &Path, segments: &mut Vec<Loaded>, faults: &mut Vec<Fault>) -> Result<(), JournalError> {
    let mut paths = vec![];
    for entry in std::fs::read_dir(dir).map_err(JournalError::file(dir))? {
        let path = entry.map_err(JournalError::file(dir))?.path();
        if path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("segment-")) {
            paths.push(path);
        }
    }
    paths.sort();
    for path in paths {
        let failed = || JournalError::file(&path);
        let mut file = File::open(&path).map_err(failed())?;
        let mut bytes = vec![];
        file.by_ref().take(HEADER as u64).read_to_end(&mut bytes).map_err(failed())?;
        match segment::read_header(&path, &bytes)? {
            Some(header) if is_new(&header, segments) => {
                file.read_to_end(&mut bytes).map_err(failed())?;
                segments.push(Loaded { path, header, bytes });
            }
            Some(_) => {}
            None => faults.push(Fault { path, trouble: Trouble::Header, lost: None }),
        }
    }
    Ok(())
}

/// Whether the segment is in use, and none of its number is known.
fn is_new(header: &Header, segments: &[Loaded]) -> bool {
    header.number != 0 && segments.iter().all(|s| s.header.number != header.number)
}

/// A record that was read: what it does, and where its payload is.
type Read = (Op, Entity, usize, Range<usize>);

struct Replay<'a> {
    segments: &'a [Loaded],
    /// Number of the oldest that is needed; 0: nobody knows.
    oldest: u64,
    faults: &'a mut Vec<Fault>,
    latest: HashMap<Entity, (usize, Range<usize>)>,
    /// Not committed as far as one knows.
    pending: Vec<Read>,
    /// Records that there have been since the journal began, those lost included.
    seen: u64,
}

impl Replay<'_> {
    fn run(&mut self, dir: &Path, generation: u64, shard: u16) {
        let first = self.segments.first().map_or(0, |s| s.header.number);
        let mut expected = if self.oldest == 0 { first } else { self.oldest };
        if let Some(first) = self.segments.first().filter(|s| s.header.number == expected) {
            self.seen = first.header.first;
        }
        for i in 0..self.segments.len() {
            let header = self.segments[i].header;
            self.missing(dir, expected..header.number);
            self.count(header.first);
            self.segment(i, &segment::salt(generation, shard, header.number));
            expected = header.number + 1;
            if header.next.is_some_and(|n| n != 0) {
                self.apply_pending();
            }
        }
        if let Some(last) = self.segments.last()
            && last.header.next == Some(expected)
        {
            self.missing(dir, expected..expected + 1);
        }
        #[cfg(mutant)]
        if strowger_dispatch::mutant::is("torn-turn-counted") {
            self.apply_pending();
        }
        if let Some((_, _, i, _)) = self.pending.first() {
            let trouble = Trouble::Torn { records: self.pending.len() };
            self.faults.push(Fault { path: self.segments[*i].path.clone(), trouble, lost: Some(0) });
        }
    }

    fn missing(&mut self, dir: &Path, numbers: Range<u64>) {
        // A damaged header may name any number.
        for number in numbers.take(1024) {
            self.faults.push(Fault { path: dir.to_owned(), trouble: Trouble::Missing { number }, lost: None });
        }
    }

    /// So many records there were up to here: what is missing is due to the latest faults.
    fn count(&mut self, records: u64) {
        let mut lost = records.saturating_sub(self.seen);
        self.seen = self.seen.max(records);
        for fault in self.faults.iter_mut().rev().take_while(|f| f.lost.is_none()) {
            fault.lost = Some(std::mem::take(&mut lost));
        }
    }

    fn segment(&mut self, i: usize, salt: &Salt) {
        let Loaded { path, header, bytes } = &self.segments[i];
        // Where the field is damaged, the marks tell.
        let expected = header.committed.unwrap_or(0);
        let committed = usize::try_from(expected).unwrap_or(usize::MAX);
        if bytes.len() < committed {
            let trouble = Trouble::Truncated { size: bytes.len(), expected };
            self.faults.push(Fault { path: path.clone(), trouble, lost: None });
        }
        let committed = committed.min(bytes.len());
        let known = header.committed.is_some();
        if !known {
            self.faults.push(Fault { path: path.clone(), trouble: Trouble::Header, lost: None });
        }
        let end = if known { committed } else { bytes.len() };
        let mut at = HEADER;
        while let Some(rest) = bytes.get(at..) {
            let head = record::head(rest, salt);
            let intact = head.filter(|h| record::payload(rest, h, salt).is_some());
            if let Some(head) = intact {
                self.record(i, at, head, committed);
                at += head.size();
                continue;
            }
            if at >= end {
                break;
            }
            let next = head.map_or_else(|| find(bytes, at + ALIGN, end, salt), |h| at + h.size());
            // Where nobody knows how far it goes: to its last intact record.
            if !known && find(bytes, next, end, salt) >= end {
                break;
            }
            let trouble = Trouble::Damaged { at, bytes: next - at };
            self.faults.push(Fault { path: path.clone(), trouble, lost: None });
            at = next;
        }
    }

    fn record(&mut self, i: usize, at: usize, head: Head, committed: usize) {
        if at < committed {
            self.apply_pending();
        }
        if head.op == Op::Commit {
            self.apply_pending();
            self.count(head.entity.id);
            return;
        }
        self.seen += 1;
        let payload = at + record::HEAD..at + record::HEAD + head.len;
        self.pending.push((head.op, head.entity, i, payload));
        if at < committed {
            self.apply_pending();
        }
    }

    fn apply_pending(&mut self) {
        for (op, entity, i, payload) in self.pending.drain(..) {
            match op {
                Op::Put => drop(self.latest.insert(entity, (i, payload))),
                Op::Remove => {
                    self.latest.remove(&entity);
                    entity.other_half().map(|half| self.latest.remove(&half));
                }
                Op::RemoveUpTo => self.latest.retain(|e, _| e.kind != entity.kind || e.id > entity.id),
                Op::Commit => {}
            }
        }
    }
}

/// Where the next intact record begins, or `end`.
fn find(bytes: &[u8], from: usize, end: usize, salt: &Salt) -> usize {
    let intact = |at: &usize| {
        let rest = &bytes[*at..];
        record::head(rest, salt).is_some_and(|h| record::payload(rest, &h, salt).is_some())
    };
    (from..end).step_by(ALIGN).find(intact).unwrap_or(end.max(from))
}

/// Has a record that says nothing in place of what is damaged among a full segment's records; how many bytes that are.
pub(super) fn mend(bytes: &mut [u8], salt: &Salt) -> usize {
    let (mut at, end, mut damaged) = (0, bytes.len(), 0);
    while at < end {
        let rest = &bytes[at..];
        if let Some(head) = record::head(rest, salt).filter(|h| record::payload(rest, h, salt).is_some()) {
            at += head.size();
            continue;
        }
        let next = find(bytes, (at + HEAD).min(end), end, salt);
        damaged += next - at;
        if let Some(payload) = (next - at).checked_sub(HEAD) {
            let nothing = Entity { kind: Kind::Shard, id: 0 };
            record::write(&mut bytes[at..next], salt, Op::Commit, nothing, &vec![0; payload]);
        }
        at = next;
    }
    damaged
}

/// Splits CDRs from what engines restore.
pub(super) fn take_cdrs(recovered: &mut Recovered, cdrs: &mut Vec<Box<[u8]>>) {
    let (records, kept) = std::mem::take(&mut recovered.records).into_iter().partition(|(e, _)| e.kind == Kind::Cdr);
    recovered.records = kept;
    let records: Vec<(Entity, Box<[u8]>)> = records;
    cdrs.extend(records.into_iter().map(|(_, record)| record));
}
