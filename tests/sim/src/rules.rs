//! Routing rules as operators write them, and beside each what it means, said in other words: plain string functions of what a
//! caller sends (call-center.md, "Routing rules" and "A call's life" 1). The engine compiles patterns; nothing here does.

use crate::plan::{MOST_AGENTS, MOST_FLOWS, flow_id};
use crate::rng::Rng;
use std::net::Ipv4Addr;
use strowger_engine::config::Refusals;
use strowger_engine::rules::{ActionDef, OnFailure, Rule, RuleDef, Rules};

/// What stands first in what a caller sends.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// MESSAGE instead of INVITE.
    pub message: bool,
    /// The user of the Request-URI, escaped as it is sent; none at all.
    pub user: Option<String>,
    /// Lines of `X-Tenant`.
    pub tenants: Vec<String>,
    /// Writes headers that only the engine writes.
    pub forges: bool,
    /// The From header holds no URI.
    pub bad_from: bool,
    pub body: Body,
}

/// The session description of an INVITE.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Body {
    /// As the caller's script says.
    #[default]
    Good,
    /// Its one stream is switched off.
    Unusable,
    /// Fax.
    Other,
}

/// Who asks: what a rule sees besides [`Asked`].
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    pub call: u32,
    pub ip: Ipv4Addr,
    /// Flow in the To header.
    pub to: u32,
}

#[derive(Debug, Clone)]
enum Shape {
    /// One user exactly; a fixed parameter.
    User(u32),
    /// `f*`: the user is the flow, what follows the `f` the parameter.
    Glob,
    /// `f1-who`: named captures.
    Named,
    /// Callers 0 to 15 by their network.
    Network(u32),
    /// Callers 10 to 19 by a glob over the address.
    Address(u32),
    /// A header, in whichever line.
    Tenant(u32),
    /// Callers 0 to 9 by their From.
    From(u32),
    To(u32),
    /// `*1*3` logs agent 3 in, `*0*3` out; by INVITE or MESSAGE.
    Feature,
    /// Users that begin with `z`.
    RejectUser(u16),
    RejectAll(u16),
    /// The user is the flow.
    Default,
}

/// A rule of a run.
#[derive(Debug, Clone)]
pub struct Drawn {
    shape: Shape,
    on_failure: OnFailure,
}

/// What a rule says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    Flow {
        id: String,
        param: Option<String>,
    },
    /// `on`: none when the state is no number.
    Login {
        agent: String,
        on: Option<bool>,
    },
    Reject(u16),
}

/// The rules of a run, in order.
#[derive(Debug, Clone, Default)]
pub struct Guide {
    pub drawn: Vec<Drawn>,
}

impl Guide {
    /// Rules for half of the runs.
    pub fn draw(r: &mut Rng) -> Guide {
        if !r.chance(500) {
            return Guide::default();
        }
        let mut drawn: Vec<Drawn> = (0..r.range(1, 6)).map(|_| Drawn::draw(r)).collect();
        if r.chance(700) {
            drawn.push(Drawn { shape: Shape::Default, on_failure: OnFailure::Answer });
        }
        Guide { drawn }
    }

    pub fn has_features(&self) -> bool {
        self.drawn.iter().any(|d| matches!(d.shape, Shape::Feature))
    }

    /// As the engine takes them; an error is the simulator's own.
    pub fn compiled(&self) -> Rules {
        let compiled = self.drawn.iter().map(|d| Rule::new(&d.written()));
        Rules::new(compiled.map(|r| r.unwrap_or_else(|faults| panic!("a drawn rule is wrong: {faults:?}"))).collect())
    }

    /// What the rules that match say, in order, with what follows a failure.
    pub fn says(&self, asked: &Asked, asker: Asker) -> Vec<(Says, OnFailure)> {
        let alone = [Drawn { shape: Shape::Default, on_failure: OnFailure::Answer }];
        let rules = if self.drawn.is_empty() { &alone } else { &self.drawn[..] };
        rules.iter().filter_map(|d| Some((d.shape.says(asked, asker)?, d.on_failure))).collect()
    }
}

