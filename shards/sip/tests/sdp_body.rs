//! Session descriptions: what is read of them, and that edits change nothing that they do not name.

use proptest::prelude::*;
use strowger_sip::msg::ContentType;
use strowger_sip::sdp::{
    Direction, Flavour, Origin, Sdp, SdpError, differs_in_media, find_sdp, hold_inactive, pad_media,
    rewrite_body_origin, rewrite_origin, trim_media,
};

const AUDIO: &str = "v=0\r\no=alice 2890844526 2890844527 IN IP4 host.example.com\r\ns=call\r\nc=IN IP4 192.0.2.1\r\n\
    t=0 0\r\na=sendonly\r\nm=audio 49170/2 RTP/AVP 0 8 97\r\na=rtpmap:97 iLBC/8000\r\nm=video 51372 RTP/SAVPF 31\r\n\
    c=IN IP6 2001:db8::7\r\na=recvonly\r\na=mid:v\r\n";

const CHAT: &str = "v=0\no=- 1 1 IN IP4 192.0.2.9\ns=-\nc=IN IP4 192.0.2.9\nt=0 0\nm=message 7654 TCP/MSRP *\n\
    a=accept-types:text/plain\na=path:msrp://192.0.2.9:7654/jshA7we;tcp\n";

fn origin() -> Origin<'static> {
    Origin { user: b"strowger", session: 77, version: 3, addr: "198.51.100.1".parse().expect("an address") }
}

fn edit<T>(f: impl FnOnce(&mut Vec<u8>) -> Result<T, SdpError>) -> Result<String, SdpError> {
    let mut out = Vec::new();
    f(&mut out)?;
    Ok(String::from_utf8(out).expect("text"))
}

#[test]
fn reads_session_and_streams() {
    let sdp = Sdp::parse(AUDIO.as_bytes()).expect("valid");
    let o = sdp.origin().expect("six fields");
    assert_eq!((o.user, o.session, o.version), (&b"alice"[..], &b"2890844526"[..], &b"2890844527"[..]));
    assert_eq!(o.address, b"IN IP4 host.example.com");
    assert_eq!(sdp.connection(), Some(&b"IN IP4 192.0.2.1"[..]));
    assert_eq!(sdp.media_count(), 2);
    let media: Vec<_> = sdp.media().collect();
    assert_eq!((media[0].line.kind, media[0].line.port, media[0].line.proto), (&b"audio"[..], 49170, &b"RTP/AVP"[..]));
    assert_eq!(media[0].formats().collect::<Vec<_>>(), [&b"0"[..], b"8", b"97"]);
    assert_eq!((media[0].ip(), media[0].direction()), ("192.0.2.1".parse().ok(), Direction::SendOnly));
    assert_eq!((media[1].ip(), media[1].direction()), ("2001:db8::7".parse().ok(), Direction::RecvOnly));
    assert_eq!(media[1].attribute("mid"), Some(Some(&b"v"[..])));
    assert_eq!(media[1].attribute("rtpmap"), None);
    assert_eq!(media.iter().map(|m| m.raw().len()).sum::<usize>() + sdp.session().len(), AUDIO.len());
}

#[test]
fn refuses_what_is_no_description() {
    for (body, why) in [
        ("", SdpError::NoVersion),
        ("hello", SdpError::NoVersion),
        ("v=1\r\no=- 1 1 IN IP4 h\r\n", SdpError::NoVersion),
        ("s=-\r\nv=0\r\no=- 1 1 IN IP4 h\r\n", SdpError::NoVersion),
        ("v=0\r\ns=-\r\n", SdpError::NoOrigin),
        ("v=0\r\nm=audio 1 RTP/AVP 0\r\no=- 1 1 IN IP4 h\r\n", SdpError::NoOrigin),
        ("v=0\r\no=- 1 1 IN IP4 h\r\nm=audio\r\n", SdpError::BadMedia),
        ("v=0\r\no=- 1 1 IN IP4 h\r\nm=audio 65536 RTP/AVP 0\r\n", SdpError::BadMedia),
    ] {
        assert_eq!(Sdp::parse(body.as_bytes()).map(|_| ()), Err(why), "{body}");
        assert_eq!(edit(|out| rewrite_origin(body.as_bytes(), &origin(), out)), Err(why));
    }
}

