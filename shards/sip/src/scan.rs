//! Which shard owns a datagram: a scan that does not parse the message (specification "Which shard owns a message").
//!
//! Tags and branches that this server makes begin with a mark that names one of [`BUCKETS`] buckets. A response is
//! ours by its top Via branch, a request by its To tag; everything else belongs to the bucket of its Call-ID's
//! keyed hash, so that retransmissions, CANCEL and the ACK of a refusal find their INVITE.
//!
//! Invariants:
//! 1. No input makes a function here panic; the time is linear in the head's length, the body is not read.
//! 2. The bucket depends on nothing but To, Call-ID and top Via: all requests of a transaction get the same one.
//!    A foreign value that looks like a mark merely names another bucket, for all of them alike.

use crate::bytes::find;
use crate::hash::HashKey;
use crate::id::{branch_slot, tag_slot};
use crate::msg::{Name, Reply, empty_line, find_top, is_blank, line_end, trim, trim_end, trim_start};
use memchr::{memchr, memrchr};
use std::net::SocketAddr;

/// How many buckets marks and hashes name.
pub const BUCKETS: u16 = 4096;

/// What our tags begin with; three lower-case hex digits of the bucket, `-` and further text follow.
pub const TAG_MARK: &[u8] = b"sw";

/// What our Via branches begin with (the first part is RFC 3261's own cookie), followed as [`TAG_MARK`] is.
pub const BRANCH_MARK: &[u8] = b"z9hG4bKsw";

/// The bucket that a tag or branch of ours carries; None for one that is not ours.
#[must_use]
pub fn parse_mark(s: &[u8]) -> Option<u16> {
    let rest = s.strip_prefix(TAG_MARK).or_else(|| s.strip_prefix(BRANCH_MARK))?;
    let [a, b, c, b'-', ..] = rest else { return None };
    Some(digit(*a)? << 8 | digit(*b)? << 4 | digit(*c)?)
}

const fn digit(b: u8) -> Option<u16> {
    match b {
        b'0'..=b'9' => Some((b - b'0') as u16),
        b'a'..=b'f' => Some((b - b'a' + 10) as u16),
        _ => None,
    }
}

/// Appends the mark of `bucket` (taken modulo [`BUCKETS`]): three hex digits and `-`.
pub fn push_mark(bucket: u16, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for shift in [8, 4, 0] {
        out.push(HEX[usize::from(bucket >> shift & 15)]);
    }
    out.push(b'-');
}

/// Whose a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The shard that holds this bucket, below [`BUCKETS`].
    Bucket(u16),
    /// A SIP message without Call-ID: the shard that received it refuses it (400).
    NoCallId,
    /// No SIP: to be dropped.
    Junk,
}

/// What a datagram is to an overloaded server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// An INVITE outside a dialog: it may be refused.
    NewInvite,
    /// Finishes work that has begun: responses, requests with a To tag, ACK, CANCEL, BYE, PRACK.
    InDialogOrResponse,
    /// OPTIONS, REGISTER and so on outside a dialog.
    Other,
}

/// What a datagram will be looked up by, if its tag or branch is ours; a hint from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// A response: slot of its transaction.
    Transaction(u32),
    /// A request inside a dialog: the slot that our tag names.
    Dialog(u32),
}

/// Owner and class of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned {
    pub owner: Owner,
    pub class: Class,
    pub hint: Option<Hint>,
}

/// The owner of a datagram.
#[must_use]
pub fn owner(bytes: &[u8], key: &HashKey) -> Owner {
    scan(bytes, key).owner
}

/// Owner and class of a datagram, in one pass over as much of the head as it takes.
#[must_use]
pub fn scan(bytes: &[u8], key: &HashKey) -> Scanned {
    const JUNK: Scanned = Scanned { owner: Owner::Junk, class: Class::Other, hint: None };
    let Some((method, fields)) = begin(bytes) else { return JUNK };
    let Some(method) = method else {
        let (owner, hint) = response_owner(fields, key);
        return Scanned { owner, class: Class::InDialogOrResponse, hint };
    };
    let (mut to, mut call_id) = (None, None);
    for (id, value) in fields {
        match id {
            Field::To if to.is_none() => to = Some(tag_of(value)),
            Field::CallId if call_id.is_none() => call_id = Some(trim(value)),
            _ => continue,
        }
        if to.is_some() && call_id.is_some() {
            break;
        }
    }
    let tag = to.flatten();
    let class = match method {
        _ if tag.is_some() => Class::InDialogOrResponse,
        b"INVITE" => Class::NewInvite,
        b"ACK" | b"CANCEL" | b"BYE" | b"PRACK" => Class::InDialogOrResponse,
        _ => Class::Other,
    };
    let owner = match (tag.and_then(parse_mark), call_id) {
        (_, None | Some([])) => Owner::NoCallId,
        (Some(bucket), _) => Owner::Bucket(bucket),
        (None, Some(call_id)) => Owner::Bucket(bucket_of(call_id, key)),
    };
    Scanned { owner, class, hint: tag.and_then(tag_slot).map(Hint::Dialog) }
}

/// The bucket that a Call-ID hashes to.
#[must_use]
pub fn bucket_of(call_id: &[u8], key: &HashKey) -> u16 {
    (key.hash(&[call_id]) % u64::from(BUCKETS)) as u16
}