/// Answers to the return codes -1 to -7: each another one in half of the runs, so that none is taken for another.
pub fn draw_refusals(r: &mut Rng) -> Refusals {
    if r.chance(500) {
        return Refusals::default();
    }
    Refusals {
        no_flow_id: 484,
        bad_from: 493,
        unknown_flow: 410,
        no_agents: 486,
        internal: 580,
        bad_sdp: 606,
        bad_media: 415,
    }
}

impl Asked {
    pub fn draw(r: &mut Rng, flow: u32) -> Asked {
        let agent = r.below(u64::from(MOST_AGENTS) + 1);
        let tail = *r.pick(&["gold", "", "a%20b", "x%0D%0AX-Evil%3A%20yes", "%C3%BC-$1"]);
        let user = match r.below(12) {
            0 | 1 => Some(format!("*{}*{agent}", *r.pick(&["1", "0", "0", "7", "-1", "x", ""]))),
            2 | 3 => Some(format!("f{flow}-{tail}")),
            4 => Some(format!("%66{flow}")),
            5 => Some(format!("F{flow}")),
            6 => Some("zz9".to_owned()),
            7 => None,
            _ => Some(format!("f{flow}")),
        };
        let mut tenants: Vec<String> = Vec::new();
        if r.chance(300) {
            tenants = ["other", "acme-7", "ACME-8"].iter().filter(|_| r.chance(500)).map(|t| (*t).to_owned()).collect();
        }
        Asked {
            message: r.chance(100),
            user,
            tenants,
            forges: r.chance(200),
            bad_from: r.chance(40),
            body: *r.pick(&[
                Body::Good,
                Body::Good,
                Body::Good,
                Body::Good,
                Body::Good,
                Body::Good,
                Body::Unusable,
                Body::Other,
            ]),
        }
    }

    /// The user as it is meant: `%66` is `f`.
    fn meant(&self) -> String {
        let mut bytes = Vec::new();
        let mut rest = self.user.as_deref().unwrap_or_default().bytes();
        while let Some(b) = rest.next() {
            let hex = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).unwrap_or(0) as u8;
            bytes.push(if b == b'%' { hex(rest.next()) * 16 + hex(rest.next()) } else { b });
        }
        String::from_utf8(bytes).unwrap_or_default()
    }

    /// Header lines beside those of every INVITE.
    pub fn lines(&self) -> String {
        let mut out: String = self.tenants.iter().map(|t| format!("X-Tenant: {t}\r\n")).collect();
        if self.forges {
            out.push_str("X-CC-Param: forged\r\nx-cc-state: forged\r\n");
        }
        out
    }
}

impl Drawn {
    fn draw(r: &mut Rng) -> Drawn {
        let flow = r.below(u64::from(MOST_FLOWS)) as u32;
        let code = *r.pick(&[403, 603, 480]);
        let shape = match r.below(14) {
            0 => Shape::User(flow),
            1 => Shape::Glob,
            2 | 3 => Shape::Named,
            4 => Shape::Network(flow),
            5 => Shape::Address(flow),
            6 => Shape::Tenant(flow),
            7 => Shape::From(flow),
            8 => Shape::To(flow),
            9..=11 => Shape::Feature,
            12 => Shape::RejectUser(code),
            _ if r.chance(300) => Shape::RejectAll(code),
            _ => Shape::Default,
        };
        let on_failure = *r.pick(&[OnFailure::Answer, OnFailure::Next, OnFailure::Next, OnFailure::Code(604)]);
        let rejects = matches!(shape, Shape::RejectUser(_) | Shape::RejectAll(_));
        Drawn { shape, on_failure: if rejects { OnFailure::Answer } else { on_failure } }
    }

