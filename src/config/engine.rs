//! The configuration as the engines want it.

use super::Config;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use strowger_engine::{CallConfig, EngineConfig, Refusals};
use strowger_runtime::{ListenerSpec, OverloadConfig, SourceRate};
use strowger_sip::endpoint::{EndpointConfig, ListenerInfo};
use strowger_sip::msg::Limits;

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
            rules: self.routing_rules(),
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

    /// What to listen on.
    #[must_use]
    pub fn listeners(&self) -> Vec<ListenerSpec> {
        let base = Some(self.sip.shard_port_base.u16()).filter(|p| *p != 0);
        let spec = |l: &super::Listen| ListenerSpec { transport: l.transport, addr: l.addr, shard_port_base: base };
        self.sip.listen.iter().map(spec).collect()
    }

    /// How SIP is spoken; `bound` are the listeners' addresses with their ports.
    #[must_use]
    pub fn endpoint_config(&self, bound: &[SocketAddr]) -> EndpointConfig {
        let info = |(listen, addr): (&super::Listen, &SocketAddr)| {
            let shown = self.advertised(*addr).to_string();
            ListenerInfo { transport: listen.transport, via: shown.clone(), contact_host: shown }
        };
        EndpointConfig {
            t1_us: self.sip.t1_ms.0 * 1000,
            t2_us: self.sip.t2_ms.0 * 1000,
            t4_us: self.sip.t4_ms.0 * 1000,
            limits: Limits {
                max_message: self.sip.max_message_size.usize(),
                max_headers: self.sip.max_headers.usize(),
            },
            user_agent: self.sip.user_agent.clone(),
            ..EngineConfig::endpoint(self.sip.listen.iter().zip(bound).map(info).collect())
        }
    }

    /// What to do when there is too much.
    #[must_use]
    pub fn overload_config(&self) -> OverloadConfig {
        let sip = &self.sip;
        let rate = SourceRate { per_second: sip.source_rate.u32(), burst: sip.source_burst.u32() };
        OverloadConfig {
            code: sip.overload_code.u16(),
            retry_after_s: (sip.overload_retry_after_min.u32(), sip.overload_retry_after_max.u32()),
            max_age_us: sip.overload_max_age_ms.0 * 1000,
            backlog: sip.overload_backlog.usize(),
            cdr_backlog: self.cdr.shard_backlog.usize(),
            source_rate: Some(rate).filter(|r| r.per_second > 0),
        }
    }

    /// The address that peers are told: what is configured; on a wildcard, the one that routes lead from.
    fn advertised(&self, addr: SocketAddr) -> SocketAddr {
        match self.sip.advertise {
            Some(a) => SocketAddr::new(a.ip, if a.port == 0 { addr.port() } else { a.port }),
            None if addr.ip().is_unspecified() => SocketAddr::new(routed_from(addr.ip().is_ipv4()), addr.port()),
            None => addr,
        }
    }
}

/// Our address on the default route (nothing is sent), else loopback.
fn routed_from(v4: bool) -> IpAddr {
    // Documentation addresses (RFC 5737, RFC 3849): routed like any other.
    let (any, far) = if v4 { ("0.0.0.0:0", "192.0.2.1:9") } else { ("[::]:0", "[2001:db8::1]:9") };
    let found = UdpSocket::bind(any).and_then(|s| s.connect(far).and_then(|()| s.local_addr()));
    let loopback = if v4 { IpAddr::from([127, 0, 0, 1]) } else { IpAddr::from(std::net::Ipv6Addr::LOCALHOST) };
    found.map_or(loopback, |a| a.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_the_file_are_the_defaults_of_the_engine() {
        assert_eq!(format!("{:?}", Config::default().call_config()), format!("{:?}", CallConfig::default()));
    }

    #[test]
    fn the_defaults_of_the_file_are_the_defaults_of_the_runtime() {
        assert_eq!(format!("{:?}", Config::default().overload_config()), format!("{:?}", OverloadConfig::default()));
    }

    #[test]
    fn keys_of_the_manuals_reach_the_engine() {
        let read =
            |key: &str| Config::from_text("", &format!("[call_center]\n{key}"), &[]).unwrap().config.call_config();
        assert_eq!(read("wrapup_time = 45").wrapup_us, 45_000_000);
        assert_eq!(read("queue_pos_param = \"cc_pos\"").queue_pos_param.as_deref(), Some("cc_pos"));
        assert!(!read("reject_on_no_agents = 0").reject_on_no_agents);
        assert_eq!(read("b2b_logic_ctx_param = \"b2b_callid\"").param_header, "X-b2b_callid");
        let codes: Vec<String> =
            ["no_flow_id", "bad_from", "unknown_flow", "no_agents", "internal", "bad_sdp", "bad_media"]
                .iter()
                .zip(601..)
                .map(|(key, code)| format!("{key} = {code}\n"))
                .collect();
        let text = format!("[refusals]\n{}", codes.concat());
        let refusals = Config::from_text("", &text, &[]).unwrap().config.call_config().refusals;
        let expected = Refusals {
            no_flow_id: 601,
            bad_from: 602,
            unknown_flow: 603,
            no_agents: 604,
            internal: 605,
            bad_sdp: 606,
            bad_media: 607,
        };
        assert_eq!(refusals, expected);
    }

    #[test]
    fn peers_are_told_the_advertised_address() {
        let told = |listen: &str, advertise: &str| {
            let text = format!("[sip]\nlisten = \"udp:{listen}\"\nadvertise = \"{advertise}\"");
            let config = Config::from_text("", &text, &[]).unwrap().config;
            config.endpoint_config(&[listen.parse().unwrap()]).listeners[0].via.clone()
        };
        assert_eq!(told("10.0.0.1:5060", ""), "10.0.0.1:5060");
        assert_eq!(told("0.0.0.0:5062", "192.0.2.7"), "192.0.2.7:5062");
        assert_eq!(told("0.0.0.0:5062", "192.0.2.7:5060"), "192.0.2.7:5060");
        assert_eq!(told("[::1]:5062", "2001:db8::7"), "[2001:db8::7]:5062");
        assert!(!told("0.0.0.0:5062", "").starts_with("0.0.0.0"));
    }
}
