//! Segments in memory and their copies on disk: after a kill, a loss of power, with neither or half of them there.

use super::*;
use crate::journal::segment::{Segment, read_header};
use std::fs;
use std::time::Instant;

/// A journal whose segments are mapped in memory; it is synced when the test says so.
pub(super) struct Mapped {
    pub disk: tempfile::TempDir,
    pub base: tempfile::TempDir,
    pub generation: Generation,
    pub keeper: Keeper,
    pub journal: Journal,
}

fn spec_in(disk: &Path, base: Option<&Path>) -> JournalSpec {
    JournalSpec { memory: base.map(Path::to_owned), sync: Duration::from_secs(3600), ..spec(disk) }
}

fn begin(disk: &Path, base: Option<&Path>) -> (Generation, Found) {
    Generation::begin(spec_in(disk, base), prior(disk).unwrap(), 1).unwrap()
}

pub(super) fn mapped() -> Mapped {
    let (disk, base) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
    let (generation, _) = begin(disk.path(), Some(base.path()));
    let keeper = generation.keep().unwrap();
    let journal = generation.journal(0, [AtomicU64::new(0)].into(), Arc::default()).unwrap();
    generation.complete(&keeper).unwrap();
    Mapped { disk, base, generation, keeper, journal }
}

impl Mapped {
    pub fn turn(&mut self, records: &[(Entity, &[u8])]) {
        records.iter().for_each(|(entity, record)| self.journal.put(*entity, record));
        self.journal.commit();
    }

    /// The only directory in memory.
    pub fn memory(&self) -> PathBuf {
        fs::read_dir(self.base.path()).unwrap().next().unwrap().unwrap().path()
    }

