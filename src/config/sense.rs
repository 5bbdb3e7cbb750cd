//! What values must be beyond their types, alone and together: a configuration that loads is one that works.

use super::value::OnStop;
use super::{Config, Listen};
use std::collections::BTreeSet;

/// Something about one key.
pub(super) struct Finding {
    pub section: &'static str,
    pub key: &'static str,
    pub what: String,
}

/// Everything found.
#[derive(Default)]
pub(super) struct Findings {
    pub faults: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

impl Findings {
    fn fault(&mut self, section: &'static str, key: &'static str, what: impl Into<String>) {
        self.faults.push(Finding { section, key, what: what.into() });
    }
}

/// Checks everything, and settles what one key says of another.
pub(super) fn check(c: &mut Config) -> Findings {
    let mut found = Findings::default();
    listeners(c, &mut found);
    sip(c, &mut found);
    headers(c, &mut found);
    tables(c, &mut found);
    if !c.call_center.queue_pos_param.is_empty() && !super::value::is_token(&c.call_center.queue_pos_param) {
        found.fault("call_center", "queue_pos_param", "cannot name a URI parameter; use letters, digits and dashes");
    }
    if !is_log_filter(&c.log.level) {
        found.fault("log", "level", "is not a level or filter; use error, warn, info, debug or trace");
    }
    if c.mi.http_path.0 == "/healthz" {
        found.fault("mi", "http_path", "/healthz is taken by the health check; choose another, such as /mi");
    }
    if c.metrics.enabled.0 && ["/healthz", &c.mi.http_path.0].contains(&&*c.metrics.path.0) {
        let what = format!("{} is taken already; choose another, such as /metrics", c.metrics.path.0);
        found.fault("metrics", "path", what);
    }
    if c.server.on_stop.0 == OnStop::Leave && !c.journal.enabled.0 {
        found.fault("server", "on_stop", "\"leave\" needs the journal; set [journal] enabled = 1");
    }
    if c.call_center.rt_db_url.is_some() && !c.journal.enabled.0 {
        let what = "does nothing: cc_calls is kept from the journal; set [journal] enabled = 1".to_owned();
        found.warnings.push(Finding { section: "call_center", key: "rt_db_url", what });
    }
    if !c.call_center.b2b_scenario.is_empty() {
        let what = "does nothing: scenarios are built in; remove the key".to_owned();
        found.warnings.push(Finding { section: "call_center", key: "b2b_scenario", what });
    }
    found
}

fn listeners(c: &Config, found: &mut Findings) {
    if c.sip.listen.is_empty() {
        found.fault("sip", "listen", "no listener; name at least one, such as \"udp:0.0.0.0:5060\"");
    }
    let mut seen: Vec<&Listen> = vec![];
    for l in c.sip.listen.iter().filter(|l| l.addr.port() != 0) {
        if seen.contains(&l) {
            found.fault("sip", "listen", format!("{l} is there twice; keep one"));
        }
        seen.push(l);
    }
    if c.sip.advertise.is_some_and(|a| a.ip.is_unspecified()) {
        found.fault("sip", "advertise", "peers cannot send to a wildcard; name one address, such as 192.0.2.1");
    }
    let (base, shards) = (c.sip.shard_port_base.0, c.shard_count());
    if base != 0 && base + u64::from(shards) > 65_536 {
        let most = 65_536 - u64::from(shards);
        found.fault(
            "sip",
            "shard_port_base",
            format!("leaves no port for each of {shards} shards; use at most {most}"),
        );
    }
}

fn sip(c: &Config, found: &mut Findings) {
    if c.sip.min_se.0 > c.sip.session_expires.0 {
        found.fault("sip", "min_se", "is greater than session_expires; make it at most as long");
    }
    if c.sip.overload_retry_after_min.0 > c.sip.overload_retry_after_max.0 {
        let what = "is greater than overload_retry_after_max; make it at most as great";
        found.fault("sip", "overload_retry_after_min", what);
    }
    let proxy = &c.sip.outbound_proxy;
    if !proxy.is_empty()
        && (!proxy.starts_with("sip:") || proxy.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        found.fault("sip", "outbound_proxy", "is not a SIP URI; write sip:HOST or sip:HOST:PORT");
    }
    if c.sip.user_agent.contains(char::is_control) {
        found.fault("sip", "user_agent", "holds a line break or another control character; remove it");
    }
}

/// Headers of which each INVITE has the server's own (RFC 3261 section 20, RFC 4028), and their compact forms.
const OURS: [&str; 29] = [
    "allow",
    "call-id",
    "contact",
    "content-encoding",
    "content-length",
    "content-type",
    "cseq",
    "from",
    "max-forwards",
    "min-se",
    "proxy-require",
    "record-route",
    "require",
    "route",
    "server",
    "session-expires",
    "supported",
    "to",
    "user-agent",
    "via",
    "c",
    "e",
    "f",
    "i",
    "k",
    "l",
    "m",
    "t",
    "v",
];

fn headers(c: &mut Config, found: &mut Findings) {
    for h in &c.sip.pass_headers {
        let name = h.strip_suffix('*').unwrap_or(h);
        if !super::value::is_token(name) || name.contains('*') {
            let what = format!("`{h}` is no header; write a name such as x-account, or the start of names such as x-*");
            found.fault("sip", "pass_headers", what);
        } else if is_ours(h) {
            found.fault("sip", "pass_headers", format!("`{h}` cannot pass: the server writes its own; remove it"));
        }
    }
    let taken = |name: &str| format!("`{name}` is a header that the server writes itself; use one of your own, X-NAME");
    if is_ours(&c.call_center.param_header.0) {
        found.fault("call_center", "param_header", taken(&c.call_center.param_header.0));
    }
    let ctx = c.call_center.b2b_logic_ctx_param.clone();
    if ctx != "call_center" {
        match format!("X-{ctx}").parse() {
            Ok(header) if !ctx.is_empty() => {
                let own = &c.call_center.param_header;
                if *own != super::CallCenter::default().param_header && *own != header {
                    let what = format!("makes the header `{header}`, and param_header says `{own}`; keep one");
                    found.fault("call_center", "b2b_logic_ctx_param", what);
                }
                c.call_center.param_header = header;
            }
            _ => {
                let what = "cannot name a SIP header; use letters, digits and dashes";
                found.fault("call_center", "b2b_logic_ctx_param", what);
            }
        }
    }
}

/// Whether the name, or the pattern `START*`, takes in a header of ours.
fn is_ours(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    match name.strip_suffix('*') {
        Some(start) => OURS.iter().any(|o| o.starts_with(start)),
        None => OURS.contains(&name.as_str()),
    }
}

/// Two columns of one name, or two tables, would read one thing as another.
fn tables(c: &Config, found: &mut Findings) {
    let names = crate::store::names::Names::of(&c.call_center);
    for (table, columns) in [(&names.flows, &names.flow_columns), (&names.agents, &names.agent_columns)] {
        let mut seen = BTreeSet::from(["id".to_owned()]);
        for column in columns {
            if !seen.insert(column.name.to_ascii_lowercase()) {
                let what = format!("`{}` is another column of `{table}` already; name each once", column.name);
                found.fault("call_center", column.key, what);
            }
        }
    }
    let mut seen = ["version", "cc_cdrs", "cc_calls", "strowger_cdrs", "strowger_calls"].map(str::to_owned).to_vec();
    for (key, table) in [("cc_agents_table", &names.agents), ("cc_flows_table", &names.flows)] {
        let lower = table.to_ascii_lowercase();
        if seen.contains(&lower) {
            found.fault("call_center", key, format!("`{table}` is another table already; name each once"));
        }
        seen.push(lower);
    }
}

/// A level, or directives of targets and levels. A lone word that is no level would name a target, and so turn every
/// log off: it is a slip of the pen.
fn is_log_filter(level: &str) -> bool {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let word = |d: &str| d.contains('=') || LEVELS.iter().any(|l| l.eq_ignore_ascii_case(d.trim()));
    level.split(',').all(word) && tracing_subscriber::EnvFilter::try_new(level).is_ok()
}
