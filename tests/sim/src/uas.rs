//! A peer's dialog as the server of requests: INVITE and its ACK and CANCEL, BYE, and the losing branch of a fork.

use crate::text::{self, Bytes};
use crate::ua::{Ctx, Dialog, Kind, Phase, Server, T1};
use strowger_sip::msg::{Message, Method};

impl Dialog {
    /// 200 of another branch to the INVITE of server transaction `n`.
    pub fn fork_answer(&mut self, ctx: &mut Ctx<'_>, n: usize) {
        let request = self.servers[n].request.clone();
        let Some(msg) = text::parse(&request) else { return };
        let tag = format!("fork{}", self.index);
        let body = self.describe();
        ctx.out.push((self.addr, text::response(&msg, 200, &tag, self.addr, "", &body)));
        self.fork = Some(tag);
    }

    /// A request for the other branch: where ours won, it is acknowledged and ended.
    fn on_fork_request(&mut self, ctx: &mut Ctx<'_>, method: Method<'_>, msg: &Message<'_>) {
        match method {
            Method::Ack => {}
            Method::Bye => {
                ctx.saw("fork ended by BYE");
                ctx.out.push((self.addr, text::response(msg, 200, "", self.addr, "", "")));
            }
            // Its 200 overtook ours, and it won: that phone is not played here.
            _ => {
                ctx.saw("the other branch of a fork won");
                ctx.out.push((self.addr, text::response(msg, 481, "", self.addr, "", "")));
            }
        }
    }

    pub(crate) fn on_request(&mut self, ctx: &mut Ctx<'_>, method: Method<'_>, msg: &Message<'_>, raw: &Bytes) {
        if self.fork.is_some() && self.fork.as_deref().map(str::as_bytes) == msg.to_tag() {
            self.on_fork_request(ctx, method, msg);
            return;
        }
        let branch = msg.top_via().ok().and_then(|v| v.branch()).map(text::text).unwrap_or_default();
        let cseq = msg.cseq().map_or(0, |c| c.number);
        if method == Method::Ack {
            self.on_ack(ctx, msg, branch, cseq);
            return;
        }
        if method == Method::Cancel {
            self.on_cancel(ctx, msg, branch);
            return;
        }
        let name = text::text(method.as_bytes()).to_owned();
        if let Some(s) = self.servers.iter().find(|s| s.branch == branch && s.method == name) {
            if let Some(last) = s.last.as_ref().filter(|_| !s.acked) {
                ctx.out.push((self.addr, last.clone()));
            }
            return;
        }
        let in_order = cseq > self.remote_cseq;
        self.remote_cseq = self.remote_cseq.max(cseq);
        let offered = !msg.body().is_empty();
        let n = self.servers.len();
        self.servers.push(Server {
            branch: branch.to_owned(),
            method: name,
            cseq,
            request: raw.clone(),
            last: None,
            code: 0,
            acked: false,
            interval: T1,
            born: ctx.now,
            offered,
        });
        if n > 0 || self.kind == Kind::Caller {
            if !in_order {
                self.reply(ctx, n, 500, "", "");
                return;
            }
            if msg.to_tag() != Some(self.tag.as_bytes()) {
                ctx.wrongs.push(format!("request in dialog {} with another To tag", self.call_id));
            }
        }
        match method {
            Method::Bye => self.on_bye(ctx, n),
            _ if self.phase == Phase::Over => self.reply(ctx, n, 481, "", ""),
            Method::Invite if n == 0 && self.phase == Phase::Ringing => {
                self.note_media(ctx, msg);
                self.on_called(ctx, n);
            }
            Method::Invite => self.on_reinvite(ctx, n, msg),
            Method::Update => self.on_update(ctx, n, msg),
            _ => self.reply(ctx, n, 200, "", ""),
        }
    }

    fn on_ack(&mut self, ctx: &mut Ctx<'_>, msg: &Message<'_>, branch: &str, cseq: u32) {
        let Some(s) = self.servers.iter_mut().rev().find(|s| s.method == "INVITE" && s.cseq == cseq) else { return };
        if s.code < 200 || (s.code >= 300 && s.branch != branch) || s.acked {
            return;
        }
        s.acked = true;
        let (offered, code) = (s.offered, s.code);
        if code < 300 && !offered {
            if msg.body().is_empty() {
                ctx.wrongs.push(format!("ACK without an answer to the offer of {}", self.call_id));
            }
            ctx.saw("answer in ACK");
        }
        if code < 300 && !offered {
            self.note_media(ctx, msg);
        }
    }

    fn on_cancel(&mut self, ctx: &mut Ctx<'_>, msg: &Message<'_>, branch: &str) {
        let Some(n) = self.servers.iter().position(|s| s.branch == branch && s.method == "INVITE") else {
            ctx.out.push((self.addr, text::response(msg, 481, &self.tag, self.addr, "", "")));
            return;
        };
        ctx.out.push((self.addr, text::response(msg, 200, &self.tag, self.addr, "", "")));
        if self.servers[n].code >= 200 {
            ctx.saw("CANCEL crossed a final answer");
            return;
        }
        self.facts.got_cancel = true;
        self.on_cancelled(ctx, n);
    }

    fn on_bye(&mut self, ctx: &mut Ctx<'_>, n: usize) {
        self.reply(ctx, n, 200, "", "");
        if self.facts.said_bye.is_some() {
            ctx.saw("BYE crossed BYE");
        }
        self.facts.got_bye = true;
        self.phase = Phase::Over;
        for open in 0..n {
            if self.servers[open].code < 200 && self.servers[open].method == "INVITE" {
                self.reply(ctx, open, 487, "", "");
            }
        }
    }
}