#[test]
fn tells_audio_from_chat() {
    let flavour = |m: &str| {
        let body = format!("v=0\r\no=- 1 1 IN IP4 h\r\ns=-\r\nt=0 0\r\n{m}");
        Sdp::parse(body.as_bytes()).expect("valid").flavour()
    };
    assert_eq!(flavour("m=audio 5000 UDP/TLS/RTP/SAVPF 111\r\n"), Flavour::Audio);
    assert_eq!(flavour("m=message 5000 tcp/tls/msrp *\r\n"), Flavour::Chat);
    assert_eq!(flavour("m=image 5000 udptl t38\r\n"), Flavour::Other);
    assert_eq!(flavour(""), Flavour::Unusable);
    assert_eq!(flavour("m=audio 0 RTP/AVP 0\r\n"), Flavour::Unusable);
    assert_eq!(flavour("m=audio 0 RTP/AVP 0\r\nm=message 9 TCP/MSRP *\r\n"), Flavour::Chat);
}

#[test]
fn knows_answers_that_are_no_offers() {
    let check = |more: &str| Sdp::parse(format!("{CHAT}{more}").as_bytes()).expect("valid").answer_cannot_offer();
    assert!(!check(""));
    assert!(check("a=setup:active\n"));
    assert!(check("a=ice-ufrag:8hhY\n"));
    assert!(!check("a=setup-time:1\n"));
}

#[test]
fn rewrites_the_origin_alone() {
    let got = edit(|out| rewrite_origin(AUDIO.as_bytes(), &origin(), out)).expect("valid");
    assert_eq!(
        got,
        AUDIO.replace("o=alice 2890844526 2890844527 IN IP4 host.example.com", "o=strowger 77 3 IN IP4 198.51.100.1")
    );
    let got = edit(|out| {
        rewrite_origin(CHAT.as_bytes(), &Origin { user: b"", addr: "::1".parse().expect("ip"), ..origin() }, out)
    });
    assert_eq!(got.expect("valid"), CHAT.replace("o=- 1 1 IN IP4 192.0.2.9", "o=- 77 3 IN IP6 ::1"), "LF stays LF");
}

#[test]
fn holds_all_streams() {
    let got = edit(|out| hold_inactive(AUDIO.as_bytes(), out)).expect("valid");
    let sdp = Sdp::parse(got.as_bytes()).expect("valid");
    assert!(sdp.media().all(|m| m.direction() == Direction::Inactive));
    assert_eq!(got.matches("a=inactive\r\n").count(), 2);
    let rest = |s: &str| s.replace("a=inactive\r\n", "").replace("a=sendonly\r\n", "").replace("a=recvonly\r\n", "");
    assert_eq!(rest(&got), rest(AUDIO));
    let open = CHAT.trim_end();
    assert_eq!(edit(|out| hold_inactive(open.as_bytes(), out)).expect("valid"), format!("{CHAT}a=inactive\n"));
    let odd = AUDIO.replace("a=sendonly", "a=sendonly:x");
    assert_ne!(odd, AUDIO);
    let got = edit(|out| hold_inactive(odd.as_bytes(), out)).expect("valid");
    let directions: Vec<_> = Sdp::parse(got.as_bytes()).expect("valid").media().map(|m| m.direction()).collect();
    assert_eq!(directions, [Direction::Inactive; 2], "whatever is read as a direction goes");
}

#[test]
fn pads_and_trims_streams() {
    let one = AUDIO.split("m=video").next().expect("a part");
    let padded = edit(|out| {
        assert_eq!(pad_media(one.as_bytes(), AUDIO.as_bytes(), out)?, 1);
        Ok(())
    });
    let padded = padded.expect("valid");
    assert_eq!(padded, format!("{one}m=video 0 RTP/SAVPF 31\r\n"));
    assert_eq!(edit(|out| trim_media(padded.as_bytes(), 1, out)).expect("valid"), one);
    assert_eq!(edit(|out| pad_media(AUDIO.as_bytes(), one.as_bytes(), out)).expect("valid"), AUDIO, "never fewer");
}

