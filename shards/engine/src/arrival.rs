//! An initial INVITE: which flow, may it come in, and the call that it becomes.

use crate::audit::{History, What};
use crate::body::{Body, sdp_range};
use crate::call::{Call, Link, Message as Play};
use crate::control::CallState;
use crate::engine::Engine;
use crate::leg::{InInvite, Leg, Role};
use crate::provision::FlowDef;
use crate::relay::push_line;
use crate::words::{Said, Words};
use std::borrow::Cow;
use std::sync::Arc;
use strowger_dispatch::Media;
use strowger_sip::dialog::Dialog;
use strowger_sip::endpoint::ServerTxn;
use strowger_sip::msg::{Message, Name, percent_decode, unescape};
use strowger_sip::net::Path;
use strowger_sip::sdp::{Flavour, Sdp};
use strowger_sip::time::Now;

/// Why an initial INVITE is refused, with the SIP answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Return codes -1 to -7 of `cc_handle_call`.
    Code(u16),
    /// Too busy or draining: 503 with Retry-After.
    Unavailable,
    /// Session interval below our Min-SE (RFC 4028 section 6).
    IntervalTooSmall,
}

impl Engine {
    /// A new INVITE outside a dialog.
    pub(crate) fn on_arrival(&mut self, txn: ServerTxn, msg: &Message<'_>, path: Path, now: Now) {
        if let Some((flow, param)) = self.route(txn, msg, path, now) {
            self.accept(txn, msg, path, flow, param, now);
        }
    }

    /// Answers an INVITE that is refused.
    pub(crate) fn turn_away(&mut self, txn: ServerTxn, refused: Refused, now: Now) {
        let shard = self.shard_counts();
        match refused {
            Refused::Code(code) => {
                shard.refused.add(1);
                self.refuse(txn, code, b"", now);
            }
            Refused::Unavailable => {
                shard.shed.add(1);
                let retry = format!("Retry-After: {}\r\n", 2 + self.ep.ids().nonce() % 8);
                self.refuse(txn, 503, retry.as_bytes(), now);
            }
            Refused::IntervalTooSmall => {
                let min = format!("Min-SE: {}\r\n", self.cfg.call.min_se_s);
                self.refuse(txn, 422, min.as_bytes(), now);
            }
        }
    }

    /// The checks of `cc_handle_call` for the flow of that id, in its order (spec: call-center.md, "A call's life" 1).
    pub(crate) fn admit(&self, flow: &[u8], msg: &Message<'_>) -> Result<Arc<FlowDef>, Refused> {
        let codes = &self.cfg.call.refusals;
        let draining = self.draining;
        #[cfg(mutant)]
        let draining = draining && !strowger_dispatch::mutant::is("drain-ignored");
        if draining || self.calls.len() >= self.cfg.call.max_calls as usize {
            return Err(Refused::Unavailable);
        }
        if flow.is_empty() {
            return Err(Refused::Code(codes.no_flow_id));
        }
        msg.from().and_then(|f| f.uri_parsed().map(|_| ())).map_err(|_| Refused::Code(codes.bad_from))?;
        let id = std::str::from_utf8(flow).map_err(|_| Refused::Code(codes.unknown_flow))?;
        let flow = self.prov.flow(id).ok_or(Refused::Code(codes.unknown_flow))?;
        #[cfg(mutant)]
        if strowger_dispatch::mutant::is("nobody-there-admitted") {
            return self.admit_session(msg).map(|()| flow.clone());
        }
        if self.cfg.call.reject_on_no_agents && self.shared.logged_in(flow.skill) == 0 {
            return Err(Refused::Code(codes.no_agents));
        }
        self.admit_session(msg)?;
        Ok(flow.clone())
    }

    fn admit_session(&self, msg: &Message<'_>) -> Result<(), Refused> {
        let codes = &self.cfg.call.refusals;
        let data = msg.body();
        if !data.is_empty() {
            let range = sdp_range(msg.first(Name::ContentType), data).ok_or(Refused::Code(codes.bad_sdp))?;
            let view = Sdp::parse(&data[range]).map_err(|_| Refused::Code(codes.bad_sdp))?;
            match view.flavour() {
                Flavour::Audio | Flavour::Chat => {}
                Flavour::Unusable => return Err(Refused::Code(codes.bad_sdp)),
                Flavour::Other => return Err(Refused::Code(codes.bad_media)),
            }
        }
        match msg.session_expires() {
            Ok(Some(wish)) if self.cfg.call.session_expires_s > 0 && wish.delta < self.cfg.call.min_se_s => {
                Err(Refused::IntervalTooSmall)
            }
            _ => Ok(()),
        }
    }

