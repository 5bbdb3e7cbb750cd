//! What makes two requests the same transaction (RFC 3261 section 17.2.3), as bytes that can be hashed and compared.
//!
//! The first part names the transaction: branch, sent-by and method, or for a branch without the magic cookie what
//! RFC 2543 peers repeat. The second names the request for the merge check (section 8.2.2.2): From tag, Call-ID,
//! CSeq; it is empty for requests inside a dialog.
//!
//! ACK and CANCEL carry their INVITE's identity. The To tag is left out of the RFC 2543 form, because an INVITE lacks
//! the one that its ACK has; Call-ID and CSeq tell transactions of one dialog apart without it.

use crate::msg::{Message, Method, Via};

const COOKIE: &[u8] = b"z9hG4bK";

/// Identity of `msg`, appended to `out`, which is empty; the length of its first part.
pub(super) fn write(msg: &Message<'_>, via: &Via<'_>, out: &mut Vec<u8>) -> usize {
    let method = match msg.method() {
        Some(Method::Ack | Method::Cancel) | None => Method::Invite,
        Some(method) => method,
    };
    let number = msg.cseq().map_or(0, |c| c.number).to_be_bytes();
    let call_id = msg.call_id().unwrap_or_default();
    let from_tag = msg.from_tag().unwrap_or_default();
    match via.branch().filter(|b| is_unique(b)) {
        Some(branch) => field(branch, out),
        None => {
            field(b"", out);
            field(via.branch().unwrap_or_default(), out);
            field(msg.uri().unwrap_or_default(), out);
            field(from_tag, out);
            field(call_id, out);
            out.extend_from_slice(&number);
        }
    }
    let host = out.len();
    field(via.host.text, out);
    out[host..].make_ascii_lowercase();
    out.extend_from_slice(&via.port.unwrap_or(0).to_be_bytes());
    field(method.as_bytes(), out);
    let split = out.len();
    if msg.to_tag().is_none() {
        field(from_tag, out);
        field(call_id, out);
        out.extend_from_slice(&number);
        field(method.as_bytes(), out);
    }
    split
}

/// The Call-ID in the second part of an identity; empty where that is.
pub(super) fn call_id(second: &[u8]) -> &[u8] {
    second.split(|b| *b == b'\n').nth(1).unwrap_or_default()
}

/// A branch by RFC 3261. The bare cookie names nothing (RFC 4475 section 3.2.1).
fn is_unique(branch: &[u8]) -> bool {
    branch.len() > COOKIE.len() && branch[..COOKIE.len()].eq_ignore_ascii_case(COOKIE)
}

/// No field can contain the separator: values are single lines.
fn field(value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(value);
    out.push(b'\n');
}
