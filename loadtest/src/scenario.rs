//! What a run plays: how calls arrive, who answers them and how, and for how long.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use crate::{arrivals::Arrivals, dist::Dist};

/// A queue that callers dial: `sip:NAME@target`.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowShare {
    pub name: String,
    /// Relative to the sum of all weights.
    pub weight: f64,
    /// Its callers offer an MSRP session instead of audio.
    pub chat: bool,
}

/// What an agent's phone does with one INVITE.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Behaviour {
    /// 180, then 200 after `ring`, then the talk.
    Answer { ring: Dist },
    /// 180, then this final code (300 to 699) after `ring`.
    Refuse { code: u16, ring: Dist },
    /// 180, then nothing until the CANCEL (487) comes.
    Ignore,
    /// 180, 200 after `ring`, and BYE this long after the ACK.
    HangUp { ring: Dist, after: Dist },
    /// 180, 200 after `ring`; this long into the talk the phone goes dead, and answers nothing any more, no BYE either.
    Abandon { ring: Dist, after: Dist },
}

/// A group of agents that behave alike: the users NAME of `sip:NAME@agent_addr`.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentPlan {
    /// User part, with `{N}` where the number goes (1 to `count`).
    pub name: String,
    pub count: u32,
    /// Behaviours with their weights; one is drawn for each INVITE.
    pub behaviours: Vec<(f64, Behaviour)>,
    /// Most chats at once; while it has one, an agent takes no audio call, and the other way round.
    pub chats: u32,
}

impl AgentPlan {
    /// The user parts of all agents of this group.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        (1..=self.count).map(|number| self.name.replace("{N}", &number.to_string()))
    }
}

/// A destination on the media server: `sip:NAME@media_addr`. Names without a plan play until BYE.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaPlan {
    pub name: String,
    /// Welcome-type messages hang up after this time; music (`None`) never does.
    pub hang_up_after: Option<Dist>,
}

/// How long callers wait before they give up: CANCEL before their 200, BYE after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Patience {
    /// Share of the callers (0 to 1) that have a limit at all.
    pub share: f64,
    pub after: Dist,
}

/// Everything that a run needs to know. Start from [`Scenario::default`] and change fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// The SIP system under test: callers' INVITEs go there.
    pub target: SocketAddr,
    /// Local address of the generator's sockets.
    pub bind: IpAddr,
    /// One socket for callers, agents and media servers instead of one each. The Request-URI's user tells who is meant.
    pub one_port: bool,
    /// Whether there are callers. Without, agents and media servers answer others' calls for `duration`.
    pub callers: bool,
    /// Calls per second; a list of arrivals has its own.
    pub rate: f64,
    pub arrivals: Arrivals,
    /// How long calls arrive.
    pub duration: Duration,
    /// Stop arrivals after this many calls.
    pub max_calls: Option<u64>,
    pub flows: Vec<FlowShare>,
    pub agents: Vec<AgentPlan>,
    pub media: Vec<MediaPlan>,
    pub talk: Dist,
    pub patience: Option<Patience>,
    /// Share of the talks (0 to 1) that the caller ends; the agent ends the others.
    pub caller_hangs_up: f64,
    /// Share of the callers (0 to 1) whose INVITE has no SDP.
    pub sdp_less: f64,
    /// The wrap-up that the target is configured with: an agent is due that long after a call.
    pub wrapup: Duration,
    /// The agents' own wrap-up, drawn after each talk: their phones refuse calls (486) until it is over.
    pub after_call: Option<Dist>,
    /// The target's `min_talk_time`: an agent's BYE sooner than this counts there as a rejection.
    /// Drawn talks that an agent would end sooner are ended by the caller.
    pub min_talk: Duration,
    /// How long an answered agent and its caller may take to get each other's SDP.
    pub bridge_limit: Duration,
    /// Seeds every draw: the same seed plays the same calls.
    pub seed: u64,
    /// After the last arrival: how long calls may go on. Then who still waits or talks hangs up.
    pub drain: Duration,
    /// Share of the received datagrams (0 to 1) thrown away unread, to exercise retransmission.
    pub loss: f64,
    /// After the last call: go on answering until nothing has come for this long (at most 64*T1).
    pub calm: Duration,
    /// How often latencies and counts are told of; see [`Generator::play`](crate::Generator::play).
    pub interval: Duration,
    /// The generator's sockets also play a proxy that records its route: the target must send what follows along it.
    pub record_route: bool,
    /// The target answers by itself, as a phone or a media server does: a 2xx with SDP is an answered call, whoever's
    /// SDP it is, and either side may hang up.
    pub direct: bool,
    /// Keep the CDRs expected of each call ([`Report::rows_by_call`](crate::Report::rows_by_call)): some 100 bytes a call.
    pub rows_by_call: bool,
    /// Self-test: callers dial the generator's own agents; `target` and `flows` are not used.
    pub loopback: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, 5060)),
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            one_port: false,
            callers: true,
            rate: 10.0,
            arrivals: Arrivals::default(),
            duration: Duration::from_secs(10),
            max_calls: None,
            flows: vec![FlowShare { name: "support".into(), weight: 1.0, chat: false }],
            agents: vec![AgentPlan {
                name: "agent{N}".into(),
                count: 50,
                behaviours: vec![(1.0, Behaviour::Answer { ring: Dist::Fixed(Duration::from_millis(500)) })],
                chats: 0,
            }],
            media: Vec::new(),
            talk: Dist::Fixed(Duration::from_secs(2)),
            patience: None,
            caller_hangs_up: 0.5,
            sdp_less: 0.0,
            wrapup: Duration::ZERO,
            after_call: None,
            min_talk: Duration::from_secs(1),
            bridge_limit: Duration::from_secs(10),
            seed: 1,
            drain: Duration::from_secs(30),
            loss: 0.0,
            calm: Duration::ZERO,
            interval: Duration::from_secs(1),
            record_route: false,
            direct: false,
            rows_by_call: false,
            loopback: false,
        }
    }
}

