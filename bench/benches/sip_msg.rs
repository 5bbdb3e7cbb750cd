//! Parse, route, answer and scan of an INVITE of 805 bytes, as carriers send it.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::net::SocketAddr;
use strowger_sip::hash::HashKey;
use strowger_sip::msg::{Limits, Message, Reply, write_answer, write_head, write_reply};
use strowger_sip::scan::{refuse, scan};

/// 805 bytes, SDP included.
fn invite() -> Vec<u8> {
    let body = "v=0\r\no=carrier 53655765 2353687637 IN IP4 203.0.113.7\r\ns=-\r\nc=IN IP4 203.0.113.7\r\nt=0 0\r\n\
                m=audio 40376 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
                a=sendrecv\r\n";
    let head = "INVITE sip:support@198.51.100.20:5060 SIP/2.0\r\n\
                Via: SIP/2.0/UDP 203.0.113.7:5060;rport;branch=z9hG4bK74bf9a83c1f2e0d4\r\n\
                Max-Forwards: 69\r\n\
                From: \"Alice Example\" <sip:+4930123456@203.0.113.7>;tag=9fxced76sl\r\n\
                To: <sip:support@198.51.100.20>\r\n\
                Call-ID: 3848276298220188511@203.0.113.7\r\n\
                CSeq: 1 INVITE\r\n\
                Contact: <sip:+4930123456@203.0.113.7:5060;transport=udp>\r\n\
                Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, PRACK, INFO\r\n\
                Supported: timer\r\n\
                Content-Type: application/sdp\r\n";
    let message = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let pad = 805usize.checked_sub(message.len() + "X-Pad: \r\n".len()).expect("the message fits");
    let message = format!("{head}X-Pad: {}\r\nContent-Length: {}\r\n\r\n{body}", "p".repeat(pad), body.len());
    assert_eq!(message.len(), 805);
    message.into_bytes()
}

fn benches(c: &mut Criterion) {
    let bytes = invite();
    let bytes = bytes.as_slice();
    let limits = Limits::default();
    let source: SocketAddr = "203.0.113.7:5060".parse().expect("an address");
    let key = HashKey(1, 2);
    let message = Message::parse(bytes, &limits).expect("a valid message");
    let reply =
        Reply { code: 200, to_tag: b"sw12f-5e1d7c0a9b", contact: b"<sip:198.51.100.20:5060>", ..Reply::default() };

    let mut group = c.benchmark_group("sip_msg");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("parse", |b| b.iter(|| black_box(&Message::parse(black_box(bytes), &limits)).is_ok()));
    group.bench_function("parse_and_route", |b| {
        b.iter(|| {
            let m = Message::parse(black_box(bytes), &limits).expect("valid");
            let via = m.top_via().expect("valid");
            black_box((via.branch(), m.from_tag(), m.to_tag(), m.call_id().ok(), m.cseq().ok()));
        });
    });
    group.bench_function("check_request", |b| b.iter(|| black_box(&message).check_request()));
    let mut out = Vec::with_capacity(2048);
    group.bench_function("write_answer", |b| {
        b.iter(|| {
            out.clear();
            write_answer(black_box(&message), source, &reply, &mut out);
            black_box(out.len())
        });
    });
    let mut head_bytes = Vec::new();
    let head = write_head(&message, source, &mut head_bytes);
    group.bench_function("write_head", |b| {
        b.iter(|| {
            out.clear();
            black_box(write_head(black_box(&message), source, &mut out))
        });
    });
    group.bench_function("write_reply", |b| {
        b.iter(|| {
            out.clear();
            write_reply(black_box(&head_bytes), &head, &reply, &mut out);
            black_box(out.len())
        });
    });
    group.bench_function("scan", |b| b.iter(|| scan(black_box(bytes), &key)));
    group.bench_function("refuse", |b| {
        b.iter(|| {
            out.clear();
            refuse(black_box(bytes), source, &reply, &mut out)
        });
    });
    group.finish();
}

criterion_group!(sip_msg, benches);
criterion_main!(sip_msg);
