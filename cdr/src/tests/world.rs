//! What is outside the machine, as a model: database, spool, file, clock.

use super::row;
use crate::*;
use std::collections::BTreeMap;

pub(super) const MS: u64 = 1000;
pub(super) const SETTINGS: Settings =
    Settings { batch: 8, batch_time_us: 20 * MS, concurrency: 3, retry_max_us: 1000 * MS };

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Health {
    Good,
    /// Says no at once.
    Fails,
    /// Does not answer: the time limit does.
    Hangs,
}

/// What is outside the machine, and survives it.
pub(super) struct World {
    pub m: Machine,
    pub now: u64,
    pub database: Health,
    pub disk_full: bool,
    /// Keys and how often each was written.
    pub rows: BTreeMap<u128, u32>,
    pub bad: fn(u128) -> bool,
    pub spool: Vec<CdrRow>,
    pub cursor: usize,
    pub aside: Vec<Aside>,
    pub safe: u64,
    pub notices: Vec<Notice>,
    /// Under way: when it ends, and what it is.
    pub under_way: Vec<(u64, Output)>,
    pub writes: u64,
    pub latency: u64,
}

impl World {
    pub fn new() -> World {
        World {
            m: Machine::new(SETTINGS, 0),
            now: 1_000_000,
            database: Health::Good,
            disk_full: false,
            rows: BTreeMap::new(),
            bad: |_| false,
            spool: vec![],
            cursor: 0,
            aside: vec![],
            safe: 0,
            notices: vec![],
            under_way: vec![],
            writes: 0,
            latency: 5 * MS,
        }
    }

    pub fn drain(&mut self) {
        while let Some(output) = self.m.poll_output() {
            match output {
                Output::Safe(mark) => {
                    assert_eq!((mark.born_us, mark.shard), (0, 0));
                    assert!(mark.sequence > self.safe, "marks rise");
                    (self.safe + 1..=mark.sequence).for_each(|s| assert!(self.has(s.into()), "{s} is told safe"));
                    self.safe = mark.sequence;
                }
                Output::Notice(n) => self.notices.push(n),
                Output::Took { .. } => {}
                Output::Cancel { job } => {
                    self.under_way.retain(|(_, o)| !matches!(o, Output::Write { job: j, .. } if *j == job));
                }
                Output::Write { .. } => {
                    self.writes += 1;
                    let writes = self.under_way.iter().filter(|(_, o)| matches!(o, Output::Write { .. })).count();
                    assert!(writes < SETTINGS.concurrency);
                    let limit = if self.database == Health::Hangs { 2000 * MS } else { self.latency };
                    self.under_way.push((self.now + limit, output));
                }
                Output::Append { .. } | Output::Load { .. } | Output::Advance { .. } => {
                    let of_spool = |o: &Output| !matches!(o, Output::Write { .. } | Output::SetAside { .. });
                    assert!(!self.under_way.iter().any(|(_, o)| of_spool(o)), "one operation at a time");
                    self.under_way.push((self.now + self.latency, output));
                }
                Output::SetAside { .. } => self.under_way.push((self.now + MS, output)),
            }
        }
        let t = self.m.tally();
        assert!(t.waiting + t.in_flight <= (self.m.most + 2 * SETTINGS.batch) as u64);
    }

    pub fn has(&self, key: u128) -> bool {
        self.rows.contains_key(&key)
            || self.spool[self.cursor..].iter().any(|r| r.key == key)
            || self
                .aside
                .iter()
                .any(|a| matches!(a, Aside::Refused { row, .. } | Aside::Stopped { row } if row.key == key))
    }

    pub fn left(&self) -> u64 {
        (self.spool.len() - self.cursor) as u64
    }

