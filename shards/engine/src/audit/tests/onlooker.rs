//! What another thread sees of a shard at work: what audits take for granted holds at any moment, not only between two inputs.

use super::ann;
use super::ladder::Scene;
use crate::stats::StatsHub;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use strowger_dispatch::{AgentRef, Dispatch};

/// Looks on until `round` is 0; returns what was wrong.
fn look_on(dispatch: &Dispatch, stats: &StatsHub, agent: AgentRef, round: &AtomicU64) -> Vec<String> {
    let mut wrong = Vec::new();
    loop {
        let began = round.load(SeqCst);
        if began == 0 {
            return wrong;
        }
        let Some(look) = dispatch.look(agent).filter(|look| look.at_rest) else { continue };
        // Within a round nothing comes again.
        let still = || dispatch.look(agent) == Some(look) && round.load(SeqCst) == began;
        if look.wraps && stats.agent(agent.slot, |c| c.timed.get()) == 0 && still() {
            wrong.push(format!("round {began}: nobody times {look:?}"));
        }
        let unheld =
            || i64::from(look.claims) - i64::from(dispatch.taken_by(agent)) - stats.agent(agent.slot, |c| c.held.get());
        if look.claims > 0 && unheld() > 0 && still() {
            wrong.push(format!("round {began}: nobody holds {look:?}"));
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "another shard's thread")]
fn at_every_moment_each_claim_is_held_and_each_wrap_up_timed() {
    let mut s = Scene::new();
    let agent = ann(&s);
    let round = Arc::new(AtomicU64::new(1));
    let onlooker = std::thread::spawn({
        let (dispatch, stats, round) = (s.bench.dispatch.clone(), s.bench.stats.clone(), round.clone());
        move || look_on(&dispatch, &stats, agent, &round)
    });
    for n in 2..2_000 {
        round.store(n, SeqCst);
        s.talk_straight();
        s.wait_ms(2_000);
        s.caller_hangs_up_on_ann();
        s.wait_ms(2_100);
        s.bench.ladder.clear();
    }
    round.store(0, SeqCst);
    assert_eq!(onlooker.join().unwrap(), [""; 0]);
    s.assert_rest();
}
