//! What a shard makes of each message of RFC 4475 and RFC 5118, as those documents say for an element such as this one:
//! a user agent that takes calls, registers nobody, and speaks UDP.

use std::net::SocketAddr;
use strowger_engine::registry::Rows;
use strowger_fuzz::shard::{KEY, Shard, flow};
use strowger_fuzz::torture::{Torture, rfc4475, rfc5118};
use strowger_sip::msg::{Limits, Message, Method, Name};
use strowger_sip::scan::{Class, Owner, bucket_of, scan};

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is a call of the flow that the Request-URI's user names: 100, and an INVITE to the music.
    Call,
    /// It gets this answer; a line of it.
    Answer(u16, &'static str),
    /// Nothing is answered, nothing begins.
    Dropped,
}

use Fate::{Answer, Call, Dropped};

const NO_REGISTRAR: Fate = Answer(405, "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, MESSAGE, NOTIFY");
const UNKNOWN_METHOD: Fate = Answer(501, "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, MESSAGE, NOTIFY");
const OPTIONS: Fate = Answer(200, "Accept: application/sdp, multipart/mixed");
const BAD: Fate = Answer(400, "Content-Length: 0");
const NO_DIALOG: Fate = Answer(481, "Content-Length: 0");

const RFC4475: [(&str, Fate); 49] = [
    ("wsinv", NO_DIALOG),                          // well-formed; its To has a tag
    ("intmeth", UNKNOWN_METHOD),                   // 501 with Allow
    ("esc01", Call),                               // the flow `sips:user@example.com`
    ("escnull", NO_REGISTRAR),                     // well-formed
    ("esc02", UNKNOWN_METHOD),                     // not REGISTER: % is no escape there
    ("lwsdisp", OPTIONS),                          // well-formed
    ("longreq", Call),                             // well-formed
    ("dblreq", NO_REGISTRAR),                      // once: what follows is ignored
    ("semiuri", OPTIONS),                          // well-formed
    ("transports", OPTIONS),                       // well-formed
    ("mpart01", NO_DIALOG),                        // well-formed; no rule wants it
    ("unreason", Dropped),                         // well-formed; answers nothing of ours
    ("noreason", Dropped),                         // well-formed; answers nothing of ours
    ("badinv01", BAD),                             // 400
    ("clerr", BAD),                                // 400 on a datagram
    ("ncl", BAD),                                  // 400
    ("scalar02", BAD),                             // 400
    ("scalarlg", Dropped),                         // a response
    ("quotbal", BAD),                              // 400
    ("ltgtruri", BAD),                             // 400, or be liberal
    ("lwsruri", BAD),                              // 400
    ("lwsstart", BAD),                             // 400, or be liberal
    ("trws", BAD),                                 // 400, or be liberal
    ("escruri", Call),                             // 400, or ignore the header
    ("baddate", Call),                             // 400, or ignore the Date, which nobody needs
    ("regbadct", BAD),                             // 400
    ("badaspec", OPTIONS),                         // 400, or be liberal
    ("baddn", BAD),                                // 400
    ("badvers", Answer(505, "Content-Length: 0")), // 505
    ("mismatch01", BAD),                           // 400
    ("mismatch02", BAD),                           // 400 or 501
    ("bigcode", Dropped),                          // a response
    ("badbranch", OPTIONS),                        // an element of RFC 2543
    ("insuf", BAD),                                // 400, with what there is
    ("unkscm", Answer(416, "Content-Length: 0")),  // 416
    ("novelsc", Answer(416, "Content-Length: 0")), // 416
    ("unksm2", NO_REGISTRAR),                      // a registrar's business
    ("bext01", Answer(420, "Unsupported: nothingSupportsThis, nothingSupportsThisEither")), // not what proxies must know
    ("invut", Answer(415, "Accept: application/sdp, multipart/mixed")),                     // 415
    ("regaut01", NO_REGISTRAR),                                                             // a registrar's business
    ("multi01", BAD),                                                                       // 400
    ("mcl01", BAD),                                                                         // 400
    ("bcast", Dropped),         // a response with another's Via on top
    ("zeromf", OPTIONS),        // whose target it is answers it
    ("cparam01", NO_REGISTRAR), // a registrar's business
    ("cparam02", NO_REGISTRAR), // a registrar's business
    ("regescrt", NO_REGISTRAR), // a registrar's business
    ("sdp01", Call),            // 406 or 400, or believe its own SDP
    ("inv2543", BAD),           // for who wants to take RFC 2543; it has no Contact that a dialog could go to
];

const RFC5118: [(&str, Fate); 12] = [
    ("ipv6-good", NO_REGISTRAR),
    ("ipv6-bad", BAD),
    ("port-ambiguous", NO_REGISTRAR),
    ("port-unambiguous", NO_REGISTRAR),
    ("via-received-param-with-delim", NO_DIALOG),
    ("via-received-param-no-delim", OPTIONS),
    ("ipv6-in-sdp", Call),
    ("mult-ip-in-header", NO_DIALOG),
    ("mult-ip-in-sdp", Call),
    ("ipv4-mapped-ipv6", Call),
    ("ipv6-bug-abnf-3-colons", OPTIONS),
    ("ipv6-correct-abnf-2-colons", OPTIONS),
];

fn source() -> SocketAddr {
    "192.0.2.99:5099".parse().expect("an address")
}

fn parse(bytes: &[u8]) -> Message<'_> {
    Message::parse(bytes, &Limits::default()).expect("what we send is sound")
}

