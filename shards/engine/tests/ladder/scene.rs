//! The usual cast: a caller, a music server, two agents' phones; and the stretches of a call that many tests share.

use super::{Bench, Got, Phone, agent, cdr_line, flow};
use strowger_dispatch::AgentState;
use strowger_engine::registry::{AgentRow, FlowRow};
use strowger_engine::{CallState, EngineConfig};

pub const CALLER: &str = "10.0.2.1:5060";
pub const MEDIA: &str = "10.0.3.1:5060";
pub const NEWS: &str = "10.0.3.2:5060";
pub const ANN: &str = "10.0.4.1:5060";
pub const BOB: &str = "10.0.4.2:5060";

pub struct Scene {
    pub bench: Bench,
    pub caller: Phone,
    pub media: Phone,
    /// A second message server.
    pub news: Phone,
    pub ann: Phone,
    pub bob: Phone,
}

impl Scene {
    /// Flow `sales`; agents `ann`, and `bob` who is logged out. Wrap-up 2 s, session timers off unless changed.
    pub fn new() -> Scene {
        Scene::with(|_, _, _| {})
    }

    /// As [`Scene::new`], but nobody is logged in.
    pub fn nobody() -> Scene {
        Scene::with(|_, _, agents| agents[0].logstate = Some(0))
    }

    pub fn with(change: impl FnOnce(&mut EngineConfig, &mut Vec<FlowRow>, &mut Vec<AgentRow>)) -> Scene {
        let (mut flows, mut agents) =
            (vec![flow("sales", "sales")], vec![agent("ann", ANN, "sales"), agent("bob", BOB, "sales")]);
        agents[1].logstate = Some(0);
        let bench = Bench::with_rows(&mut flows, &mut agents, |cfg, flows, agents| {
            cfg.call.reject_on_no_agents = false;
            cfg.call.wrapup_us = 2_000_000;
            cfg.call.session_expires_s = 0;
            change(cfg, flows, agents);
        });
        let mut scene = Scene {
            caller: Phone::new("caller", CALLER.parse().unwrap()),
            media: Phone::new("media", MEDIA.parse().unwrap()),
            news: Phone::new("news", NEWS.parse().unwrap()),
            ann: Phone::new("ann", ANN.parse().unwrap()),
            bob: Phone::new("bob", BOB.parse().unwrap()),
            bench,
        };
        for (name, addr) in [("caller", CALLER), ("media", MEDIA), ("news", NEWS), ("ann", ANN), ("bob", BOB)] {
            scene.bench.phone(name, addr);
        }
        scene
    }

    pub fn wait_ms(&mut self, ms: u64) {
        self.bench.wait_ms(ms);
    }

    /// The caller's INVITE with its description.
    pub fn call(&mut self) {
        let sdp = self.caller.sdp();
        self.caller.invite(&mut self.bench, "sales", &sdp);
        self.caller.expect(&mut self.bench, "100");
    }

    /// The music server answers; returns its INVITE.
    #[track_caller]
    pub fn media_answers(&mut self) -> Got {
        let invite = self.media.expect(&mut self.bench, "INVITE");
        let sdp = self.media.sdp();
        self.media.answer(&mut self.bench, &invite, 200, &sdp);
        self.media.expect(&mut self.bench, "ACK");
        invite
    }

    /// The music server answers a call that is over: acknowledged and ended.
    #[track_caller]
    pub fn media_answers_late(&mut self, invite: &Got) {
        let sdp = self.media.sdp();
        self.media.answer(&mut self.bench, invite, 200, &sdp);
        self.media.expect(&mut self.bench, "ACK");
        self.media_bye();
    }

    /// The second server answers; returns its INVITE.
    #[track_caller]
    pub fn news_answers(&mut self) -> Got {
        let invite = self.news.expect(&mut self.bench, "INVITE");
        let sdp = self.news.sdp();
        self.news.answer(&mut self.bench, &invite, 200, &sdp);
        self.news.expect(&mut self.bench, "ACK");
        invite
    }

    #[track_caller]
    pub fn news_refuses(&mut self, code: u16) {
        let invite = self.news.expect(&mut self.bench, "INVITE");
        self.news.answer(&mut self.bench, &invite, code, "");
        self.news.expect(&mut self.bench, "ACK");
    }

    #[track_caller]
    pub fn news_hangs_up(&mut self) {
        self.news.send(&mut self.bench, "BYE", "");
        self.news.expect(&mut self.bench, "200");
    }

    #[track_caller]
    pub fn news_bye(&mut self) {
        let bye = self.news.expect(&mut self.bench, "BYE");
        self.news.answer(&mut self.bench, &bye, 200, "");
    }

    /// The caller gets its 200 and acknowledges it.
    #[track_caller]
    pub fn caller_acks(&mut self) -> Got {
        let ok = self.caller.expect(&mut self.bench, "200");
        self.caller.ack(&mut self.bench, "");
        ok
    }

