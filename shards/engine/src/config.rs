//! What an engine is told at its start. Plain values; the configuration file is read elsewhere.

use crate::{BucketTable, Rules};
use std::sync::Arc;
use strowger_sip::endpoint::{EndpointConfig, ListenerInfo};
use strowger_sip::hash::HashKey;
use strowger_sip::msg::Method;

/// All of one process's settings that its engines need.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    pub endpoint: Arc<EndpointConfig>,
    pub buckets: Arc<BucketTable>,
    /// Key of the Call-ID hash, kept with the data.
    pub key: HashKey,
    pub call: CallConfig,
}

impl EngineConfig {
    /// The endpoint's settings with what this engine can do: its methods and option tags.
    #[must_use]
    pub fn endpoint(listeners: Vec<ListenerInfo>) -> EndpointConfig {
        use Method::{Ack, Bye, Cancel, Info, Invite, Message, Notify, Options, Update};
        EndpointConfig {
            listeners,
            allow: vec![Invite, Ack, Cancel, Bye, Options, Update, Info, Message, Notify],
            supported: vec!["timer".to_owned()],
            ..EndpointConfig::default()
        }
    }
}

/// How calls are handled (spec: call-center.md "Configuration", sip.md "Legs and bridging"). Times in microseconds.
#[derive(Debug, Clone)]
pub struct CallConfig {
    /// Global wrap-up, where the agent has none of its own.
    pub wrapup_us: u64,
    /// No answer from an agent within this counts as a rejection.
    pub agent_ring_timeout_us: u64,
    /// An agent's hang-up within this after the answer counts as a rejection.
    pub min_talk_us: u64,
    /// Pause before an agent whose wrap-up is 0 is offered a call again after a refusal; at least 10 ms are kept.
    pub reject_backoff_us: u64,
    /// Misses in a row after which an agent is logged out; 0 = never.
    pub max_no_answer: u32,
    /// Refuse a call when no agent of the flow's skill is logged in.
    pub reject_on_no_agents: bool,
    pub refusals: Refusals,
    /// What becomes of a new request; each engine takes a clone.
    pub rules: Rules,
    /// Name of the header that carries the opaque parameter of a call.
    pub param_header: String,
    /// URI parameter that tells the media server the queue position.
    pub queue_pos_param: Option<String>,
    pub agent_offer: AgentOffer,
    /// RFC 4028 intervals, seconds.
    pub session_expires_s: u32,
    pub min_se_s: u32,
    /// Whether a 3xx from an agent is followed instead of counting as a rejection.
    pub follow_redirects: bool,
    /// Pause before a failed music server is tried again.
    pub media_retry_us: u64,
    /// Headers copied from the caller's INVITE to the agent's (lower-case names; `x-*` = all X- headers).
    pub pass_headers: Vec<String>,
    /// Where every request goes instead of its Request-URI's host (`sip:host[:port]`).
    pub outbound_proxy: Option<String>,
    /// Most calls at once on one shard; more are refused with 503.
    pub max_calls: u32,
}

impl Default for CallConfig {
    fn default() -> CallConfig {
        CallConfig {
            wrapup_us: 30_000_000,
            agent_ring_timeout_us: 30_000_000,
            min_talk_us: 1_000_000,
            reject_backoff_us: 1_000_000,
            max_no_answer: 0,
            reject_on_no_agents: true,
            refusals: Refusals::default(),
            rules: Rules::default(),
            param_header: "X-CC-Param".to_owned(),
            queue_pos_param: None,
            agent_offer: AgentOffer::Auto,
            session_expires_s: 1800,
            min_se_s: 90,
            follow_redirects: false,
            media_retry_us: 2_000_000,
            pass_headers: ["p-asserted-identity", "privacy", "history-info", "diversion", "user-to-user", "x-*"]
                .map(str::to_owned)
                .to_vec(),
            outbound_proxy: None,
            max_calls: 1_000_000,
        }
    }
}

/// SIP answers to a call that is refused at its arrival, by the reference's return codes -1 to -7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusals {
    pub no_flow_id: u16,
    pub bad_from: u16,
    pub unknown_flow: u16,
    pub no_agents: u16,
    pub internal: u16,
    pub bad_sdp: u16,
    pub bad_media: u16,
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals {
            no_flow_id: 404,
            bad_from: 400,
            unknown_flow: 404,
            no_agents: 480,
            internal: 500,
            bad_sdp: 488,
            bad_media: 488,
        }
    }
}

/// What the INVITE to an agent carries (spec: sip.md, "From a message to an agent").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentOffer {
    /// The caller's latest session description.
    Caller,
    /// Nothing: the agent offers, RFC 3725 flow I.
    Delayed,
    /// `Caller` for plain RTP, `Delayed` where an answer cannot serve as an offer.
    #[default]
    Auto,
}