/// Writes a refusal of a request that is neither parsed nor kept, in one pass: the fields that a response copies,
/// then what `reply` adds. `source` is where the request came from; `reply.to_tag` must be the same for each
/// retransmission. False, with `out` as it was, when it is no request, an ACK, or lacks a field.
pub fn refuse(bytes: &[u8], source: SocketAddr, reply: &Reply<'_>, out: &mut Vec<u8>) -> bool {
    let base = out.len();
    let Some((Some(method), fields)) = begin(bytes) else { return false };
    if method == b"ACK" {
        return false;
    }
    crate::msg::write::write_status_line(reply, out);
    let mut seen = [false; 5];
    for (id, value) in fields {
        let value = trim(value);
        let (slot, name) = match id {
            Field::Via if !seen[0] => {
                crate::msg::write::write_top_via(value, source, out);
                seen[0] = true;
                continue;
            }
            Field::Via => (0, Name::Via),
            Field::From => (1, Name::From),
            Field::To => (2, Name::To),
            Field::CallId => (3, Name::CallId),
            Field::CSeq => (4, Name::CSeq),
            Field::Other => continue,
        };
        if seen[slot] && slot > 0 {
            continue;
        }
        seen[slot] = true;
        let untagged = id == Field::To && tag_param(value).is_none();
        crate::msg::write::write_line(name, value, if untagged { reply.to_tag } else { b"" }, out);
    }
    if seen.contains(&false) {
        out.truncate(base);
        return false;
    }
    crate::msg::write::write_tail(reply, out);
    true
}

/// The fields that a scan looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Via,
    From,
    To,
    CallId,
    CSeq,
    Other,
}

/// Lines of a head: field and value, folds included.
struct Fields<'a> {
    head: &'a [u8],
    at: usize,
}

/// Method (None for a response) and header lines; None for what is no SIP.
fn begin(bytes: &[u8]) -> Option<(Option<&[u8]>, Fields<'_>)> {
    let start = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n'))?;
    let head = &bytes[start..];
    let at = memchr(b'\n', head)? + 1;
    let line = trim_end(&head[..at]);
    let fields = Fields { head, at };
    if line.get(..4).is_some_and(|s| s.eq_ignore_ascii_case(b"SIP/")) {
        return Some((None, fields));
    }
    let version = &line[memrchr(b' ', line)? + 1..];
    if !version.get(..4).is_some_and(|s| s.eq_ignore_ascii_case(b"SIP/")) {
        return None;
    }
    Some((Some(&line[..find(b' ', line)?]), fields))
}

impl<'a> Iterator for Fields<'a> {
    type Item = (Field, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.head.get(self.at..)?;
        if line.is_empty() || empty_line(line).is_some() {
            return None;
        }
        let end = line_end(self.head, self.at);
        let line = &self.head[self.at..end];
        self.at = end;
        if !may_matter(line) {
            return Some((Field::Other, b""));
        }
        let Some(colon) = find(b':', line) else { return Some((Field::Other, b"")) };
        let field = match Name::of(trim_end(&line[..colon])) {
            Name::Via => Field::Via,
            Name::From => Field::From,
            Name::To => Field::To,
            Name::CallId => Field::CallId,
            Name::CSeq => Field::CSeq,
            _ => Field::Other,
        };
        Some((field, &line[colon + 1..]))
    }
}

/// Whether a line may be one of the fields of a scan, by the first two letters of its name.
#[inline]
fn may_matter(line: &[u8]) -> bool {
    let [first, second, ..] = line else { return false };
    let second = second | 0x20;
    match first | 0x20 {
        b'c' => matches!(second, b'a' | b's'),
        b'v' => second == b'i' || ends_name(line[1]),
        b'f' => second == b'r' || ends_name(line[1]),
        b't' => second == b'o' || ends_name(line[1]),
        b'i' => ends_name(line[1]),
        _ => false,
    }
}

/// Colon, or a blank before it.
const fn ends_name(b: u8) -> bool {
    b == b':' || is_blank(b)
}

/// By the branch of the top Via; a response to nothing of ours goes by its Call-ID.
fn response_owner(fields: Fields<'_>, key: &HashKey) -> (Owner, Option<Hint>) {
    let (mut via, mut call_id) = (false, None);
    for (id, value) in fields {
        match id {
            Field::Via if !via => {
                via = true;
                let top = &value[..find_top(value, b',').unwrap_or(value.len())];
                let branch = param(top, b"branch").unwrap_or_default();
                if let Some(bucket) = parse_mark(branch) {
                    return (Owner::Bucket(bucket), branch_slot(branch).map(Hint::Transaction));
                }
            }
            Field::CallId if call_id.is_none() => call_id = Some(trim(value)),
            _ => continue,
        }
        if via && call_id.is_some() {
            break;
        }
    }
    let owner = match call_id {
        None | Some([]) => Owner::NoCallId,
        Some(call_id) => Owner::Bucket(bucket_of(call_id, key)),
    };
    (owner, None)
}

/// The tag of a To value; None where it is missing or empty.
fn tag_of(value: &[u8]) -> Option<&[u8]> {
    tag_param(value).filter(|t| !t.is_empty())
}

/// The parameter `tag` of a To value.
fn tag_param(value: &[u8]) -> Option<&[u8]> {
    param(value, b"tag")
}

/// Value of the parameter `name` behind the first `;`; empty where it has none. What stands in quotes or angle brackets is no
/// parameter, as for the parser.
fn param<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = &value[find_top(value, b';')? + 1..];
    loop {
        let end = find_top(rest, b';').unwrap_or(rest.len());
        let piece = trim_start(&rest[..end]);
        if piece.get(..name.len()).is_some_and(|n| n.eq_ignore_ascii_case(name)) {
            match trim_start(&piece[name.len()..]) {
                [] => return Some(b""),
                [b'=', v @ ..] => {
                    let v = trim_start(v);
                    let v = v.strip_prefix(b"\"").unwrap_or(v);
                    let end = v.iter().position(|b| is_blank(*b)).unwrap_or(v.len());
                    return Some(&v[..end]);
                }
                _ => {}
            }
        }
        rest = rest.get(end + 1..)?;
    }
}
