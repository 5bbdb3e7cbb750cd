//! Chats whose agent refuses, misses, logs out or is changed in the middle; agents whose home is another shard.

mod ladder;

use ladder::chats::{Chats, chats};
use ladder::{ANN, BOB, agent, chatter, flow};
use std::mem::swap;
use strowger_dispatch::AgentState;
use strowger_engine::control::{Control, NotPlaced, Reply};

#[test]
fn a_refused_chat_beside_others_withholds_one_slot_and_pauses_the_agent() {
    let mut s = chats(|cfg, _, agents| {
        cfg.call.wrapup_us = 10_000_000;
        agents[0].msrp_max_sessions = Some(3);
    });
    let mut open = s.chat(1, "ann");
    s.bench.wait_ms(1_000);
    s.events();
    let mut caller = s.asks(2);
    let (mut client, invite) = s.rings("ann", "c2");
    s.refuses(&mut client, &invite);
    assert_eq!(s.at("ann"), (AgentState::InChat, 1, true));
    assert_eq!(s.events(), ["ann inchat sales 2", "ann inchat sales 1 until 11"]);
    s.music_for(&mut caller);
    s.bench.wait_ms(999);
    s.nobody_rings();
    s.bench.wait_ms(1);
    // `reject_backoff` later the second slot is open again, the third withheld.
    let (mut client, invite) = s.rings("ann", "c2");
    assert_eq!(s.at("ann"), (AgentState::InChat, 2, true));
    let mut third = s.waits(3);
    s.nobody_rings();
    s.refuses(&mut client, &invite);
    assert_eq!(s.events(), ["ann inchat sales 2 until 11", "ann inchat sales 1 until 21"], "refusals add up, too");
    s.leaves_queue(&mut caller);
    s.leaves_queue(&mut third);
    s.caller_ends(&mut open);
    assert_eq!(s.at("ann"), (AgentState::Wrapup, 0, true));
    s.bench.wait_ms(28_999);
    assert_eq!(s.at("ann").0, AgentState::Wrapup);
    s.bench.wait_ms(1);
    assert_eq!(s.at("ann"), (AgentState::Free, 0, false));
    s.assert_cdrs(&[
        "type -2 agent ann fstats 3 rejected 0 wait 0s pickup 0s talk 0s cause 486",
        "type -2 agent ann fstats 3 rejected 1 wait 1s pickup 0s talk 0s cause 486",
        "type 1 agent - fstats 9 rejected 2 wait 1s pickup 0s talk 0s cause 0",
        "type 1 agent - fstats 9 rejected 0 wait 0s pickup 0s talk 0s cause 0",
        "type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 2s cause 0",
    ]);
    s.bench.assert_rest();
}

#[test]
fn a_refused_chat_is_offered_to_another_agent_first_and_without_a_wrapup_after_the_backoff() {
    ladder::lives_on!("two shards");
    let mut s = chats(|cfg, _, agents| {
        cfg.call.wrapup_us = 0;
        agents[1].logstate = Some(1);
    });
    let mut caller = s.asks(1);
    let (mut client, invite) = s.rings("ann", "c1");
    s.refuses(&mut client, &invite);
    assert_eq!(s.at("ann").0, AgentState::Wrapup, "the backoff stands in for a wrap-up");
    let (mut client, invite) = s.rings("bob", "c1");
    // Bob's home is another shard: it times his pause.
    s.refuses(&mut client, &invite);
    assert_eq!((s.at("bob"), s.bench.mesh.len()), ((AgentState::Wrapup, 0, true), 1));
    s.music_for(&mut caller);
    s.bench.wait_ms(1_000);
    let (mut client, invite) = s.rings("ann", "c1");
    s.refuses(&mut client, &invite);
    s.leaves_queue(&mut caller);
    s.bench.wait_ms(1_000);
    assert_eq!(s.at("ann"), (AgentState::Free, 0, false));
}

