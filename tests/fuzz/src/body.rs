//! Bodies: session descriptions and multiparts, and the edits of them.

use crate::fields::halves;
use std::net::IpAddr;
use strowger_sip::msg::ContentType;
use strowger_sip::sdp::{
    Direction, Origin, Sdp, differs_in_media, find_sdp, hold_inactive, lines, pad_media, rewrite_body_origin,
    rewrite_origin, trim_media,
};

const ORIGIN: Origin<'_> =
    Origin { user: b"us", session: 7, version: 9, addr: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST) };

/// Session descriptions: an edit changes what it names and nothing else.
pub fn sdp(data: &[u8]) {
    let (one, two) = halves(data);
    for body in [data, one, two] {
        assert!(!differs_in_media(body, body));
        assert_eq!(lines(body).map(|l| l.raw.len()).sum::<usize>(), body.len());
        let mut out = b"kept".to_vec();
        match Sdp::parse(body) {
            Ok(sdp) => edits(&sdp),
            Err(fault) => {
                assert_eq!(rewrite_origin(body, &ORIGIN, &mut out), Err(fault));
                assert_eq!(hold_inactive(body, &mut out), Err(fault));
                assert_eq!(trim_media(body, 1, &mut out), Err(fault));
                assert_eq!(out, b"kept", "nothing is written of what is no description");
            }
        }
    }
    if let (Ok(offer), Ok(like)) = (Sdp::parse(one), Sdp::parse(two)) {
        let (mine, theirs) = (offer.media_count(), like.media_count());
        let mut padded = vec![];
        let added = pad_media(one, two, &mut padded).expect("both are descriptions");
        let padded = Sdp::parse(&padded).expect("a padded one is one");
        assert_eq!((added, padded.media_count()), (theirs.saturating_sub(mine), mine.max(theirs)));
        assert!(padded.media().skip(mine).all(|m| m.line.port == 0));
        let mut back = vec![];
        trim_media(padded.raw(), mine, &mut back).expect("a description");
        assert!(!differs_in_media(one, &back));
        assert_eq!(differs_in_media(one, two), differs_in_media(two, one));
    }
}

fn edits(sdp: &Sdp<'_>) {
    let body = sdp.raw();
    let _ = (sdp.origin(), sdp.flavour(), sdp.answer_cannot_offer(), sdp.attributes().count());
    assert_eq!(sdp.media().count(), sdp.media_count());
    let parts = sdp.session().len() + sdp.media().map(|m| m.raw().len()).sum::<usize>();
    assert_eq!(parts, body.len(), "session and streams are the whole");
    for media in sdp.media() {
        let _ = (media.ip(), media.direction(), media.attribute("rtpmap"), media.formats().count());
    }
    let mut out = vec![];
    rewrite_origin(body, &ORIGIN, &mut out).expect("a description");
    let again = Sdp::parse(&out).expect("a rewritten one is one");
    assert_eq!(again.origin().map(|o| (o.user, o.session, o.version)), Some((&b"us"[..], &b"7"[..], &b"9"[..])));
    assert!(!differs_in_media(body, &out));
    assert_eq!(other_lines(&out), other_lines(body), "all other lines are as they were");
    let mut held = vec![];
    hold_inactive(body, &mut held).expect("a description");
    let held = Sdp::parse(&held).expect("one on hold is one");
    assert_eq!(held.media_count(), sdp.media_count());
    assert!(held.media().all(|m| m.direction() == Direction::Inactive));
    for keep in 0..sdp.media_count().min(4) {
        let mut out = vec![];
        trim_media(body, keep, &mut out).expect("a description");
        assert_eq!(Sdp::parse(&out).map(|s| s.media_count()), Ok(keep));
        assert!(body.starts_with(&out));
    }
}

/// All lines but the first o=.
fn other_lines(body: &[u8]) -> Vec<&[u8]> {
    let origin = lines(body).position(|l| l.kind == b'o');
    lines(body).enumerate().filter(|(n, _)| Some(*n) != origin).map(|(_, l)| l.raw).collect()
}

/// Multiparts: the first line of the input is the Content-Type, the rest the body.
pub fn multipart(data: &[u8]) {
    let at = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
    let (kind, body) = (&data[..at], data.get(at + 1..).unwrap_or_default());
    let Some(kind) = ContentType::parse(strowger_sip::msg::trim(kind)) else { return };
    let found = find_sdp(&kind, body);
    let mut out = b"kept".to_vec();
    let written = rewrite_body_origin(&kind, body, &ORIGIN, &mut out);
    let Some(range) = found else {
        assert!(written.is_err() && out == b"kept");
        return;
    };
    let sdp = body.get(range.clone()).expect("inside the body");
    assert_eq!(written.is_ok(), Sdp::parse(sdp).is_ok());
    if written.is_err() {
        assert_eq!(out, b"kept");
        return;
    }
    let out = &out[4..];
    let again = find_sdp(&kind, out).expect("it is still there");
    let sdp_now = &out[again.clone()];
    let mut alone = vec![];
    rewrite_origin(sdp, &ORIGIN, &mut alone).expect("a description");
    assert_eq!(sdp_now, alone);
    assert_eq!(&out[again.end..], &body[range.end..], "what follows is as it was");
    // Before it, the digits of the part's own length may have changed.
    let strip = |head: &[u8]| head.iter().filter(|b| !b.is_ascii_digit()).copied().collect::<Vec<u8>>();
    assert_eq!(strip(&out[..again.start]), strip(&body[..range.start]));
}
