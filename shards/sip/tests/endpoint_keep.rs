//! Transactions written down, and alive again in an endpoint of another process.

mod common;

use common::{SECOND, Side, answer, config, endpoint, first_line};
use std::collections::BTreeMap;
use strowger_sip::endpoint::{Event, Kept, Record, Restored, TimerEvent};
use strowger_sip::hash::HashKey;
use strowger_sip::msg::Method;
use strowger_sip::scan;
use strowger_sip::time::Now;

type Journal = BTreeMap<(Record, u64), Vec<u8>>;

fn clock(side: &Side) -> Now {
    Now { mono: side.now, unix_us: side.now.0 + 1_700_000_000 * SECOND }
}

/// What changed since the last time.
fn commit(side: &mut Side, journal: &mut Journal) {
    let now = clock(side);
    side.ep.journal(now, &mut Vec::new(), |what, number, record| match record {
        Some(record) => drop(journal.insert((what, number), record.to_vec())),
        None => assert!(journal.remove(&(what, number)).is_some(), "never written: {number}"),
    });
}

/// State and bytes of each transaction: ours first.
fn pairs(journal: &Journal) -> impl Iterator<Item = (&Vec<u8>, &Vec<u8>)> {
    journal.iter().filter_map(|((what, number), state)| {
        let bytes = match what {
            Record::Client => Record::Request,
            Record::Server => Record::Answer,
            Record::Request | Record::Answer => return None,
        };
        Some((state, &journal[&(bytes, *number)]))
    })
}

fn decoded(journal: &Journal) -> impl Iterator<Item = Kept<'_>> {
    pairs(journal).map(|(state, bytes)| Kept::decode(state, bytes).unwrap())
}

/// A new process, in which another request has the first slot; what it sent at once.
fn reborn(old: &Side, journal: &Journal) -> (Side, Vec<String>, Vec<Restored>) {
    let mut side = Side { ep: endpoint(config(), 9), now: old.now, log: Vec::new(), paths: Vec::new() };
    side.send(Method::Options, 99);
    side.sent();
    let now = clock(&side);
    let restored = decoded(journal).map(|kept| side.ep.restore(now, &kept, kept.user() + 1).unwrap()).collect();
    side.drain();
    let sent = side.sent_lines();
    (side, sent, restored)
}

#[test]
fn an_invite_under_way_is_sent_again_and_takes_its_answer_in_another_slot() {
    let (mut side, mut journal) = (Side::default(), Journal::new());
    side.send(Method::Invite, 7);
    let invite = side.one();
    commit(&mut side, &mut journal);
    assert_eq!(pairs(&journal).count(), 1);
    let (mut side, sent, restored) = reborn(&side, &journal);
    assert_eq!(sent, ["INVITE sip:bob@192.0.2.1 SIP/2.0"]);
    let [Restored::Client(txn)] = restored[..] else { panic!("{restored:?}") };
    assert_eq!(side.receive(answer(&invite, 200, "b1")), Some(Event::Response { txn, user: 8 }));
    side.ack(txn, "b1");
    assert_eq!(side.sent_lines().len(), 1);
    // Its ACK is remembered by the next process, too.
    let mut journal = Journal::new();
    commit(&mut side, &mut journal);
    let (mut side, sent, _) = reborn(&side, &journal);
    assert_eq!(sent, ["OPTIONS sip:bob@192.0.2.1 SIP/2.0"]);
    assert_eq!(side.receive(answer(&invite, 200, "b1")), None);
    assert_eq!(first_line(&side.one()), "ACK sip:bob@192.0.2.1 SIP/2.0");
}

#[test]
fn an_invite_that_nobody_answers_fails_when_it_would_have() {
    let (mut side, mut journal) = (Side::default(), Journal::new());
    side.send(Method::Invite, 7);
    side.wait(10 * SECOND);
    commit(&mut side, &mut journal);
    let (mut side, ..) = reborn(&side, &journal);
    let ours = |e: &TimerEvent| matches!(e, TimerEvent::ClientFailed { user: 8, .. });
    assert!(!side.wait(22 * SECOND - 1).iter().any(ours));
    assert!(side.wait(1).iter().any(ours));
}

