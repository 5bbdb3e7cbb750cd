//! The configuration as the engines want it.

use super::Config;
use strowger_engine::{CallConfig, Refusals};

impl Config {
    /// How calls are handled.
    #[must_use]
    pub fn call_config(&self) -> CallConfig {
        let (cc, sip, r) = (&self.call_center, &self.sip, &self.refusals);
        CallConfig {
            wrapup_us: cc.wrapup_time.us,
            agent_ring_timeout_us: cc.agent_ring_timeout.us,
            min_talk_us: cc.min_talk_time.us,
            reject_backoff_us: cc.reject_backoff.us,
            max_no_answer: cc.max_no_answer.u32(),
            reject_on_no_agents: cc.reject_on_no_agents.0,
            refusals: Refusals {
                no_flow_id: r.no_flow_id.u16(),
                bad_from: r.bad_from.u16(),
                unknown_flow: r.unknown_flow.u16(),
                no_agents: r.no_agents.u16(),
                internal: r.internal.u16(),
                bad_sdp: r.bad_sdp.u16(),
                bad_media: r.bad_media.u16(),
            },
            param_header: cc.param_header.0.clone(),
            queue_pos_param: Some(cc.queue_pos_param.clone()).filter(|p| !p.is_empty()),
            agent_offer: cc.agent_offer.0,
            session_expires_s: sip.session_expires.u32(),
            min_se_s: sip.min_se.u32(),
            follow_redirects: sip.follow_redirects.0,
            media_retry_us: cc.media_retry.us,
            pass_headers: sip.pass_headers.iter().map(|h| h.to_ascii_lowercase()).collect(),
            outbound_proxy: Some(sip.outbound_proxy.clone()).filter(|p| !p.is_empty()),
            max_calls: cc.max_calls.u32(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_the_file_are_the_defaults_of_the_engine() {
        assert_eq!(format!("{:?}", Config::default().call_config()), format!("{:?}", CallConfig::default()));
    }
}