/// A scenario that cannot be played.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScenarioError {
    #[error("rate: {0} calls a second cannot be played; give a number above 0, at most 1000000")]
    Rate(f64),
    #[error("{name}: {value} is no share; give a number from 0 to 1")]
    Share { name: &'static str, value: f64 },
    #[error("flows: no flow with a weight above 0; name the queue that callers dial")]
    NoFlow,
    #[error("agents `{name}`: {fault}")]
    Agents { name: String, fault: &'static str },
    #[error("`{0}` cannot be the user part of a SIP URI; use letters, digits and - _ . ! ~ * ' ( )")]
    User(String),
    #[error("bind address {bind} and target {target} are of different IP versions")]
    Family { bind: IpAddr, target: SocketAddr },
}

fn user_is_plain(user: &str) -> bool {
    !user.is_empty() && user.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.!~*'()+".contains(&b))
}

impl Scenario {
    /// User parts of all agents, group after group.
    pub fn agent_names(&self) -> impl Iterator<Item = String> + '_ {
        self.agents.iter().flat_map(AgentPlan::names)
    }

    /// Number of agents over all groups.
    pub fn agent_count(&self) -> usize {
        self.agents.iter().map(|plan| plan.count as usize).sum()
    }

    /// How many calls a second the agents can serve at most; infinite where their work takes no time.
    pub fn agents_capacity(&self) -> f64 {
        let after_call = self.after_call.map_or(Duration::ZERO, |after_call| after_call.mean()).max(self.wrapup);
        let capacity = self.agents.iter().map(|plan| {
            let total: f64 = plan.behaviours.iter().map(|(weight, _)| weight).sum();
            let mean = plan.behaviours.iter().map(|(weight, behaviour)| {
                let busy = match behaviour {
                    Behaviour::Answer { ring } | Behaviour::Abandon { ring, .. } => {
                        ring.mean() + self.talk.mean() + after_call
                    }
                    Behaviour::Refuse { ring, .. } | Behaviour::HangUp { ring, .. } => ring.mean(),
                    Behaviour::Ignore => Duration::ZERO,
                };
                weight / total * busy.as_secs_f64()
            });
            f64::from(plan.count) / mean.sum::<f64>()
        });
        capacity.sum()
    }

    /// Whether it can be played.
    ///
    /// # Errors
    /// The first field that makes no sense, with what it should be.
    pub fn validate(&self) -> Result<(), ScenarioError> {
        if !(self.rate > 0.0 && self.rate <= 1e6) {
            return Err(ScenarioError::Rate(self.rate));
        }
        let patience = self.patience.as_ref().map_or(0.0, |patience| patience.share);
        for (name, value) in [
            ("caller_hangs_up", self.caller_hangs_up),
            ("sdp_less", self.sdp_less),
            ("loss", self.loss),
            ("patience.share", patience),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(ScenarioError::Share { name, value });
            }
        }
        if !self.loopback && self.bind.is_ipv4() != self.target.is_ipv4() {
            return Err(ScenarioError::Family { bind: self.bind, target: self.target });
        }
        let total: f64 = self.flows.iter().map(|flow| flow.weight).sum();
        let flows_drawable = total > 0.0 && self.flows.iter().all(|flow| flow.weight >= 0.0);
        if !(self.loopback || flows_drawable) {
            return Err(ScenarioError::NoFlow);
        }
        let users = self.flows.iter().map(|flow| &*flow.name).chain(self.media.iter().map(|media| &*media.name));
        let listed = match &self.arrivals {
            Arrivals::Listed(list) => &list[..],
            _ => &[],
        };
        let mut users = users.chain(listed.iter().filter_map(|arrival| arrival.flow.as_deref()));
        if let Some(user) = users.find(|user| !user_is_plain(user)) {
            return Err(ScenarioError::User(user.to_owned()));
        }
        self.agents.iter().try_for_each(AgentPlan::validate)
    }
}

