//! What targets begin with.

use crate::torture::{rfc4475, rfc5118};
use strowger_sip::msg::{Limits, Message, Name, ParseError};

const SDP: &str = "v=0\r\no=mhandley 29739 7272939 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
    m=audio 49217 RTP/AVP 0 12\r\na=sendonly\r\nm=video 3227/2 RTP/SAVPF 31\r\na=rtpmap:31 LPC\r\na=setup:active\r\n";

const CHAT: &str = "v=0\r\no=- 1 1 IN IP6 2001:db8::1\r\ns=-\r\nt=0 0\r\nm=message 2855 TCP/MSRP *\r\nc=IN IP6 2001:db8::1\r\n\
    a=accept-types:text/plain\r\na=path:msrp://h:2855/abc;tcp\r\na=inactive\r\n";

/// An ordinary request with some of everything.
const INVITE: &str = "INVITE sip:support@example.com;transport=udp SIP/2.0\r\n\
    Via: SIP/2.0/UDP 203.0.113.7:5060;rport;branch=z9hG4bK74bf9\r\n\
    Via: SIP/2.0/UDP 203.0.113.8;branch=z9hG4bK1, SIP/2.0/TCP [2001:db8::1]:5061;branch=z9hG4bK2\r\nMax-Forwards: 70\r\n\
    From: \"Alice, A.\" <sip:alice@example.com>;tag=9fxced76sl\r\nTo: Support <sip:support@example.com>\r\n\
    Call-ID: 3848276298220188511@example.com\r\nCSeq: 1 INVITE\r\nContact: <sip:alice@203.0.113.7:5060;transport=udp>\r\n\
    Record-Route: <sip:p2.example.com;lr>, <sip:p1.example.com;lr>\r\nTimestamp: 54.3\r\nSupported: timer, 100rel\r\n\
    Session-Expires: 1800;refresher=uac\r\nMin-SE: 90\r\nAllow: INVITE, ACK, BYE\r\nRequire: timer\r\n\
    Content-Type: application/sdp\r\nContent-Length: 0\r\n\r\n";

const RESPONSE: &str = "SIP/2.0 200 OK\r\nv: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKsw0f1-abc;rport=5060;received=10.0.0.1\r\n\
    f: <sip:a@b>;tag=sw0f1-x\r\nt: \"B\" <sip:b@c>;tag=2;x=\"a;tag=sw001-y\"\r\ni: x@y\r\nCSeq: 2 BYE\r\n\
    Retry-After: 18 (in a meeting);duration=3600\r\nRSeq: 1\r\nRAck: 1 2 INVITE\r\nEvent: refer;id=1\r\n\
    Replaces: a@b;to-tag=1;from-tag=2;early-only\r\nRefer-To: <sip:a@b?Replaces=x>\r\nSubscription-State: active;expires=3\r\nl: 0\r\n\r\n";

fn bytes(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|t| t.as_bytes().to_vec()).collect()
}

/// Messages.
#[must_use]
pub fn messages() -> Vec<Vec<u8>> {
    let torture = rfc4475().into_iter().chain(rfc5118()).map(|t| t.bytes);
    torture.chain(bytes(&[INVITE, RESPONSE])).collect()
}

