//! What the view shows of one moment: the generator's counters, the dispatch table, the shards' histograms.

use super::Live;
use crate::server::Server;
use hdrhistogram::Histogram;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use strowger_dispatch::AgentState;

/// A queue at one moment.
#[derive(Debug, Clone, Default)]
pub struct QueueNow {
    pub name: String,
    /// 0 is served first.
    pub priority: u32,
    pub queued: i64,
    /// With a message before the queue, or with an agent who is being told whose call it is.
    pub hearing: i64,
    pub free_agents: i64,
    pub answered_calls: i64,
    pub answered_chats: i64,
}

/// One moment.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    pub elapsed: Duration,
    pub offered: u64,
    pub answered: u64,
    pub abandoned: u64,
    pub refused: u64,
    pub failed: u64,
    pub rejected: u64,
    /// Calls by state.
    pub onhold: i64,
    pub queued: i64,
    pub ringing: i64,
    pub talking: i64,
    /// Agents by state.
    pub free: u64,
    pub in_call: u64,
    pub in_chat: u64,
    pub wrapup: u64,
    pub offline: u64,
    /// Since the sample before, per second.
    pub calls_per_second: f64,
    pub messages_per_second: f64,
    /// Agent free to INVITE, microseconds.
    pub dispatch_p50: u64,
    pub dispatch_p99: u64,
    pub dispatch_max: u64,
    /// Mean wait of the answered calls, seconds, and the CDRs written.
    pub wait: i64,
    pub cdrs: u64,
    /// The most urgent first.
    pub queues: Vec<QueueNow>,
    /// Calls on hold over time, the latest last.
    pub history: Vec<u64>,
}

/// Takes samples.
pub struct Sampler {
    live: Live,
    began: Instant,
    last: (Instant, u64, u64),
    history: Vec<u64>,
}

/// Samples that the history holds.
const HISTORY: usize = 240;

impl Sampler {
    pub fn new(live: Live) -> Sampler {
        let now = Instant::now();
        Sampler { live, began: now, last: (now, 0, 0), history: vec![] }
    }

    pub fn take(&mut self, server: &Server) -> Sample {
        let l = &self.live;
        let p = server.plane().provisioning();
        let get = |name: &str| server.plane().statistics.get(&p, name).unwrap_or(0);
        let mut queues: Vec<QueueNow> = p.flows.iter().map(|(id, flow)| queue(id, flow.priority, get)).collect();
        queues.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
        let dispatch = server.shards().latency().dispatch;
        let mut s = Sample {
            elapsed: self.began.elapsed(),
            offered: l.offered.load(Relaxed),
            answered: l.answered.load(Relaxed),
            abandoned: l.abandoned.load(Relaxed),
            refused: l.refused.load(Relaxed),
            failed: l.failed.load(Relaxed),
            rejected: l.rejected_by_agents.load(Relaxed),
            onhold: get("ccg_onhold_calls") + get("ccg_onhold_chats"),
            queued: queues.iter().map(|q| q.queued).sum(),
            queues,
            ringing: l.ringing.load(Relaxed),
            talking: l.talking.load(Relaxed),
            dispatch_p50: micros(&dispatch, 0.5),
            dispatch_p99: micros(&dispatch, 0.99),
            dispatch_max: micros(&dispatch, 1.0),
            wait: get("ccg_awt"),
            cdrs: server.plane().cdrs.written.load(Relaxed),
            ..Sample::default()
        };
        for agent in p.agents_by_id.values() {
            match server.plane().dispatch.agent(*agent).map(|v| v.state) {
                Some(AgentState::Free) => s.free += 1,
                Some(AgentState::InCall) => s.in_call += 1,
                Some(AgentState::InChat) => s.in_chat += 1,
                Some(AgentState::Wrapup) => s.wrapup += 1,
                Some(AgentState::Offline) | None => s.offline += 1,
            }
        }
        self.rates(&mut s);
        s
    }

    fn rates(&mut self, s: &mut Sample) {
        let messages = self.live.received.load(Relaxed) + self.live.sent.load(Relaxed);
        let (then, offered, before) = std::mem::replace(&mut self.last, (Instant::now(), s.offered, messages));
        let passed = then.elapsed().as_secs_f64().max(0.001);
        #[allow(clippy::cast_precision_loss)] // for the eye
        let rate = |n: u64| n as f64 / passed;
        s.calls_per_second = rate(s.offered.saturating_sub(offered));
        s.messages_per_second = rate(messages.saturating_sub(before));
        self.history.push(u64::try_from(s.onhold).unwrap_or(0));
        if self.history.len() > HISTORY {
            self.history.remove(0);
        }
        s.history.clone_from(&self.history);
    }
}

fn queue(id: &str, priority: u32, get: impl Fn(&str) -> i64) -> QueueNow {
    let of = |name: &str| get(&format!("{name}-{id}"));
    let queued = of("ccf_queued_calls");
    QueueNow {
        name: id.to_owned(),
        priority,
        queued,
        // Read one after the other while calls move on.
        hearing: (of("ccf_onhold_calls") + of("ccf_onhold_chats") - queued).max(0),
        free_agents: of("ccf_free_agents"),
        answered_calls: of("ccf_answ_incalls"),
        answered_chats: of("ccf_answ_inchats"),
    }
}

/// A quantile of a histogram of nanoseconds, in microseconds.
pub fn micros(h: &Histogram<u64>, quantile: f64) -> u64 {
    if h.is_empty() { 0 } else { h.value_at_quantile(quantile).div_ceil(1000) }
}
