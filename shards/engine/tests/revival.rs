//! Every flow test once more, with the process killed after every input and restored from its journal: see `ladder/reborn.rs`.

#![allow(clippy::duplicate_mod, reason = "each file is a test binary of its own, too")]

#[path = "crossings.rs"]
mod crossings;
#[path = "flows.rs"]
mod flows;
#[path = "flows_agent.rs"]
mod flows_agent;
#[path = "flows_bridge.rs"]
mod flows_bridge;
#[path = "flows_caller.rs"]
mod flows_caller;
#[path = "flows_chat_changes.rs"]
mod flows_chat_changes;
#[path = "flows_chat_media.rs"]
mod flows_chat_media;
#[path = "flows_chats.rs"]
mod flows_chats;
#[path = "flows_dispatching.rs"]
mod flows_dispatching;
#[path = "flows_dissuading.rs"]
mod flows_dissuading;
#[path = "flows_headers.rs"]
mod flows_headers;
#[path = "flows_measures.rs"]
mod flows_measures;
#[path = "flows_media.rs"]
mod flows_media;
#[path = "flows_onhold.rs"]
mod flows_onhold;
#[path = "flows_peers.rs"]
mod flows_peers;
#[path = "flows_preagent.rs"]
mod flows_preagent;
#[path = "flows_queue.rs"]
mod flows_queue;
#[path = "flows_refusals.rs"]
mod flows_refusals;
#[path = "flows_reload.rs"]
mod flows_reload;
#[path = "flows_rules.rs"]
mod flows_rules;
#[path = "flows_sessions.rs"]
mod flows_sessions;
#[path = "flows_talk.rs"]
mod flows_talk;
#[path = "preagent_crossings.rs"]
mod preagent_crossings;
