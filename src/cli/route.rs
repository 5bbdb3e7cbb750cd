//! `strowger check --route`: which rule takes a request, with its captures, and what it would do. No call is made.

use super::check::CheckArgs;
use super::{Failure, say};
use crate::config::Config;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use strowger_dispatch::{ChatPolicy, Dispatch, Limits};
use strowger_engine::registry::{Registry, RegistryLimits, Rows};
use strowger_engine::rules::{Act, OnFailure, Request, Rule};
use strowger_engine::{FlowDef, Provisioning};
use strowger_sip::msg::{Limits as MessageLimits, Message};

/// Tries the rules; a failure when nothing takes the request.
pub(super) fn route(config: &Config, args: &CheckArgs, line: &str, rows: &Rows) -> Result<(), Failure> {
    let text = message(args, line)?;
    let parsed = Message::parse(text.as_bytes(), &MessageLimits::default());
    let msg = parsed.map_err(|e| Failure::Usage(format!("--route `{line}`: no request that could come: {e}")))?;
    msg.request_uri().map_err(|_| Failure::Usage(format!("--route `{line}`: the URI cannot be read")))?;
    let known = provisioning(rows);
    let tried = Tried { config, rows, known: &known };
    let source = args.source.unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let request = Request::new(&msg, source);
    let mut rules = config.routing_rules();
    if config.rules.is_empty() {
        say("no rules are written: the Request-URI user is the flow id");
    }
    let mut from = 0;
    while let Some(decision) = rules.next(from, &request) {
        let (index, on_failure) = (decision.index, decision.on_failure);
        let (does, outcome) = tried.act(&decision.act, &msg);
        from = index + 1;
        let name = rules.list()[index].name.clone();
        say(&format!("rule {from}{} matches", if name.is_empty() { String::new() } else { format!(" ({name})") }));
        for (number, name, taken) in rules.captures(index) {
            let name = name.map(|n| format!(" ${{{n}}}")).unwrap_or_default();
            say(&format!("  ${number}{name} = {}", taken.escape_debug()));
        }
        say(&format!("  {does}"));
        match (outcome, on_failure) {
            (None, _) => return Ok(()),
            (Some(_), OnFailure::Next) => say("  on_failure: the next rule is tried"),
            (Some(why), OnFailure::Code(code)) => {
                return Err(nothing(&format!("{why}; answered {code} by on_failure")));
            }
            (Some(why), OnFailure::Answer) => return Err(nothing(&why)),
        }
    }
    Err(nothing(if from == 0 { "no rule matches" } else { "no other rule matches" }))
}

/// Rules that name a flow or an agent outright that is not there.
pub(super) fn strangers(config: &Config, rows: &Rows) -> Vec<String> {
    let known = provisioning(rows);
    let stranger = |(i, rule): (usize, &Rule)| {
        let (what, id) = rule.names()?;
        let there = if what == "flow" { known.flow(&id).is_some() } else { known.agents_by_id.contains_key(&*id) };
        (!there).then(|| format!("[[rules]] {} {what}: there is no {what} `{id}`; add it, or the rule refuses", i + 1))
    };
    config.routing_rules().list().iter().enumerate().filter_map(stranger).collect()
}

fn nothing(why: &str) -> Failure {
    say(&format!("nothing takes it: {why}"));
    Failure::Told
}

/// The request as it would come.
fn message(args: &CheckArgs, line: &str) -> Result<String, Failure> {
    let usage = |what: String| Failure::Usage(what);
    let (method, uri) = match line.split_whitespace().collect::<Vec<_>>()[..] {
        [method, uri] => (method, uri),
        _ => {
            return Err(usage(format!(
                "--route `{line}` is not of the form \"METHOD URI\", such as \"INVITE sip:100@h\""
            )));
        }
    };
    let source = SocketAddr::new(args.source.unwrap_or(IpAddr::from([127, 0, 0, 1])), 5060);
    let party = |given: &Option<String>, default: &str| {
        let text = given.as_deref().unwrap_or(default);
        if text.contains('<') { text.to_owned() } else { format!("<{text}>") }
    };
    let from = party(&args.from, "sip:anonymous@anonymous.invalid");
    let to = party(&args.to, uri);
    let mut headers = String::new();
    for header in &args.header {
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| usage(format!("--header `{header}` is not of the form \"Name: value\"")))?;
        headers.push_str(&format!("{}: {}\r\n", name.trim(), value.trim()));
    }
    if [&from, &to].into_iter().chain(&args.header).any(|t| t.contains(char::is_control)) {
        return Err(usage("a header cannot hold a line break or another control character; remove it".to_owned()));
    }
    Ok(format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {source};branch=z9hG4bK-check\r\nMax-Forwards: 70\r\nFrom: {from};tag=check\r\nTo: {to}\r\nCall-ID: check@{}\r\nCSeq: 1 {method}\r\n{headers}Content-Length: 0\r\n\r\n",
        source.ip()
    ))
}

