//! A peer's dialog as the client of requests: answers to them, and the ACKs of INVITEs.

use crate::plan::SECOND;
use crate::text::{self, Bytes, Request};
use crate::ua::{Act, Ctx, Dialog, LIFE, Phase, Tick};
use strowger_sip::msg::{Message, Name};

impl Dialog {
    pub(crate) fn on_response(&mut self, ctx: &mut Ctx<'_>, code: u16, msg: &Message<'_>) {
        let branch = msg.top_via().ok().and_then(|v| v.branch()).map(text::text).unwrap_or_default();
        let Ok(cseq) = msg.cseq() else { return };
        let found =
            self.clients.iter().position(|c| c.branch == branch && c.method.as_bytes() == cseq.method.as_bytes());
        let Some(n) = found else { return };
        let c = &mut self.clients[n];
        if code < 200 {
            if c.method == "INVITE" && c.code == 0 {
                c.rang = true;
                let wanted = c.cancel_wanted;
                if n == 0 && code > 100 && self.phase == Phase::Calling {
                    self.learn(msg);
                }
                if wanted {
                    self.cancel(ctx, n);
                }
            }
            return;
        }
        if c.code > 0 {
            self.on_final_again(ctx, n, code);
            return;
        }
        c.code = code;
        match c.method {
            "INVITE" if code < 300 => self.on_accepted(ctx, n, msg),
            "INVITE" => {
                let ack = self.ack_of_refusal(n, msg);
                ctx.out.push((self.addr, ack.clone()));
                self.clients[n].ack = Some(ack);
                if n == 0 {
                    self.facts.got_final = Some(code);
                    self.phase = Phase::Over;
                } else {
                    self.on_refused(ctx, code);
                }
            }
            "MESSAGE" => {
                self.facts.got_final = Some(code);
                self.phase = Phase::Over;
            }
            "UPDATE" => {
                if code < 300 {
                    self.note_media(ctx, msg);
                } else {
                    self.on_refused(ctx, code);
                }
            }
            _ => {}
        }
    }

    fn on_final_again(&mut self, ctx: &mut Ctx<'_>, n: usize, code: u16) {
        let c = &self.clients[n];
        // What was sent again, and came when that INVITE was forgotten, is refused; here it is forgotten, too.
        let forgotten = c.code < 300 && code == 500 && ctx.now >= c.born + LIFE;
        if c.method == "INVITE" && c.code != code && c.code != 408 && !forgotten {
            ctx.wrongs.push(format!("{} and then {code} to one INVITE of {}", c.code, self.call_id));
        }
        if let Some(ack) = &c.ack {
            ctx.out.push((self.addr, ack.clone()));
        }
    }

    /// Takes To tag and Contact of an answer that opens the dialog.
    fn learn(&mut self, msg: &Message<'_>) {
        self.remote = msg.first(Name::To).map(text::text).unwrap_or_default().to_owned();
        if let Ok(Some(contact)) = msg.contact() {
            self.target = text::text(contact.uri).to_owned();
        }
    }

    fn on_accepted(&mut self, ctx: &mut Ctx<'_>, n: usize, msg: &Message<'_>) {
        let first = n == 0 && self.phase == Phase::Calling;
        if n == 0 {
            self.facts.got_final = Some(200);
            self.learn(msg);
        }
        let c = &self.clients[n];
        let (offered, cseq, cancelled) = (c.offered, c.cseq, c.cancelled);
        if msg.body().is_empty() {
            ctx.wrongs.push(format!("2xx without a description to an INVITE of {}", self.call_id));
        }
        self.note_media(ctx, msg);
        let body = if offered { String::new() } else { self.describe() };
        let ack = self.ack_of_2xx(n, cseq, &body);
        if self.never_acks && n == 0 && !ctx.calm {
            self.facts.unfaithful = true;
        } else {
            ctx.out.push((self.addr, ack.clone()));
            self.clients[n].ack = Some(ack);
        }
        if first {
            self.phase = Phase::Up;
            if cancelled {
                ctx.saw("200 crossed the caller's CANCEL");
                self.bye(ctx);
            } else if self.leaving {
                self.bye(ctx);
            } else {
                self.on_up(ctx);
                self.arm_refresh(ctx, msg);
            }
        }
    }

    /// The session interval that the 2xx gave us to keep.
    fn arm_refresh(&mut self, ctx: &mut Ctx<'_>, msg: &Message<'_>) {
        if let Ok(Some(session)) = msg.session_expires()
            && self.timer
        {
            ctx.timers.push((u64::from(session.delta) * SECOND / 2, self.index, Tick::Act(Act::Refresh)));
        }
    }

    fn ack_of_2xx(&self, n: usize, cseq: u32, body: &str) -> Bytes {
        text::request(&Request {
            method: "ACK",
            uri: &self.target,
            addr: self.addr,
            branch: &format!("z9hG4bK-{}-ack{n}", self.index),
            from: &self.local,
            to: &self.remote,
            call_id: &self.call_id,
            cseq,
            extra: "",
            body,
        })
    }

    fn ack_of_refusal(&self, n: usize, msg: &Message<'_>) -> Bytes {
        let c = &self.clients[n];
        text::request(&Request {
            method: "ACK",
            uri: &self.target,
            addr: self.addr,
            branch: &c.branch,
            from: &self.local,
            to: msg.first(Name::To).map(text::text).unwrap_or_default(),
            call_id: &self.call_id,
            cseq: c.cseq,
            extra: "",
            body: "",
        })
    }
}
