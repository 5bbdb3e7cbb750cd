//! Where records go: the real CDR pipeline and the real spool (`cdr`), over a database that is slow, gone or refuses records, a
//! disk that is full at times, and a process that ends. At the end the database has each record once, as it was made, or the file
//! of what was set aside has it.

use crate::plan::{MS, SECOND};
use crate::rng::Rng;
use crate::spool_disk::{Ending, SpoolDisk};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use strowger_cdr::spool::{Opened, Spool, SpoolError};
use strowger_cdr::{Aside, Fault, Loaded, Machine, Mark, Notice, Output, Place, Settings};
use strowger_engine::CdrRow;

/// The longest that the pipeline's I/O waits for the database.
const WRITE_LIMIT_US: u64 = 2 * SECOND;
/// After that long with nothing in its way all is where it should be.
const DONE_US: u64 = 600 * SECOND;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The database says no at once.
    Fails,
    /// It does not answer; what it was told it may have done.
    Hangs,
    /// It takes what it is told, slowly.
    Slow,
    /// The spool's disk is full.
    DiskFull,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Archive {
    machine: Machine,
    settings: Settings,
    rng: Rng,
    /// What is wrong when: from, until.
    troubles: Vec<(u64, u64, Trouble)>,
    /// Records whose numbers it divides are bad; 0: none.
    bad: u64,
    now: u64,
    database: BTreeMap<u128, CdrRow>,
    file: BTreeMap<u128, CdrRow>,
    disk: SpoolDisk,
    segment_bytes: u64,
    spool: Option<Spool>,
    /// What it said that it has, and the database has not been told to have; what it has loaded last, up to where.
    spooled: BTreeSet<u128>,
    loaded: (Vec<u128>, Place),
    /// Records that may be safe nowhere before shards refuse new calls.
    room: u64,
    /// What the machine has no room for.
    waiting: VecDeque<CdrRow>,
    /// Under way, and when it ends.
    under_way: Vec<(u64, Output)>,
    /// Every record that was made.
    made: BTreeMap<u128, CdrRow>,
    safe: BTreeMap<(u64, u16), u64>,
    /// Marks that moved, for the journals.
    pub moved: Vec<Mark>,
    pub seen: Vec<&'static str>,
    wrong: Option<String>,
}

/// The key of a shard's record of a process.
fn key(born_us: u64, shard: u16, sequence: u64) -> u128 {
    u128::from(born_us) << 64 | u128::from(shard) << 48 | u128::from(sequence)
}

impl Archive {
    pub(crate) fn draw(seed: u64, faults_us: u64) -> Archive {
        let mut rng = Rng::new(seed ^ 0x6364_7273_0000_0000);
        let settings = Settings {
            batch: *rng.pick(&[1, 1, 4, 256]),
            batch_time_us: 20 * MS,
            concurrency: *rng.pick(&[1, 2, 4]),
            retry_max_us: SECOND,
        };
        let mut troubles = Vec::new();
        if rng.chance(500) {
            for _ in 0..rng.range(1, 6) {
                let at = rng.below(faults_us);
                let what = *rng.pick(&[Trouble::Fails, Trouble::Hangs, Trouble::Slow, Trouble::DiskFull]);
                troubles.push((at, (at + rng.range(1, 60) * SECOND).min(faults_us), what));
            }
        }
        if rng.chance(80) {
            // Nothing takes a record all the time.
            troubles.extend([(0, faults_us, Trouble::Fails), (0, faults_us, Trouble::DiskFull)]);
        }
        let mut disk = Rng::new(seed ^ 0x7370_6f6f_6c00_0000);
        let segment_bytes = *disk.pick(&[1 << 20, 1 << 20, 4000, 300]);
        let mut archive = Archive {
            machine: Machine::new(settings, 0),
            settings,
            bad: if rng.chance(200) { 7 } else { 0 },
            room: *rng.pick(&[3, 10, 40, 1000]),
            rng,
            troubles,
            now: 0,
            database: BTreeMap::new(),
            file: BTreeMap::new(),
            disk: SpoolDisk::new(disk),
            segment_bytes,
            spool: None,
            spooled: BTreeSet::new(),
            loaded: (Vec::new(), Place::default()),
            waiting: VecDeque::new(),
            under_way: Vec::new(),
            made: BTreeMap::new(),
            safe: BTreeMap::new(),
            moved: Vec::new(),
            seen: Vec::new(),
            wrong: None,
        };
        archive.wrong = archive.open().err();
        archive
    }