/// What the rows say, sound ones only.
fn provisioning(rows: &Rows) -> Arc<Provisioning> {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1);
    let agents = count(rows.agents.len());
    let skills = rows.agents.iter().filter_map(|a| a.skills.as_deref()).map(|s| s.split(',').count()).sum::<usize>();
    let skills = count(skills + rows.flows.len());
    let limits = Limits { shards: 1, agents, waiting_per_shard: 1, skills };
    let dispatch = Arc::new(Dispatch::new(limits, ChatPolicy::Balancing));
    let mut registry = Registry::new(dispatch.handle(1), RegistryLimits { flows: count(rows.flows.len()), skills });
    registry.load(rows).0
}

struct Tried<'a> {
    config: &'a Config,
    rows: &'a Rows,
    known: &'a Provisioning,
}

impl Tried<'_> {
    /// What an action does, in words, and why it cannot.
    fn act(&self, act: &Act<'_>, msg: &Message<'_>) -> (String, Option<String>) {
        match act {
            Act::HandleCall { flow, param } => {
                let id = String::from_utf8_lossy(flow);
                let param = param.as_ref().map(|p| format!(", param {p}")).unwrap_or_default();
                let (what, why) = self.call(&id, msg);
                (format!("handle_call: flow `{id}`{param}{what}"), why)
            }
            Act::AgentLogin { agent, on } => {
                let id = String::from_utf8_lossy(agent);
                let how = match on {
                    Some(true) => "in",
                    Some(false) => "out",
                    None => return (format!("agent_login: `{id}`"), Some("the state is no number (400)".to_owned())),
                };
                let unknown = !self.known.agents_by_id.contains_key(&*id);
                (format!("agent_login: logs `{id}` {how}"), unknown.then(|| format!("there is no agent `{id}` (404)")))
            }
            Act::Reject { code, reason } => {
                let reason = if reason.is_empty() { String::new() } else { format!(" {reason}") };
                (format!("reject: {code}{reason}"), Some(format!("rejected with {code}")))
            }
        }
    }

    /// The refusals of a call that can be told beforehand, in the engine's order.
    fn call(&self, id: &str, msg: &Message<'_>) -> (String, Option<String>) {
        let r = &self.config.refusals;
        let refused = |code: i32, sip: u64, what: &str| (String::new(), Some(format!("{what} ({code}: {sip})")));
        if id.is_empty() {
            return refused(-1, r.no_flow_id.0, "the flow id is empty");
        }
        if msg.from().and_then(|f| f.uri_parsed().map(|_| ())).is_err() {
            return refused(-2, r.bad_from.0, "the From header cannot be read");
        }
        let Some(flow) = self.known.flow(id) else {
            return refused(-3, r.unknown_flow.0, &format!("there is no flow `{id}`"));
        };
        let agents = self.agents(flow);
        let shown: Vec<String> =
            agents.iter().map(|(id, on)| format!("{id} ({})", if *on { "in" } else { "out" })).collect();
        let mut what = format!(
            "\n  found: skill {}, priority {}, agents by their logstate: {}",
            flow.skill_name,
            flow.priority,
            if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
        );
        if self.config.call_center.reject_on_no_agents.0 && !agents.iter().any(|(_, on)| *on) {
            what.push_str(&format!("\n  while none of them is logged in, it is answered {} (-4)", r.no_agents.0));
        }
        (what, None)
    }

    /// The agents that have the flow's skill, and whether their rows log them in.
    fn agents(&self, flow: &FlowDef) -> Vec<(String, bool)> {
        let skilled = |def: &&Arc<strowger_engine::AgentDef>| def.skills.contains(&flow.skill);
        let logged = |id: &str| {
            let row = self.rows.agents.iter().find(|r| r.agentid.as_deref().map(str::trim) == Some(id));
            row.and_then(|r| r.logstate).unwrap_or(0) != 0
        };
        let all = self.known.agents_by_id.values().filter_map(|a| self.known.agent(*a));
        all.filter(skilled).map(|def| (def.agentid.to_string(), logged(&def.agentid))).collect()
    }
}