/// The reason for the pause: with slots left, the same chat would come back at once, and again.
#[test]
fn a_client_that_cannot_be_called_does_not_hold_up_the_shard() {
    let mut s = chats(|cfg, _, agents| {
        cfg.call.reject_backoff_us = 0;
        agents[0].msrp_max_sessions = Some(255);
    });
    let _open = s.chat(1, "ann");
    let mut second = s.caller(2);
    // No room for fields of ours: no INVITE to the agent can be written.
    second.extra = format!("X-Long: {}\r\n", "x".repeat(63_200));
    let sdp = second.sdp();
    second.invite(&mut s.bench, "sales", &sdp);
    second.expect(&mut s.bench, "100");
    assert_eq!((s.at("ann"), s.bench.calls().len()), ((AgentState::InChat, 1, true), 2));
    s.bench.wait_ms(9);
    assert_eq!(s.bench.calls().len(), 2);
    s.bench.wait_ms(91);
    assert_eq!(s.bench.calls().len(), 1, "after three tries the call is given up");
    s.nobody_rings();
    s.bench.control(Control::EndAll);
}

#[test]
fn an_agent_who_misses_chats_is_logged_out_and_keeps_the_one_it_has() {
    let mut s = chats(|cfg, _, agents| {
        cfg.call.max_no_answer = 2;
        cfg.call.agent_ring_timeout_us = 5_000_000;
        agents[0].msrp_max_sessions = Some(3);
    });
    let mut open = s.chat(1, "ann");
    let mut caller = s.asks(2);
    for miss in 0..2 {
        let (mut client, invite) = s.rings("ann", "c2");
        client.answer(&mut s.bench, &invite, 180, "");
        if miss == 0 {
            caller.expect(&mut s.bench, "180");
        }
        s.bench.wait_ms(5_000);
        let cancel = client.expect(&mut s.bench, "CANCEL");
        client.answer(&mut s.bench, &cancel, 200, "");
        client.answer(&mut s.bench, &invite, 487, "");
        client.expect(&mut s.bench, "ACK");
        if miss == 0 {
            s.music_for(&mut caller);
            s.bench.wait_ms(1_000);
        }
    }
    assert_eq!(s.events().last().map(String::as_str), Some("ann offline"));
    s.bench.wait_ms(10_000);
    s.nobody_rings();
    assert_eq!(s.at("ann").0, AgentState::InChat, "logged out, with a chat");
    s.caller_ends(&mut open);
    s.leaves_queue(&mut caller);
    s.bench.wait_ms(5_000);
    assert_eq!((s.at("ann").0, s.events().len()), (AgentState::Offline, 0));
    s.assert_cdrs(&[
        "type -2 agent ann fstats 3 rejected 0 wait 5s pickup 5s talk 0s cause 408",
        "type -2 agent ann fstats 3 rejected 1 wait 11s pickup 5s talk 0s cause 408",
        "type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 21s cause 0",
        "type 1 agent - fstats 9 rejected 2 wait 21s pickup 0s talk 0s cause 0",
    ]);
    s.bench.assert_rest();
}

#[test]
fn an_agent_who_logs_out_keeps_its_chats_and_gets_no_new_one() {
    let mut s = chats(|_, _, agents| agents[0].msrp_max_sessions = Some(3));
    let (mut first, mut second) = (s.chat(1, "ann"), s.chat(2, "ann"));
    s.events();
    for on in [false, true, false] {
        s.bench.login("ann", on);
    }
    assert_eq!(s.events(), ["ann offline", "ann inchat - 2", "ann offline"]);
    let mut waiting = s.waits(3);
    s.bench.wait_ms(2_000);
    s.nobody_rings();
    s.caller_ends(&mut first);
    assert_eq!(s.at("ann").0, AgentState::InChat);
    s.caller_ends(&mut second);
    assert_eq!((s.at("ann").0, s.events().len()), (AgentState::Offline, 0), "offline it was reported, offline it is");
    s.bench.wait_ms(1_000);
    s.bench.login("ann", true);
    assert_eq!((s.at("ann").0, s.events()), (AgentState::Wrapup, vec!["ann wrapup until 6".to_owned()]));
    s.bench.login("ann", false);
    s.bench.wait_ms(10_000);
    s.leaves_queue(&mut waiting);
    assert_eq!(s.at("ann"), (AgentState::Offline, 0, false));
    s.bench.assert_rest();
}

