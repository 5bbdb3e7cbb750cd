//! Requests that we get: answers, their retransmission until the ACK (RFC 3261 sections 13.3.1.4 and 17.2), dialogs as
//! their called side, and copies of requests.

use std::net::SocketAddr;

use crate::{
    context::Context,
    leg::{Incoming, Leg},
    parse::{Method, Msg},
    template::Fill,
    timers::{Due, GIVE_UP, T1, T2},
};

/// Via lines of a request as its answer must bear them: the topmost with `received` and `rport` (RFC 3581) if asked for.
fn via_lines(msg: &Msg<'_>, source: SocketAddr) -> Vec<u8> {
    let mut lines = Vec::with_capacity(128);
    for (number, via) in msg.vias.as_slice().iter().enumerate() {
        lines.extend_from_slice(b"Via: ");
        let asked = (number == 0).then(|| rport_at(via)).flatten();
        match asked {
            Some(at) => {
                lines.extend_from_slice(&via[..at]);
                lines.extend_from_slice(format!("={};received={}", source.port(), source.ip()).as_bytes());
                lines.extend_from_slice(&via[at..]);
            }
            None => lines.extend_from_slice(via),
        }
        lines.extend_from_slice(b"\r\n");
    }
    lines
}

/// Where `;rport` without a value ends in the first Via of a line.
fn rport_at(via: &[u8]) -> Option<usize> {
    let first = &via[..memchr::memchr(b',', via).unwrap_or(via.len())];
    let at = first.windows(6).position(|window| window.eq_ignore_ascii_case(b";rport"))? + 6;
    matches!(first.get(at), None | Some(b';' | b' ')).then_some(at)
}

/// Record-Route lines of the answers: what the request recorded, below what we record as the last proxy before us.
fn record_route_lines(msg: &Msg<'_>, ours: &[u8]) -> Vec<u8> {
    let theirs = msg.record_routes.as_slice().iter();
    let theirs = theirs.flat_map(|route| [b"Record-Route: ", *route, b"\r\n"].concat());
    ours.iter().copied().chain(theirs).collect()
}

/// Opens the transaction of an INVITE, first or within the dialog.
pub fn open_invite(leg: &mut Leg, cx: &Context, msg: &Msg<'_>, source: SocketAddr) {
    leg.remote_cseq = msg.cseq;
    leg.incoming = Some(Incoming {
        cseq: msg.cseq,
        branch: msg.branch().into(),
        vias: via_lines(msg, source),
        record_routes: record_route_lines(msg, &cx.record_route(leg.socket)),
        reply_to: source,
        code: 0,
        acked: false,
        resent: false,
        interval: T1,
        give_up: u64::MAX,
        bytes: Vec::new(),
    });
}

/// Answers the open INVITE.
pub fn answer(leg: &mut Leg, cx: &mut Context, code: u16, with_sdp: bool) {
    let Some(mut incoming) = leg.incoming.take() else { return };
    // Refusals need no Contact; answers that make a dialog do (section 12.1.1), and repeat the Record-Route.
    let makes_dialog = (101..300).contains(&code);
    let fill = Fill {
        lines: &incoming.vias,
        record_routes: if makes_dialog { &incoming.record_routes } else { b"" },
        from: &leg.remote,
        to: &leg.local,
        call_id: &leg.call_id,
        cseq: (incoming.cseq, b"INVITE"),
        ..Default::default()
    };
    let bytes = cx.send_response(Some(leg), leg.socket, incoming.reply_to, (code, makes_dialog, with_sdp), fill);
    incoming.bytes.clear();
    incoming.bytes.extend_from_slice(bytes);
    incoming.code = code;
    if code >= 200 {
        incoming.give_up = cx.now + GIVE_UP;
        cx.timers.set(cx.now, T1, leg.id, Due::Ack(incoming.cseq));
    }
    leg.incoming = Some(incoming);
}

/// The timer of an answer without ACK fired. Returns true when the ACK is given up.
pub fn timer(leg: &mut Leg, cx: &mut Context, cseq: u32) -> bool {
    let Some(incoming) = leg.incoming.as_mut().filter(|incoming| incoming.cseq == cseq && !incoming.acked) else {
        return false;
    };
    if cx.now >= incoming.give_up {
        incoming.acked = true;
        incoming.bytes = Vec::new();
        return true;
    }
    incoming.resent = true;
    incoming.interval = (incoming.interval * 2).min(T2);
    cx.resend(leg.socket, incoming.reply_to, &incoming.bytes);
    cx.books.report.retransmissions_sent += 1;
    cx.timers.set(cx.now, incoming.interval.min(incoming.give_up - cx.now), leg.id, Due::Ack(cseq));
    false
}