    /// Opens the spool as a start does.
    fn open(&mut self) -> Result<(), String> {
        self.disk.fill(self.is(Trouble::DiskFull));
        let opened = Spool::open(Box::new(self.disk.clone()), self.segment_bytes);
        let Opened { spool, torn, cursor_damaged, full } = opened.map_err(|e| e.to_string())?;
        let seen = [(torn.is_some(), "spool's end torn"), (cursor_damaged, "spool's cursor damaged")];
        self.seen.extend(seen.into_iter().filter(|(saw, _)| *saw).map(|(_, what)| what));
        self.spool = Some(spool);
        match full {
            Some(error) if !self.is(Trouble::DiskFull) => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    pub(crate) fn without_troubles(&mut self) {
        (self.troubles, self.bad, self.room) = (Vec::new(), 0, 1000);
    }

    /// Whether shards must refuse new calls.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() as u64 + self.machine.held() > self.room
    }

    /// A record has been made. One of a process that has just ended comes from its journal, later.
    pub(crate) fn made(&mut self, now: u64, row: CdrRow, goes_on: bool) {
        if self.made.insert(row.key, row.clone()).is_some() {
            self.wrong = Some(format!("two records have the key {:x}", row.key));
        }
        if goes_on {
            self.now = self.now.max(now);
            self.waiting.push_back(row);
            self.drain();
        }
    }

    /// When something happens next.
    pub(crate) fn next(&self) -> Option<u64> {
        let ends = self.under_way.iter().map(|(at, _)| *at).min();
        ends.into_iter().chain(self.machine.deadline()).min()
    }

    /// Everything that happens until then.
    pub(crate) fn advance(&mut self, until: u64) -> Result<(), String> {
        while let Some(at) = self.next().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            let due = self.under_way.iter().position(|(at, _)| *at <= self.now);
            match due {
                Some(n) => {
                    let (_, output) = self.under_way.swap_remove(n);
                    self.end(output);
                }
                None => self.machine.handle_time(self.now),
            }
            self.drain();
        }
        self.now = self.now.max(until);
        self.wrong.take().map_or(Ok(()), Err)
    }

    /// The process ends: what was under way has happened or not. The next one finds these in the journals.
    pub(crate) fn restart(&mut self, now: u64, in_journals: Vec<CdrRow>, ending: Ending) -> Result<(), String> {
        self.now = self.now.max(now);
        for (_, output) in std::mem::take(&mut self.under_way) {
            match output {
                Output::Write { rows, part, .. } if self.rng.chance(500) => drop(self.write(&rows[part])),
                Output::Append { batches } if self.rng.chance(500) && !self.is(Trouble::DiskFull) => {
                    self.end_in_write(ending);
                    drop(self.append(&batches));
                }
                Output::Advance { to } if self.disk.draws(500) => drop(self.advance_spool(to)),
                _ => {}
            }
        }
        self.waiting.clear();
        self.spool = None;
        self.disk.begin(ending);
        self.open()?;
        self.machine = Machine::new(self.settings, self.left());
        // Nothing is served before what was left is safe: whoever starts it sees to that.
        self.troubles.retain(|(from, until, what)| *what != Trouble::DiskFull || !(*from..*until).contains(&self.now));
        if !in_journals.is_empty() {
            self.seen.push("records taken over from a journal");
            self.machine.handle_recovered(self.now, in_journals);
            self.drain();
        }
        let limit = self.now + DONE_US;
        while self.machine.held() > 0 {
            let at = self.next().filter(|at| *at <= limit).ok_or("records of a journal do not become safe")?;
            self.advance(at)?;
        }
        Ok(())
    }