/// Values of one field, of all messages.
fn of_messages(pick: impl Fn(&Message<'_>) -> Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let read =
        |m: &Vec<u8>| -> Result<Vec<Vec<u8>>, ParseError> { Ok(pick(&Message::parse_head(m, &Limits::default())?)) };
    let mut found: Vec<Vec<u8>> = messages().iter().filter_map(|m| read(m).ok()).flatten().collect();
    found.sort();
    found.dedup();
    found
}

fn lines(id: Name) -> Vec<Vec<u8>> {
    of_messages(|m| m.all(id).map(<[u8]>::to_vec).collect())
}

#[must_use]
pub fn uris() -> Vec<Vec<u8>> {
    let mut found = of_messages(|m| m.uri().map(<[u8]>::to_vec).into_iter().collect());
    found.extend(bytes(&[
        "tel:+1-201-555-0123;phone-context=example.com",
        "SIPS:john.doe:pw@Host.Example:5061;transport=tcp;lr?Subject=x",
    ]));
    found
}

#[must_use]
pub fn vias() -> Vec<Vec<u8>> {
    lines(Name::Via)
}

#[must_use]
pub fn addresses() -> Vec<Vec<u8>> {
    [Name::From, Name::To, Name::Contact, Name::ReferTo].into_iter().flat_map(lines).collect()
}

/// Record-Route and Contact, with 0xff between them.
#[must_use]
pub fn routes() -> Vec<Vec<u8>> {
    let routes = [
        &b"<sip:p2.example.com;lr>, <sip:p1.example.com;lr>"[..],
        b"<sip:strict.example.com>, \"x\" <sip:[2001:db8::1]:5070;lr;transport=udp>;a=\"b,c\"",
        b"sip:p.example.com;lr",
    ];
    let contacts = lines(Name::Contact);
    routes.iter().flat_map(|r| contacts.iter().map(|c| [*r, &[0xff], c].concat())).collect()
}

#[must_use]
pub fn values() -> Vec<Vec<u8>> {
    let ids = [
        Name::CSeq,
        Name::RAck,
        Name::ContentType,
        Name::SessionExpires,
        Name::Event,
        Name::Replaces,
        Name::RetryAfter,
    ];
    ids.into_iter().flat_map(lines).collect()
}

/// Descriptions, and two of them with 0xff between.
#[must_use]
pub fn descriptions() -> Vec<Vec<u8>> {
    let mut found = of_messages(|m| vec![m.body().to_vec()]);
    found.extend(bytes(&[SDP, CHAT]));
    found.push([SDP.as_bytes(), &[0xff], CHAT.as_bytes()].concat());
    found.push([CHAT.replace("\r\n", "\n").as_bytes(), &[0xff], SDP.as_bytes()].concat());
    found
}

/// Content-Type, line end, body.
#[must_use]
pub fn multiparts() -> Vec<Vec<u8>> {
    let part = |fields: &str| format!("--b1\r\n{fields}\r\n{SDP}\r\n");
    let plain = part("Content-Type: application/sdp\r\n");
    let counted =
        part(&format!("Content-ID: <x>\r\nContent-Length: {}\r\nContent-Type: application/sdp;x=y\r\n", SDP.len()));
    let inner = format!("--b2\r\nContent-Type: multipart/mixed;boundary=b1\r\n\r\n{plain}--b1--\r\n--b2--\r\n");
    bytes(&[
        &format!("application/sdp\n{SDP}"),
        &format!("multipart/mixed;boundary=b1\nprologue\r\n{plain}--b1--\r\nepilogue"),
        &format!("multipart/mixed; boundary=\"b1\"\n--b1\r\n\r\nHello\r\n{counted}--b1--"),
        &format!("multipart/related;boundary=b2\n{inner}"),
    ])
}

/// Steps of the sequence target: calls that reach an agent, wait, are ended by either side, cancelled, restarted, damaged.
#[must_use]
pub fn sequences() -> Vec<Vec<u8>> {
    // Ops: 0 call (flow, body, extra), 4 all answer, 5 request (message, method, body, extra), 8 time, 13 login, 18 restart.
    let call = [0u8, 0, 0, 0];
    let full = [0u8, 1, 0, 1];
    let chat = [0u8, 2, 3, 1];
    let steps = |parts: &[&[u8]]| [&[0u8][..], &parts.concat()].concat();
    vec![
        steps(&[&call, &[4, 4, 4, 8, 6], &[5, 0, 0, 1, 0], &[4, 8, 9]]),
        steps(&[&call, &[2, 0, 1, 1, 0, 0], &[2, 0, 4, 1, 0, 0], &[4, 4, 8, 5]]),
        steps(&[&full, &[4, 4, 8, 6, 4, 4, 8, 6, 4, 4, 4, 8, 7], &[5, 0, 1, 2, 0, 4, 4]]),
        steps(&[&chat, &[4, 4, 4], &chat, &[4, 4, 8, 6], &[5, 1, 0, 1, 0, 4]]),
        steps(&[&call, &[19, 0, 4, 8, 3], &call, &[2, 0, 1, 1, 0, 0, 19, 1, 4, 4]]),
        steps(&[&[13, 0, 1, 13, 1, 1], &call, &call, &[4, 4, 8, 10, 18, 4, 8, 9], &[13, 0, 0, 4, 4, 4, 8, 11]]),
        steps(&[&[0, 3, 4, 2], &[4, 4, 8, 7, 14, 1, 8, 6, 14, 0, 4, 4]]),
        steps(&[&[12, 1, 0, 40, 1, 2], &call, &[15, 3, 4, 4, 8, 8, 11, 0, 11, 2, 4]]),
        steps(&[&call, &full, &chat, &[4, 4, 4, 18, 4, 18, 4, 8, 7, 17, 1, 8, 8]]),
        // One cancelled, a restart, another at the same moment.
        steps(&[&call, &[19, 0, 4, 18], &call, &[8, 8]]),
        steps(&[&call, &[4, 4, 4, 5, 0, 1, 0, 0, 5, 1, 1, 2, 0, 4, 4, 2, 0, 6, 1, 7, 8, 5, 4, 4, 4]]),
    ]
}

/// Configuration files: the example, sections of it, and settings of the command line.
#[must_use]
pub fn configurations() -> Vec<Vec<u8>> {
    let example = include_str!("../../../strowger.example.toml");
    let whole = example.lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>().join("\n");
    let mut found = bytes(&[
        &whole,
        "[call_center]\nwrapup_time = 2\nacc_db_url = \"mysql://u:p@h/d?ssl-mode=required\"\nrt_db_url = \"scylla://h,h:9042/k\"\n",
        "[[rules]]\nmethod = \"INVITE\"\nuri = \"^sip:(\\\\d+)@\"\nsource = \"10.0.0.0/8\"\nflow = \"q$1\"\non_failure = \"next\"\n[[rules]]\nreject = \"486 Busy\"\n",
        "[sip]\nlisten = [\"udp:[::1]:0\", \"tcp:1.2.3.4:5060\"]\npass_headers = [\"x-*\"]\nt1_ms = 100\n[nonsense]\nx = 1\n",
    ]);
    found.extend(whole.split("\n[").map(|s| format!("[{s}").into_bytes()));
    found.push(b"[log]\n\xffcall_center.db_url=postgres://h/d?sslmode=require".to_vec());
    found
}

#[must_use]
pub fn rows() -> Vec<Vec<u8>> {
    bytes(&[
        "F|sales|s|sip:m@10.0.3.1|sip:w@10.0.3.1|sip:d@h|sip:f@h|pre|9|30|40\nA|ann|sip:ann@10.0.4.1|sip:c@h|s,t|4|1|30|0\n",
        "F|sales|s|sip:m@h\nF|sales|t|sip:m@h\nF||s|sip:m@h\nA|bob|||s\nA|bob|sips:b@h\nA|eve|sip:e@h:0||s|-1|1|99999999999\n",
    ])
}

/// Requests as in `tests/data/mi`, and what FIFO clients write.
#[cfg(feature = "control")]
#[must_use]
pub fn requests() -> Vec<Vec<u8>> {
    let ask = |method: &str, params: &str| {
        format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\",\"params\":{params}}}")
    };
    let mut found = bytes(&[
        "",
        "{}",
        "[]",
        "[1,{},null]",
        "{\"jsonrpc\":\"2.0\",\"method\":\"version\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"ps\",\"params\":3}",
        ":reply_1:{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"uptime\"}:r2:[1]\n::{}",
    ]);
    for command in strowger::control::mi::COMMANDS {
        for params in [
            "[]",
            "{}",
            "[\"a1\",1]",
            "[\"a1\",\"0\"]",
            "{\"agent_id\":\"a2\",\"state\":1}",
            "{\"statistics\":[\"call_center:\"]}",
            "[[\"all\"]]",
        ] {
            found.push(ask(command.old, params).into_bytes());
        }
    }
    found.push(
        format!("[{},{}]", ask("cc_list_calls", "[]"), ask("get_statistics", "[[\"call_center:\"]]")).into_bytes(),
    );
    found
}

/// Damage: file, kind, place, and two bytes more, six bytes each.
#[must_use]
pub fn damages() -> Vec<Vec<u8>> {
    // The one segment of a shard that was in use, cut to nothing: it went untold.
    let mut found = vec![vec![], vec![4, 19, 0, 0, 0, 6]];
    for kind in 0..8 {
        for (at, byte) in [(8u16, 1), (40, 255), (4096, 3), (5000, 0), (65_000, 9)] {
            let [high, low] = at.to_be_bytes();
            found.push(vec![kind, kind, high, low, byte, byte]);
        }
    }
    found
}

#[must_use]
pub fn bundles() -> Vec<Vec<u8>> {
    vec![crate::disk::bundled()]
}
