//! The torture messages of RFC 4475 and RFC 5118: what those documents call valid is read right, what they call
//! invalid gets the answer that they ask for. Texts condensed where the body does not matter.

mod msg_support;

use msg_support::{SDP, accept, parse, wire};
use strowger_sip::hash::HashKey;
use strowger_sip::msg::{Limits, Message, Method, Name, ParseError, Scheme, Uri, percent_decode, unescape, unfold};
use strowger_sip::scan::{Owner, bucket_of, owner};
use strowger_sip::sdp::{Sdp, find_sdp};

const KEY: HashKey = HashKey(7, 9);

/// A request with a Via, From, To and so on of its own; `extra` are further lines.
fn request(first: &str, cseq: &str, extra: &str) -> Vec<u8> {
    wire(&format!(
        "{first}\nVia: SIP/2.0/UDP host5.example.net;branch=z9hG4bKkdjuw\nTo: sip:user@example.com\n\
         From: <sip:caller@example.net>;tag=938\nMax-Forwards: 87\nCall-ID: test.0ha0isndaksdj\nCSeq: {cseq}\n\
         {extra}Content-Length: 0\n\n"
    ))
}

/// RFC 4475 section 3.1.1.1.
#[test]
fn wsinv_folds_blanks_and_lists() {
    let text = "INVITE sip:vivekg@chair-dnrc.example.com;unknownparam SIP/2.0
TO :
 sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n
from   : \"J Rosenberg \\\\\\\"\"       <sip:jdrosen@example.com>
  ;
  tag = 98asjd8
MaX-fOrWaRdS: 0068
Call-ID: wsinv.ndaksdj@192.0.2.1
Content-Length   : <len>
cseq: 0009
  INVITE
Via  : SIP  /   2.0
 /UDP
    192.0.2.2;branch=390skdjuw
s :
NewFangledHeader:   newfangled value
 continued newfangled value
UnknownHeaderWithUnusualValue: ;;,,;;,;
Content-Type: application/sdp
Route:
 <sip:services.example.com;lr;unknownwith=value;unknown-no-value>
v:  SIP  / 2.0  / TCP     spindle.example.com   ;
  branch  =   z9hG4bK9ikj8  ,
 SIP  /    2.0   / UDP  192.168.255.111   ; branch=
 z9hG4bK30239
m:\"Quoted string \\\"\\\"\" <sip:jdrosen@example.com> ; newparam =
      newvalue ;
  secondparam ; q = 0.33

";
    let crlf = wire(&format!("{text}{SDP}"));
    let lf = format!("{text}{SDP}").replace("<len>", &SDP.len().to_string());
    for bytes in [crlf.as_slice(), lf.as_bytes()] {
        let m = parse(bytes).expect("well-formed");
        m.check_request().expect("well-formed");
        assert!(m.request_uri().expect("uri").params.has("unknownparam"));
        assert_eq!(m.to_tag(), Some(&b"1918181833n"[..]));
        let from = m.from().expect("from");
        assert!(from.quoted);
        assert_eq!(unescape(from.display).as_ref(), b"J Rosenberg \\\"");
        assert_eq!(m.from_tag(), Some(&b"98asjd8"[..]));
        assert_eq!(m.max_forwards(), Ok(Some(68)));
        let cseq = m.cseq().expect("cseq");
        assert_eq!((cseq.number, cseq.method), (9, Method::Invite));
        assert_eq!(m.first(Name::Subject), Some(&b""[..]));
        let vias: Vec<_> = m.values(Name::Via).map(|v| strowger_sip::msg::Via::parse(v).expect("via")).collect();
        assert_eq!(vias.len(), 3);
        assert_eq!(vias[0].branch(), Some(&b"390skdjuw"[..]));
        assert_eq!((vias[1].transport, vias[1].host.text), (&b"TCP"[..], &b"spindle.example.com"[..]));
        assert_eq!(vias[2].branch(), Some(&b"z9hG4bK30239"[..]));
        let contact = m.contact().expect("contact").expect("one");
        assert_eq!(contact.params.value("newparam"), Some(&b"newvalue"[..]));
        assert_eq!(contact.params.get("secondparam"), Some(None));
        assert_eq!(contact.params.value("q"), Some(&b"0.33"[..]));
        let mut line = Vec::new();
        unfold(m.other("newfangledheader").expect("there"), &mut line);
        assert_eq!(line, b"newfangled value continued newfangled value");
        assert_eq!(m.other("UnknownHeaderWithUnusualValue"), Some(&b";;,,;;,;"[..]));
        assert_eq!(Sdp::parse(m.body()).expect("sdp").media_count(), 2);
        assert_eq!(owner(bytes, &KEY), Owner::Bucket(bucket_of(b"wsinv.ndaksdj@192.0.2.1", &KEY)));
    }
}

