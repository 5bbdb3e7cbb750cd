//! The steps that each input may make possible.

use super::{
    Arc, Aside, Busy, CdrRow, Database, FIRST_PAUSE_US, Flight, LAST_REPLAY_US, LAST_TRIES_US, Machine, Notice, Output,
    PATIENCE_US, Replay, STEADY, Work,
};

impl Machine {
    /// Takes every step that can be taken now, and notes when the next one can.
    pub(super) fn drive(&mut self, now: u64) {
        self.wake = None;
        self.settle(now);
        self.seal_when_due(now);
        self.stop_trying();
        self.give_up(now);
        self.taking_over &= self.held > 0;
        self.last_replay = self.replays_on(now);
        self.start_writes(now);
        self.start_spool(now);
    }

    /// At the stop: whether the replay goes on.
    fn replays_on(&mut self, now: u64) -> bool {
        let Some(until) = self.closed_at.map(|at| at + LAST_REPLAY_US) else { return false };
        let works = matches!(self.database, Database::Up { .. }) && !self.loads.failing;
        let on = works && self.tally.in_spool > 0 && now < until;
        if on {
            self.later(until);
        }
        on
    }

    /// Whether what the spool has is replayed.
    fn replays(&self) -> bool {
        self.closed_at.is_none() || self.last_replay
    }

    fn later(&mut self, at: u64) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Failing becomes up or gone.
    fn settle(&mut self, now: u64) {
        let Database::Failing { since, took, gone, .. } = self.database else { return };
        let all_taken = took > 0 && self.tally.in_spool == 0 && self.pending.is_empty() && !self.trying();
        if took >= STEADY || all_taken {
            self.database = Database::Up { since: now };
            if gone {
                self.outputs.push_back(Output::Notice(Notice::Back));
            }
        } else if !gone && now >= since + PATIENCE_US {
            self.database_gone();
        } else if !gone {
            self.later(since + PATIENCE_US);
        }
    }

    fn database_gone(&mut self) {
        if let Database::Failing { gone: gone @ false, .. } = &mut self.database {
            *gone = true;
            let why = std::mem::take(&mut self.last_error);
            self.outputs.push_back(Output::Notice(Notice::Gone { why }));
        }
    }

    fn trying(&self) -> bool {
        self.flying.iter().any(|f| f.tries && !f.aside)
    }

    pub(super) fn database_took(&mut self, now: u64) {
        if let Database::Failing { took, next_try, .. } = &mut self.database {
            *took += 1;
            *next_try = now;
        }
    }

    pub(super) fn database_failed(&mut self, now: u64, why: String, timed_out: bool, tried: bool) {
        let longer = (self.pause * 2).clamp(FIRST_PAUSE_US, self.settings.retry_max_us);
        let (since, gone) = match self.database {
            Database::Up { since } => {
                let long_up = now.saturating_sub(since) > 2 * self.settings.retry_max_us;
                self.pause = if long_up { FIRST_PAUSE_US } else { longer };
                (now, false)
            }
            Database::Failing { since, gone, .. } if tried => {
                self.pause = longer;
                (since, gone)
            }
            Database::Failing { since, gone, .. } => (since, gone),
        };
        self.database = Database::Failing { since, next_try: now + self.pause, took: 0, gone };
        self.last_error = why;
        if timed_out {
            self.database_gone();
        }
    }

    fn gone(&self) -> bool {
        matches!(self.database, Database::Failing { gone: true, .. })
    }

    /// Makes a batch of the records that came.
    pub(super) fn seal(&mut self, ready_at: u64) {
        let (rows, taken) = (std::mem::take(&mut self.open), std::mem::take(&mut self.taken));
        self.add(rows, taken, ready_at);
    }

    /// A batch more that waits.
    pub(super) fn add(&mut self, rows: Vec<CdrRow>, taken: Vec<u64>, ready_at: u64) {
        self.batches += 1;
        self.watermark.begin(self.batches, &rows);
        self.pending.push_back(Work::new(Some(self.batches), rows.into(), taken, ready_at));
    }