    /// At rest, with nothing in its way: each record is where it should be. `lost_power`: some were in journals alone.
    pub(crate) fn check(&mut self, now: u64, lost_power: bool) -> Result<(), String> {
        self.troubles.clear();
        self.advance(now + DONE_US)?;
        self.machine.handle_closed(self.now);
        self.drain();
        self.advance(self.now + DONE_US)?;
        if !self.machine.is_done() || self.left() > 0 {
            return Err(format!("the pipeline does not end: {:?}", self.machine.tally()));
        }
        for (key, row) in &self.made {
            let kept = self.database.get(key).or_else(|| self.file.get(key));
            match kept {
                None if lost_power && !self.told_safe(*key) => {}
                None => return Err(format!("record {key:x} of {} is lost", row.sip_call_id)),
                Some(kept) if kept != row => {
                    return Err(format!("record {key:x} was kept as {kept:?}, made as {row:?}"));
                }
                Some(_) if self.database.contains_key(key) == self.is_bad(*key) => {
                    return Err(format!("record {key:x} is in the wrong place, bad: {}", self.is_bad(*key)));
                }
                Some(_) => {}
            }
        }
        match self.database.keys().find(|key| !self.made.contains_key(key)) {
            Some(key) => Err(format!("nobody made the record {key:x}")),
            None => Ok(()),
        }
    }

    fn is(&self, what: Trouble) -> bool {
        self.troubles.iter().any(|(from, until, w)| *w == what && (*from..*until).contains(&self.now))
    }

    fn is_bad(&self, key: u128) -> bool {
        self.bad > 0 && Mark::of(key).sequence.is_multiple_of(self.bad)
    }

