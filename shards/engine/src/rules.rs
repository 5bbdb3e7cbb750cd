//! Routing rules: what becomes of a request that begins something (spec: call-center.md "Routing rules").
//!
//! An ordered list; the first rule whose conditions all hold decides. [`Rules::next`] finds it, from a given place on, so
//! that a call that a flow refuses can try the rules behind (`on_failure = "next"`). The engine and `strowger check
//! --route` ask the same code. Sans-I/O.
//!
//! Invariants
//! - Rules are compiled at the start; matching takes time linear in what is matched, whatever a caller sends.
//! - Each shard has a clone of its own, with scratch for the captures: no lock, and no allocation but for a parameter.
//! - What a template takes from a request cannot begin a header line: control characters do not reach a parameter.

mod pattern;
mod request;
mod template;

pub use request::Request;

use pattern::Pattern;
use request::Field;
use strowger_sip::msg::Method;
use template::Template;

/// A rule as it is written. Conditions that are empty hold always.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleDef {
    /// For messages about it.
    pub name: String,
    /// `=TEXT` exact, `~REGEX` a regular expression, else a glob in which `*` and `?` capture and `\` escapes.
    pub method: String,
    pub ruri_user: String,
    pub ruri_host: String,
    /// The URI, as `sip:user@host`.
    pub from: String,
    pub to: String,
    /// `Name: PATTERN`.
    pub header: String,
    /// As above, or `ADDR/BITS`.
    pub source: String,
    pub action: ActionDef,
    /// `""` answers with the code of the refusal, `"next"` tries the next rule, else a SIP code.
    pub on_failure: String,
}

/// What a rule does, as it is written; the texts are templates with captures but for the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionDef {
    HandleCall { flow: String, param: String },
    AgentLogin { agent: String, state: String },
    Reject { code: u16, reason: String },
}

impl Default for RuleDef {
    /// The Request-URI's user is the flow id.
    fn default() -> RuleDef {
        RuleDef {
            name: String::new(),
            method: "INVITE".to_owned(),
            ruri_user: String::new(),
            ruri_host: String::new(),
            from: String::new(),
            to: String::new(),
            header: String::new(),
            source: String::new(),
            action: ActionDef::HandleCall { flow: "${ruri_user}".to_owned(), param: String::new() },
            on_failure: String::new(),
        }
    }
}

/// What is wrong with one key of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFault {
    pub key: &'static str,
    pub what: String,
}

/// What follows when the action of a rule cannot be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The answer that belongs to the refusal.
    Answer,
    /// The next rule that matches.
    Next,
    /// This SIP code.
    Code(u16),
}

/// A compiled rule.
#[derive(Debug, Clone)]
pub struct Rule {
    pub name: Box<str>,
    pub on_failure: OnFailure,
    conditions: Vec<Condition>,
    /// Names of the captures, in order; `None` where one has only its number.
    captures: Vec<Option<Box<str>>>,
    action: Action,
}

#[derive(Debug, Clone)]
struct Condition {
    field: Field,
    /// For [`Field::Header`].
    header: Box<str>,
    pattern: Pattern,
}

#[derive(Debug, Clone)]
enum Action {
    HandleCall { flow: Template, param: Option<Template> },
    AgentLogin { agent: Template, state: Template },
    Reject { code: u16, reason: Box<str> },
}

/// What the captures of the present rule took in.
#[derive(Debug, Clone, Default)]
struct Captured {
    bytes: Vec<u8>,
    /// By number from 1 on, as ranges of `bytes`; `None` where a group took no part.
    groups: Vec<Option<(usize, usize)>>,
    /// The value of the header that matched.
    header: Option<(usize, usize)>,
}

impl Captured {
    fn clear(&mut self) {
        self.bytes.clear();
        self.groups.clear();
        self.header = None;
    }

    fn keep(&mut self, bytes: &[u8]) -> (usize, usize) {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        (from, self.bytes.len())
    }

    fn get(&self, at: Option<(usize, usize)>) -> &[u8] {
        at.and_then(|(from, to)| self.bytes.get(from..to)).unwrap_or_default()
    }
}

/// The rules of a server, in order.
#[derive(Debug, Clone)]
pub struct Rules {
    rules: Vec<Rule>,
    captured: Captured,
    /// Scratch of rendered templates.
    first: Vec<u8>,
    second: Vec<u8>,
}

/// What a rule says to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Act<'r> {
    /// `cc_handle_call`. An id that is empty or unknown is for the caller of [`Rules::next`] to refuse.
    HandleCall {
        flow: &'r [u8],
        param: Option<Box<str>>,
    },
    /// `cc_agent_login`; `on` is `None` when the state is no number.
    AgentLogin {
        agent: &'r [u8],
        on: Option<bool>,
    },
    Reject {
        code: u16,
        reason: &'r str,
    },
}

