//! Session descriptions as one side gives them and the other gets them: the origin line is the receiving leg's own, all
//! else passes as it came (spec: sip.md, "SDP").

use crate::arena::Key;
use crate::body::{Body, sdp_range};
use crate::call::End;
use crate::engine::Engine;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use strowger_sip::msg::ContentType;
use strowger_sip::sdp::{self, Origin};

/// What a description of the other side is for here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Offer,
    Answer,
}

/// The offer to one who made none and is to hear nothing (RFC 3264 section 5.1).
const NOTHING: &[u8] =
    b"v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=audio 9 RTP/AVP 0 8\r\na=inactive\r\n";

/// A body's type: as a rule this one, which takes no memory.
pub(crate) type Kind = Cow<'static, [u8]>;
const PLAIN: Kind = Cow::Borrowed(b"application/sdp");

impl Engine {
    /// Writes the description of `end` for leg `to` into `self.body`; returns its content type. The origin line is
    /// the one of that leg, its version raised when the description changed (RFC 3264 section 8).
    pub(crate) fn describe(&mut self, end: End, to: Key, usage: Use) -> Option<Kind> {
        let mut draft = std::mem::take(&mut self.draft);
        let mut body = std::mem::take(&mut self.body);
        draft.clear();
        body.clear();
        let passing =
            self.passes(end, to, usage).map(|given| self.cfg.key.hash(&<[_; 2]>::from(given.around_origin())));
        let written = if let Some(print) = passing {
            self.pass(end, to, usage, print, &mut body)
        } else {
            let content_type = self.draft_description(end, to, usage, &mut draft);
            content_type.and_then(|content_type| self.with_origin(to, content_type, &draft, &mut body))
        };
        self.draft = draft;
        self.body = body;
        if let Some(leg) = self.legs.get_mut(to).filter(|_| written.is_some()) {
            leg.stale = false;
        }
        written
    }

    /// What `end` has described for leg `to`.
    fn given(&self, end: End, to: Key, usage: Use) -> Option<&Body> {
        let End::Leg(from) = end else { return None };
        let leg = self.legs.get(from)?;
        // A proposal is for the side that it is relayed to; all others get what holds.
        let proposed = leg.proposed.as_ref().filter(|_| usage == Use::Offer && self.relay_partner(from) == Some(to));
        proposed.or(leg.remote.as_ref())
    }

    /// That, where nothing of it changes but its origin line: as good as always.
    fn passes(&self, end: End, to: Key, usage: Use) -> Option<&Body> {
        let given = self.given(end, to, usage).filter(|b| b.content_type().is_none() && b.streams() > 0)?;
        let (have, want) = (given.streams(), self.legs.get(to)?.remote.as_ref().map_or(0, |b| b.streams()));
        let fits = match usage {
            Use::Offer => have >= want,
            Use::Answer => have <= want || want == 0,
        };
        fits.then_some(given)
    }

    /// Writes a description that [`passes`](Self::passes); `print`: its fingerprint.
    fn pass(&mut self, end: End, to: Key, usage: Use, print: u64, out: &mut Vec<u8>) -> Option<Kind> {
        let origin = self.origin(to, print)?;
        let given = self.given(end, to, usage)?;
        let (before, after) = given.around_origin();
        out.extend_from_slice(before);
        origin.write(out);
        if given.ends_with_cr() {
            out.push(b'\r');
        }
        out.extend_from_slice(after);
        Some(PLAIN)
    }

    /// The description of `end`, its number of streams fitted to leg `to`, before the origin line is replaced.
    fn draft_description(&self, end: End, to: Key, usage: Use, draft: &mut Vec<u8>) -> Option<Kind> {
        let there = self.legs.get(to)?.remote.as_ref();
        if !matches!(end, End::Leg(_)) {
            match there {
                Some(there) => sdp::hold_inactive(there.sdp(), draft).ok()?,
                None => draft.extend_from_slice(NOTHING),
            }
            return Some(PLAIN);
        }
        let body = self.given(end, to, usage)?;
        if let Some(content_type) = body.content_type() {
            draft.extend_from_slice(body.data());
            return Some(content_type.to_vec().into());
        }
        let (have, want) = (body.streams(), there.map_or(0, |t| t.streams()));
        match usage {
            Use::Offer if have < want => {
                sdp::pad_media(body.data(), there?.sdp(), draft).ok()?;
            }
            Use::Answer if have > want && want > 0 => sdp::trim_media(body.data(), want, draft).ok()?,
            _ => draft.extend_from_slice(body.data()),
        }
        Some(PLAIN)
    }

    fn with_origin(&mut self, to: Key, content_type: Kind, draft: &[u8], body: &mut Vec<u8>) -> Option<Kind> {
        let origin = self.origin(to, self.fingerprint(draft))?;
        let parsed = ContentType::parse(&content_type)?;
        sdp::rewrite_body_origin(&parsed, draft, &origin, body).ok()?;
        Some(content_type)
    }

    /// The origin line of a leg for what has that fingerprint.
    fn origin(&mut self, to: Key, print: u64) -> Option<Origin<'static>> {
        let leg = self.legs.get_mut(to)?;
        if leg.described != print {
            leg.described = print;
            leg.version += 1;
            #[cfg(mutant)]
            if leg.version > 1 && strowger_dispatch::mutant::is("description-version-kept") {
                leg.version -= 1;
            }
        }
        let addr = self
            .contacts
            .get(usize::from(leg.dialog.path().listener.0))
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |(_, a)| *a);
        Some(Origin { user: b"", session: leg.session_id, version: u64::from(leg.version), addr })
    }

    /// An answer that refuses every stream of what leg `to` offered.
    pub(crate) fn describe_refusal(&mut self, to: Key) -> Option<Kind> {
        let mut draft = std::mem::take(&mut self.draft);
        let mut body = std::mem::take(&mut self.body);
        draft.clear();
        body.clear();
        let content_type = self.legs.get(to).and_then(|l| l.remote.as_ref()).map(|remote| {
            refuse_streams(remote.sdp(), &mut draft);
            PLAIN
        });
        let written = content_type.and_then(|content_type| self.with_origin(to, content_type, &draft, &mut body));
        self.draft = draft;
        self.body = body;
        written
    }

    /// Hash of a description without its origin line.
    fn fingerprint(&self, draft: &[u8]) -> u64 {
        let range = sdp_range(None, draft).unwrap_or(0..draft.len());
        let at = draft[range].windows(3).position(|w| w == b"\no=");
        let (before, rest) = draft.split_at(at.map_or(0, |at| at + 1));
        let after =
            rest.iter().position(|b| *b == b'\n').map_or(rest, |end| if at.is_some() { &rest[end..] } else { rest });
        self.cfg.key.hash(&[before, after])
    }
}

/// Every stream with port 0 (RFC 3264 section 6).
fn refuse_streams(offer: &[u8], out: &mut Vec<u8>) {
    for line in sdp::lines(offer) {
        if line.kind != b'm' {
            if line.kind != b'a' && line.kind != b'b' {
                out.extend_from_slice(line.raw);
            }
            continue;
        }
        let mut words = line.value.splitn(3, |b| *b == b' ');
        let (kind, _, rest) = (words.next().unwrap_or_default(), words.next(), words.next().unwrap_or_default());
        out.extend_from_slice(b"m=");
        out.extend_from_slice(kind);
        out.extend_from_slice(b" 0 ");
        out.extend_from_slice(rest);
        out.extend_from_slice(b"\r\n");
    }
}
