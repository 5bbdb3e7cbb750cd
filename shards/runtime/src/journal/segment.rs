//! A segment: a file of fixed size, its blocks reserved, mapped into memory. What is stored in the mapping survives the
//! process, however it ends.
//!
//! The file is in memory (tmpfs) and has a copy on disk, which the syncing thread writes; or it is on disk itself. In memory a
//! store never waits: its pages are there from the beginning and nobody takes them away. On disk the kernel protects a page when
//! it writes it out, and the next store there may wait for the file system.
//!
//! The first page is its header. `committed` is stored with release order when a turn is over: whoever loads it with
//! acquire order may read the bytes below it, which do not change until the segment is used anew.

use super::JournalError;
use super::ground::{Copy, PAGE};
use super::record::Salt;
use memmap2::{Advice, MmapOptions, MmapRaw};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{RwLock, RwLockReadGuard};

/// Bytes of the header.
pub const HEADER: usize = 4096;
/// Of the layout of segments and records; engine records have a version of their own.
pub const VERSION: u32 = 2;
const MAGIC: [u8; 8] = *b"strwjrnl";
/// The fixed part: magic, version, shard, size, checksum.
const FIXED: usize = 32;
/// Two copies of what changes with each use: number in the journal, records before it, check of both.
const COPIES: [usize; 2] = [64, 2048];
const COMMITTED: usize = 128;
const OLDEST: usize = 136;
const NEXT: usize = 144;
/// The bits of a number that is stored with its check.
const NUMBER: u64 = (1 << 48) - 1;
/// What a disk writes as a whole or not at all, bytes. All that changes in a header, but its second copy, lies in the first.
const SECTOR: usize = 512;
/// How far ahead of the writer pages are kept ready.
const AHEAD: usize = 1 << 20;
/// Bytes of pages made at once: meanwhile nobody in the process can map anything, and whoever needs a page of a kind that it has not
/// had yet waits behind those who want to. A shard must not wait for longer.
const STEP: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub struct Segment {
    pub(super) map: MmapRaw,
    pub(super) path: PathBuf,
    /// Its file on disk, for one in memory.
    pub(super) copy: Option<Copy>,
    /// Its file in memory is gone.
    pub(super) unnamed: AtomicBool,
    /// Its records are on disk alone. Locked by those who look at them; not by its writer, who has it only while it is awake, nor
    /// for long where they are not here.
    pub(super) asleep: RwLock<bool>,
}

/// A segment's records are in memory as long as this lives.
pub type Awake<'a> = RwLockReadGuard<'a, bool>;

/// What changes in a segment's header while it is in use, as it is written to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are valid, header included.
    pub committed: usize,
    /// See [`Header`].
    pub oldest: u64,
    pub next: u64,
}

/// What a segment's header says; `None`: the field is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Place in the journal, from 1 on; 0: not in use.
    pub number: u64,
    /// Records that the journal had before it.
    pub first: u64,
    /// Bytes of the segment that are valid, header included.
    pub committed: Option<u64>,
    /// The oldest segment that was needed when this one was last written to.
    pub oldest: Option<u64>,
    /// The segment that follows; 0: none yet.
    pub next: Option<u64>,
}

/// What the records of a segment are salted with.
#[must_use]
pub fn salt(generation: u64, shard: u16, number: u64) -> Salt {
    Salt::new((mix(generation ^ u64::from(shard) << 48, number) >> 32) as u32)
}

const fn mix(a: u64, b: u64) -> u64 {
    (a.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ b.rotate_left(17)).wrapping_mul(0xD6E8_FEB8_6659_FD93) ^ (b >> 7)
}

/// A number with a check of it in one word, so that it can be stored at once.
const fn sealed(n: u64) -> u64 {
    if n == 0 { 0 } else { n & NUMBER | mix(n & NUMBER, 0) & !NUMBER }
}

fn unsealed(word: u64) -> Option<u64> {
    (sealed(word & NUMBER) == word).then_some(word & NUMBER)
}