/// A rule that matches.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision<'r> {
    /// Its place, from 0 on.
    pub index: usize,
    pub on_failure: OnFailure,
    pub act: Act<'r>,
}

impl Rules {
    /// These rules in this order; none stand for the one that takes the Request-URI's user as the flow id.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Rules {
        let rules = if rules.is_empty() { Rule::new(&RuleDef::default()).into_iter().collect() } else { rules };
        Rules { rules, ..Rules::nothing() }
    }

    /// No rule at all, and nothing allocated.
    pub(crate) const fn nothing() -> Rules {
        let captured = Captured { bytes: Vec::new(), groups: Vec::new(), header: None };
        Rules { rules: Vec::new(), captured, first: Vec::new(), second: Vec::new() }
    }

    /// The rules by their places.
    #[must_use]
    pub fn list(&self) -> &[Rule] {
        &self.rules
    }

    /// The first rule that matches, from place `from` on.
    pub fn next(&mut self, from: usize, request: &Request<'_>) -> Option<Decision<'_>> {
        let Rules { rules, captured, first, second } = self;
        let index = (from..rules.len()).find(|i| rules[*i].matches(request, captured))?;
        let rule = &rules[index];
        let act = match &rule.action {
            Action::HandleCall { flow, param } => {
                flow.render(request, captured, first);
                let param = param.as_ref().map(|p| {
                    p.render(request, captured, second);
                    header_text(second)
                });
                Act::HandleCall { flow: first, param: param.filter(|p| !p.is_empty()) }
            }
            Action::AgentLogin { agent, state } => {
                agent.render(request, captured, first);
                state.render(request, captured, second);
                Act::AgentLogin { agent: first, on: login_state(second) }
            }
            Action::Reject { code, reason } => Act::Reject { code: *code, reason },
        };
        Some(Decision { index, on_failure: rule.on_failure, act })
    }

    /// What the captures of the rule that [`Rules::next`] found took in: number, name, text.
    pub fn captures(&self, index: usize) -> impl Iterator<Item = (usize, Option<&str>, String)> + '_ {
        let names = self.rules.get(index).map_or(&[][..], |r| &r.captures);
        names.iter().enumerate().map(|(i, name)| {
            let taken = self.captured.get(self.captured.groups.get(i).copied().flatten());
            (i + 1, name.as_deref(), String::from_utf8_lossy(taken).into_owned())
        })
    }
}

impl Default for Rules {
    fn default() -> Rules {
        Rules::new(Vec::new())
    }
}

impl Rule {
    /// Compiles a rule.
    ///
    /// # Errors
    /// With every fault found, each with the key and the fix.
    pub fn new(def: &RuleDef) -> Result<Rule, Vec<RuleFault>> {
        let mut faults = vec![];
        let conditions = conditions(def, &mut faults);
        let captures: Vec<Option<Box<str>>> = conditions.iter().flat_map(|c| c.pattern.names()).collect();
        for (i, name) in captures.iter().enumerate() {
            if name.is_some() && captures[..i].contains(name) {
                let what = format!("two captures have the name `{}`; name each once", name.as_deref().unwrap_or(""));
                faults.push(RuleFault { key: "name", what });
            }
        }
        let has_header = conditions.iter().any(|c| c.field == Field::Header);
        let mut template = |key, text: &str| match Template::parse(text, &captures, has_header) {
            Ok(template) => template,
            Err(what) => {
                faults.push(RuleFault { key, what });
                Template::default()
            }
        };
        let action = match &def.action {
            ActionDef::HandleCall { flow, param } => Action::HandleCall {
                flow: template("flow", flow),
                param: (!param.is_empty()).then(|| template("param", param)),
            },
            ActionDef::AgentLogin { agent, state } => {
                Action::AgentLogin { agent: template("agent", agent), state: template("state", state) }
            }
            ActionDef::Reject { code, reason } => Action::Reject { code: *code, reason: reason.as_str().into() },
        };
        action.check(def, &mut faults);
        let on_failure = def.on_failure().unwrap_or_else(|what| {
            faults.push(RuleFault { key: "on_failure", what });
            OnFailure::Answer
        });
        if faults.is_empty() {
            Ok(Rule { name: def.name.as_str().into(), on_failure, conditions, captures, action })
        } else {
            Err(faults)
        }
    }

    /// The flow or agent that the rule names outright, with its key.
    #[must_use]
    pub fn names(&self) -> Option<(&'static str, String)> {
        match &self.action {
            Action::HandleCall { flow, .. } => flow.plain().map(|id| ("flow", id)),
            Action::AgentLogin { agent, .. } => agent.plain().map(|id| ("agent", id)),
            Action::Reject { .. } => None,
        }
    }

