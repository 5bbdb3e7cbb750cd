//! Requests of ours: INVITE, ACK, BYE, CANCEL, their retransmission (RFC 3261 section 17.1), and answers to them.

use std::net::SocketAddr;

use crate::{
    context::Context,
    leg::{Leg, Pending},
    parse::{self, Lines, Method, Msg},
    phase::Phase,
    template::Fill,
    timers::{Due, GIVE_UP, Nanos, T1, T2},
};

/// Sends a leg's first INVITE. Latencies count from `intended`, when it should have been sent.
pub fn invite(leg: &mut Leg, cx: &mut Context, with_sdp: bool, intended: Nanos) {
    leg.local_cseq += 1;
    let recorded = cx.record_route(leg.socket);
    let fill = Fill {
        uri: &leg.target,
        to: &leg.remote,
        lines: &recorded,
        cseq: (leg.local_cseq, b"INVITE"),
        ..Default::default()
    };
    let bytes = if with_sdp {
        cx.send_request(leg, |r| &r.invite, true, 'i', fill).to_vec()
    } else {
        cx.send_request(leg, |r| &r.invite_without_sdp, false, 'i', fill).to_vec()
    };
    leg.invite = Some(pending(cx, leg.local_cseq, intended, bytes));
    cx.timers.set(cx.now, T1, leg.id, Due::Invite(leg.local_cseq));
}

/// Sends BYE in a confirmed dialog.
pub fn bye(leg: &mut Leg, cx: &mut Context) {
    leg.local_cseq += 1;
    let fill = Fill {
        uri: &leg.target,
        to: &leg.remote,
        lines: &leg.routes,
        cseq: (leg.local_cseq, b"BYE"),
        ..Default::default()
    };
    let bytes = cx.send_request(leg, |r| &r.bye, false, 'b', fill).to_vec();
    leg.request = Some(pending(cx, leg.local_cseq, cx.now, bytes));
    cx.timers.set(cx.now, T1, leg.id, Due::Request(leg.local_cseq));
}

/// Sends CANCEL for the INVITE, which must have had a provisional answer (section 9.1).
pub fn cancel(leg: &mut Leg, cx: &mut Context) {
    let fill = Fill { uri: &leg.target, to: &leg.remote, cseq: (leg.local_cseq, b"CANCEL"), ..Default::default() };
    let bytes = cx.send_request(leg, |r| &r.cancel, false, 'i', fill).to_vec();
    leg.request = Some(pending(cx, leg.local_cseq, cx.now, bytes));
    cx.timers.set(cx.now, T1, leg.id, Due::Request(leg.local_cseq));
}

/// Sends ACK for a 2xx and keeps it for copies of that 2xx.
pub fn ack(leg: &mut Leg, cx: &mut Context, with_sdp: bool) {
    let cseq = leg.invite.as_ref().map_or(leg.local_cseq, |invite| invite.cseq);
    let fill =
        Fill { uri: &leg.target, to: &leg.remote, lines: &leg.routes, cseq: (cseq, b"ACK"), ..Default::default() };
    leg.ack = if with_sdp {
        cx.send_request(leg, |r| &r.ack_with_sdp, true, 'a', fill).to_vec()
    } else {
        cx.send_request(leg, |r| &r.ack, false, 'a', fill).to_vec()
    };
}

/// Sends ACK for a final answer of 300 or above: hop by hop, on the INVITE's branch (section 17.1.1.3).
pub fn ack_refusal(leg: &Leg, cx: &mut Context, msg: &Msg<'_>) {
    let fill = Fill { uri: &leg.target, to: msg.to, cseq: (msg.cseq, b"ACK"), ..Default::default() };
    cx.send_request(leg, |r| &r.ack, false, 'i', fill);
}

fn pending(cx: &Context, cseq: u32, intended: Nanos, bytes: Vec<u8>) -> Pending {
    Pending {
        cseq,
        intended,
        give_up: cx.now + GIVE_UP,
        interval: T1,
        resent: false,
        provisional: false,
        answered: false,
        bytes,
    }
}

/// A retransmission timer fired. Returns true when the transaction is given up.
pub fn timer(leg: &mut Leg, cx: &mut Context, due: Due) -> bool {
    let (slot, is_invite) = match due {
        Due::Invite(cseq) => (leg.invite.as_mut().filter(|pending| pending.cseq == cseq), true),
        Due::Request(cseq) => (leg.request.as_mut().filter(|pending| pending.cseq == cseq), false),
        _ => (None, false),
    };
    let Some(pending) = slot.filter(|pending| !pending.answered) else { return false };
    // A provisional answer ends an INVITE's retransmission and its time limit (Proceeding, figure 5).
    if is_invite && pending.provisional {
        return false;
    }
    if cx.now >= pending.give_up {
        pending.answered = true;
        return true;
    }
    pending.resent = true;
    pending.interval *= 2;
    if !is_invite {
        pending.interval = if pending.provisional { T2 } else { pending.interval.min(T2) };
    }
    let delay = pending.interval.min(pending.give_up - cx.now);
    cx.resend(leg.socket, leg.peer, &pending.bytes);
    cx.books.report.retransmissions_sent += 1;
    cx.timers.set(cx.now, delay, leg.id, due);
    false
}

/// What an answer means to its leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A first provisional answer, or another.
    Provisional(u16),
    /// The final answer.
    Final(u16),
    /// A copy of it, or an answer to nothing: nothing is to be done.
    Absorbed,
}