/// RFC 4475 section 3.1.1.2.
#[test]
fn intmeth_wide_range_of_characters() {
    let method = "!interesting-Method0123456789_*+`.%indeed'~";
    let uri =
        "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com";
    let bytes = wire(&format!(
        "{method} {uri} SIP/2.0
Via: SIP/2.0/TCP host1.example.com;branch=z9hG4bK-.!%66*_+`'~
To: \"BEL:\\\u{7} NUL:\\\u{0} DEL:\\\u{7f}\" <sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com>
From: token1~` token2'+_ token3*%!.- <sip:mundane@example.com>;fromParam''~+*_!.-%=\"работающий\";tag=_token~1'+`*%!-.
Call-ID: intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}}{{
CSeq: 139122385 {method}
Max-Forwards: 255
extensionHeader-!.%*+_`'~:\u{feff}大停電
Content-Length: 0

"
    ));
    let m = parse(&bytes).expect("well-formed");
    m.check_request().expect("well-formed");
    assert_eq!(m.method(), Some(Method::Other(method.as_bytes())));
    let uri = m.request_uri().expect("uri");
    assert_eq!(uri.user, Some(&b"1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"[..]));
    assert_eq!(uri.password, Some(&b"&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"[..]));
    assert_eq!(uri.host, b"example.com");
    assert_eq!(unescape(m.to().expect("to").display).as_ref(), b"BEL:\x07 NUL:\x00 DEL:\x7f");
    let from = m.from().expect("from");
    assert_eq!(from.display, b"token1~` token2'+_ token3*%!.-");
    assert_eq!(from.params.value("fromParam''~+*_!.-%"), Some("работающий".as_bytes()));
    assert_eq!(from.tag(), Some(&b"_token~1'+`*%!-."[..]));
    assert_eq!(m.call_id(), Ok(&b"intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"[..]));
    assert_eq!(m.top_via().expect("via").branch(), Some(&b"z9hG4bK-.!%66*_+`'~"[..]));
    assert_eq!(m.other("extensionHeader-!.%*+_`'~"), Some("\u{feff}大停電".as_bytes()));
}

/// RFC 4475 sections 3.1.1.3 (esc01), 3.1.1.4 (escnull), 3.1.1.5 (esc02).
#[test]
fn escapes_are_resolved_where_they_are_escapes() {
    let bytes = request("INVITE sip:sips%3Auser%40example.com@example.net SIP/2.0", "234234 INVITE", "");
    let m = parse(&bytes).expect("well-formed");
    let uri = m.request_uri().expect("uri");
    assert_eq!(percent_decode(uri.user.expect("user")).as_ref(), b"sips:user@example.com");
    assert_eq!(uri.host, b"example.net");

    let uri = Uri::parse(b"sip:null-%00-null@example.com").expect("valid");
    assert_eq!(percent_decode(uri.user.expect("user")).as_ref(), b"null-\0-null");

    let bytes = request(
        "RE%47IST%45R sip:registrar.example.com SIP/2.0",
        "29344 RE%47IST%45R",
        "Contact: <sip:alias1@host1.example.com>, <sip:cal%6Cer@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31>\n",
    );
    let m = parse(&bytes).expect("well-formed");
    assert_eq!(m.method(), Some(Method::Other(b"RE%47IST%45R")), "not REGISTER");
    let second = m.contacts().nth(1).expect("two").expect("valid").uri_parsed().expect("valid");
    assert!(!second.is_loose(), "%6C%72 is no lr unless it is decoded, which nobody asks for");
    assert_eq!(second.params.value("n%61me"), Some(&b"v%61lue%25%34%31"[..]));
}