/// A line of a message.
fn has_line(bytes: &[u8], line: &str) -> bool {
    String::from_utf8_lossy(bytes).split("\r\n").any(|l| l == line)
}

fn fate(torture: &Torture, expected: Fate) {
    let flows = ["user", "sips:user@example.com", "UserB"].map(|id| flow(id, "s")).to_vec();
    let mut shard = Shard::new(&Rows { flows, agents: vec![] }, |_| {});
    shard.datagram(source(), &torture.bytes);
    let mut sent = std::mem::take(&mut shard.sent);
    if matches!(expected, Answer(..)) && sent.len() == 2 {
        // An INVITE that is looked at gets 100 first.
        assert_eq!(parse_head(&sent.remove(0).1).code(), Some(100));
    }
    let name = &torture.name;
    let shown: Vec<_> = sent.iter().map(|(to, m)| format!("{to}: {}", String::from_utf8_lossy(m))).collect();
    match (expected, &sent[..]) {
        (Dropped, []) => {}
        (Answer(code, line), [(to, answer)]) => {
            assert_eq!((to.ip(), parse_head(answer).code()), (source().ip(), Some(code)), "{name}: {shown:?}");
            assert!(has_line(answer, line), "{name}: no line `{line}` in {shown:?}");
            copies(torture, answer);
        }
        (Call, [(to, trying), (music, invite)]) => {
            assert_eq!((to.ip(), parse(trying).code()), (source().ip(), Some(100)), "{name}: {shown:?}");
            copies(torture, trying);
            let invite = parse(invite);
            assert_eq!(invite.method(), Some(Method::Invite), "{name}: {shown:?}");
            assert_eq!(music.ip().to_string(), "10.0.3.1");
            let asked = parse(&torture.bytes);
            let audio = |m: &Message<'_>| m.body().split(|b| *b == b'\n').any(|l| l.starts_with(b"m=audio "));
            assert!(audio(&asked) && audio(&invite), "{name}: the offer goes on: {shown:?}");
        }
        _ => panic!("{name} ({}): not {expected:?}, but {shown:?}", torture.section),
    }
    // Whatever it was, it leaves nothing behind.
    shard.assert_rest();
}

fn parse_head(bytes: &[u8]) -> Message<'_> {
    Message::parse_head(bytes, &Limits::default()).expect("what we send has a first line")
}

/// An answer carries what the request had of these, and a To tag.
fn copies(torture: &Torture, answer: &[u8]) {
    let (asked, answer) = (parse_head(&torture.bytes), parse_head(answer));
    for id in [Name::From, Name::CallId, Name::CSeq] {
        assert_eq!(asked.all(id).count(), answer.all(id).count(), "{}: {id}", torture.name);
    }
    assert_eq!(asked.values(Name::Via).count(), answer.values(Name::Via).count(), "{}: Via", torture.name);
    if asked.check_request().is_ok() && answer.code() != Some(100) {
        assert!(answer.to_tag().is_some(), "{}: an answer has a tag", torture.name);
    }
}

/// All shards agree on whose it is, without reading it.
fn owned(torture: &Torture) {
    let scanned = scan(&torture.bytes, &KEY);
    let message = parse_head(&torture.bytes);
    match message.first(Name::CallId) {
        Some(call_id) => assert_eq!(scanned.owner, Owner::Bucket(bucket_of(call_id, &KEY)), "{}", torture.name),
        None => assert_eq!(scanned.owner, Owner::NoCallId, "{}", torture.name),
    }
    let new = message.method() == Some(Method::Invite) && message.to_tag().is_none();
    assert_eq!(scanned.class == Class::NewInvite, new, "{}", torture.name);
}

fn run(messages: &[Torture], table: &[(&str, Fate)]) {
    let names: Vec<&str> = messages.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, table.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "a line of the table for each message");
    for (torture, (_, expected)) in messages.iter().zip(table) {
        // Without a first line there is nothing to own.
        if torture.name != "bigcode" {
            owned(torture);
        }
        fate(torture, *expected);
    }
}

#[test]
fn rfc_4475_as_it_says() {
    run(&rfc4475(), &RFC4475);
}

#[test]
fn rfc_5118_as_it_says() {
    run(&rfc5118(), &RFC5118);
}

/// The bytes are those of the document: where it gives a length, the body has it.
#[test]
fn the_bytes_are_the_documents() {
    // Lengths that are wrong on purpose, or repeated; multi01's is wrong in the document.
    let wrong = ["clerr", "ncl", "mcl01", "multi01"];
    for torture in
        rfc4475().iter().chain(&rfc5118()).filter(|t| !wrong.contains(&t.name.as_str()) && t.name != "bigcode")
    {
        let message = parse_head(&torture.bytes);
        assert!(message.fault().is_none_or(|f| f.status() != 400 || message.method().is_some()), "{}", torture.name);
        let after = torture.bytes.len() - message.raw().len();
        assert_eq!(after > 0, torture.name == "dblreq", "{}: bytes beyond its body", torture.name);
        let length = message.first(Name::ContentLength).map(|v| String::from_utf8_lossy(v).into_owned());
        if let Some(length) = length {
            assert_eq!(message.body().len().to_string(), length, "{}", torture.name);
        }
    }
    let mpart = &rfc4475()[10];
    assert_eq!((mpart.name.as_str(), parse(&mpart.bytes).body().len()), ("mpart01", 553));
}
