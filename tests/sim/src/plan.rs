//! What a seed draws before its run: the network, the settings, flows and agents, how often who misbehaves.
//!
//! "Swarm": each rate is 0 in half of the runs, so that a fault also shows without the noise of all the others.

use crate::hazards::Hazards;
use crate::rng::Rng;
use crate::rules::Guide;
use strowger_dispatch::ChatPolicy;
use strowger_engine::CallConfig;
use strowger_engine::config::AgentOffer;
use strowger_engine::registry::{AgentRow, FlowRow, Rows};

pub const SECOND: u64 = 1_000_000;
pub const MS: u64 = 1_000;

/// What the command line sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// 0: drawn from the seed.
    pub shards: u16,
    /// 0: drawn from the seed.
    pub calls: u32,
    /// Keep the message ladder.
    pub trace: bool,
    /// The process ends now and then, and another takes over from its journals.
    pub crashes: bool,
    /// Faults and subjects that are left out, as bits by their places in [`SUBJECTS`].
    pub without: u64,
    /// Callers who never dial, as bits by their numbers.
    pub absent: u64,
}

/// A name, and how its subject is taken out of a plan.
pub type Subject = (&'static str, fn(&mut Plan));

/// What `--without` can leave out of a run.
pub const SUBJECTS: &[Subject] = &[
    ("rules", |p| p.guide = Guide::default()),
    ("loss", |p| p.net.loss = 0),
    ("double", |p| p.net.double = 0),
    ("reorder", |p| p.net.reorder = 0),
    ("jitter", |p| p.net.jitter_us = 0),
    ("reloads", |p| p.ops.retain(|(_, op)| !matches!(op, Op::Reload))),
    ("logins", |p| p.ops.retain(|(_, op)| !matches!(op, Op::Login { .. }))),
    ("external", |p| p.ops.retain(|(_, op)| !matches!(op, Op::Matching(_) | Op::Place))),
    ("chats", |p| p.chats = 0),
    ("caller-faults", |p| p.caller = CallerOdds { impatient: p.caller.impatient, ..CallerOdds::default() }),
    ("agent-faults", |p| p.agent = AgentOdds::default()),
    ("media-faults", |p| p.media = MediaOdds::default()),
    ("impatience", |p| p.caller.impatient = 0),
    ("wrapup", |p| p.call.wrapup_us = 0),
    ("end-all", |p| p.end_all = false),
    ("partitions", |p| p.hazards.partitions = Vec::new()),
    ("stalls", |p| p.hazards.stalls = Vec::new()),
    ("replays", |p| p.hazards.replay = 0),
    ("strays", |p| p.hazards.stray = 0),
    ("damage", |p| p.hazards.damage = 0),
    ("hours", |p| p.hazards.hours = false),
    ("clock", |p| p.hazards.clock = Vec::new()),
    ("drains", |p| p.hazards.drains = Vec::new()),
    ("records", |p| p.hazards.records = false),
    ("power", |p| p.hazards.power = false),
    ("many-shards", |p| p.hazards.shards = 0),
    ("pressure", |p| p.hazards.pressure.rate = 0),
    ("journal-disk", |p| p.hazards.squeezes = Vec::new()),
    ("ages", |p| p.hazards.ages = false),
];

/// Rates in per mille, times in microseconds.
#[derive(Debug, Clone, Default)]
pub struct Net {
    pub loss: u32,
    pub double: u32,
    pub reorder: u32,
    pub delay_us: u64,
    pub jitter_us: u64,
    /// Longest way between two shards.
    pub mesh_us: u64,
    /// Longest way of a command of the control plane.
    pub desk_us: u64,
}

/// How often a peer does what; per mille.
#[derive(Debug, Clone, Default)]
pub struct CallerOdds {
    pub no_sdp: u32,
    pub impatient: u32,
    pub silent: u32,
    pub no_ack: u32,
    pub early_bye: u32,
    pub busy_hands: u32,
    pub refuse_reinvite: u32,
    pub slow_reinvite: u32,
    pub timer: u32,
    pub moves: u32,
    pub reboot: u32,
}

#[derive(Debug, Clone, Default)]
pub struct AgentOdds {
    pub refuse: u32,
    pub no_answer: u32,
    pub deaf: u32,
    pub cross_cancel: u32,
    pub fork: u32,
    pub brief: u32,
    pub silent: u32,
    pub busy_hands: u32,
    pub refuse_reinvite: u32,
    pub slow_reinvite: u32,
    pub moves: u32,
    pub no_update: u32,
    pub reboot: u32,
}

#[derive(Debug, Clone, Default)]
pub struct MediaOdds {
    pub refuse: u32,
    pub slow: u32,
    pub deaf: u32,
    /// Music that ends.
    pub hangup: u32,
    /// Messages that play on for long, or for ever.
    pub late: u32,
    pub endless: u32,
    pub reboot: u32,
}

/// A thing that the operators do at a time.
#[derive(Debug, Clone)]
pub enum Op {
    Login {
        agent: u32,
        on: bool,
    },
    Reload,
    /// `cc_internal_call_dispatching`.
    Matching(bool),
    /// `cc_dispatch_call_to_agent`.
    Place,
    /// New calls are refused, or taken again.
    Drain(bool),
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub shards: u16,
    pub calls: u32,
    /// When the faults stop.
    pub faults_us: u64,
    pub net: Net,
    pub caller: CallerOdds,
    pub agent: AgentOdds,
    pub media: MediaOdds,
    pub call: CallConfig,
    /// How many of 1000 calls are chats.
    pub chats: u32,
    pub policy: ChatPolicy,
    pub rows: Rows,
    pub ops: Vec<(u64, Op)>,
    /// End every call by command when the faults stop.
    pub end_all: bool,
    /// Longest talk.
    pub talk_us: u64,
    pub patience_us: u64,
    /// The routing rules; none: the Request-URI's user is the flow.
    pub guide: Guide,
    pub hazards: Hazards,
}

pub const SKILLS: u64 = 3;
pub const MOST_AGENTS: u32 = 8;
pub const MOST_FLOWS: u32 = 4;

impl Plan {
    #[must_use]
    pub fn draw(rng: &mut Rng, options: &Options) -> Plan {
        let r = rng;
        let faults_us = r.range(20, 120) * SECOND;
        // All is drawn, so that an option changes nothing else.
        let (calls, shards) = (r.range(5, 60) as u32, *r.pick(&[1, 2, 2, 2, 3, 4]));
        let calls = if options.calls > 0 { options.calls } else { calls };
        let shards = if options.shards > 0 { options.shards } else { shards };
        let flows = r.range(1, u64::from(MOST_FLOWS)) as u32;
        let agents = r.range(1, u64::from(MOST_AGENTS)) as u32;
        let rows = Rows {
            flows: (0..flows).map(|n| flow_row(n, r)).collect(),
            agents: (0..agents).map(|n| agent_row(n, r)).collect(),
        };
        let reloads = if r.chance(400) { r.range(1, 6) } else { 0 };
        let logins = if r.chance(400) { r.range(1, 12) } else { 0 };
        let mut ops: Vec<(u64, Op)> = (0..reloads).map(|_| (r.below(faults_us), Op::Reload)).collect();
        for _ in 0..logins {
            let agent = r.below(u64::from(MOST_AGENTS)) as u32;
            ops.push((r.below(faults_us), Op::Login { agent, on: r.chance(500) }));
        }
        if r.chance(300) {
            draw_external(r, faults_us, &mut ops);
        }
        Plan {
            shards,
            calls,
            faults_us,
            net: draw_net(r),
            caller: draw_caller(r),
            agent: draw_agent(r),
            media: draw_media(r),
            call: draw_config(r),
            chats: r.swarm(900),
            policy: *r.pick(&[ChatPolicy::Balancing, ChatPolicy::FullLoad]),
            rows,
            ops,
            end_all: r.chance(60),
            talk_us: *r.pick(&[2, 10, 40]) * SECOND,
            patience_us: *r.pick(&[5, 20, 60]) * SECOND,
            guide: Guide::default(),
            hazards: Hazards::default(),
        }
    }
}

/// Others place the calls, from some moment on, or now and then.
fn draw_external(r: &mut Rng, faults_us: u64, ops: &mut Vec<(u64, Op)>) {
    let start = if r.chance(500) { 0 } else { r.below(faults_us / 2) };
    ops.push((start, Op::Matching(false)));
    for _ in 0..r.below(4) {
        let at = r.below(faults_us);
        ops.push((at, Op::Matching(true)));
        ops.push((at + r.range(1, 5 * SECOND), Op::Matching(false)));
    }
    for _ in 0..r.below(150) {
        ops.push((r.range(start, faults_us), Op::Place));
    }
}

fn draw_net(r: &mut Rng) -> Net {
    Net {
        loss: r.swarm(*r.clone().pick(&[10, 50, 300])),
        double: r.swarm(200),
        reorder: r.swarm(200),
        delay_us: r.range(100, 20 * MS),
        jitter_us: *r.pick(&[0, 100, 5 * MS, 100 * MS]),
        mesh_us: *r.pick(&[1, 50, 5 * MS, 100 * MS]),
        desk_us: *r.pick(&[MS, 5 * MS, 2 * SECOND]),
    }
}

fn draw_caller(r: &mut Rng) -> CallerOdds {
    CallerOdds {
        no_sdp: r.swarm(500),
        impatient: r.swarm(500),
        silent: r.swarm(100),
        no_ack: r.swarm(60),
        early_bye: r.swarm(300),
        busy_hands: r.swarm(500),
        refuse_reinvite: r.swarm(400),
        slow_reinvite: r.swarm(500),
        timer: r.swarm(600),
        moves: r.swarm(500),
        reboot: r.swarm(60),
    }
}

fn draw_agent(r: &mut Rng) -> AgentOdds {
    AgentOdds {
        refuse: r.swarm(500),
        no_answer: r.swarm(200),
        deaf: r.swarm(150),
        cross_cancel: r.swarm(700),
        fork: r.swarm(300),
        brief: r.swarm(300),
        silent: r.swarm(60),
        busy_hands: r.swarm(500),
        refuse_reinvite: r.swarm(400),
        slow_reinvite: r.swarm(500),
        moves: r.swarm(300),
        no_update: r.swarm(500),
        reboot: r.swarm(60),
    }
}

fn draw_media(r: &mut Rng) -> MediaOdds {
    MediaOdds {
        refuse: r.swarm(400),
        slow: r.swarm(400),
        deaf: r.swarm(100),
        hangup: r.swarm(400),
        late: r.swarm(400),
        endless: r.swarm(150),
        reboot: r.swarm(60),
    }
}

fn draw_config(r: &mut Rng) -> CallConfig {
    CallConfig {
        wrapup_us: *r.pick(&[0, 0, SECOND / 2, 2 * SECOND, 30 * SECOND]),
        agent_ring_timeout_us: *r.pick(&[3, 10, 30]) * SECOND,
        min_talk_us: *r.pick(&[0, SECOND, SECOND, 3 * SECOND]),
        reject_backoff_us: *r.pick(&[SECOND, SECOND, 200 * MS]),
        max_no_answer: *r.pick(&[0, 0, 2]),
        reject_on_no_agents: r.chance(700),
        queue_pos_param: r.chance(300).then(|| "cc_pos".to_owned()),
        agent_offer: *r.pick(&[AgentOffer::Auto, AgentOffer::Auto, AgentOffer::Caller, AgentOffer::Delayed]),
        session_expires_s: *r.pick(&[90, 120]),
        media_retry_us: *r.pick(&[SECOND / 2, 2 * SECOND]),
        follow_redirects: r.chance(200),
        max_calls: if r.chance(50) { 3 } else { 1_000_000 },
        ..CallConfig::default()
    }
}

#[must_use]
pub fn flow_id(n: u32) -> String {
    format!("f{n}")
}

#[must_use]
pub fn agent_id(n: u32) -> String {
    format!("a{n}")
}

pub fn flow_row(n: u32, r: &mut Rng) -> FlowRow {
    FlowRow {
        flowid: Some(flow_id(n)),
        priority: Some(r.below(3) as i64),
        skill: Some(format!("s{}", r.below(SKILLS))),
        prependcid: r.chance(300).then(|| "Desk".to_owned()),
        max_wrapup_time: r.chance(300).then(|| r.range(1, 3) as i64),
        dissuading_hangup: r.chance(400).then_some(1),
        dissuading_onhold_th: r.chance(500).then(|| r.range(1, 8) as i64),
        dissuading_ewt_th: r.chance(400).then(|| r.range(1, 10) as i64),
        dissuading_qsize_th: r.chance(400).then(|| r.range(1, 3) as i64),
        message_welcome: r.chance(350).then(|| "sip:welcome@10.2.0.2".to_owned()),
        message_queue: Some("sip:music@10.2.0.1".to_owned()),
        message_dissuading: r.chance(450).then(|| "sip:dissuading@10.2.0.3".to_owned()),
        message_flow_id: r.chance(300).then(|| "sip:briefing@10.2.0.4".to_owned()),
    }
}

pub fn agent_row(n: u32, r: &mut Rng) -> AgentRow {
    let skills: Vec<String> = (0..SKILLS).filter(|_| r.chance(550)).map(|s| format!("s{s}")).collect();
    let chats = r.chance(600);
    AgentRow {
        agentid: Some(agent_id(n)),
        location: (!chats || r.chance(850)).then(|| format!("sip:a{n}@10.1.0.{}", n + 1)),
        msrp_location: chats.then(|| format!("sip:chat-a{n}@10.1.0.{}", n + 1)),
        msrp_max_sessions: r.chance(800).then(|| r.range(1, 3) as i64),
        skills: Some(skills.join(",")),
        logstate: Some(i64::from(r.chance(850))),
        wrapup_time: r.chance(400).then(|| r.range(0, 4) as i64),
        ..AgentRow::default()
    }
}