/// Takes an answer to this leg's INVITE.
pub fn invite_answered(leg: &mut Leg, cx: &mut Context, code: u16, msg: &Msg<'_>) -> Answer {
    let Some(mut invite) = leg.invite.take_if(|invite| invite.cseq == msg.cseq) else {
        cx.books.unexpected("answer to an INVITE that was not sent", msg.raw);
        return Answer::Absorbed;
    };
    let answer = if invite.answered {
        final_copy(leg, cx, &invite, code, msg);
        Answer::Absorbed
    } else if code < 200 {
        let since = cx.heard.saturating_sub(invite.intended);
        if !std::mem::replace(&mut invite.provisional, true) {
            cx.books.record(Phase::First, since);
            if code == 100 {
                cx.books.record(Phase::Trying, since);
            }
            // It is not sent again from now on.
            invite.bytes = Vec::new();
        }
        Answer::Provisional(code)
    } else {
        if !invite.provisional {
            cx.books.record(Phase::First, cx.heard.saturating_sub(invite.intended));
        }
        invite.answered = true;
        invite.bytes = Vec::new();
        Answer::Final(code)
    };
    leg.invite = Some(invite);
    answer
}

/// A final answer came again: its ACK was lost or late.
fn final_copy(leg: &mut Leg, cx: &mut Context, invite: &Pending, code: u16, msg: &Msg<'_>) {
    if code < 200 {
        return;
    }
    if invite.resent {
        cx.books.report.duplicates_received += 1;
    } else {
        cx.retransmission();
    }
    match code {
        200..300 if msg.tag_in_to() == leg.remote_tag => {
            let ack = std::mem::take(&mut leg.ack);
            cx.resend(leg.socket, leg.peer, &ack);
            leg.ack = ack;
        }
        200..300 => cx.books.unexpected("second 2xx to one INVITE, with another To tag", msg.raw),
        _ => ack_refusal(leg, cx, msg),
    }
}

/// Takes an answer to this leg's BYE or CANCEL.
pub fn request_answered(leg: &mut Leg, cx: &mut Context, code: u16, msg: &Msg<'_>) -> Answer {
    let Some(request) = leg.request.as_mut().filter(|request| request.cseq == msg.cseq) else {
        // The answer to a CANCEL may follow the BYE that a crossing 200 made necessary.
        if msg.cseq_method != Method::Cancel {
            cx.books.unexpected("answer to a request that was not sent", msg.raw);
        }
        return Answer::Absorbed;
    };
    if request.answered {
        match request.resent {
            true => cx.books.report.duplicates_received += 1,
            false => cx.retransmission(),
        }
        return Answer::Absorbed;
    }
    if code < 200 {
        request.provisional = true;
        return Answer::Provisional(code);
    }
    request.answered = true;
    request.bytes = Vec::new();
    if msg.cseq_method == Method::Bye {
        cx.books.record(Phase::Bye, cx.heard.saturating_sub(request.intended));
    }
    Answer::Final(code)
}

/// Takes over dialog state from the 2xx to our INVITE (section 12.1.2).
pub fn confirm(leg: &mut Leg, cx: &Context, msg: &Msg<'_>, source: SocketAddr) {
    leg.remote = msg.to.to_vec();
    leg.remote_tag = msg.tag_in_to().to_vec();
    if !msg.contact.is_empty() {
        leg.target = parse::uri_of(msg.contact).to_vec();
    }
    leg.routes = route_lines(&msg.record_routes, true);
    // The proxy that recorded this one is played by us: what we send has passed it already.
    let own = cx.record_route(leg.socket);
    if let Some(route) = own.strip_prefix(b"Record-".as_slice()).filter(|route| leg.routes.starts_with(route)) {
        leg.routes.drain(..route.len());
    }
    leg.peer = next_hop(leg, source);
}

/// The route set as header lines; a caller of the dialog reverses what was recorded.
pub fn route_lines(recorded: &Lines<'_>, reversed: bool) -> Vec<u8> {
    let mut routes: Vec<&[u8]> = recorded.as_slice().iter().flat_map(|line| list_values(line)).collect();
    if reversed {
        routes.reverse();
    }
    routes.iter().flat_map(|route| [b"Route: ", *route, b"\r\n"].concat()).collect()
}

/// Splits a header value at the commas outside of `<>` and quotes.
fn list_values(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut angle, mut quoted) = (false, false);
    line.split(move |byte| {
        match byte {
            b'"' => quoted = !quoted,
            b'<' if !quoted => angle = true,
            b'>' if !quoted => angle = false,
            _ => {}
        }
        *byte == b',' && !angle && !quoted
    })
    .map(<[u8]>::trim_ascii)
}

/// Where in-dialog requests go: the first route, or else the other side's Contact. Names are not looked up: a host that
/// is no address means the sender of what we got.
pub fn next_hop(leg: &Leg, source: SocketAddr) -> SocketAddr {
    let first_route = leg.routes.strip_prefix(b"Route: ").and_then(|rest| rest.split(|byte| *byte == b'\r').next());
    let host = parse::host_of(first_route.map_or(&leg.target, parse::uri_of));
    let Ok(text) = std::str::from_utf8(host) else { return source };
    let with_port = || text.parse().ok();
    let without_port = || text.trim_matches(['[', ']']).parse().ok().map(|ip| SocketAddr::new(ip, 5060));
    with_port().or_else(without_port).unwrap_or(source)
}
