//! Once it has its working size, a call through the transaction layer allocates nothing.

mod common;

use common::{LIFE, Req, SECOND, answer, config, endpoint, head, udp};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use strowger_sip::endpoint::{Endpoint, Event, Outgoing, ServerTxn, Target};
use strowger_sip::msg::{Limits, Message, Method, Reply};
use strowger_sip::time::Mono;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches a thread-local `Cell` that
// needs no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller keeps `alloc`'s contract, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `alloc` above, that is from the system, with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn drain(ep: &mut Endpoint) {
    while let Some(t) = ep.poll_transmit() {
        assert!(!ep.bytes(&t).is_empty());
        ep.sent(t);
    }
}

fn feed(ep: &mut Endpoint, now: Mono, text: &str) -> Option<Event> {
    let event = ep.receive(now, udp(), &Message::parse(text.as_bytes(), &Limits::default()).unwrap());
    drain(ep);
    event
}

fn request(ep: &mut Endpoint, now: Mono, text: &str) -> ServerTxn {
    match feed(ep, now, text) {
        Some(Event::Request { txn }) => txn,
        other => panic!("{other:?}"),
    }
}

/// An INVITE in, rung, answered, acknowledged; a BYE in; OPTIONS; a refusal: texts made beforehand.
fn server_round(ep: &mut Endpoint, now: Mono, texts: &[String]) {
    let txn = request(ep, now, &texts[0]);
    for code in [180, 200] {
        ep.respond(now, txn, &Reply { code, to_tag: b"ours", contact: b"<sip:us@192.0.2.9>", ..Reply::default() });
    }
    assert_eq!(feed(ep, now, &texts[0]), None);
    assert_eq!(feed(ep, now, &texts[1]), Some(Event::Ack));
    ep.acked(txn);
    let bye = request(ep, now, &texts[2]);
    ep.respond(now, bye, &Reply { code: 200, to_tag: b"ours", ..Reply::default() });
    assert_eq!(feed(ep, now, &texts[3]), None);
    assert_eq!(feed(ep, now, &texts[4]), None);
    drain(ep);
}

#[test]
fn a_call_allocates_nothing_in_steady_state() {
    let mut ep = endpoint(config(), 1);
    let bye = Req::new("BYE", "z9hG4bK3").tagged("ours");
    let texts = [
        Req::invite().to_string(),
        Req::new("ACK", "z9hG4bK2").tagged("ours").to_string(),
        bye.to_string(),
        Req::new("OPTIONS", "z9hG4bK4").to_string(),
        Req::new("REGISTER", "z9hG4bK5").to_string(),
    ];
    let heads = [head(Method::Invite, 1, ""), head(Method::Ack, 1, "b1")];
    let out = |method, head: &'static str| Outgoing {
        method,
        uri: b"sip:bob@192.0.2.1",
        target: Target::Addr(udp()),
        head: head.as_bytes(),
        content_type: b"application/sdp",
        body: b"v=0\r\n",
        stamp: 1,
        bucket: None,
    };
    let [invite, ack]: [&'static str; 2] = heads.map(|h| &*h.leak());
    let mut now = Mono(SECOND);
    let mut round = |ep: &mut Endpoint| {
        server_round(ep, now, &texts);
        let txn = ep.request(now, &out(Method::Invite, invite), 1);
        let t = ep.poll_transmit().unwrap();
        let before = ALLOCATIONS.get();
        let ok = answer(std::str::from_utf8(ep.bytes(&t)).unwrap(), 200, "b1");
        let by_test = ALLOCATIONS.get() - before;
        ep.sent(t);
        assert!(feed(ep, now, &ok).is_some());
        ep.ack_2xx(now, txn, &out(Method::Ack, ack));
        assert_eq!(feed(ep, now, &ok), None);
        now = now.plus_us(2 * LIFE);
        while ep.poll_timer(now).is_some() {}
        drain(ep);
        assert!(ep.counts().is_at_rest());
        by_test
    };
    for _ in 0..20 {
        round(&mut ep);
    }
    let before = ALLOCATIONS.get();
    let by_test: u64 = (0..200).map(|_| round(&mut ep)).sum();
    assert_eq!(ALLOCATIONS.get() - before - by_test, 0);
}