#[test]
fn a_cancel_goes_on() {
    let (mut side, mut journal) = (Side::default(), Journal::new());
    let txn = side.send(Method::Invite, 7);
    let invite = side.one();
    side.receive(answer(&invite, 180, "b1"));
    side.cancel(txn);
    commit(&mut side, &mut journal);
    let (mut side, sent, restored) = reborn(&side, &journal);
    assert_eq!(sent, ["CANCEL sip:bob@192.0.2.1 SIP/2.0"]);
    let [Restored::Client(txn)] = restored[..] else { panic!("{restored:?}") };
    assert_eq!(side.receive(answer(&invite, 487, "b1")), Some(Event::Response { txn, user: 8 }));
}

#[test]
fn an_unanswered_invite_is_answered_and_an_answered_one_absorbed() {
    let (mut side, mut journal) = (Side::default(), Journal::new());
    let invite = common::Req::invite();
    side.request(&invite);
    commit(&mut side, &mut journal);
    let kept = decoded(&journal).next().unwrap();
    assert_eq!(kept.bucket(&HashKey(1, 2)), scan::bucket_of(b"c1@192.0.2.1", &HashKey(1, 2)));
    let (mut side, sent, restored) = reborn(&side, &journal);
    assert_eq!(sent, ["SIP/2.0 100 Trying"]);
    assert_eq!(side.receive(&invite), None, "the same INVITE is no new one");
    let [Restored::Server(txn)] = restored[..] else { panic!("{restored:?}") };
    side.sent();
    side.respond(txn, 200);
    let ok = side.one();
    assert!(ok.contains("Call-ID: c1@192.0.2.1") && ok.contains("CSeq: 1 INVITE"), "{ok}");
    // Its ACK has come.
    side.ep.acked(txn);
    let mut journal = Journal::new();
    commit(&mut side, &mut journal);
    let (mut side, sent, _) = reborn(&side, &journal);
    assert_eq!(sent, ["OPTIONS sip:bob@192.0.2.1 SIP/2.0"]);
    assert_eq!(side.receive(&invite), None, "a late one is absorbed");
}

#[test]
fn a_refused_request_of_a_dialog_that_is_over_stays_where_its_messages_arrive() {
    let (mut side, mut journal) = (Side::default(), Journal::new());
    for tag in ["sw1a4-9", "theirs"] {
        let reinvite = common::Req { cseq: 2, ..common::Req::new("INVITE", &format!("z9hG4bK{tag}")).tagged(tag) };
        let txn = side.request(&reinvite);
        side.respond(txn, 500);
        side.receive(reinvite.same("ACK"));
    }
    commit(&mut side, &mut journal);
    let key = HashKey(1, 2);
    let buckets: Vec<u16> = decoded(&journal).map(|kept| kept.bucket(&key)).collect();
    assert_eq!(buckets, [0x1a4, scan::bucket_of(b"c1@192.0.2.1", &key)]);
}

#[test]
fn an_acknowledged_request_of_a_dialog_stays_there_however_often_the_process_ends() {
    let (mut side, mut journal) = (Side::default(), Journal::new());
    let txn = side.request(common::Req { cseq: 2, ..common::Req::new("INVITE", "z9hG4bKre").tagged("sw1a4-9") });
    side.respond(txn, 200);
    commit(&mut side, &mut journal);
    side.ep.acked(txn);
    commit(&mut side, &mut journal);
    for _ in 0..3 {
        assert!(decoded(&journal).any(|kept| kept.bucket(&HashKey(1, 2)) == 0x1a4));
        side = reborn(&side, &journal).0;
        journal.clear();
        commit(&mut side, &mut journal);
    }
}

