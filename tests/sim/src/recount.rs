//! The counters, counted again from the records and from what was seen of the calls.

use crate::check::Ledger;
use strowger_engine::cdr::{CallType, Cdr, CdrMedia, fstats};

/// Counters of one flow or agent, as the engine says and as the records say.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    pub incalls: i64,
    pub distributed: i64,
    pub answered: i64,
    pub answered_chats: i64,
    pub abandoned: i64,
    pub processed: i64,
    pub talk_us: i64,
    pub waited: i64,
    pub wait_us: i64,
    /// Calls that were ever on hold.
    pub onhold_total: i64,
}

impl Counted {
    /// What a record adds.
    fn add(&mut self, row: &Cdr) {
        let handled = row.call_type == CallType::Handled;
        self.distributed += i64::from(row.agent.is_some());
        self.abandoned += i64::from(row.fstats & fstats::ABANDONED > 0);
        self.answered += i64::from(handled);
        self.answered_chats += i64::from(handled && row.media == CdrMedia::Chat);
        self.processed += i64::from(handled);
        self.talk_us += row.talk_us as i64;
    }
}

impl Ledger {
    /// A recount from the records of one flow index.
    #[must_use]
    pub fn recount(&self, flow: u32) -> Counted {
        let mut n = Counted::default();
        for (call, course) in self.calls.iter().zip(&self.stages.of) {
            let rows: Vec<&Cdr> = call.rows.iter().filter(|r| r.flow.idx == flow).collect();
            n.incalls += i64::from(!rows.is_empty());
            n.onhold_total += i64::from(!rows.is_empty() && course.held);
            for row in rows {
                n.add(row);
                if row.call_type == CallType::Handled {
                    n.waited += 1;
                    n.wait_us += row.wait_us as i64;
                }
            }
        }
        n
    }

    /// Calls of a flow that may have been on hold without having been seen there.
    #[must_use]
    pub fn maybe_held(&self, flow: u32) -> i64 {
        let of_flow = |rows: &[Cdr]| rows.iter().any(|r| r.flow.idx == flow);
        let all = self.calls.iter().zip(&self.stages.of);
        all.filter(|(call, course)| (course.maybe_held || course.damaged) && !course.held && of_flow(&call.rows))
            .count() as i64
    }

    /// The same for one slot of the agent table, whoever lived there.
    #[must_use]
    pub fn recount_slot(&self, slot: u32) -> Counted {
        let mut n = Counted::default();
        let there = |r: &&Cdr| r.agent.as_ref().is_some_and(|a| a.agent.slot == slot);
        self.calls.iter().flat_map(|c| &c.rows).filter(there).for_each(|row| n.add(row));
        n
    }
}