    /// The rule in the words of the configuration.
    fn written(&self) -> RuleDef {
        let mut def = RuleDef { name: format!("{:?}", self.shape), ..RuleDef::default() };
        def.on_failure = match self.on_failure {
            OnFailure::Answer => String::new(),
            OnFailure::Next => "next".to_owned(),
            OnFailure::Code(code) => code.to_string(),
        };
        let call = |flow: &str, param: &str| ActionDef::HandleCall { flow: flow.to_owned(), param: param.to_owned() };
        let reject = |code: u16| ActionDef::Reject { code, reason: "Not Here".to_owned() };
        let (key, pattern, action) = match &self.shape {
            Shape::User(n) => (&mut def.ruri_user, format!("=f{n}"), call(&flow_id(*n), "costs $$5")),
            Shape::Glob => (&mut def.ruri_user, "f*".to_owned(), call("f$1", "$1")),
            Shape::Named => {
                let pattern = "~(?s)^(?P<dept>f[0-9])-(?P<who>.*)$".to_owned();
                (&mut def.ruri_user, pattern, call("${dept}", "${who} of ${from_user}"))
            }
            Shape::Network(n) => (&mut def.source, "10.3.0.0/28".to_owned(), call(&flow_id(*n), "${source}")),
            Shape::Address(n) => (&mut def.source, "10.3.0.1?".to_owned(), call(&flow_id(*n), "ten and $1")),
            Shape::Tenant(n) => (&mut def.header, "X-Tenant: acme-*".to_owned(), call(&flow_id(*n), "${header}|$1")),
            Shape::From(n) => (&mut def.from, "sip:c?@*".to_owned(), call(&flow_id(*n), "$2 $1")),
            Shape::To(n) => (&mut def.to, format!("sip:f{n}@*"), call(&flow_id(*n), "")),
            Shape::Feature => {
                def.method = "~^(INVITE|MESSAGE)$".to_owned();
                let action = ActionDef::AgentLogin { agent: "a$3".to_owned(), state: "$2".to_owned() };
                (&mut def.ruri_user, r"~^\*([^*]*)\*(.*)$".to_owned(), action)
            }
            Shape::RejectUser(code) => (&mut def.ruri_user, "z*".to_owned(), reject(*code)),
            Shape::RejectAll(code) => (&mut def.method, "INVITE".to_owned(), reject(*code)),
            Shape::Default => (&mut def.ruri_host, "10.0.0.1".to_owned(), call("${ruri_user}", "")),
        };
        *key = pattern;
        def.action = action;
        def
    }
}

impl Shape {
    /// What the rule says to this caller; nothing where it does not match.
    fn says(&self, asked: &Asked, asker: Asker) -> Option<Says> {
        let user = asked.user.is_some().then(|| asked.meant());
        let flow = |n: u32, param: String| Some(Says::Flow { id: flow_id(n), param: clean(&param) });
        if asked.message && !matches!(self, Shape::Feature) {
            return None;
        }
        let last = asker.ip.octets()[3];
        match self {
            Shape::User(n) if user.as_ref() == Some(&flow_id(*n)) => flow(*n, "costs $5".to_owned()),
            Shape::Glob => {
                let user = user?;
                let rest = user.strip_prefix('f')?;
                Some(Says::Flow { id: user.clone(), param: clean(rest) })
            }
            Shape::Named => {
                let user = user?;
                let (dept, who) = user.split_once('-')?;
                let digit =
                    dept.strip_prefix('f').is_some_and(|d| d.len() == 1 && d.bytes().all(|b| b.is_ascii_digit()));
                digit.then(|| Says::Flow { id: dept.to_owned(), param: clean(&format!("{who} of c{}", asker.call)) })
            }
            Shape::Network(n) if last < 16 => flow(*n, asker.ip.to_string()),
            Shape::Address(n) if (10..20).contains(&last) => flow(*n, format!("ten and {}", last % 10)),
            Shape::Tenant(n) => {
                let line = asked.tenants.iter().find(|t| t.starts_with("acme-"))?;
                flow(*n, format!("{line}|{}", &line[5..]))
            }
            Shape::From(n) if asker.call < 10 => flow(*n, format!("{} {}", asker.ip, asker.call)),
            Shape::To(n) if asker.to == *n => flow(*n, String::new()),
            Shape::Feature => {
                let user = user?;
                let (state, agent) = user.strip_prefix('*')?.split_once('*')?;
                let on = state.parse::<i32>().ok().map(|n| n != 0);
                Some(Says::Login { agent: format!("a{agent}"), on })
            }
            Shape::RejectUser(code) if user.as_ref()?.starts_with('z') => Some(Says::Reject(*code)),
            Shape::RejectAll(code) => Some(Says::Reject(*code)),
            Shape::Default => Some(Says::Flow { id: user.unwrap_or_default(), param: None }),
            _ => None,
        }
    }
}

/// A parameter as it may stand in a header; an empty one is none.
fn clean(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
