//! The cast of chats: callers, a message server, and agents' clients with several dialogs each.

use super::scene::{ANN, BOB, MEDIA};
use super::{Bench, Got, Phone, START_UNIX_US, cdr_line, chatter, flow};
use std::sync::Arc;
use strowger_dispatch::{AgentState, ChatPolicy};
use strowger_engine::cdr::CdrMedia;
use strowger_engine::control::AgentReport;
use strowger_engine::registry::{AgentRow, FlowRow};
use strowger_engine::{EngineConfig, FlowDef};

/// Flow `sales`, its callers, and its agents' clients.
pub struct Chats {
    pub bench: Bench,
    pub media: Phone,
}

/// One chat with its agent's client.
pub struct Chat {
    pub caller: Phone,
    pub agent: Phone,
}

/// Ann and Bob for `sales`: two chats each, Bob logged out. Wrap-up 2 s.
pub fn chats(change: impl FnOnce(&mut EngineConfig, &mut Vec<FlowRow>, &mut Vec<AgentRow>)) -> Chats {
    chats_by(ChatPolicy::Balancing, change)
}

pub fn chats_by(
    policy: ChatPolicy,
    change: impl FnOnce(&mut EngineConfig, &mut Vec<FlowRow>, &mut Vec<AgentRow>),
) -> Chats {
    let mut agents = vec![chatter("ann", ANN, "sales", 2), chatter("bob", BOB, "sales", 2)];
    agents[1].logstate = Some(0);
    let mut bench = Bench::with_policy(policy, &mut vec![flow("sales", "sales")], &mut agents, |cfg, flows, agents| {
        cfg.call.reject_on_no_agents = false;
        cfg.call.wrapup_us = 2_000_000;
        cfg.call.session_expires_s = 0;
        change(cfg, flows, agents);
    });
    let mut media = bench.phone("media", MEDIA);
    media.chats = true;
    Chats { bench, media }
}

impl Chats {
    /// A caller who wants a chat, numbered.
    pub fn caller(&mut self, n: u8) -> Phone {
        let mut caller = self.bench.phone(&format!("c{n}"), &format!("10.0.2.{n}:5060"));
        caller.chats = true;
        caller
    }

    pub fn asks(&mut self, n: u8) -> Phone {
        let mut caller = self.caller(n);
        let sdp = caller.sdp();
        caller.invite(&mut self.bench, "sales", &sdp);
        caller.expect(&mut self.bench, "100");
        caller
    }

    /// Waits with the flow's message.
    #[track_caller]
    pub fn waits(&mut self, n: u8) -> Phone {
        let mut caller = self.asks(n);
        self.music_for(&mut caller);
        caller
    }

    /// The caller is connected to the flow's message.
    #[track_caller]
    pub fn music_for(&mut self, caller: &mut Phone) {
        let invite = self.media.expect(&mut self.bench, "INVITE");
        let sdp = self.media.sdp();
        self.media.answer(&mut self.bench, &invite, 200, &sdp);
        self.media.expect(&mut self.bench, "ACK");
        caller.expect(&mut self.bench, "200");
        caller.ack(&mut self.bench, "");
    }

    /// A client of that agent's for one more chat.
    pub fn client(&mut self, agent: &str) -> Phone {
        let mut client = self.bench.phone(agent, if agent == "ann" { ANN } else { BOB });
        client.chats = true;
        client
    }

    /// The agent's client rings, for a caller of that name.
    #[track_caller]
    pub fn rings(&mut self, agent: &str, caller: &str) -> (Phone, Got) {
        let mut client = self.client(agent);
        let invite = client.expect(&mut self.bench, "INVITE");
        assert_eq!(invite.sdp('s'), caller);
        (client, invite)
    }

    /// A chat straight with the agent.
    #[track_caller]
    pub fn chat(&mut self, n: u8, agent: &str) -> Chat {
        let mut caller = self.asks(n);
        let (mut agent, invite) = self.rings(agent, &format!("c{n}"));
        let sdp = agent.sdp();
        agent.answer(&mut self.bench, &invite, 200, &sdp);
        agent.expect(&mut self.bench, "ACK");
        caller.expect(&mut self.bench, "200");
        caller.ack(&mut self.bench, "");
        Chat { caller, agent }
    }