    /// While nobody could take it, a batch grows rather than goes out small.
    fn seal_when_due(&mut self, now: u64) {
        let Some(first) = self.taken.first() else { return };
        let due = first + self.settings.batch_time_us;
        let free = match self.database {
            Database::Up { .. } => self.pending.is_empty() && self.flying.len() < self.settings.concurrency,
            Database::Failing { gone, .. } => gone && matches!(self.busy, Busy::No) && !self.appends.failing,
        };
        if self.closed_at.is_some() || (now >= due && free) || now >= due + PATIENCE_US {
            self.seal(due.min(now));
        } else {
            self.later(if now < due { due } else { due + PATIENCE_US });
        }
    }

    /// At the stop, a database that fails is not waited for, as long as there is the spool.
    fn stop_trying(&mut self) {
        if !self.leaves_all_to_the_spool() {
            return;
        }
        let flying = std::mem::take(&mut self.flying);
        let (aside, given_up): (Vec<_>, Vec<_>) = flying.into_iter().partition(|f| f.aside);
        self.flying = aside;
        for flight in given_up {
            self.outputs.push_back(Output::Cancel { job: flight.job });
            self.back(flight);
        }
    }

    fn leaves_all_to_the_spool(&self) -> bool {
        self.closed_at.is_some() && !self.appends.failing && matches!(self.database, Database::Failing { .. })
    }

    /// At the stop, when nothing takes what is left for long.
    fn give_up(&mut self, now: u64) {
        let Some(closed_at) = self.closed_at else { return };
        if !self.appends.failing || matches!(self.database, Database::Up { .. }) {
            return;
        }
        if now < closed_at + LAST_TRIES_US {
            self.later(closed_at + LAST_TRIES_US);
            return;
        }
        while let Some(mut work) = self.pending.pop_front() {
            self.tally.stopped += work.rows.len() as u64;
            work.todo.clear();
            work.aside = work.rows.iter().map(|row| Aside::Stopped { row: row.clone() }).collect();
            self.fly(work, now);
        }
    }

    /// Where it came from.
    pub(super) fn back(&mut self, flight: Flight) {
        let Flight { mut work, part, .. } = flight;
        work.todo.push(part);
        match work.number {
            None => self.replay = Replay::Ready(work),
            Some(number) => {
                let at = self.pending.partition_point(|w| w.number < Some(number));
                self.pending.insert(at, work);
            }
        }
    }

    fn start_writes(&mut self, now: u64) {
        if self.goes_to_the_spool_first() {
            return;
        }
        loop {
            let mut from_memory = true;
            match self.database {
                Database::Up { .. } if self.flying.len() >= self.settings.concurrency => return,
                Database::Up { .. } => {}
                Database::Failing { .. } if self.trying() || self.leaves_all_to_the_spool() => return,
                Database::Failing { next_try, .. } if now < next_try => return self.later(next_try),
                // What is not durable yet does not wait for the answer to a try.
                Database::Failing { gone, .. } => from_memory = !gone || self.appends.failing || self.loads.failing,
            }
            let Some(work) = self.next_work(from_memory) else { return };
            self.fly(work, now);
        }
    }

    fn goes_to_the_spool_first(&self) -> bool {
        self.taking_over && !self.appends.failing
    }

    fn next_work(&mut self, from_memory: bool) -> Option<Work> {
        if self.replays()
            && matches!(self.replay, Replay::Ready(_))
            && let Replay::Ready(work) = std::mem::replace(&mut self.replay, Replay::Flying)
        {
            return Some(work);
        }
        if from_memory { self.pending.pop_front() } else { None }
    }

    fn fly(&mut self, work: Work, now: u64) {
        self.jobs += 1;
        let tries = matches!(self.database, Database::Failing { .. });
        self.flying.push(Flight { job: self.jobs, work, part: 0..0, aside: false, tries });
        self.next_part(now, self.flying.len() - 1);
    }