    pub fn write(&mut self, rows: &[CdrRow]) -> Result<(), Fault> {
        match self.database {
            Health::Fails => Err(Fault::Failed("down".into())),
            Health::Hangs => Err(Fault::TimedOut("no answer".into())),
            Health::Good if rows.iter().any(|r| (self.bad)(r.key)) => Err(Fault::Refused("bad".into())),
            Health::Good => {
                rows.iter().for_each(|r| *self.rows.entry(r.key).or_default() += 1);
                Ok(())
            }
        }
    }

    pub fn end(&mut self, output: Output) {
        let now = self.now;
        match output {
            Output::Write { job, rows, part } => {
                let result = self.write(&rows[part]);
                self.m.handle_written(now, job, result);
            }
            Output::Append { .. } if self.disk_full => self.m.handle_appended(now, Err("disk full".into())),
            Output::Append { batches } => {
                self.spool.extend(batches.iter().flat_map(|b| b.iter().cloned()));
                self.m.handle_appended(now, Ok(self.left()));
            }
            Output::Load { max } => {
                let end = self.spool.len().min(self.cursor + max);
                let next = Place { ordinal: end as u64, ..Place::default() };
                let rows = self.spool[self.cursor..end].to_vec();
                self.m.handle_loaded(now, Ok(Loaded { rows, damaged: vec![], next }));
            }
            Output::Advance { to } => {
                let to = to.ordinal as usize;
                assert!(to >= self.cursor);
                let behind: Vec<u128> = self.spool[self.cursor..to].iter().map(|r| r.key).collect();
                self.cursor = to;
                behind.iter().for_each(|k| assert!(self.has(*k), "the cursor passed {k}"));
                self.m.handle_advanced(now, self.left(), None);
            }
            Output::SetAside { job, items } => {
                self.aside.extend(items);
                self.m.handle_set_aside(now, job);
            }
            other => panic!("{other:?} does not end"),
        }
        self.drain();
    }

    /// Goes on to the next thing that happens, not beyond `until`; false when nothing does.
    pub fn step(&mut self, until: u64) -> bool {
        self.drain();
        let first = self.under_way.iter().enumerate().min_by_key(|(_, (at, _))| *at).map(|(i, (at, _))| (*at, i));
        let wake = self.m.deadline();
        let next = first.map(|(at, _)| at).into_iter().chain(wake).min();
        let Some(at) = next.filter(|at| *at <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        assert!(first.is_some_and(|(due, _)| due == at) || at > self.now || self.now == 1_000_000, "it would spin");
        self.now = self.now.max(at);
        match first {
            Some((due, i)) if due <= self.now => {
                let (_, output) = self.under_way.swap_remove(i);
                self.end(output);
            }
            _ => {
                self.m.handle_time(self.now);
                self.drain();
            }
        }
        true
    }

    pub fn run(&mut self, ms: u64) {
        let until = self.now + ms * MS;
        while self.step(until) {}
    }

    pub fn send(&mut self, sequences: std::ops::RangeInclusive<u64>) {
        for s in sequences {
            assert!(self.m.wants_records());
            self.m.handle_record(self.now, row(s));
        }
        self.drain();
    }

    /// An orderly stop; how long it took, in milliseconds.
    pub fn stop(&mut self) -> u64 {
        let began = self.now;
        self.m.handle_closed(began);
        self.drain();
        while !self.m.is_done() {
            assert!(self.step(began + 60_000 * MS), "it does not end");
        }
        (self.now - began) / MS
    }

    pub fn kinds(&self) -> Vec<&'static str> {
        let kind = |n: &Notice| match n {
            Notice::Gone { .. } => "gone",
            Notice::Slow => "slow",
            Notice::Back => "back",
            Notice::Replayed { .. } => "replayed",
            Notice::SpoolFails { .. } => "spool fails",
            Notice::SpoolWorks => "spool works",
            Notice::SpoolUnreadable { .. } => "unreadable",
            Notice::CursorFails { .. } => "cursor",
        };
        self.notices.iter().map(kind).collect()
    }
}