impl AgentPlan {
    fn validate(&self) -> Result<(), ScenarioError> {
        let fault = |fault| Err(ScenarioError::Agents { name: self.name.clone(), fault });
        if self.count > 1 && !self.name.contains("{N}") {
            return fault("more than one agent needs {N} in the name");
        }
        if !user_is_plain(&self.name.replace("{N}", "1")) {
            return Err(ScenarioError::User(self.name.clone()));
        }
        let weights: f64 = self.behaviours.iter().map(|(weight, _)| *weight).sum();
        if !(weights > 0.0 && weights.is_finite() && self.behaviours.iter().all(|(weight, _)| *weight >= 0.0)) {
            return fault("the weights of the behaviours must be 0 or more, and one above 0");
        }
        let refusal =
            |behaviour: &Behaviour| matches!(behaviour, Behaviour::Refuse { code, .. } if !(300..700).contains(code));
        if self.behaviours.iter().any(|(_, behaviour)| refusal(behaviour)) {
            return fault("a refusal's code must be from 300 to 699");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_can_be_played() {
        let scenario = Scenario::default();
        assert_eq!(scenario.validate(), Ok(()));
        assert_eq!(scenario.agent_names().nth(1).as_deref(), Some("agent2"));
        assert_eq!(scenario.agent_names().count(), scenario.agent_count());
    }

    #[test]
    fn agents_can_serve_so_much() {
        let mut scenario = Scenario { wrapup: Duration::from_millis(500), ..Scenario::default() };
        // 50 agents, 3 s a call: 0.5 s of ringing, 2 s of talk, 0.5 s of wrap-up.
        assert!((scenario.agents_capacity() - 50.0 / 3.0).abs() < 1e-9);
        scenario.after_call = Some(Dist::Exponential(Duration::from_secs(10)));
        assert!((scenario.agents_capacity() - 50.0 / 12.5).abs() < 1e-9);
    }

    #[test]
    fn each_fault_is_named() {
        let base = Scenario::default;
        assert_eq!(Scenario { rate: 0.0, ..base() }.validate(), Err(ScenarioError::Rate(0.0)));
        assert_eq!(Scenario { loss: 1.5, ..base() }.validate(), Err(ScenarioError::Share { name: "loss", value: 1.5 }));
        assert_eq!(Scenario { flows: vec![], ..base() }.validate(), Err(ScenarioError::NoFlow));
        let mut agents = base();
        agents.agents[0].name = "agent".into();
        assert!(matches!(agents.validate(), Err(ScenarioError::Agents { .. })));
        agents.agents[0].name = "a b{N}".into();
        assert_eq!(agents.validate(), Err(ScenarioError::User("a b{N}".into())));
        agents = base();
        agents.agents[0].behaviours = vec![(1.0, Behaviour::Refuse { code: 200, ring: Dist::Fixed(Duration::ZERO) })];
        assert!(matches!(agents.validate(), Err(ScenarioError::Agents { .. })));
        let listed = crate::read_arrivals("1 a@b").unwrap();
        assert_eq!(Scenario { arrivals: listed, ..base() }.validate(), Err(ScenarioError::User("a@b".into())));
        let target = "[::1]:5060".parse().unwrap();
        assert!(matches!(Scenario { target, ..base() }.validate(), Err(ScenarioError::Family { .. })));
    }
}