/// Takes an ACK; returns the code that it is for, when it is the first.
pub fn acked(leg: &mut Leg, cx: &mut Context, msg: &Msg<'_>) -> Option<u16> {
    let Some(incoming) = leg.incoming.as_mut().filter(|incoming| incoming.cseq == msg.cseq) else {
        // A later INVITE is already open: this is the late ACK of the one before.
        if msg.cseq > leg.remote_cseq {
            cx.books.unexpected("ACK for an INVITE that never came", msg.raw);
        }
        return None;
    };
    if incoming.code < 200 {
        cx.books.unexpected("ACK before the final answer", msg.raw);
        return None;
    }
    if incoming.acked {
        match incoming.resent {
            true => cx.books.report.duplicates_received += 1,
            false => cx.retransmission(),
        }
        return None;
    }
    incoming.acked = true;
    // No answer is sent any more: what they were made of goes.
    (incoming.bytes, incoming.vias, incoming.record_routes) = Default::default();
    Some(incoming.code)
}

/// Whether a request within the dialog is a copy; if so, its answer was sent again.
pub fn absorbed(leg: &mut Leg, cx: &mut Context, method: Method, msg: &Msg<'_>, source: SocketAddr) -> bool {
    let socket = leg.socket;
    if method == Method::Invite {
        let Some(incoming) = leg.incoming.as_ref().filter(|i| i.cseq == msg.cseq && *i.branch == *msg.branch()) else {
            return false;
        };
        if !incoming.bytes.is_empty() {
            cx.resend(socket, source, &incoming.bytes);
        }
    } else {
        let Some((_, bytes)) = leg.last_reply.as_ref().filter(|(cseq, _)| *cseq == msg.cseq) else { return false };
        cx.resend(socket, source, bytes);
    }
    cx.retransmission();
    true
}

/// Answers a request other than INVITE within the dialog, and keeps the answer for copies.
pub fn reply(leg: &mut Leg, cx: &mut Context, msg: &Msg<'_>, source: SocketAddr, code: u16, with_sdp: bool) {
    let vias = via_lines(msg, source);
    let fill = Fill {
        lines: &vias,
        from: msg.from,
        to: &leg.local,
        call_id: msg.call_id,
        cseq: (msg.cseq, method_of(msg)),
        ..Default::default()
    };
    let bytes = cx.send_response(Some(leg), leg.socket, source, (code, with_sdp, with_sdp), fill).to_vec();
    // A CANCEL shares the number of its INVITE: it must not be taken for a copy of a later request.
    if msg.cseq_method != Method::Cancel {
        leg.remote_cseq = leg.remote_cseq.max(msg.cseq);
        leg.last_reply = Some((msg.cseq, bytes));
    }
}

/// Answers a request that belongs to no leg.
pub fn reply_stateless(cx: &mut Context, socket: usize, msg: &Msg<'_>, source: SocketAddr, code: u16) {
    let vias = via_lines(msg, source);
    let mut to = msg.to.to_vec();
    if msg.tag_in_to().is_empty() {
        to.extend_from_slice(b";tag=none");
    }
    let fill = Fill {
        lines: &vias,
        from: msg.from,
        to: &to,
        call_id: msg.call_id,
        cseq: (msg.cseq, method_of(msg)),
        ..Default::default()
    };
    cx.send_response(None, socket, source, (code, false, false), fill);
}

/// The method as the CSeq names it, so that unknown ones are answered too.
fn method_of<'a>(msg: &Msg<'a>) -> &'a [u8] {
    let text = msg.cseq_text;
    text.iter().position(u8::is_ascii_whitespace).map_or(b"", |space| text[space..].trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rport_is_filled_in_where_it_was_asked_for() {
        let source = "127.0.0.1:77".parse().unwrap();
        let text = b"BYE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP a;rport;branch=b\r\nVia: SIP/2.0/UDP c;rport\r\n\
            From: f\r\nTo: t\r\nCall-ID: i\r\nCSeq: 1 BYE\r\n\r\n";
        let lines = via_lines(&Msg::parse(text).unwrap(), source);
        assert_eq!(
            String::from_utf8(lines).unwrap(),
            "Via: SIP/2.0/UDP a;rport=77;received=127.0.0.1;branch=b\r\nVia: SIP/2.0/UDP c;rport\r\n"
        );
        assert_eq!(rport_at(b"SIP/2.0/UDP a;rport=5"), None);
        assert_eq!(rport_at(b"SIP/2.0/UDP a, SIP/2.0/UDP b;rport"), None);
    }
}