#[test]
fn sees_what_the_far_end_must_know() {
    let differs = |from: &str, to: &str| differs_in_media(AUDIO.as_bytes(), AUDIO.replace(from, to).as_bytes());
    assert!(!differs("x", "x"));
    assert!(!differs("o=alice 2890844526", "o=bob 1"), "origin");
    assert!(!differs("a=sendonly", "a=inactive"), "direction");
    assert!(!differs("RTP/AVP 0 8 97", "RTP/AVP 97 0 8"), "order of formats");
    assert!(differs("c=IN IP4 192.0.2.1", "c=IN IP4 192.0.2.2"), "address of the session");
    assert!(differs("2001:db8::7", "2001:db8::8"), "address of a stream");
    assert!(differs("49170", "49172"), "port");
    assert!(differs("RTP/AVP 0 8 97", "RTP/AVP 0 97"), "formats");
    let twice = AUDIO.replace("RTP/AVP 0 8 97", "RTP/AVP 0 0 97");
    assert!(differs_in_media(twice.as_bytes(), AUDIO.as_bytes()), "a format named twice takes no other's place");
    assert!(differs_in_media(AUDIO.as_bytes(), twice.as_bytes()));
    assert!(differs("iLBC", "opus"), "encoding of a format");
    assert!(differs("RTP/SAVPF", "RTP/AVP"), "transport");
    assert!(differs("m=video 51372 RTP/SAVPF 31\r\n", ""), "number of streams");
    assert!(differs_in_media(CHAT.as_bytes(), CHAT.replace("jshA7we", "other").as_bytes()), "MSRP path");
    assert!(!differs_in_media(b"no sdp", b"no sdp") && differs_in_media(b"no sdp", b"other"));
}

fn multipart(part_head: &str) -> String {
    format!(
        "preamble --b\r\n--bb\r\nContent-Type: text/plain\r\n\r\nnot it\r\n--b\r\nContent-Type: application/isup;version=x\r\n\r\n\
         \u{1}\u{2}\n--bx\r\n--b  \r\n{part_head}\r\n{AUDIO}\r\n--b\r\n\r\nv=0 no type\r\n--b--\r\nepilogue\r\n"
    )
}

#[test]
fn finds_and_rewrites_the_part_of_a_multipart() {
    let quoted = ContentType::parse(b"multipart/mixed ; boundary=\"b\"").expect("valid");
    let plain = ContentType::parse(b"Multipart/Mixed;boundary=b").expect("valid");
    for (ct, head) in [
        (quoted, "Content-Type: application/sdp\r\nContent-Disposition: session\r\n"),
        (plain, "c:\r\n APPLICATION/SDP;charset=x\r\n"),
    ] {
        let body = multipart(head);
        let range = find_sdp(&ct, body.as_bytes()).expect("found");
        assert_eq!(&body[range], AUDIO);
        let got = edit(|out| rewrite_body_origin(&ct, body.as_bytes(), &origin(), out)).expect("valid");
        assert_eq!(
            got,
            body.replace(
                "o=alice 2890844526 2890844527 IN IP4 host.example.com",
                "o=strowger 77 3 IN IP4 198.51.100.1"
            )
        );
    }
}

#[test]
fn a_part_length_that_is_right_stays_right() {
    let ct = ContentType::parse(b"multipart/mixed;boundary=b").expect("valid");
    let head = |n: usize| format!("Content-Type: application/sdp\r\nContent-Length:  {n} \r\n");
    let body = multipart(&head(AUDIO.len()));
    let got = edit(|out| rewrite_body_origin(&ct, body.as_bytes(), &origin(), out)).expect("valid");
    let range = find_sdp(&ct, got.as_bytes()).expect("found");
    assert!(got.contains(&head(range.len())), "{got}");
    let wrong = multipart(&head(5));
    let got = edit(|out| rewrite_body_origin(&ct, wrong.as_bytes(), &origin(), out)).expect("valid");
    assert!(got.contains(&head(5)), "a length that was wrong is not ours to mend");
}

#[test]
fn odd_multiparts() {
    let ct = |s: &'static str| ContentType::parse(s.as_bytes()).expect("valid");
    let sdp = "v=0\r\no=- 1 1 IN IP4 h\r\n";
    let nested = format!(
        "--out\r\nContent-Type: multipart/alternative;boundary=in\r\n\r\n--in\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--in--\r\n--out--"
    );
    let range = find_sdp(&ct("multipart/mixed;boundary=out"), nested.as_bytes()).expect("found");
    assert_eq!(&nested[range], sdp);
    let unclosed = format!("--b\nContent-Type: application/sdp\n\n{sdp}");
    let range = find_sdp(&ct("multipart/mixed;boundary=b"), unclosed.as_bytes()).expect("found");
    assert_eq!(&unclosed[range], sdp);
    for (ty, body) in [
        ("multipart/mixed", nested.as_str()),
        ("multipart/mixed;boundary=\"\"", nested.as_str()),
        ("multipart/mixed;boundary=zz", nested.as_str()),
        ("text/plain", sdp),
        ("multipart/mixed;boundary=b", "--b--\r\n--b\r\nContent-Type: application/sdp\r\n\r\nv=0"),
        ("multipart/mixed;boundary=b", "--b\r\n--b\r\n--b--"),
    ] {
        assert_eq!(find_sdp(&ct(ty), body.as_bytes()), None, "{ty} {body}");
    }
    assert_eq!(find_sdp(&ct("application/sdp"), sdp.as_bytes()), Some(0..sdp.len()));
    let got = edit(|out| rewrite_body_origin(&ct("text/plain"), b"x", &origin(), out));
    assert_eq!(got, Err(SdpError::NotFound));
}