    fn matches(&mut self, request: &Request<'_>, captured: &mut Captured) -> bool {
        captured.clear();
        // Only an INVITE can become a call.
        let fits = !matches!(self.action, Action::HandleCall { .. }) || request.method() == Some(Method::Invite);
        fits && self.conditions.iter_mut().all(|c| c.holds(request, captured))
    }
}

impl Condition {
    fn holds(&mut self, request: &Request<'_>, captured: &mut Captured) -> bool {
        match self.field {
            Field::Header => request.headers(&self.header).any(|value| {
                let holds = self.pattern.matches(value, captured);
                if holds {
                    captured.header = Some(captured.keep(value));
                }
                holds
            }),
            Field::Source if self.pattern.is_network() => self.pattern.contains(request.source()),
            field => request.value(field).is_some_and(|value| self.pattern.matches(&value, captured)),
        }
    }
}

impl Action {
    /// What is wrong with the action as a whole.
    fn check(&self, def: &RuleDef, faults: &mut Vec<RuleFault>) {
        let mut fault = |key, what: &str| faults.push(RuleFault { key, what: what.to_owned() });
        match (self, &def.action) {
            (_, ActionDef::HandleCall { flow, .. }) if flow.is_empty() => {
                fault("flow", "is empty; name a flow, or take one from the request, such as \"${ruri_user}\"");
            }
            (_, ActionDef::AgentLogin { agent, .. }) if agent.is_empty() => {
                fault("agent", "is empty; name an agent, or take one from the request, such as \"$1\"");
            }
            (Action::AgentLogin { state: template, .. }, ActionDef::AgentLogin { state, .. })
                if template.plain().is_some() && login_state(state.as_bytes()).is_none() =>
            {
                fault("state", "is neither a number nor a capture; write 1 (in), 0 (out), or such as \"$1\"");
            }
            (_, ActionDef::Reject { reason, .. }) if reason.contains(char::is_control) => {
                fault("reason", "holds a line break or another control character; remove it");
            }
            (_, ActionDef::Reject { .. }) if !def.on_failure.is_empty() => {
                fault("on_failure", "means nothing to `reject`, which cannot fail; remove it");
            }
            _ => {}
        }
        if let ActionDef::HandleCall { param, .. } = &def.action
            && param.contains(char::is_control)
        {
            fault("param", "holds a line break or another control character; remove it");
        }
    }
}

impl RuleDef {
    fn on_failure(&self) -> Result<OnFailure, String> {
        match self.on_failure.as_str() {
            "" => Ok(OnFailure::Answer),
            "next" => Ok(OnFailure::Next),
            code => match code.parse() {
                Ok(code) if (400..700).contains(&code) => Ok(OnFailure::Code(code)),
                _ => Err(format!("`{code}` is not known here, expected \"next\" or a SIP code from 400 to 699")),
            },
        }
    }
}

/// The conditions that are there, in the order in which captures are counted.
fn conditions(def: &RuleDef, faults: &mut Vec<RuleFault>) -> Vec<Condition> {
    let written = [
        (Field::Method, &def.method),
        (Field::RuriUser, &def.ruri_user),
        (Field::RuriHost, &def.ruri_host),
        (Field::From, &def.from),
        (Field::To, &def.to),
        (Field::Header, &def.header),
        (Field::Source, &def.source),
    ];
    let mut out = vec![];
    for (field, text) in written.into_iter().filter(|(_, text)| !text.is_empty()) {
        let (header, pattern) = match field {
            Field::Header => match text.split_once(':') {
                Some((name, pattern)) if is_header_name(name.trim()) => (name.trim(), pattern.trim()),
                _ => {
                    let what = format!("`{text}` is not of the form Name: PATTERN, such as \"X-Tenant: acme*\"");
                    faults.push(RuleFault { key: field.name(), what });
                    continue;
                }
            },
            _ => ("", text.as_str()),
        };
        match Pattern::compile(pattern, field) {
            Ok(pattern) => out.push(Condition { field, header: header.into(), pattern }),
            Err(what) => faults.push(RuleFault { key: field.name(), what }),
        }
    }
    let method = out.iter_mut().find(|c| c.field == Field::Method);
    if let Some(method) = method
        && ![&b"INVITE"[..], b"MESSAGE"].iter().any(|m| method.pattern.matches(m, &mut Captured::default()))
    {
        let what = format!("`{}` never comes here; rules see INVITE, and MESSAGE outside calls", def.method);
        faults.push(RuleFault { key: "method", what });
    }
    out
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b))
}

/// 0 is off, any other whole number on.
fn login_state(text: &[u8]) -> Option<bool> {
    std::str::from_utf8(text).ok()?.trim().parse::<i64>().ok().map(|n| n != 0)
}

/// Text that may stand in a header: one line, whatever a request put into it.
fn header_text(bytes: &[u8]) -> Box<str> {
    let text: String = String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).collect();
    text.trim().into()
}

#[cfg(test)]
mod tests;