    /// As kill -9 would: what was on disk and in memory at that moment is there afterwards.
    pub fn kill(self) -> (tempfile::TempDir, tempfile::TempDir) {
        let memory = self.memory();
        let (on_disk, in_memory) = (tree(self.disk.path()), tree(&memory));
        let Mapped { disk, base, generation, keeper, journal } = self;
        drop((keeper, journal, generation));
        plant(disk.path(), &on_disk);
        plant(&memory, &in_memory);
        // Its owner's alone, as it was.
        fs::set_permissions(&memory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        (disk, base)
    }
}

/// All files below a directory.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for path in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if path.is_dir() {
            found.append(&mut tree(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

fn plant(dir: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    let _ = fs::remove_dir_all(dir);
    for (path, bytes) in files {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// What a process that starts now goes on with.
pub(super) fn found(disk: &Path) -> (State, Vec<Fault>) {
    let found = prior(disk).unwrap().found;
    (found.shards.into_iter().flat_map(|s| s.records).collect(), found.faults)
}

#[test]
fn a_kill_loses_nothing_and_a_loss_of_power_what_was_not_synced() {
    let mut m = mapped();
    m.turn(&[(call(1), b"one"), (call(2), b"two")]);
    m.keeper.sync_now().unwrap();
    let synced = state([(call(1), b"one"), (call(2), b"two")]);
    m.turn(&[(call(1), b"one, later")]);
    m.journal.put(call(3), b"not committed");
    let (disk, base) = m.kill();
    let killed = found(disk.path());
    assert_eq!(killed.0, state([(call(1), b"one, later"), (call(2), b"two")]));
    assert_eq!(killed.1.iter().map(|f| f.trouble).collect::<Vec<_>>(), [Trouble::Torn { records: 1 }]);
    fs::remove_dir_all(base.path()).unwrap();
    assert_eq!(found(disk.path()), (synced, vec![]));
}

#[test]
fn what_others_put_in_its_place_does_not_count() {
    let mut m = mapped();
    m.turn(&[(call(1), b"one")]);
    m.keeper.sync_now().unwrap();
    m.turn(&[(call(1), b"another")]);
    let memory = m.memory();
    let (disk, _base) = m.kill();
    let synced = (state([(call(1), b"one")]), vec![]);
    let mark = memory.join("00000001/COMPLETE");
    let text = fs::read(&mark).unwrap();
    fs::write(&mark, [&*text, b"x"].concat()).unwrap();
    assert_eq!(found(disk.path()), synced);
    fs::write(&mark, text).unwrap();
    let access = |mode| fs::set_permissions(&memory, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    access(0o770);
    assert_eq!(found(disk.path()), synced);
    access(0o700);
    assert_eq!(found(disk.path()).0, state([(call(1), b"another")]));
}

#[test]
fn a_segment_that_is_not_in_memory_any_more_is_read_from_the_disk() {
    let mut m = mapped();
    (0..400).for_each(|id| m.turn(&[(call(id), &[3; 1000])]));
    m.keeper.sync_now().unwrap();
    let all = (400..420).chain(0..400);
    (400..420).for_each(|id| m.turn(&[(call(id), &[3; 1000])]));
    let memory = m.memory();
    let (disk, base) = m.kill();
    fs::remove_file(memory.join("00000001/shard-0/segment-1")).unwrap();
    let expected: State = all.map(|id| (call(id), [3; 1000].as_slice().into())).collect();
    assert!(found(disk.path()) == (expected, vec![]));
    drop(base);
}

#[test]
fn without_memory_the_segments_are_on_disk() {
    // No tmpfs; and one that is not there.
    for base in ["/proc", "/nowhere/at/all"] {
        let disk = tempfile::tempdir().unwrap();
        let (generation, _) = begin(disk.path(), Some(Path::new(base)));
        let keeper = generation.keep().unwrap();
        let mut journal = generation.journal(0, [AtomicU64::new(0)].into(), Arc::default()).unwrap();
        generation.complete(&keeper).unwrap();
        journal.put(call(1), b"one");
        journal.commit();
        let left = tree(disk.path());
        drop((keeper, journal, generation));
        plant(disk.path(), &left);
        assert_eq!(found(disk.path()), (state([(call(1), b"one")]), vec![]));
    }
}

#[test]
fn when_the_memory_has_no_room_further_segments_are_on_disk() {
    let mut m = mapped();
    m.turn(&[(call(1000), b"first")]);
    // No more of them can be made there.
    let (here, away) = (m.memory().join("00000001/shard-0"), m.base.path().join("away"));
    fs::rename(&here, &away).unwrap();
    (0..400).for_each(|id| m.turn(&[(call(id), &[3; 1000])]));
    assert!(!m.journal.is_full());
    fs::rename(&away, &here).unwrap();
    let (disk, base) = m.kill();
    let (all, faults) = found(disk.path());
    assert_eq!((all.len(), faults), (401, vec![]));
    drop(base);
}

#[test]
fn without_room_on_the_disk_calls_are_refused_though_the_memory_has_room() {
    let mut m = mapped();
    m.turn(&[(call(1), b"first")]);
    let (here, away) = (m.disk.path().join("00000001/shard-0"), m.disk.path().join("away"));
    fs::rename(&here, &away).unwrap();
    (0..400).for_each(|id| m.turn(&[(call(id), &[3; 1000])]));
    assert!(m.journal.is_full());
    let until = Instant::now() + Duration::from_secs(20);
    let in_memory = || fs::read_dir(m.memory().join("00000001/shard-0")).unwrap().count();
    let on_disk = fs::read_dir(&away).unwrap().count();
    // One may just be being tried.
    while in_memory() != on_disk {
        assert!(Instant::now() < until, "what has no copy is kept");
    }
    fs::rename(&away, &here).unwrap();
    while m.journal.is_full() {
        assert!(Instant::now() < until, "no room found");
        m.journal.commit();
    }
}

#[test]
fn what_is_in_memory_goes_at_an_orderly_end_and_moves_when_told_to() {
    let mut m = mapped();
    m.turn(&[(call(1), b"one")]);
    let (base, other) = (m.base.path().to_owned(), tempfile::tempdir_in("/dev/shm").unwrap());
    let dirs = |base: &Path| fs::read_dir(base).unwrap().count();
    let (disk, _base) = m.kill();
    assert_eq!(dirs(&base), 1);
    // Another directory in memory from now on; what is in the one before is taken over, then it goes.
    let (generation, before) = begin(disk.path(), Some(other.path()));
    assert_eq!(before.shards[0].records, [(call(1), b"one".as_slice().into())]);
    let keeper = generation.keep().unwrap();
    let mut journal = generation.journal(0, [AtomicU64::new(0)].into(), Arc::default()).unwrap();
    journal.put(call(1), b"one");
    journal.commit();
    assert_eq!(dirs(&base), 1, "the new one is not complete yet");
    generation.complete(&keeper).unwrap();
    generation.drop_prior().unwrap();
    assert_eq!((dirs(&base), dirs(other.path())), (0, 1));
    journal.put(call(2), b"two");
    journal.commit();
    drop((journal, keeper));
    assert_eq!(dirs(other.path()), 0);
    drop(generation);
    assert_eq!(found(disk.path()), (state([(call(1), b"one"), (call(2), b"two")]), vec![]));
}

#[test]
fn a_take_over_in_memory_may_end_anywhere() {
    let mut m = mapped();
    m.turn(&[(call(1), b"one")]);
    let (disk, base) = m.kill();
    let expected = (state([(call(1), b"one")]), vec![]);
    for steps in [0, 1, 2, 3, 0, 1, 2, 3] {
        let (generation, before) = begin(disk.path(), Some(base.path()));
        let keeper = generation.keep().unwrap();
        let mut journal = generation.journal(0, [AtomicU64::new(0)].into(), Arc::default()).unwrap();
        before.shards[0].records.iter().for_each(|(entity, record)| journal.put(*entity, record));
        journal.commit();
        if steps > 0 {
            keeper.sync_now().unwrap();
        }
        if steps > 1 {
            generation.complete(&keeper).unwrap();
        }
        if steps > 2 {
            generation.drop_prior().unwrap();
        }
        let memory = fs::read_dir(base.path()).unwrap().next().unwrap().unwrap().path();
        let (on_disk, in_memory) = (tree(disk.path()), tree(&memory));
        drop((journal, keeper, generation));
        // The machine lost power, or the process was killed.
        plant(disk.path(), &on_disk);
        assert_eq!(found(disk.path()), expected, "step {steps}, from disk");
        plant(&memory, &in_memory);
        fs::set_permissions(&memory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(found(disk.path()), expected, "step {steps}, from memory");
    }
}

/// A segment's header, with nothing committed in it yet.
fn opened(bytes: &[u8]) -> Vec<u8> {
    let header = read_header(Path::new("s"), bytes).unwrap().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("s");
    let segment = Segment::create(&path, 0, SEGMENT).unwrap();
    segment.open(header.number, header.first, header.oldest.unwrap());
    fs::read(path).unwrap()[..HEADER].to_vec()
}

/// The states of the disk on the way from one sync to the next: bytes of segments, in parts; new headers; all headers, from the
/// newest on.
fn on_the_way(
    before: &BTreeMap<PathBuf, Vec<u8>>,
    after: &BTreeMap<PathBuf, Vec<u8>>,
) -> Vec<BTreeMap<PathBuf, Vec<u8>>> {
    let mut now = before.clone();
    let mut states = vec![];
    for (path, to) in after {
        let from = now.entry(path.clone()).or_insert_with(|| vec![0; to.len()]);
        let differ: Vec<usize> = (HEADER..to.len()).filter(|i| from[*i] != to[*i]).collect();
        for half in differ.chunks(differ.len().div_ceil(2).max(1)) {
            let from = now.get_mut(path).unwrap();
            half.iter().for_each(|i| from[*i] = to[*i]);
            states.push(now.clone());
        }
    }
    let number = |bytes: &[u8]| read_header(Path::new("s"), bytes).unwrap().unwrap().number;
    let mut headers: Vec<_> = after.iter().collect();
    headers.sort_by_key(|(_, bytes)| number(bytes));
    for (path, to) in &headers {
        let from = now.get_mut(*path).unwrap();
        if number(from) != number(to) {
            // As it was when it was opened.
            from[..HEADER].copy_from_slice(&opened(to));
            states.push(now.clone());
        }
    }
    for (path, to) in headers.into_iter().rev() {
        now.get_mut(path).unwrap()[..HEADER].copy_from_slice(&to[..HEADER]);
        states.push(now.clone());
    }
    states
}

#[test]
fn the_copy_on_disk_is_at_every_step_of_a_sync_the_journal_after_some_turn() {
    let mut m = mapped();
    let shard = m.disk.path().join("00000001/shard-0");
    let scratch = m.disk.path().join("scratch");
    let mut turns: Vec<State> = vec![State::new()];
    let mut before = tree(&shard);
    let mut from = 0;
    for sync in 0..24u64 {
        for turn in 0..(sync % 4) * 9 + 1 {
            let mut state = turns.last().unwrap().clone();
            // Several of one turn, some of them over the end of a segment.
            for id in 0..(turn % 5) + 1 {
                let (id, record) = ((turns.len() as u64 * 5 + id) % 100, vec![turns.len() as u8; 2500]);
                m.journal.put(call(id), &record);
                state.insert(call(id), record.into());
            }
            m.journal.commit();
            turns.push(state);
        }
        m.keeper.sync_now().unwrap();
        let after = tree(&shard);
        for state in on_the_way(&before, &after) {
            plant(&scratch, &state.into_iter().map(|(p, b)| (scratch.join(p.file_name().unwrap()), b)).collect());
            let (found, faults) = read(&scratch);
            let torn = |f: &Fault| matches!(f.trouble, Trouble::Torn { .. });
            assert!(faults.iter().all(torn), "sync {sync}: {faults:?}");
            assert!(turns[from..].contains(&found), "sync {sync}: {:?}", found.keys().collect::<Vec<_>>());
        }
        (before, from) = (after, turns.len() - 1);
        assert_eq!(read(&shard), (turns[from].clone(), vec![]));
    }
}

#[test]
fn syncs_in_the_midst_of_turns_leave_whole_turns_on_disk() {
    let Mapped { disk, base, generation, keeper, mut journal } = mapped();
    let shard = disk.path().join("00000001/shard-0");
    // Not further ahead of the syncs than that.
    let turns = Arc::new(AtomicU64::new(0));
    let may = Arc::clone(&turns);
    let writer = std::thread::spawn(move || {
        for turn in 1..=20_000u64 {
            while turn > may.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            (0..3).for_each(|id| journal.put(call(id), &turn.to_le_bytes().repeat(100)));
            journal.commit();
        }
        journal
    });
    let mut last = 0;
    while last < 20_000 {
        turns.fetch_add(300, Ordering::Relaxed);
        keeper.sync_now().unwrap();
        let (found, faults) = read(&shard);
        let turns: Vec<u64> = found.values().map(|r| u64::from_le_bytes(*r.first_chunk().unwrap())).collect();
        assert!(faults.is_empty() && turns.iter().all(|t| *t == turns[0] && *t >= last), "{turns:?} {faults:?}");
        last = turns.first().copied().unwrap_or(0);
    }
    let journal = writer.join().unwrap();
    drop((journal, keeper, generation, base));
}

#[test]
fn what_is_cleaned_away_counts_until_it_is_committed_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (generation, _) = begin(dir.path(), None);
    let counts = Arc::<RuntimeCounts>::default();
    let mut journal = generation.journal(0, [AtomicU64::new(0)].into(), Arc::clone(&counts)).unwrap();
    let mut expected = State::new();
    for turn in 0..200u64 {
        let record = vec![turn as u8; 2900];
        let entity = call(turn * 7 % 20);
        (0..3).for_each(|_| journal.put(entity, &record));
        expected.insert(entity, record.into());
        journal.commit();
        // As far as the next commit goes before it makes anything valid.
        (0..2).for_each(|_| journal.put(entity, &expected[&entity]));
        journal.clean();
        let (found, faults) = read(&dir.path().join("00000001/shard-0"));
        assert!(found == expected, "turn {turn}: {faults:?}");
        journal.commit();
    }
    assert!(counts.journal_bytes.get() > 2_000_000);
}