impl Segment {
    /// Makes the file with all its blocks and pages, not in use yet.
    ///
    /// # Errors
    /// [`JournalError::Space`] when the disk is full; else [`JournalError::File`]. No file is left behind.
    pub fn create(path: &Path, shard: u16, size: usize) -> Result<Segment, JournalError> {
        let made = Self::try_create(path, shard, size);
        made.map_err(|error| failed(path, size, error))
    }

    fn try_create(path: &Path, shard: u16, size: usize) -> io::Result<Segment> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        reserve(&file, size)?;
        let map = MmapOptions::new().len(size).map_raw(&file)?;
        Ok(Self::made(map, path, shard, None))
    }

    /// Makes one without a file, whose copy is there already.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn unfiled(copy: Copy, shard: u16, size: usize) -> io::Result<Segment> {
        let map = MmapOptions::new().len(size).map_anon()?;
        Ok(Self::made(map.into(), &copy.path(), shard, Some(copy)))
    }

    fn made(map: MmapRaw, path: &Path, shard: u16, copy: Option<Copy>) -> Segment {
        let segment =
            Segment { map, path: path.to_owned(), copy, unnamed: AtomicBool::new(false), asleep: RwLock::new(false) };
        segment.prefault(0, segment.size());
        let mut fixed = [0u8; FIXED];
        fixed[..8].copy_from_slice(&MAGIC);
        fixed[8..12].copy_from_slice(&VERSION.to_le_bytes());
        fixed[12..16].copy_from_slice(&u32::from(shard).to_le_bytes());
        fixed[16..24].copy_from_slice(&(segment.size() as u64).to_le_bytes());
        let sum = crc32fast::hash(&fixed[..24]);
        fixed[24..28].copy_from_slice(&sum.to_le_bytes());
        // SAFETY: the mapping is longer than the header, and nobody else knows it yet.
        unsafe { std::slice::from_raw_parts_mut(segment.map.as_mut_ptr(), FIXED) }.copy_from_slice(&fixed);
        segment
    }

    /// Gives a segment in memory its copy on disk, with all its blocks.
    ///
    /// # Errors
    /// As [`Segment::create`]; its file is removed, too.
    pub fn with_copy(mut self, path: &Path) -> Result<Segment, JournalError> {
        let made = OpenOptions::new().write(true).create(true).truncate(true).open(path);
        let made = made.and_then(|file| reserve(&file, self.size()));
        match made {
            Ok(()) => self.copy = Some(Copy::File(path.to_owned())),
            Err(error) => {
                let _ = std::fs::remove_file(&self.path);
                return Err(failed(path, self.size(), error));
            }
        }
        Ok(self)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn size(&self) -> usize {
        self.map.len()
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        debug_assert!(at.is_multiple_of(8) && at + 8 <= HEADER);
        // SAFETY: mappings begin on a page, so the word is aligned; it is within the header, which is mapped for as long
        // as `self` lives; these words are only ever accessed as atomics once the segment is shared.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(at).cast()) }
    }

    /// Takes a segment into use. Its writer alone calls this, before it writes a record.
    pub fn open(&self, number: u64, first: u64, oldest: u64) {
        self.word(OLDEST).store(sealed(oldest), Ordering::Relaxed);
        for copy in COPIES {
            self.word(copy + 8).store(first, Ordering::Relaxed);
            self.word(copy + 16).store(mix(number, first), Ordering::Relaxed);
            self.word(copy).store(number, Ordering::Release);
        }
        self.commit(HEADER);
    }

    /// Takes it out of use.
    pub fn close(&self) {
        COPIES.iter().for_each(|copy| self.word(*copy).store(0, Ordering::Release));
        [COMMITTED, OLDEST, NEXT].iter().for_each(|at| self.word(*at).store(0, Ordering::Release));
    }

    /// All bytes below `end` are valid from now on.
    pub fn commit(&self, end: usize) {
        self.word(COMMITTED).store(sealed(end as u64), Ordering::Release);
    }

    /// Segments below are not needed any more.
    pub fn set_oldest(&self, oldest: u64) {
        self.word(OLDEST).store(sealed(oldest), Ordering::Release);
    }

    /// The journal goes on in that segment.
    pub fn set_next(&self, next: u64) {
        self.word(NEXT).store(sealed(next), Ordering::Release);
    }

    /// Bytes that are valid, header included.
    #[must_use]
    pub fn committed(&self) -> usize {
        let end = unsealed(self.word(COMMITTED).load(Ordering::Acquire)).unwrap_or(0);
        usize::try_from(end).unwrap_or(usize::MAX).min(self.size())
    }

    /// Bytes that are valid and will not change while the segment is in use.
    ///
    /// # Safety
    /// `end` is at most what [`Segment::committed`] said (or, for the writer, what it has written), and the segment is not
    /// taken out of use while the slice lives.
    #[must_use]
    pub unsafe fn written(&self, end: usize) -> &[u8] {
        let end = end.min(self.size());
        // SAFETY: within the mapping; by the caller's promise nobody writes there.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(HEADER), end.saturating_sub(HEADER)) }
    }

    /// The bytes from `at` on, to write records to.
    ///
    /// # Safety
    /// The caller is the segment's only writer, `at` is not below what it has committed, and no other such slice lives.
    #[must_use]
    #[expect(clippy::mut_from_ref, reason = "the writer has the segment to itself from there on")]
    pub unsafe fn free(&self, at: usize) -> &mut [u8] {
        let at = at.clamp(HEADER, self.size());
        // SAFETY: within the mapping; by the caller's promise nobody else reads or writes there.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().add(at), self.size() - at) }
    }

    /// The oldest segment that was needed when this one was last written to; 0: the field is damaged.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        unsealed(self.word(OLDEST).load(Ordering::Acquire)).unwrap_or(0)
    }

    /// Writes the bytes from `from` to `to`, which are committed, to disk. Blocks.
    ///
    /// # Errors
    /// [`JournalError::File`]: nobody knows what of them is there.
    pub fn sync_data(&self, from: usize, to: usize) -> Result<(), JournalError> {
        let to = to.min(self.size());
        let from = from.clamp(HEADER, to.max(HEADER));
        if from >= to {
            return Ok(());
        }
        let Some(copy) = &self.copy else {
            self.map.flush_range(from, to - from).map_err(JournalError::file(&self.path))?;
            // The kernel has protected what it wrote; the writer need not wait for that.
            self.prefault(to, AHEAD);
            return Ok(());
        };
        // SAFETY: committed, and only the syncing thread, which is here, takes a segment out of use.
        let bytes = unsafe { self.written(to) };
        // From a page's beginning: what is there already is written again as it is.
        let from = from / PAGE * PAGE;
        copy.write(&bytes[from - HEADER..], from as u64)
    }

    /// Writes the header to disk with these fields; where the file is on disk itself, as it is. Blocks.
    ///
    /// # Errors
    /// [`JournalError::File`].
    pub fn sync_header(&self, progress: &Progress) -> Result<(), JournalError> {
        self.sync_page(progress, HEADER)
    }

    /// As [`Segment::sync_header`], the first time in a use: without the second copy. A loss of power must not leave that alone,
    /// which is what damage to the first sector looks like.
    ///
    /// # Errors
    /// [`JournalError::File`].
    pub fn sync_opened(&self, progress: &Progress) -> Result<(), JournalError> {
        self.sync_page(progress, SECTOR)
    }

    /// Writes so much of the header.
    fn sync_page(&self, progress: &Progress, len: usize) -> Result<(), JournalError> {
        let Some(copy) = &self.copy else {
            self.map.flush_range(0, HEADER).map_err(JournalError::file(&self.path))?;
            self.prefault(0, HEADER);
            return Ok(());
        };
        let mut page = [0u8; HEADER];
        // SAFETY: written when the segment was made, before it was shared, and never since.
        page[..FIXED].copy_from_slice(unsafe { std::slice::from_raw_parts(self.map.as_ptr(), FIXED) });
        let mut put = |at: usize, word: u64| page[at..at + 8].copy_from_slice(&word.to_le_bytes());
        for at in COPIES.iter().flat_map(|copy| [*copy, copy + 8, copy + 16]) {
            put(at, self.word(at).load(Ordering::Acquire));
        }
        put(COMMITTED, sealed(progress.committed as u64));
        put(OLDEST, sealed(progress.oldest));
        put(NEXT, sealed(progress.next));
        copy.write(&page[..len], 0)
    }

    /// Makes it ready to be used again.
    pub fn freshen(&self) {
        self.close();
        if self.copy.is_none() {
            self.prefault(0, self.size());
        }
    }

    /// Removes its files. What is mapped stays so.
    pub fn remove(&self) {
        let own = Copy::File(self.path.clone());
        let filed = !self.is_unnamed() && self.copy.as_ref().is_none_or(|copy| matches!(copy, Copy::File(_)));
        let own = Some(&own).filter(|_| filed);
        for file in own.into_iter().chain(&self.copy) {
            if let Err(error) = file.remove() {
                tracing::warn!(path = %file.path().display(), %error, "journal: a segment cannot be removed");
            }
        }
    }

    /// What a killed process leaves of one that has no file: its image, or what its disk has.
    pub fn left(&self) -> Option<Vec<u8>> {
        let copy = self.copy.as_ref().filter(|_| self.is_unnamed());
        let Some(copy) = copy else { return Some(self.image()) };
        let mut bytes = vec![0; self.size()];
        copy.read(&mut bytes, 0).ok().map(|()| bytes)
    }

    /// All its bytes as they are, committed or not. Its writer and syncs must rest meanwhile.
    pub fn image(&self) -> Vec<u8> {
        // SAFETY: within the mapping; nobody writes, as the caller promises (simulations have one thread).
        unsafe { std::slice::from_raw_parts(self.map.as_ptr(), self.size()) }.to_vec()
    }

    /// Has the kernel make the pages present and writable; where it does not know how (before Linux 5.14), the writer
    /// meets page faults instead.
    pub fn prefault(&self, at: usize, len: usize) {
        let at = at & !(HEADER - 1);
        let _ = self.populate(at, len.min(self.size().saturating_sub(at)));
    }

    pub(super) fn populate(&self, at: usize, len: usize) -> io::Result<()> {
        let mut steps = (at..at + len).step_by(STEP);
        steps.try_for_each(|from| self.map.advise_range(Advice::PopulateWrite, from, STEP.min(at + len - from)))
    }
}