/// RFC 4475 section 3.1.1.6 (no LWS between display name and bracket).
#[test]
fn lwsdisp_display_name_next_to_bracket() {
    let bytes = wire(
        "OPTIONS sip:user@example.com SIP/2.0\nTo: sip:user@example.com\nFrom: caller<sip:caller@example.com>;tag=323\n\
         Max-Forwards: 70\nCall-ID: lwsdisp.1234abcd@funky.example.com\nCSeq: 60 OPTIONS\n\
         Via: SIP/2.0/UDP funky.example.com;branch=z9hG4bKkdjuw\nl: 0\n\n",
    );
    let m = parse(&bytes).expect("well-formed");
    assert_eq!(m.from().expect("from").display, b"caller");
}

/// RFC 4475 section 3.1.1.7 (long values) and 3.1.1.13 (a URI with semicolons in its user part).
#[test]
fn longreq_and_semiuri() {
    let many: String = (0..34).map(|i| format!("Via: SIP/2.0/TCP sip{i}.example.com;branch=z9hG4bK{i}\n")).collect();
    let long = format!("Unknown-{}-Name: x\n{many}", "Long".repeat(80));
    let bytes = request(&format!("INVITE sip:user@example.com;{}=y SIP/2.0", "p".repeat(2000)), "3 INVITE", &long);
    let m = parse(&bytes).expect("well-formed");
    m.check_request().expect("well-formed");
    assert_eq!(m.values(Name::Via).count(), 35);
    assert_eq!(m.other(&format!("unknown-{}-name", "long".repeat(80))), Some(&b"x"[..]));

    let bytes = request("OPTIONS sip:user;par=u%40example.net@example.com SIP/2.0", "8 OPTIONS", "");
    let uri = parse(&bytes).expect("well-formed").request_uri().expect("uri");
    assert_eq!(uri.user, Some(&b"user;par=u%40example.net"[..]));
    assert_eq!(uri.host, b"example.com");
    assert!(uri.params.raw().is_empty());
}

/// RFC 4475 section 3.1.1.8: the octets behind the first message are ignored.
#[test]
fn dblreq_extra_octets_are_ignored() {
    let mut bytes = request("REGISTER sip:example.com SIP/2.0", "8 REGISTER", "");
    let first = bytes.len();
    bytes.extend_from_slice(b"INVITE sip:joe@example.com SIP/2.0\r\n\r\n");
    let m = parse(&bytes).expect("well-formed");
    assert_eq!(m.raw().len(), first);
    assert!(m.body().is_empty());
}