    /// A caller with music, no agent there.
    pub fn queued() -> Scene {
        let mut s = Scene::nobody();
        s.joins_queue();
        s
    }

    #[track_caller]
    pub fn joins_queue(&mut self) {
        self.call();
        self.media_answers();
        self.caller_acks();
    }

    /// Ann's phone rings; returns its INVITE.
    #[track_caller]
    pub fn ann_rings(&mut self) -> Got {
        let invite = self.ann.expect(&mut self.bench, "INVITE");
        self.ann.answer(&mut self.bench, &invite, 180, "");
        invite
    }

    /// Ann answers with her description and gets the ACK.
    #[track_caller]
    pub fn ann_answers(&mut self, invite: &Got) {
        let sdp = self.ann.sdp();
        self.ann.answer(&mut self.bench, invite, 200, &sdp);
        self.ann.expect(&mut self.bench, "ACK");
    }

    /// The caller accepts the re-INVITE; music stops.
    #[track_caller]
    pub fn caller_moves(&mut self) -> Got {
        let offer = self.caller.expect(&mut self.bench, "INVITE");
        let sdp = self.caller.sdp();
        self.caller.answer(&mut self.bench, &offer, 200, &sdp);
        self.caller.expect(&mut self.bench, "ACK");
        offer
    }

    #[track_caller]
    pub fn media_bye(&mut self) {
        let bye = self.media.expect(&mut self.bench, "BYE");
        self.media.answer(&mut self.bench, &bye, 200, "");
    }

    /// Caller and Ann talk, straight.
    #[track_caller]
    pub fn talk_straight(&mut self) {
        self.call();
        let invite = self.ann_rings();
        self.caller.expect(&mut self.bench, "180");
        self.ann_answers(&invite);
        self.caller_acks();
    }

    /// Ann logs in and takes the waiting caller.
    #[track_caller]
    pub fn talk_from_queue(&mut self) {
        self.bench.login("ann", true);
        let invite = self.ann_rings();
        self.ann_answers(&invite);
        self.caller_moves();
        self.media_bye();
    }

    /// The caller hangs up a call that has an agent.
    #[track_caller]
    pub fn caller_hangs_up_on_ann(&mut self) {
        self.caller_hangs_up();
        let bye = self.ann.expect(&mut self.bench, "BYE");
        self.ann.answer(&mut self.bench, &bye, 200, "");
    }

    #[track_caller]
    pub fn caller_hangs_up(&mut self) {
        self.caller.send(&mut self.bench, "BYE", "");
        self.caller.expect(&mut self.bench, "200");
    }

    /// The caller waits with music and hangs up.
    #[track_caller]
    pub fn caller_leaves_queue(&mut self) {
        self.caller_hangs_up();
        self.media_bye();
    }

    #[track_caller]
    pub fn ann_hangs_up(&mut self) {
        self.ann.send(&mut self.bench, "BYE", "");
        self.ann.expect(&mut self.bench, "200");
    }

    #[track_caller]
    pub fn caller_bye(&mut self) {
        let bye = self.caller.expect(&mut self.bench, "BYE");
        self.caller.answer(&mut self.bench, &bye, 200, "");
    }

    pub fn ann_state(&self) -> AgentState {
        self.bench.agent_state("ann")
    }

    /// The records so far, and none besides.
    #[track_caller]
    pub fn assert_cdrs(&self, want: &[&str]) {
        let got: Vec<String> = self.bench.cdrs.iter().map(cdr_line).collect();
        assert_eq!(got, want, "{}", self.bench.ladder());
    }

    /// Calls received, distributed, answered, abandoned of flow `sales`.
    #[track_caller]
    pub fn assert_counts(&self, want: [i64; 4]) {
        let b = &self.bench;
        let got = [
            b.flow_count("sales", |f| f.incalls.get()),
            b.flow_count("sales", |f| f.distributed.get()),
            b.flow_count("sales", |f| f.answered.get()),
            b.flow_count("sales", |f| f.abandoned.get()),
        ];
        assert_eq!(got, want, "incalls, distributed, answered, abandoned\n{}", b.ladder());
    }

    /// The state of the only call.
    pub fn state(&mut self) -> CallState {
        let calls = self.bench.calls();
        assert_eq!(calls.len(), 1, "{calls:?}");
        calls[0].state
    }

    /// On hold, queued of flow `sales`.
    pub fn gauges(&self) -> (i64, i64) {
        (self.bench.flow_count("sales", |f| f.onhold.get()), self.bench.flow_count("sales", |f| f.queued.get()))
    }

    /// Nothing is left, and nobody got anything more.
    #[track_caller]
    pub fn assert_rest(&mut self) {
        self.bench.assert_rest();
        for phone in [&mut self.caller, &mut self.media, &mut self.news, &mut self.ann, &mut self.bob] {
            phone.expect_nothing(&mut self.bench);
        }
    }
}