/// Its CANCEL has the same branch, and lies where that points to.
#[test]
fn a_cancel_takes_no_answers_of_an_invite_that_is_in_another_slot_than_its_branch_says() {
    for cancel_first in [true, false] {
        let (mut side, mut journal) = (Side::default(), Journal::new());
        side.send(Method::Invite, 7);
        let invite = side.one();
        side.receive(answer(&invite, 180, "b1"));
        commit(&mut side, &mut journal);
        let (mut side, _, restored) = reborn(&side, &journal);
        let [Restored::Client(txn)] = restored[..] else { panic!("{restored:?}") };
        side.wait(33 * SECOND); // The other request is given up: its slot is free.
        side.sent();
        side.cancel(txn);
        let cancel = side.one();
        if cancel_first {
            side.receive(answer(&cancel, 200, "b1"));
            side.wait(6 * SECOND);
            side.sent();
        }
        assert_eq!(side.receive(answer(&invite, 487, "b1")), Some(Event::Response { txn, user: 8 }));
        assert_eq!(first_line(&side.one()), "ACK sip:bob@192.0.2.1 SIP/2.0");
        side.receive(answer(&cancel, 200, "b1"));
        side.wait(6 * SECOND);
        side.sent();
        side.receive(answer(&invite, 487, "b1"));
        assert_eq!(first_line(&side.one()), "ACK sip:bob@192.0.2.1 SIP/2.0", "once more");
    }
}

#[test]
fn bytes_are_written_when_they_change_alone() {
    let (mut side, mut journal) = (Side::default(), Journal::new());
    side.send(Method::Invite, 7);
    let txn = side.request(common::Req::invite());
    let invite = side.sent().remove(0);
    commit(&mut side, &mut journal);
    let written = |side: &mut Side| {
        let (now, mut names) = (clock(side), Vec::new());
        side.ep.journal(now, &mut Vec::new(), |what, _, record| names.push((what, record.is_some())));
        names.sort();
        names
    };
    side.receive(answer(&invite, 180, "b1"));
    assert_eq!(written(&mut side), [(Record::Client, true)]);
    side.respond(txn, 180);
    assert_eq!(written(&mut side), [(Record::Server, true), (Record::Answer, true)]);
    side.receive(answer(&invite, 486, "b1"));
    assert_eq!(written(&mut side), [(Record::Client, true), (Record::Request, true)], "the ACK is in its place");
    side.respond(txn, 200);
    assert_eq!(written(&mut side), [(Record::Server, true), (Record::Answer, true)]);
    side.ep.acked(txn);
    assert_eq!(written(&mut side), [(Record::Server, true)], "what is let go is no reason to write");
}

#[test]
fn what_ends_is_forgotten_and_no_cut_record_is_taken() {
    let (mut side, mut journal) = (Side::default(), Journal::new());
    side.send(Method::Info, 7);
    side.request(common::Req::invite());
    commit(&mut side, &mut journal);
    for (state, bytes) in pairs(&journal) {
        assert!((0..state.len()).all(|len| Kept::decode(&state[..len], bytes).is_err()));
        assert!((0..bytes.len()).all(|len| Kept::decode(state, &bytes[..len]).is_err()));
    }
    let states: Vec<_> = pairs(&journal).map(|(state, _)| state.clone()).collect();
    let [client, server] = &states[..] else { panic!("{states:?}") };
    assert!(pairs(&journal).all(|(_, bytes)| [client, server].iter().any(|s| Kept::decode(s, bytes).is_err())));
    let info = side.sent().remove(0);
    side.receive(answer(&info, 200, "b1"));
    commit(&mut side, &mut journal);
    assert_eq!(pairs(&journal).count(), 1, "an answered request other than INVITE is not kept");
    let mut fresh = Journal::new();
    let mut other = Side { ep: endpoint(config(), 3), now: side.now, log: Vec::new(), paths: Vec::new() };
    commit(&mut other, &mut fresh);
    assert!(fresh.is_empty());
}