#[test]
fn fewer_sessions_let_the_present_chats_end_before_new_ones_come() {
    let mut s = chats(|cfg, _, agents| {
        cfg.call.wrapup_us = 0;
        agents[0].msrp_max_sessions = Some(3);
    });
    let mut open: Vec<_> = (1..=3).map(|n| s.chat(n, "ann")).collect();
    s.bench.reload(&[flow("sales", "sales")], &[chatter("ann", ANN, "sales", 1)]);
    let waiting = s.waits(4);
    for n in [3, 2] {
        assert_eq!(s.at("ann").1, n);
        s.caller_ends(&mut open.remove(0));
        s.nobody_rings();
    }
    s.caller_ends(&mut open.remove(0));
    let mut last = s.chat_of(waiting, "ann");
    // And more of them are taken at once.
    let waiting = s.waits(5);
    s.nobody_rings();
    s.bench.reload(&[flow("sales", "sales")], &[chatter("ann", ANN, "sales", 2)]);
    let mut more = s.chat_of(waiting, "ann");
    s.caller_ends(&mut last);
    s.caller_ends(&mut more);
    s.bench.wait_ms(1_000);
    s.bench.assert_rest();
}

#[test]
fn an_agent_who_loses_its_msrp_location_serves_its_chats_to_the_end_and_takes_calls() {
    let mut s = chats(|cfg, _, _| cfg.call.wrapup_us = 0);
    let mut open = s.chat(1, "ann");
    s.bench.reload(&[flow("sales", "sales")], &[agent("ann", ANN, "sales")]);
    let mut waiting = s.waits(2);
    s.nobody_rings();
    s.caller_ends(&mut open);
    assert_eq!(s.at("ann").0, AgentState::Free);
    s.nobody_rings();
    let mut voice = s.bench.phone("voice", "10.0.2.50:5060");
    let sdp = voice.sdp();
    voice.invite(&mut s.bench, "sales", &sdp);
    let (mut audio, invite) = s.rings("ann", "voice");
    assert!(invite.sdp('m').starts_with("audio "));
    voice.cancel(&mut s.bench);
    audio.answer(&mut s.bench, &invite, 180, "");
    let cancel = audio.expect(&mut s.bench, "CANCEL");
    audio.answer(&mut s.bench, &cancel, 200, "");
    audio.answer(&mut s.bench, &invite, 487, "");
    s.leaves_queue(&mut waiting);
    s.bench.control(Control::EndAll);
}

#[test]
fn an_agent_who_is_removed_in_its_chats_serves_them_to_the_end_and_then_is_gone() {
    ladder::lives_on!("an agent who is gone from the table is gone");
    let mut s = chats(|_, _, _| {});
    let (mut first, mut second) = (s.chat(1, "ann"), s.chat(2, "ann"));
    let ann = s.bench.registry.agent("ann").unwrap();
    let bob = chatter("bob", BOB, "sales", 2);
    s.bench.reload(&[flow("sales", "sales")], std::slice::from_ref(&bob));
    s.bench.wait_ms(2_000);
    s.caller_ends(&mut first);
    assert!(s.bench.dispatch.agent(ann).is_some_and(|v| v.retired && v.chats_open == 1));
    let mut waiting = s.asks(3);
    let (mut client, invite) = s.rings("bob", "c3");
    s.refuses(&mut client, &invite);
    s.music_for(&mut waiting);
    s.caller_ends(&mut second);
    assert!(s.bench.dispatch.agent(ann).is_none(), "her slot is free");
    s.leaves_queue(&mut waiting);
    s.bench.wait_ms(20_000);
    assert_eq!(s.bench.engine.audit().wrapups, 0);
    // Back again in her last chat, she is the same, and her wrap-up still runs.
    let mut s = chats(|_, _, _| {});
    let (mut first, mut second) = (s.chat(1, "ann"), s.chat(2, "ann"));
    s.bench.reload(&[flow("sales", "sales")], std::slice::from_ref(&bob));
    s.caller_ends(&mut first);
    s.bench.reload(&[flow("sales", "sales")], &[chatter("ann", ANN, "sales", 2), bob]);
    s.caller_ends(&mut second);
    assert_eq!(s.at("ann"), (AgentState::Wrapup, 0, true));
    s.bench.wait_ms(3_999);
    assert_eq!(s.at("ann").0, AgentState::Wrapup);
    s.bench.wait_ms(1);
    assert_eq!(s.at("ann"), (AgentState::Free, 0, false));
}