    fn accept(
        &mut self,
        txn: ServerTxn,
        msg: &Message<'_>,
        path: Path,
        flow: Arc<FlowDef>,
        param: Option<Box<str>>,
        now: Now,
    ) {
        let bucket = self.bucket_of(msg);
        let key = self.legs.next_key();
        let local_tag = self.ep.ids().tag(bucket, key.slot);
        let Ok(dialog) = Dialog::uas(msg, path, local_tag.as_bytes()) else {
            self.refuse(txn, 400, b"", now);
            return;
        };
        let cseq = msg.cseq().map_or(0, |c| c.number);
        let session_id = self.ep.ids().nonce() >> 8;
        let mut leg = Leg::new(Role::Caller, dialog, session_id);
        leg.inbound = Some(InInvite { txn, cseq, answered: false, ack_to: None });
        leg.remote = Body::of(msg).into();
        self.legs.insert(leg);
        self.note_session(key, msg);
        self.ep.set_user(txn, key.to_u64());
        let welcome = flow.message_welcome.is_some();
        #[cfg(mutant)]
        let param = param.filter(|_| !strowger_dispatch::mutant::is("param-lost"));
        let words = self.words(msg, param.as_deref());
        let call = self.new_call((msg, words), flow, bucket, key, now);
        self.count_arrival(&call);
        let c = self.calls.insert(call);
        if let Some(leg) = self.legs.get_mut(key) {
            leg.call = Some(c);
        }
        if welcome {
            self.set_state(c, CallState::Welcome);
            self.start_media(c, Play::Welcome, now);
        } else {
            self.after_welcome(c, now);
        }
    }

    fn new_call(
        &mut self,
        (msg, words): (&Message<'_>, Words),
        flow: Arc<FlowDef>,
        bucket: u16,
        caller: crate::arena::Key,
        now: Now,
    ) -> Call {
        // Without a description it is an audio call.
        let described = self.legs.get(caller).and_then(|l| l.remote.as_ref()).and_then(|body| body.media());
        Call {
            state: CallState::ToAgent,
            flow,
            medium: described.unwrap_or(Media::Audio),
            received: now,
            ticket: self.shared.next_ticket(),
            bucket,
            caller,
            media: None,
            message: Play::Queue,
            fading: None,
            media_failures: 0,
            stranded: None,
            attempt: None,
            wait: None,
            queued: None,
            link: Link::Fresh,
            rejected: 0,
            refused: Vec::new(),
            errors: 0,
            onhold: false,
            held_once: false,
            rang: false,
            words,
            max_forwards: msg.max_forwards().ok().flatten().unwrap_or(70),
            media_timer: None,
            progress_timer: None,
            glare_timer: None,
            onhold_timer: None,
            history: History::new(What::Arrived),
        }
    }

    /// What the call keeps of the caller's words.
    fn words(&mut self, msg: &Message<'_>, param: Option<&str>) -> Words {
        let (mut from, mut passed) = (std::mem::take(&mut self.head), std::mem::take(&mut self.draft));
        from.clear();
        passed.clear();
        let (mut user, mut display) = (Cow::from(&b""[..]), Cow::from(&b""[..]));
        if let Ok(name) = msg.from() {
            user = name.uri_parsed().ok().and_then(|u| u.user).map(percent_decode).unwrap_or_default();
            display = if name.display.is_empty() { user.clone() } else { unescape(name.display) };
            strowger_sip::msg::unfold(without_tag(msg.first(Name::From).unwrap_or_default(), name.tag()), &mut from);
        }
        self.push_passed(msg, &mut passed);
        let [user, display] = [&user, &display].map(|name| String::from_utf8_lossy(name));
        let words = Words::new(&Said { user: &user, display: &display, from: &from, passed: &passed, param });
        (self.head, self.draft) = (from, passed);
        words
    }

    /// Appends the header lines that go on to the agent (`pass_headers`).
    fn push_passed(&self, msg: &Message<'_>, lines: &mut Vec<u8>) {
        for header in msg.headers() {
            let named = |listed: &String| match listed.strip_suffix('*') {
                Some(prefix) => {
                    header.name.get(..prefix.len()).is_some_and(|n| n.eq_ignore_ascii_case(prefix.as_bytes()))
                }
                None => header.name.eq_ignore_ascii_case(listed.as_bytes()),
            };
            let ours = header.name.eq_ignore_ascii_case(self.cfg.call.param_header.as_bytes())
                || header.name.eq_ignore_ascii_case(b"X-CC-State");
            #[cfg(mutant)]
            let ours = ours && !strowger_dispatch::mutant::is("forged-param-passed");
            if !ours && self.cfg.call.pass_headers.iter().any(named) {
                push_line(header.name, header.value, lines);
            }
        }
    }
}

/// A From value up to its tag parameter (other parameters behind it are dropped with it).
fn without_tag<'a>(value: &'a [u8], tag: Option<&[u8]>) -> &'a [u8] {
    let Some(tag) = tag else { return value };
    let offset = (tag.as_ptr() as usize).wrapping_sub(value.as_ptr() as usize);
    let head = &value[..offset.min(value.len())];
    head.iter().rposition(|b| *b == b';').map_or(value, |at| &value[..at])
}

#[cfg(test)]
mod tests {
    use super::without_tag;

    #[test]
    fn the_tag_is_cut_off() {
        let value = b"\"A ; tag=x\" <sip:a@h;user=phone>; tag=77";
        assert_eq!(without_tag(value, Some(&value[38..])), b"\"A ; tag=x\" <sip:a@h;user=phone>");
        assert_eq!(without_tag(b"<sip:a@h>", None), b"<sip:a@h>");
    }
}