/// A file could not be made: nothing is left of it.
fn failed(path: &Path, needed: usize, error: io::Error) -> JournalError {
    let _ = std::fs::remove_file(path);
    let path = path.to_owned();
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => JournalError::Space { path, needed },
        _ => JournalError::File { path, error },
    }
}

/// Gives the file its size and its blocks.
fn reserve(file: &File, size: usize) -> io::Result<()> {
    let len = libc::off_t::try_from(size).map_err(io::Error::other)?;
    // SAFETY: works on the descriptor alone, which `file` keeps open.
    let error = unsafe { libc::posix_fallocate(file.as_fd().as_raw_fd(), 0, len) };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// The header of a segment's file; `None`: neither of its copies is intact.
///
/// # Errors
/// [`JournalError::Version`] when it is sound and of another version.
pub fn read_header(path: &Path, bytes: &[u8]) -> Result<Option<Header>, JournalError> {
    let word = |at: usize| bytes.get(at..at + 8).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b));
    if let Some(fixed) = bytes.first_chunk::<FIXED>()
        && fixed[..8] == MAGIC
        && fixed[24..28] == crc32fast::hash(&fixed[..24]).to_le_bytes()
        && fixed[8..12] != VERSION.to_le_bytes()
    {
        let found = (word(8) & 0xffff_ffff) as u32;
        return Err(JournalError::Version { path: path.to_owned(), found });
    }
    // Each is 0 in a segment that is not in use; in one that is, the oldest never is: it is stored before the number.
    let read = |at: usize| unsealed(word(at)).filter(|_| word(OLDEST) != 0);
    let (committed, oldest, next) = (read(COMMITTED), read(OLDEST), read(NEXT));
    let copy = |at: usize| {
        let (number, first) = (word(at), word(at + 8));
        let sound = number != 0 && word(at + 16) == mix(number, first);
        sound.then_some(Header { number, first, committed, oldest, next })
    };
    if let Some(header) = COPIES.iter().find_map(|at| copy(*at)) {
        return Ok(Some(header));
    }
    // Taken out of use, or not even taken into it when the process ended, or while it was made: then there are zeros alone. What
    // is cut within its header is neither.
    let whole = bytes.len() >= HEADER || bytes.iter().all(|b| *b == 0);
    let unused = whole && COPIES.iter().any(|at| word(*at) == 0) && word(COMMITTED) == 0;
    Ok(unused.then_some(Header { number: 0, first: 0, committed: None, oldest: None, next: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_cut_within_its_header_is_not_taken_for_an_unused_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let segment = Segment::create(&path, 3, 64 << 10).unwrap();
        let read = |len: usize| read_header(&path, &std::fs::read(&path).unwrap()[..len]).unwrap().map(|h| h.number);
        assert_eq!((read(0), read(HEADER)), (Some(0), Some(0)));
        segment.open(7, 100, 5);
        segment.commit(HEADER + 8);
        assert!((1..HEADER).all(|len| read(len) != Some(0)));
        assert_eq!((read(1), read(HEADER)), (None, Some(7)));
        std::fs::write(&path, [0; 100]).unwrap();
        assert_eq!(read(100), Some(0), "it was being made");
    }

    #[test]
    fn a_used_header_whose_words_are_wiped_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let segment = Segment::create(&path, 3, 64 << 10).unwrap();
        segment.open(7, 100, 5);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[..512].fill(0);
        let header = read_header(&path, &bytes).unwrap().unwrap();
        assert_eq!(header, Header { number: 7, first: 100, committed: None, oldest: None, next: None });
    }

    #[test]
    fn what_is_written_and_committed_is_in_the_file_and_an_unused_segment_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let segment = Segment::create(&path, 3, 64 << 10).unwrap();
        let header = || read_header(&path, &std::fs::read(&path).unwrap()).unwrap().unwrap();
        assert_eq!((header().number, segment.committed()), (0, 0));
        segment.open(7, 100, 5);
        // SAFETY: this test is the only writer.
        let free = unsafe { segment.free(HEADER) };
        free[..3].copy_from_slice(b"abc");
        segment.commit(HEADER + 3);
        segment.set_next(8);
        assert_eq!(header(), Header { number: 7, first: 100, committed: Some(4099), oldest: Some(5), next: Some(8) });
        // SAFETY: committed just now, and nobody takes it out of use.
        assert_eq!(unsafe { segment.written(segment.committed()) }, b"abc");
        segment.sync_data(HEADER, HEADER + 3).unwrap();
        segment.sync_header(&Progress { committed: HEADER + 3, oldest: segment.oldest(), next: 8 }).unwrap();
        segment.close();
        assert_eq!(header().number, 0);
    }

    #[test]
    fn one_damaged_copy_of_the_header_is_no_loss_and_another_version_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let segment = Segment::create(&path, 0, 64 << 10).unwrap();
        segment.open(7, 100, 5);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[COPIES[0]] ^= 1;
        assert_eq!(read_header(&path, &bytes).unwrap().unwrap().number, 7);
        bytes[COPIES[1]] ^= 1;
        assert_eq!(read_header(&path, &bytes).unwrap(), None);
        bytes[8] = 9;
        let sum = crc32fast::hash(&bytes[..24]);
        bytes[24..28].copy_from_slice(&sum.to_le_bytes());
        let text = read_header(&path, &bytes).unwrap_err().to_string();
        assert!(text.contains(&path.display().to_string()) && text.contains("version 9"), "{text}");
    }

    #[test]
    fn a_disk_without_room_is_told_apart_and_nothing_is_left_behind() {
        let path = tempfile::tempdir().unwrap().path().join("gone/s");
        assert!(matches!(Segment::create(&path, 0, 64 << 10), Err(JournalError::File { .. })));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        match Segment::create(&path, 0, 1 << 50) {
            Err(JournalError::Space { needed, .. }) => assert_eq!(needed, 1 << 50),
            // ext4 has no files of that size.
            Err(JournalError::File { error, .. }) => assert_eq!(error.raw_os_error(), Some(libc::EFBIG)),
            other => panic!("{other:?}"),
        }
        assert!(!path.exists());
    }
}
