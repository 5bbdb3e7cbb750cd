//! A scenario played against the toy queue.

use crate::toy::{self, Fault};
use loadtest::{AgentPlan, Behaviour, Dist, Generator, Report, Scenario};
use std::{sync::atomic::Ordering::Relaxed, time::Duration};

pub fn fixed(millis: u64) -> Dist {
    Dist::Fixed(Duration::from_millis(millis))
}

/// Calls for two seconds towards so many agents.
pub fn scenario(count: u32, behaviours: Vec<(f64, Behaviour)>) -> Scenario {
    Scenario {
        rate: 40.0,
        duration: Duration::from_secs(2),
        agents: vec![AgentPlan { name: "agent{N}".into(), count, behaviours, chats: 0 }],
        talk: Dist::Uniform(Duration::from_millis(100), Duration::from_millis(1_800)),
        drain: Duration::from_secs(15),
        bridge_limit: Duration::from_secs(2),
        ..Scenario::default()
    }
}

/// Plays a scenario against a toy; returns the report and the CDRs that the toy counted.
pub fn play(scenario: &Scenario, fault: Fault) -> (Report, u64) {
    let mut generator = Generator::bind(scenario).unwrap();
    let toy = toy::start(generator.agent_addr(), scenario.agent_count(), generator.media_addr(), fault);
    generator.set_target(toy.address);
    let live = generator.live();
    let report = generator.run();
    for gauge in [&live.waiting, &live.talking, &live.ringing, &live.at_media] {
        assert_eq!(gauge.load(Relaxed), 0, "{live:?}");
    }
    assert!(fault == Fault::ForgetsAgents || live.agents_busy.load(Relaxed) == 0, "{live:?}");
    (report, toy.stop())
}
