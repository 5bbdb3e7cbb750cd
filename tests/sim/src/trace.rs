//! The message ladder and the changes of state, kept only when asked for.

use crate::plan::SECOND;
use crate::text;
use std::net::SocketAddr;
use strowger_sip::msg::Message;

#[derive(Debug)]
pub struct Line {
    pub at: u64,
    pub call: Option<u32>,
    pub agent: Option<u32>,
    pub text: String,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>11.6}  {}", self.at as f64 / SECOND as f64, self.text)
    }
}

#[derive(Debug)]
pub struct Trace {
    on: bool,
    pub lines: Vec<Line>,
}

impl Trace {
    #[must_use]
    pub fn new(on: bool) -> Trace {
        Trace { on, lines: Vec::new() }
    }

    pub fn note(&mut self, at: u64, call: Option<u32>, agent: Option<u32>, text: impl FnOnce() -> String) {
        if self.on {
            let who = call.map(|c| format!("c{c} ")).or_else(|| agent.map(|a| format!("a{a} "))).unwrap_or_default();
            self.lines.push(Line { at, call, agent, text: format!("{who}{}", text()) });
        }
    }

    /// A message between a peer and the engine; `sent`: by the engine.
    pub fn message(&mut self, at: u64, peer: SocketAddr, sent: Option<()>, shard: u16, msg: &Message<'_>) {
        if !self.on {
            return;
        }
        let (call, agent) = (text::call_number(msg).or_else(|| text::called_for(msg)), text::agent_of(peer));
        let start = match (msg.method(), msg.code()) {
            (Some(method), _) => format!("{method}"),
            (None, code) => code.unwrap_or(0).to_string(),
        };
        let cseq = msg.cseq().map_or_else(|_| "?".to_owned(), |c| format!("{} {}", c.number, c.method));
        let media = text::media_of(msg.body());
        let arrow = if sent.is_some() { "->" } else { "<-" };
        let id = msg.call_id().map(text::text).unwrap_or_default();
        let id = &id[id.len().saturating_sub(5)..];
        let who = call.map_or_else(|| "?".to_owned(), |c| format!("c{c}"));
        let text = format!("{who:<5} shard {shard} {arrow} {peer:<16} {start:<7} ({cseq}) ..{id} {media}");
        self.lines.push(Line { at, call, agent, text });
    }
}