#[test]
fn the_wrapups_of_chats_on_two_shards_add_up_at_the_agents_home() {
    ladder::lives_on!("two shards");
    let mut s = chats(|_, _, agents| agents[0].msrp_max_sessions = Some(3));
    let mut other = s.bench.second_engine();
    let mut here = s.chat(1, "ann");
    swap(&mut s.bench.engine, &mut other);
    let mut there = s.chat(2, "ann");
    s.bench.wait_ms(2_000);
    s.events();
    s.caller_ends(&mut there);
    assert_eq!((s.at("ann"), s.events().len()), ((AgentState::InChat, 1, true), 0), "her home tells of it");
    swap(&mut s.bench.engine, &mut other);
    let (to, msg) = s.bench.mesh.remove(0);
    assert_eq!((to, s.bench.mesh.len()), (0, 0));
    s.bench.wait_ms(1);
    s.bench.engine.handle_mesh(s.bench.now, msg);
    s.bench.drain();
    assert_eq!(s.at("ann"), (AgentState::InChat, 1, true));
    assert_eq!(s.events(), ["ann inchat sales 1 until 4"], "from its end, not from the message");
    s.caller_ends(&mut here);
    assert_eq!(s.events(), ["ann wrapup until 6"]);
    s.bench.wait_ms(3_998);
    assert_eq!(s.at("ann"), (AgentState::Wrapup, 0, true));
    s.bench.wait_ms(1);
    assert_eq!(s.at("ann"), (AgentState::Free, 0, false));
    s.bench.assert_rest();
    s.bench.engine = other;
    s.bench.assert_rest();
}

#[test]
fn a_chat_is_placed_with_an_agent_who_has_a_slot_left() {
    let mut s = chats(|_, _, agents| {
        agents[1].logstate = Some(1);
        agents.push(agent("cleo", "10.0.4.3:5060", "sales"));
    });
    s.bench.dispatch.set_dispatching(false);
    let place = |s: &mut Chats, call, agent: &str| {
        let agent = s.bench.registry.agent(agent).unwrap();
        match s.bench.control(Control::Place { call, agent }) {
            Reply::Done => Ok(()),
            Reply::NotPlaced(why) => Err(why),
            other => panic!("{other:?}"),
        }
    };
    let callers: Vec<_> = (1..=3).map(|n| s.waits(n)).collect();
    let mut calls = s.bench.calls();
    calls.sort_by_key(|c| c.ticket);
    assert_eq!(place(&mut s, calls[0].id, "cleo"), Err(NotPlaced::NotFreeChat), "she takes audio alone");
    assert_eq!(place(&mut s, calls[0].id, "ann"), Ok(()));
    assert_eq!(place(&mut s, calls[1].id, "ann"), Ok(()));
    assert_eq!(place(&mut s, calls[2].id, "ann"), Err(NotPlaced::NotFreeChat), "full");
    assert_eq!(s.at("ann"), (AgentState::InChat, 2, false));
    drop(callers);
    s.bench.control(Control::EndAll);
}