    /// The waiting caller's chat: the client answers, the caller moves over.
    #[track_caller]
    pub fn chat_of(&mut self, mut caller: Phone, agent: &str) -> Chat {
        let (mut agent, invite) = self.rings(agent, &caller.name.clone());
        let sdp = agent.sdp();
        agent.answer(&mut self.bench, &invite, 200, &sdp);
        agent.expect(&mut self.bench, "ACK");
        let offer = caller.expect(&mut self.bench, "INVITE");
        let sdp = caller.sdp();
        caller.answer(&mut self.bench, &offer, 200, &sdp);
        caller.expect(&mut self.bench, "ACK");
        self.media_bye();
        Chat { caller, agent }
    }

    #[track_caller]
    pub fn media_bye(&mut self) {
        let bye = self.media.expect(&mut self.bench, "BYE");
        self.media.answer(&mut self.bench, &bye, 200, "");
    }

    #[track_caller]
    pub fn caller_ends(&mut self, chat: &mut Chat) {
        chat.caller.send(&mut self.bench, "BYE", "");
        chat.caller.expect(&mut self.bench, "200");
        let bye = chat.agent.expect(&mut self.bench, "BYE");
        chat.agent.answer(&mut self.bench, &bye, 200, "");
    }

    #[track_caller]
    pub fn leaves_queue(&mut self, caller: &mut Phone) {
        caller.send(&mut self.bench, "BYE", "");
        caller.expect(&mut self.bench, "200");
        self.media_bye();
    }

    #[track_caller]
    pub fn refuses(&mut self, client: &mut Phone, invite: &Got) {
        client.answer(&mut self.bench, invite, 486, "");
        client.expect(&mut self.bench, "ACK");
    }

    /// The agent's state, open chats, and whether a slot is withheld.
    pub fn at(&self, id: &str) -> (AgentState, u8, bool) {
        let view = self.bench.dispatch.agent(self.bench.registry.agent(id).unwrap()).unwrap();
        (view.state, view.chats_open, view.slot_withheld)
    }

    /// What was reported of agents since the last time; seconds since the start.
    pub fn events(&mut self) -> Vec<String> {
        let since = |s: u64| s - START_UNIX_US / 1_000_000;
        let name = |flow: &Option<Arc<FlowDef>>| flow.as_ref().map_or("-".to_owned(), |f| f.flowid.to_string());
        let tell = |state: &AgentReport| match state {
            AgentReport::Offline => "offline".to_owned(),
            AgentReport::Free => "free".to_owned(),
            AgentReport::InCall { flow } => format!("incall {}", name(flow)),
            AgentReport::InChat { flow, ongoing_sessions, wrapup_ends_unix_s } => {
                let ends = wrapup_ends_unix_s.map(|s| format!(" until {}", since(s))).unwrap_or_default();
                format!("inchat {} {ongoing_sessions}{ends}", name(flow))
            }
            AgentReport::Wrapup { ends_unix_s } => format!("wrapup until {}", since(*ends_unix_s)),
        };
        self.bench.events.drain(..).map(|e| format!("{} {}", e.agent.agentid, tell(&e.state))).collect()
    }

    #[track_caller]
    pub fn assert_cdrs(&self, want: &[&str]) {
        let got: Vec<String> = self.bench.cdrs.iter().map(cdr_line).collect();
        assert_eq!(got, want, "{}", self.bench.ladder());
        assert!(self.bench.cdrs.iter().all(|c| c.media == CdrMedia::Chat));
    }

    #[track_caller]
    pub fn nobody_rings(&mut self) {
        for client in ["ann", "bob"] {
            self.client(client).expect_nothing(&mut self.bench);
        }
    }

    /// A caller leaves while its agent rings: the slot is back as soon as the client has ended the dialog.
    pub fn gives_up(&mut self, mut caller: Phone, client: &mut Phone, invite: &Got) {
        client.answer(&mut self.bench, invite, 180, "");
        caller.expect(&mut self.bench, "180");
        caller.cancel(&mut self.bench);
        let cancel = client.expect(&mut self.bench, "CANCEL");
        client.answer(&mut self.bench, &cancel, 200, "");
        client.answer(&mut self.bench, invite, 487, "");
        client.expect(&mut self.bench, "ACK");
    }
}