    /// The next part of a flight to the database; behind the last, what was refused to the file.
    pub(super) fn next_part(&mut self, now: u64, at: usize) {
        let flight = &mut self.flying[at];
        if let Some(part) = flight.work.todo.pop() {
            flight.part = part.clone();
            let (job, rows) = (flight.job, Arc::clone(&flight.work.rows));
            self.outputs.push_back(Output::Write { job, rows, part });
        } else if flight.work.aside.is_empty() {
            let flight = self.flying.swap_remove(at);
            self.finish(now, flight.work);
        } else {
            flight.aside = true;
            let items = flight.work.aside.clone();
            self.outputs.push_back(Output::SetAside { job: flight.job, items });
        }
    }

    /// The database has the batch, but for what is set aside.
    pub(super) fn finish(&mut self, now: u64, work: Work) {
        let refused = work.aside.iter().filter(|a| matches!(a, Aside::Refused { .. })).count() as u64;
        self.tally.refused += refused;
        if work.number.is_some() {
            self.safe(now, &work, true);
        } else {
            let replayed = (work.rows.len() as u64).saturating_sub(refused);
            self.tally.replayed += replayed;
            self.replayed += replayed;
            self.replay = Replay::Done;
        }
    }

    pub(super) fn safe(&mut self, now: u64, work: &Work, written: bool) {
        self.held -= work.rows.len();
        let us = work.taken.iter().map(|at| now.saturating_sub(*at)).collect();
        self.outputs.push_back(Output::Took { us, written });
        let moved = work.number.map(|n| self.watermark.safe(n)).unwrap_or_default();
        self.outputs.extend(moved.into_iter().map(Output::Safe));
    }

    fn start_spool(&mut self, now: u64) {
        if !matches!(self.busy, Busy::No) {
            return;
        }
        let advance = matches!(self.replay, Replay::Done);
        let load = self.tally.in_spool > 0 && self.replays() && matches!(self.replay, Replay::Idle);
        if load && now < self.loads.at {
            self.later(self.loads.at);
        }
        let load = load && now >= self.loads.at;
        let batches = self.due_for_spool(now);
        if batches > 0 && !(self.appended && (advance || load)) {
            if !self.spooling && !self.gone() && self.closed_at.is_none() && !self.taking_over {
                self.spooling = true;
                self.outputs.push_back(Output::Notice(Notice::Slow));
            }
            let mut batches: Vec<Work> = self.pending.drain(..batches).collect();
            for work in &mut batches {
                // All of it will come back; what was refused will be refused again.
                *work = Work::new(work.number, Arc::clone(&work.rows), std::mem::take(&mut work.taken), work.ready_at);
            }
            self.outputs.push_back(Output::Append { batches: batches.iter().map(|w| Arc::clone(&w.rows)).collect() });
            (self.busy, self.appended) = (Busy::Appending(batches), true);
        } else if advance {
            self.outputs.push_back(Output::Advance { to: self.replay_to });
            (self.busy, self.appended) = (Busy::Reading, false);
        } else if load {
            self.outputs.push_back(Output::Load { max: self.settings.batch });
            (self.busy, self.appended) = (Busy::Reading, false);
        }
    }

    /// How many of the batches that wait shall wait no longer.
    fn due_for_spool(&mut self, now: u64) -> usize {
        if self.pending.is_empty() {
            return 0;
        }
        if now < self.appends.at {
            self.later(self.appends.at);
            return 0;
        }
        if self.gone() || self.leaves_all_to_the_spool() || self.goes_to_the_spool_first() {
            return self.pending.len();
        }
        let due = self.pending.iter().take_while(|w| w.ready_at + PATIENCE_US <= now).count();
        if let (0, Some(first)) = (due, self.pending.front()) {
            self.later(first.ready_at + PATIENCE_US);
        }
        due
    }
}