fn sdp_like() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just("v=0".to_owned()),
        Just("o=- 1 1 IN IP4 192.0.2.1".to_owned()),
        Just("c=IN IP6 ::1".to_owned()),
        "m=(audio|message|) [0-9/]{0,6} (RTP/AVP|TCP/MSRP)( [0-9*]{1,3}){0,4}",
        "a=(sendrecv|inactive|setup:x|rtpmap:[0-9] x|path:y)",
        "--b(--)? ?",
        "Content-(Type|Length): ?(application/sdp|multipart/mixed;boundary=b|[0-9]{1,3})",
        "[ -~]{0,12}",
        Just(String::new()),
    ];
    let end = prop_oneof![Just("\r\n"), Just("\n"), Just("\r")];
    (any::<bool>(), proptest::collection::vec((line, end), 0..24)).prop_map(|(begin, lines)| {
        let mut body = if begin { b"v=0\r\no=- 1 1 IN IP4 h\r\n".to_vec() } else { Vec::new() };
        body.extend(lines.into_iter().flat_map(|(l, e)| [l.into_bytes(), e.as_bytes().to_vec()]).flatten());
        body
    })
}

/// Everything that reads or writes a body.
fn exercise(body: &[u8]) {
    let mut out = Vec::new();
    if let Ok(sdp) = Sdp::parse(body) {
        let streams: Vec<_> = sdp.media().collect();
        assert_eq!(streams.len(), sdp.media_count());
        let parts: Vec<u8> =
            [sdp.session()].into_iter().chain(streams.iter().map(|m| m.raw())).flatten().copied().collect();
        assert_eq!(parts, body);
        for m in &streams {
            let _ = (m.ip(), m.direction(), m.connection(), m.attribute("path"), m.formats().count());
        }
        let _ = (sdp.flavour(), sdp.origin(), sdp.answer_cannot_offer(), sdp.attributes().count());
        assert!(!differs_in_media(body, body));
        for f in [
            |b: &[u8], o: &mut Vec<u8>| rewrite_origin(b, &origin(), o),
            |b: &[u8], o: &mut Vec<u8>| hold_inactive(b, o),
        ] {
            out.clear();
            f(body, &mut out).expect("what parses can be edited");
            assert_eq!(Sdp::parse(&out).expect("still a description").media_count(), streams.len());
            let again = out.clone();
            out.clear();
            f(&again, &mut out).expect("valid");
            assert_eq!(out, again, "an edit done twice is done once");
        }
        out.clear();
        trim_media(body, 1, &mut out).expect("valid");
        let short = out.clone();
        out.clear();
        pad_media(&short, body, &mut out).expect("valid");
        assert_eq!(Sdp::parse(&out).expect("valid").media_count(), streams.len());
    }
    for ty in ["multipart/mixed;boundary=b", "application/sdp"] {
        let ct = ContentType::parse(ty.as_bytes()).expect("valid");
        let Some(range) = find_sdp(&ct, body) else { continue };
        out.clear();
        if rewrite_body_origin(&ct, body, &origin(), &mut out).is_ok() {
            let mut sdp = Vec::new();
            rewrite_origin(&body[range.clone()], &origin(), &mut sdp).expect("valid");
            let found = find_sdp(&ct, &out).expect("still there");
            assert_eq!(&out[found], sdp);
            assert!(out.ends_with(&body[range.end..]));
        } else {
            assert!(out.is_empty(), "nothing is written on an error");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn edits_hold_on_anything_like_a_description(body in sdp_like()) {
        exercise(&body);
    }

    #[test]
    fn edits_hold_on_any_bytes(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        exercise(&body);
    }
}