/// RFC 4475 section 3.1.1.9 (transports), 3.1.1.10 (multipart body of binary parts), 3.1.1.11 and 3.1.1.12 (reason).
#[test]
fn transports_multipart_reasons() {
    let bytes = request(
        "OPTIONS sip:user@example.com SIP/2.0",
        "8 OPTIONS",
        "v: SIP/2.0/SCTP t2.example.com;branch=z9hG4bKklasjdhf\nVia: SIP/2.0/UNKNOWN t4.example.com;branch=z9hG4bK3k\n",
    );
    let m = parse(&bytes).expect("well-formed");
    m.check_request().expect("well-formed");
    let unknown = m.values(Name::Via).nth(2).map(|v| strowger_sip::msg::Via::parse(v).expect("via")).expect("third");
    assert_eq!((unknown.transport, unknown.transport_known()), (&b"UNKNOWN"[..], None));

    let mut body = b"--7a9cbec02ceef655\r\nContent-Type: text/plain\r\n\r\nHello\r\n--7a9cbec02ceef655\r\n\
        Content-Type: application/octet-stream\r\n\r\n"
        .to_vec();
    body.extend((0..=255u8).cycle().take(600));
    body.extend_from_slice(b"\r\n--7a9cbec02ceef655--\r\n");
    let mut bytes = format!(
        "MESSAGE sip:kumiko@example.org SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK-d87543\r\n\
         Max-Forwards: 70\r\nTo: <sip:kumiko@example.org>\r\nFrom: <sip:fluffy@example.com>;tag=2fb0dcc9\r\n\
         Call-ID: 3d9485ad0c49859b@Zmx1ZmZ5LW1hYy0xNi5sb2NhbA..\r\nCSeq: 1 MESSAGE\r\n\
         Content-Type: multipart/mixed;boundary=7a9cbec02ceef655\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(&body);
    let m = parse(&bytes).expect("well-formed");
    assert_eq!(m.body(), body);
    assert_eq!(find_sdp(&m.content_type().expect("type"), m.body()), None);

    for (line, code, reason) in [
        (
            "SIP/2.0 200 = 2**3 * 5**2 но сто девяносто девять - простое",
            200,
            "= 2**3 * 5**2 но сто девяносто девять - простое",
        ),
        ("SIP/2.0 100 ", 100, ""),
        ("SIP/2.0 100", 100, ""),
    ] {
        let bytes = request(line, "35 INVITE", "");
        let m = parse(&bytes).expect("well-formed");
        assert_eq!((m.code(), m.reason()), (Some(code), Some(reason.as_bytes())));
    }
}

/// RFC 4475 section 3.1.2: first line, fault.
#[test]
fn invalid_first_lines() {
    for (line, cseq, fault, status) in [
        ("INVITE <sip:user@example.com> SIP/2.0", "1 INVITE", ParseError::BadUri, 400), // ltgtruri
        ("INVITE sip:user@example.com; lr SIP/2.0", "1 INVITE", ParseError::BadStartLine, 400), // lwsruri
        ("INVITE  sip:user@example.com  SIP/2.0", "1 INVITE", ParseError::BadStartLine, 400), // lwsstart
        ("OPTIONS sip:remote-target@example.com SIP/2.0  ", "1 OPTIONS", ParseError::BadStartLine, 400), // trws
        ("OPTIONS sip:t.watson@example.org SIP/7.0", "1 OPTIONS", ParseError::BadVersion, 505), // badvers
        ("OPTIONS sip:user@example.com SIP/2.0", "8 INVITE", ParseError::MethodMismatch, 400), // mismatch01
        ("NEWMETHOD sip:user@example.com SIP/2.0", "8 INVITE", ParseError::MethodMismatch, 400), // mismatch02
        ("OPTIONS nobodyKnowsThisScheme:totallyopaquecontent SIP/2.0", "3 OPTIONS", ParseError::UnsupportedScheme, 416),
        ("OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0", "3 OPTIONS", ParseError::UnsupportedScheme, 416), // novelsc
        ("REGISTER sip:2001:db8::10 SIP/2.0", "1 REGISTER", ParseError::BadUri, 400), // RFC 5118 section 4.2
    ] {
        let bytes = request(line, cseq, "");
        assert_eq!(accept(&bytes), Err(fault), "{line}");
        assert_eq!(fault.status(), status, "{line}");
        assert!(Message::parse_head(&bytes, &Limits::default()).is_ok(), "can be answered: {line}");
    }
    for line in [
        "SIP/2.0 4294967301 better not break the receiver",
        "SIP/2.0 20 OK",
        "SIP/2.0 700 No",
        "GET / HTTP/1.1",
        "INVITE",
        "SIP/2.0",
        "SIP/3.0 200 OK",
        " INVITE sip:a@b SIP/2.0",
    ] {
        let bytes = request(line, "1 INVITE", "");
        assert!(Message::parse_head(&bytes, &Limits::default()).is_err(), "no answer to: {line}");
    }
}

/// RFC 4475 sections 3.1.2 and 3.3: fields.
#[test]
fn invalid_fields() {
    let with = |id: &str, line: &str| {
        let bytes = request("INVITE sip:user@example.com SIP/2.0", "8 INVITE", "");
        let text = String::from_utf8(bytes).expect("text");
        let lines =
            text.split_inclusive("\r\n").map(|l| if l.starts_with(id) { format!("{line}\r\n") } else { l.to_owned() });
        accept(lines.collect::<String>().as_bytes())
    };
    let bad = |id| Err(ParseError::BadHeader(id));
    // badinv01, bad Via and Contact separators
    assert_eq!(with("Via", "Via: SIP/2.0/UDP 192.0.2.15;;,;,,"), bad(Name::Via));
    assert_eq!(
        with("Max", "Contact: \"Joe\" <sip:joe@example.org>;;;;"),
        Ok(()),
        "empty parameters alone are harmless"
    );
    assert_eq!(with("Content-Length", "Content-Length: 9999"), Err(ParseError::BadContentLength)); // clerr
    assert_eq!(with("Content-Length", "Content-Length: -999"), Err(ParseError::BadContentLength)); // ncl
    assert_eq!(
        with("Content-Length", "Content-Length: 0\r\nl: 1"),
        Err(ParseError::DuplicateHeader(Name::ContentLength))
    ); // mcl01
    assert_eq!(with("CSeq", "CSeq: 36893488147419103232 INVITE"), bad(Name::CSeq)); // scalar02
    assert_eq!(with("CSeq", "CSeq: 2147483648 INVITE"), bad(Name::CSeq));
    assert_eq!(with("CSeq", "CSeq: 2147483647 INVITE"), Ok(()));
    assert_eq!(with("CSeq", "CSeq: 0 INVITE"), Ok(()));
    assert_eq!(with("CSeq", "CSeq: -1 INVITE"), bad(Name::CSeq));
    assert_eq!(with("Max", "Max-Forwards: 300"), bad(Name::MaxForwards)); // scalar02
    assert_eq!(with("To", "To: \"Mr. J. User <sip:j.user@example.com>"), bad(Name::To)); // quotbal
    assert_eq!(with("From", "From:    Bell, Alexander <sip:a.g.bell@example.com>;tag=43"), bad(Name::From)); // baddn
    assert_eq!(with("To", "To: \"Watson, Thomas\" < sip:t.watson@example.org >"), Ok(()), "badaspec, taken liberally");
    assert_eq!(with("Max", "Contact: sip:user@example.com?Route=%3Csip:sip.example.com%3E"), bad(Name::Contact)); // regbadct
    assert_eq!(with("Max", "Contact: <sip:user@example.com?Route=%3Csip:sip.example.com%3E>"), Ok(())); // regescrt
    assert_eq!(with("Max", "Date: Fri, 01 Jan 2010 16:00:00 EST"), Ok(()), "baddate: nobody needs it");
    assert_eq!(with("To", "To: isbn:2983792873"), Ok(()), "unksm2: schemes in To are nobody's business");
    assert_eq!(with("Via", "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK"), Ok(()), "badbranch: the transaction layer's");
    // insuf, one by one
    for (start, id) in
        [("Via", Name::Via), ("To", Name::To), ("From", Name::From), ("Call-ID", Name::CallId), ("CSeq", Name::CSeq)]
    {
        assert_eq!(with(start, "X: y"), Err(ParseError::MissingHeader(id)));
    }
    // multi01
    for (start, line, id) in [
        ("CSeq", "CSeq: 8 INVITE\r\nCSeq: 59 INVITE", Name::CSeq),
        ("Call-ID", "Call-ID: a\r\ni: b", Name::CallId),
        ("From", "From: <sip:a@b>;tag=1\r\nf: <sip:a@b>;tag=2", Name::From),
        ("To", "To: <sip:a@b>\r\nt: <sip:c@d>", Name::To),
        ("Max", "Max-Forwards: 70\r\nMax-Forwards: 5", Name::MaxForwards),
    ] {
        assert_eq!(with(start, line), Err(ParseError::DuplicateHeader(id)));
    }
    // scalarlg: a response that is dropped
    let bytes = request("SIP/2.0 503 Service Unavailable", "9292394834772304023312 OPTIONS", "");
    assert_eq!(parse(&bytes).map(|_| ()), bad(Name::CSeq));
    // Overlong deltas are clamped
    let bytes = request("SIP/2.0 503 Service Unavailable", "9 OPTIONS", "Retry-After: 949302838503028349304023988\n");
    assert_eq!(parse(&bytes).expect("valid").retry_after(), Some(u32::MAX));
}

/// RFC 5118 section 4.
#[test]
fn ipv6_literals() {
    for (uri, ip, port) in [
        ("sip:[2001:db8::10]", "2001:db8::10", None),
        ("sip:[2001:db8::10:5070]", "2001:db8::10:5070", None),
        ("sip:[2001:db8::10]:5070", "2001:db8::10", Some(5070)),
        ("sip:user@[2001:db8:::192.0.2.1]", "2001:db8::192.0.2.1", None),
        ("sip:user@[2001:db8::192.0.2.1]", "2001:db8::192.0.2.1", None),
        ("sip:ted@[::ffff:192.0.2.2]", "::ffff:192.0.2.2", None),
    ] {
        let bytes = request(&format!("OPTIONS {uri} SIP/2.0"), "1 OPTIONS", "");
        accept(&bytes).expect(uri);
        let u = parse(&bytes).expect("valid").request_uri().expect("valid");
        assert_eq!((u.host_ip(), u.port, u.is_ipv6), (ip.parse().ok(), port, true), "{uri}");
    }
    for (via, host, received) in [
        (
            "SIP/2.0/UDP [2001:db8::9:1];received=[2001:db8::9:255];branch=z9hG4bKas3",
            "2001:db8::9:1",
            "2001:db8::9:255",
        ),
        ("SIP/2.0/UDP [2001:db8::9:1];received=2001:db8::9:255;branch=z9hG4bKas3", "2001:db8::9:1", "2001:db8::9:255"),
        (
            "SIP/2.0/UDP [::ffff:192.0.2.10]:19823;branch=z9hG4bKas3;received=192.0.2.200",
            "::ffff:192.0.2.10",
            "192.0.2.200",
        ),
    ] {
        let via = strowger_sip::msg::Via::parse(via.as_bytes()).expect(via);
        assert_eq!((via.host.ip(), via.received()), (host.parse().ok(), received.parse().ok()));
        assert_eq!(via.branch(), Some(&b"z9hG4bKas3"[..]));
    }
    for bad in
        ["sip:[2001:db8::10", "sip:[2001:db8::g]", "sip:[]", "sip:[::1]x", "sip:[::1]:", "sip:[::1%eth0]", "sip:a@::1"]
    {
        assert_eq!(Uri::parse(bad.as_bytes()), Err(ParseError::BadUri), "{bad}");
    }
}

#[test]
fn other_schemes() {
    let uri = Uri::parse(b"tel:+1-201-555-0123;phone-context=example.com").expect("valid");
    assert_eq!((uri.scheme, uri.user, uri.host), (Scheme::Tel, Some(&b"+1-201-555-0123"[..]), &b""[..]));
    assert_eq!(uri.params.value("phone-context"), Some(&b"example.com"[..]));
    let uri =
        Uri::parse(b"SIPS:john.doe:pw@Host.Example:5061;transport=tcp;lr?Subject=x&Priority=urgent").expect("valid");
    assert_eq!((uri.scheme, uri.user, uri.password), (Scheme::Sips, Some(&b"john.doe"[..]), Some(&b"pw"[..])));
    assert_eq!(
        (uri.host, uri.port, uri.headers),
        (&b"Host.Example"[..], Some(5061), Some(&b"Subject=x&Priority=urgent"[..]))
    );
    assert!(uri.is_loose());
    for bad in [
        "",
        "sip:",
        "sip:@host",
        "sip::pw@host",
        "sip:a@",
        "sip:a@b:",
        "sip:a@b:65536",
        "sip:a@b:5x",
        "sip:a b@c",
        "tel:",
        "tel:a;b",
        "x",
        ":x",
        "1a:b",
        "sip:a@b@c",
    ] {
        let got = Uri::parse(bad.as_bytes());
        assert!(got.is_err() || bad == "tel:a;b", "{bad}: {got:?}");
    }
}