    fn left(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::left)
    }

    fn has(&self, key: u128) -> bool {
        self.database.contains_key(&key) || self.file.contains_key(&key) || self.spooled.contains(&key)
    }

    /// The process ends in the midst of what it writes next, or just behind.
    fn end_in_write(&mut self, ending: Ending) {
        if self.disk.draws(700) {
            self.seen.push("ended while it spooled");
            self.disk.end_in_write(ending);
        }
    }

    /// The spool, if its disk has not failed when it was opened; its disk is as it is now.
    fn with_spool<T>(&mut self, act: impl FnOnce(&mut Spool) -> Result<T, SpoolError>) -> Result<T, String> {
        self.disk.fill(self.is(Trouble::DiskFull));
        let spool = self.spool.as_mut().ok_or("there is no spool")?;
        act(spool).map_err(|e| e.to_string())
    }

    fn append(&mut self, batches: &[Arc<[CdrRow]>]) -> Result<u64, String> {
        let rows = || batches.iter().flat_map(|batch| batch.iter());
        self.with_spool(|spool| spool.append(rows()))?;
        self.spooled.extend(rows().map(|row| row.key));
        Ok(self.left())
    }

    fn load(&mut self, max: usize) -> Result<Loaded, String> {
        let loaded = self.with_spool(|spool| spool.load(max))?;
        // Nobody damages these files: only an append that has not succeeded may lack parts, before others that are there.
        for damage in &loaded.damaged {
            if !self.disk.is_unsure(damage.segment, damage.offset, damage.bytes.len()) {
                self.wrong = Some(format!("the spool has lost {damage:?}"));
            }
            self.seen.push("spool's append found torn");
        }
        if let Some(row) = loaded.rows.iter().find(|row| self.made.get(&row.key) != Some(row)) {
            self.wrong = Some(format!("nobody made the spool's {row:?}"));
        }
        self.loaded = (loaded.rows.iter().map(|row| row.key).collect(), loaded.next);
        Ok(loaded)
    }

    fn advance_spool(&mut self, to: Place) -> Result<(), String> {
        let (behind, next) = std::mem::take(&mut self.loaded);
        if next != to {
            self.wrong = Some(format!("the spool's cursor goes to {to:?}, loaded is up to {next:?}"));
        }
        for key in &behind {
            self.spooled.remove(key);
        }
        if let Some(key) = behind.into_iter().find(|key| !self.has(*key)) {
            self.wrong = Some(format!("the spool's cursor passed record {key:x}"));
        }
        self.with_spool(|spool| spool.advance(to))
    }

    fn drain(&mut self) {
        loop {
            while self.machine.wants_records()
                && let Some(row) = self.waiting.pop_front()
            {
                self.machine.handle_record(self.now, row);
            }
            let Some(output) = self.machine.poll_output() else { return };
            let us = match &output {
                Output::Safe(mark) => {
                    self.is_safe(*mark);
                    continue;
                }
                Output::Cancel { job } => {
                    let job = *job;
                    self.under_way.retain(|(_, o)| !matches!(o, Output::Write { job: j, .. } if *j == job));
                    continue;
                }
                Output::Notice(notice) => {
                    self.seen.extend(covered(notice));
                    continue;
                }
                Output::Took { .. } => continue,
                Output::Write { .. } if self.is(Trouble::Hangs) => WRITE_LIMIT_US,
                Output::Write { .. } if self.is(Trouble::Slow) => self.rng.range(200 * MS, 1900 * MS),
                Output::Write { .. } => self.rng.range(MS, 20 * MS),
                Output::Append { .. } => self.rng.range(MS, 10 * MS) + self.disk.delay(),
                _ => self.rng.range(MS, 10 * MS),
            };
            self.under_way.push((self.now + us, output));
        }
    }

    fn told_safe(&self, key: u128) -> bool {
        let Mark { born_us, shard, sequence } = Mark::of(key);
        self.safe.get(&(born_us, shard)).is_some_and(|safe| sequence <= *safe)
    }

    /// What is told safe is on a disk.
    fn is_safe(&mut self, mark: Mark) {
        let Mark { born_us, shard, sequence } = mark;
        let before = self.safe.insert((born_us, shard), sequence).unwrap_or(0);
        let told = key(born_us, shard, before + 1)..=key(born_us, shard, sequence.max(before + 1));
        if sequence > before
            && let Some(key) = self.made.range(told).map(|(key, _)| *key).find(|key| !self.has(*key))
        {
            self.wrong = Some(format!("record {key:x} is told safe, and is nowhere"));
        }
        self.moved.push(mark);
    }

    fn write(&mut self, rows: &[CdrRow]) -> Result<(), Fault> {
        if rows.iter().any(|r| self.is_bad(r.key)) {
            return Err(Fault::Refused("bad".into()));
        }
        self.database.extend(rows.iter().map(|r| (r.key, r.clone())));
        Ok(())
    }

    fn end(&mut self, output: Output) {
        let now = self.now;
        match output {
            Output::Write { job, .. } if self.is(Trouble::Fails) => {
                self.machine.handle_written(now, job, Err(Fault::Failed("down".into())));
            }
            Output::Write { job, rows, part } if self.is(Trouble::Hangs) => {
                if self.rng.chance(500) && self.write(&rows[part]).is_ok() {
                    self.seen.push("record written without an answer");
                }
                self.machine.handle_written(now, job, Err(Fault::TimedOut("no answer".into())));
            }
            Output::Write { job, rows, part } => {
                let result = self.write(&rows[part]);
                self.machine.handle_written(now, job, result);
            }
            Output::Append { batches } => {
                let appended = self.append(&batches);
                self.machine.handle_appended(now, appended);
            }
            Output::Load { max } => {
                let loaded = self.load(max);
                self.machine.handle_loaded(now, loaded);
            }
            Output::Advance { to } => {
                let failed = self.advance_spool(to).err();
                self.machine.handle_advanced(now, self.left(), failed);
            }
            Output::SetAside { job, items } => {
                for item in items {
                    let (Aside::Refused { row, .. } | Aside::Stopped { row }) = item else { continue };
                    self.seen.push("bad record set aside");
                    self.file.insert(row.key, row);
                }
                self.machine.handle_set_aside(now, job);
            }
            Output::Cancel { .. } | Output::Safe(_) | Output::Took { .. } | Output::Notice(_) => {}
        }
    }
}

fn covered(notice: &Notice) -> Option<&'static str> {
    match notice {
        Notice::Gone { .. } => Some("database gone"),
        Notice::Slow => Some("database too slow"),
        Notice::Back => Some("database back"),
        Notice::Replayed { .. } => Some("spool replayed"),
        Notice::SpoolFails { .. } => Some("spool's disk full"),
        Notice::CursorFails { .. } => Some("spool's cursor not written"),
        _ => None,
    }
}
