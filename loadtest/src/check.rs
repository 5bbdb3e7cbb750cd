//! Hard checks of received messages against RFC 3261. What fails them is counted, with the first example, and the
//! message is then handled as well as it can be.

use crate::{
    context::Context,
    leg::Leg,
    parse::{Method, Msg},
};

/// Checks that hold for any request.
pub fn request(cx: &mut Context, method: Method, msg: &Msg<'_>) {
    common(cx, msg);
    if msg.max_forwards.is_none() {
        cx.books.unexpected("request without Max-Forwards (section 8.1.1)", msg.raw);
    }
    if !msg.branch().starts_with(b"z9hG4bK") {
        cx.books.unexpected("Via branch without the magic cookie (section 8.1.1.7)", msg.raw);
    }
    if msg.cseq_method != method {
        cx.books.unexpected("CSeq names another method (section 8.1.1.5)", msg.raw);
    }
    if method == Method::Invite && msg.contact.is_empty() {
        cx.books.unexpected("INVITE without Contact (section 8.1.1.8)", msg.raw);
    }
}

fn common(cx: &mut Context, msg: &Msg<'_>) {
    if msg.tag_in_from().is_empty() {
        cx.books.unexpected("From without a tag (section 8.1.1.3)", msg.raw);
    }
    if msg.content_length.is_some_and(|length| length != msg.body.len()) {
        cx.books.unexpected("Content-Length above the body's length (section 18.3)", msg.raw);
    }
}

/// Checks of a request within the dialog of `leg`, no copy.
pub fn in_dialog(leg: &Leg, cx: &mut Context, method: Method, uri: &[u8], msg: &Msg<'_>) {
    if uri != leg.contact {
        cx.books.unexpected("Request-URI is not the Contact that we gave (section 12.2.1.1)", msg.raw);
    }
    if msg.tag_in_from() != leg.remote_tag && !leg.remote_tag.is_empty() {
        cx.books.unexpected("From tag is not the dialog's (section 12.2.1.1)", msg.raw);
    }
    if *msg.call_id != *leg.call_id {
        cx.books.unexpected("Call-ID is not the dialog's (section 12.2.1.1)", msg.raw);
    }
    route(leg, cx, msg);
    if !matches!(method, Method::Ack | Method::Cancel) && msg.cseq <= leg.remote_cseq {
        cx.books.unexpected("CSeq does not go up within the dialog (section 12.2.1.1)", msg.raw);
    }
}

/// A request within a dialog goes along the route that was recorded, and along none where none was.
fn route(leg: &Leg, cx: &mut Context, msg: &Msg<'_>) {
    let recorded = cx.record_route(leg.socket);
    let expected = recorded.strip_prefix(b"Record-Route: ").and_then(|line| line.strip_suffix(b"\r\n"));
    let kind = match (msg.routes.as_slice(), expected) {
        ([], None) => return,
        ([route], Some(expected)) if *route == expected => return,
        ([], Some(_)) => "request without the Route that was recorded (section 12.2.1.1)",
        (_, Some(_)) => "request with another Route than was recorded (section 12.2.1.1)",
        (_, None) => "request with a Route where none was recorded (section 12.2.1.1)",
    };
    cx.books.unexpected(kind, msg.raw);
}

/// Checks of an answer to a request of `leg`.
pub fn response(leg: &Leg, cx: &mut Context, code: u16, msg: &Msg<'_>) {
    common(cx, msg);
    let kind = if msg.cseq_method == Method::Bye { 'b' } else { 'i' };
    let mut branch = Vec::with_capacity(48);
    cx.write_branch(leg.label(), msg.cseq, kind, &mut branch);
    if msg.branch() != branch {
        cx.books.unexpected("answer's topmost Via branch is not ours (section 8.1.3.3)", msg.raw);
    }
    if msg.vias.as_slice().len() != 1 {
        cx.books.unexpected("answer with another Via than ours (section 8.1.3.3)", msg.raw);
    }
    if code > 100 && msg.tag_in_to().is_empty() {
        cx.books.unexpected("answer above 100 without To tag (section 8.2.6.2)", msg.raw);
    }
    if *msg.call_id != *leg.call_id {
        cx.books.unexpected("answer with another Call-ID (section 8.2.6.2)", msg.raw);
    }
    if !leg.remote_tag.is_empty() && code >= 200 && msg.tag_in_to() != leg.remote_tag {
        cx.books.unexpected("answer's To tag is not the dialog's (section 12.2.1.2)", msg.raw);
    }
    if msg.cseq_method == Method::Invite && (200..300).contains(&code) {
        if msg.contact.is_empty() {
            cx.books.unexpected("2xx to INVITE without Contact (section 12.1.1)", msg.raw);
        }
        if cx.direct && msg.body.is_empty() {
            cx.books.unexpected("2xx to INVITE without a session description (section 13.3.1.4)", msg.raw);
        }
    }
}
