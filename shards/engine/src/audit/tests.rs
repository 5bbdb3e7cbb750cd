//! Damage of each kind is planted in a shard at work and watched: found, told, counted, and repaired within a second.

mod agents;
mod calls;
#[path = "../../tests/ladder/mod.rs"]
mod ladder;
mod onlooker;

use super::{Fault, Report};
use crate::arena::Key;
use crate::call::Call;
use crate::control::{Control, Reply};
use crate::leg::Role;
use ladder::Scene;
use strowger_dispatch::{AgentRef, AgentState};

/// Lets time pass, with the audit at work.
fn pass(s: &mut Scene, ms: u64) {
    for _ in 0..ms.div_ceil(10) {
        s.wait_ms(10);
        if s.bench.engine.audit_due() <= s.bench.now.mono {
            s.bench.engine.handle_audit(s.bench.now);
            s.bench.drain();
        }
    }
}

/// Within a second these faults are found, in this order, and repaired; then there is peace.
#[track_caller]
fn mended(s: &mut Scene, faults: &[Fault]) -> Vec<Report> {
    mended_in(s, 1_000, faults)
}

#[track_caller]
fn mended_in(s: &mut Scene, ms: u64, faults: &[Fault]) -> Vec<Report> {
    pass(s, ms);
    let reports = std::mem::take(&mut s.bench.reports);
    let found: Vec<_> = reports.iter().map(|r| (r.fault, r.repaired)).collect();
    let wanted: Vec<_> = faults.iter().map(|f| (*f, true)).collect();
    assert_eq!(found, wanted, "{reports:#?}\n{}", s.bench.ladder());
    let shard = s.bench.engine.shard();
    let counts = &s.bench.stats.shard(shard).audit;
    for fault in faults {
        assert!(counts.found[*fault as usize].get() > 0, "{fault:?}");
    }
    assert_eq!(counts.repaired.get(), counts.found.iter().map(|n| n.get()).sum::<i64>());
    peace(s);
    reports
}

/// What was found, and whether it was repaired.
fn found(s: &Scene) -> Vec<(Fault, bool)> {
    s.bench.reports.iter().map(|r| (r.fault, r.repaired)).collect()
}

/// Nothing more is found.
#[track_caller]
fn peace(s: &mut Scene) {
    pass(s, 1_500);
    assert_eq!(s.bench.reports, [], "{}", s.bench.ladder());
    let Reply::Findings(findings) = s.bench.control(Control::Findings) else { panic!() };
    assert_eq!(findings.suspects, 0);
}

fn ann(s: &Scene) -> AgentRef {
    s.bench.registry.agent("ann").unwrap()
}

/// The only call.
fn call(s: &Scene) -> Key {
    let mut keys = s.bench.engine.calls.keys();
    let key = keys.next().expect("a call");
    assert!(keys.next().is_none());
    key
}

fn with_call<R>(s: &mut Scene, f: impl FnOnce(&mut Call) -> R) -> R {
    let c = call(s);
    f(s.bench.engine.calls.get_mut(c).unwrap())
}

/// The leg of that role.
fn leg(s: &Scene, role: Role) -> Key {
    let engine = &s.bench.engine;
    engine.legs.keys().find(|key| engine.legs.get(*key).is_some_and(|l| l.role == role)).expect("such a leg")
}

/// A caller who talks with Ann, straight.
fn talk() -> Scene {
    let mut s = Scene::new();
    s.talk_straight();
    pass(&mut s, 700);
    s
}

/// Ann's phone rings for a caller who waited.
fn ringing() -> Scene {
    let mut s = Scene::queued();
    s.bench.login("ann", true);
    s.ann_rings();
    s
}

/// An ordinary end.
#[track_caller]
fn hangs_up(s: &mut Scene) {
    s.caller_hangs_up_on_ann();
    pass(s, 3_000);
    assert_eq!(s.ann_state(), AgentState::Free);
    assert_eq!(s.bench.reports, []);
    s.assert_rest();
}

#[test]
fn a_shard_at_work_is_found_in_order() {
    let mut s = Scene::queued();
    pass(&mut s, 2_000);
    s.talk_from_queue();
    pass(&mut s, 2_000);
    s.caller_hangs_up_on_ann();
    pass(&mut s, 4_000);
    peace(&mut s);
    let audit = &s.bench.stats.shard(0).audit;
    assert!(audit.sweeps.get() > 30 && audit.looked.get() > 100, "{audit:?}");
    assert!(audit.found.iter().all(|n| n.get() == 0));
    s.assert_rest();
}
