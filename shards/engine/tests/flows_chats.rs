//! Chats: MSRP sessions by their descriptions; several at one agent, whose wrap-ups add up.

mod ladder;

use ladder::chats::{Chat, chats, chats_by};
use ladder::{ANN, chatter, flow};
use strowger_dispatch::{AgentState, ChatPolicy};
use strowger_engine::CallState;

#[test]
fn a_chat_goes_to_the_agents_msrp_location_and_is_counted_as_one() {
    let mut s = chats(|_, _, agents| agents[0].location = Some("sip:ann@10.0.4.9:5060".into()));
    let mut caller = s.asks(1);
    assert_eq!(s.events(), ["ann inchat sales 1"]);
    let (mut ann, invite) = s.rings("ann", "c1");
    assert_eq!(
        (invite.uri().as_str(), invite.sdp('m').as_str()),
        ("sip:ann@10.0.4.1:5060", "message 40061 TCP/MSRP *")
    );
    ann.answer(&mut s.bench, &invite, 180, "");
    caller.expect(&mut s.bench, "180");
    assert_eq!(s.bench.calls().iter().map(|c| (c.chat, c.state)).collect::<Vec<_>>(), [(true, CallState::ToAgent)]);
    let sdp = ann.sdp();
    ann.answer(&mut s.bench, &invite, 200, &sdp);
    ann.expect(&mut s.bench, "ACK");
    let ok = caller.expect(&mut s.bench, "200");
    assert!(ok.body().contains("a=path:msrp://10.0.4.1:40061/ann;tcp"), "{}", ok.body());
    caller.ack(&mut s.bench, "");
    assert_eq!(s.at("ann"), (AgentState::InChat, 1, false));
    s.bench.wait_ms(3_000);
    s.caller_ends(&mut Chat { caller, agent: ann });
    assert_eq!(s.at("ann"), (AgentState::Wrapup, 0, true));
    s.bench.wait_ms(1_999);
    assert_eq!(s.at("ann").0, AgentState::Wrapup);
    s.bench.wait_ms(1);
    assert_eq!(s.at("ann"), (AgentState::Free, 0, false));
    assert_eq!(s.events(), ["ann wrapup until 5", "ann free"]);
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 3s cause 0"]);
    let flow = [
        s.bench.flow_count("sales", |f| f.incalls.get()),
        s.bench.flow_count("sales", |f| f.answered.get()),
        s.bench.flow_count("sales", |f| f.answered_chats.get()),
    ];
    let agent =
        [s.bench.agent_count("ann", |a| a.answered.get()), s.bench.agent_count("ann", |a| a.answered_chats.get())];
    assert_eq!((flow, agent), ([1, 1, 1], [1, 1]));
    s.bench.assert_rest();
}

#[test]
fn an_agent_takes_as_many_chats_as_it_has_slots_and_the_next_waits() {
    let mut s = chats(|_, _, _| {});
    let (mut first, mut second) = (s.chat(1, "ann"), s.chat(2, "ann"));
    assert_eq!(s.events(), ["ann inchat sales 1", "ann inchat sales 2"]);
    let third = s.waits(3);
    assert_eq!(s.bench.flow_count("sales", |f| f.onhold_chats.get()), 1);
    assert_eq!(s.bench.flow_count("sales", |f| f.onhold.get()), 1);
    assert_eq!(s.bench.calls().iter().filter(|c| c.chat && c.state == CallState::Queued).count(), 1);
    s.bench.wait_ms(5_000);
    s.nobody_rings();
    s.caller_ends(&mut first);
    assert_eq!(s.at("ann"), (AgentState::InChat, 1, true));
    assert_eq!(s.events(), ["ann inchat sales 1 until 7"]);
    s.bench.wait_ms(1_999);
    s.nobody_rings();
    s.bench.wait_ms(1);
    let mut third = s.chat_of(third, "ann");
    assert_eq!(s.at("ann"), (AgentState::InChat, 2, false));
    assert_eq!(s.bench.flow_count("sales", |f| f.onhold_chats.get()), 0);
    s.bench.wait_ms(1_000);
    s.caller_ends(&mut second);
    s.caller_ends(&mut third);
    assert_eq!(s.events(), ["ann inchat sales 2", "ann inchat sales 1 until 10", "ann wrapup until 12"]);
    s.bench.wait_ms(10_000);
    assert_eq!(s.events(), ["ann free"]);
    s.assert_cdrs(&[
        "type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 5s cause 0",
        "type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 8s cause 0",
        "type 0 agent ann fstats 7 rejected 0 wait 7s pickup 0s talk 1s cause 0",
    ]);
    s.bench.assert_rest();
}

#[test]
fn the_wrapups_of_chats_add_up_and_one_slot_is_withheld_for_all_of_them() {
    let mut s = chats(|_, _, agents| agents[0].msrp_max_sessions = Some(4));
    let mut open: Vec<Chat> = (1..=4).map(|n| s.chat(n, "ann")).collect();
    s.bench.wait_ms(10_000);
    s.events();
    s.caller_ends(&mut open.remove(0));
    s.bench.wait_ms(500);
    s.caller_ends(&mut open.remove(0));
    // Two open, one withheld: one slot of four is left.
    assert_eq!(s.at("ann"), (AgentState::InChat, 2, true));
    assert_eq!(s.events(), ["ann inchat sales 3 until 12", "ann inchat sales 2 until 14"]);
    open.push(s.chat(5, "ann"));
    let waiting = s.waits(6);
    s.bench.wait_ms(3_499);
    s.nobody_rings();
    assert_eq!(s.events(), ["ann inchat sales 3 until 14"], "with the wrap-up that runs");
    s.bench.wait_ms(1);
    open.push(s.chat_of(waiting, "ann"));
    assert_eq!(s.at("ann"), (AgentState::InChat, 4, false));
    s.bench.wait_ms(1_000);
    for mut chat in open.drain(..) {
        s.caller_ends(&mut chat);
    }
    assert_eq!(s.at("ann"), (AgentState::Wrapup, 0, true));
    s.bench.wait_ms(7_999);
    assert_eq!(s.at("ann").0, AgentState::Wrapup);
    s.bench.wait_ms(1);
    assert_eq!(s.at("ann").0, AgentState::Free);
    let events = s.events();
    assert_eq!(
        events[1..],
        [
            "ann inchat sales 3 until 17",
            "ann inchat sales 2 until 19",
            "ann inchat sales 1 until 21",
            "ann wrapup until 23",
            "ann free"
        ]
    );
    s.bench.assert_rest();
}

#[test]
fn balancing_spreads_chats_and_full_load_fills_one_agent_first() {
    ladder::lives_on!("the order of agents in chats");
    for (policy, want) in
        [(ChatPolicy::Balancing, ["ann", "bob", "ann", "bob"]), (ChatPolicy::FullLoad, ["ann", "ann", "bob", "bob"])]
    {
        let mut s = chats_by(policy, |cfg, _, agents| {
            cfg.call.wrapup_us = 0;
            agents[1].logstate = Some(1);
        });
        let mut open: Vec<Chat> = (1..).zip(want).map(|(n, agent)| s.chat(n, agent)).collect();
        for mut chat in open.drain(..) {
            s.caller_ends(&mut chat);
        }
        assert_eq!((s.at("ann"), s.at("bob")), ((AgentState::Free, 0, false), (AgentState::Free, 0, false)));
        s.bench.assert_rest();
    }
}

#[test]
fn an_agent_has_either_one_audio_call_or_several_chats() {
    let mut s = chats(|cfg, _, agents| {
        cfg.call.wrapup_us = 0;
        agents[0].location = Some(format!("sip:ann@{ANN}"));
    });
    let mut chat = s.chat(1, "ann");
    let mut caller = s.bench.phone("voice", "10.0.2.50:5060");
    let sdp = caller.sdp();
    caller.invite(&mut s.bench, "sales", &sdp);
    let music = s.media.expect(&mut s.bench, "INVITE");
    assert!(music.sdp('m').starts_with("audio "));
    let second = s.chat(2, "ann");
    s.nobody_rings();
    assert_eq!(s.at("ann").1, 2, "chats go on being taken, the call waits for a free agent");
    let mut second = second;
    s.caller_ends(&mut chat);
    s.nobody_rings();
    let third = s.asks(3);
    let (mut client, invite) = s.rings("ann", "c3");
    s.caller_ends(&mut second);
    s.nobody_rings();
    s.gives_up(third, &mut client, &invite);
    let mut audio = s.bench.phone("ann", ANN);
    let invite = audio.expect(&mut s.bench, "INVITE");
    assert_eq!((invite.sdp('s').as_str(), s.at("ann")), ("voice", (AgentState::InCall, 0, false)));
    assert_eq!(invite.uri(), format!("sip:ann@{ANN}"));
    let sdp = audio.sdp();
    audio.answer(&mut s.bench, &invite, 200, &sdp);
    let fourth = s.asks(4);
    audio.expect(&mut s.bench, "ACK");
    s.nobody_rings();
    drop(fourth);
    s.bench.control(strowger_engine::Control::EndAll);
}

#[test]
fn a_caller_who_leaves_while_the_agent_rings_costs_no_wrapup() {
    let mut s = chats(|_, _, _| {});
    let mut open = s.chat(1, "ann");
    let caller = s.asks(2);
    let (mut client, invite) = s.rings("ann", "c2");
    assert_eq!(s.at("ann"), (AgentState::InChat, 2, false));
    s.gives_up(caller, &mut client, &invite);
    assert_eq!(s.at("ann"), (AgentState::InChat, 1, false));
    assert_eq!(s.events(), ["ann inchat sales 1", "ann inchat sales 2", "ann inchat sales 1"]);
    s.assert_cdrs(&["type 1 agent ann fstats 11 rejected 0 wait 0s pickup 0s talk 0s cause 487"]);
    assert_eq!(s.bench.agent_count("ann", |a| a.abandoned.get()), 1);
    s.bench.wait_ms(2_000);
    s.caller_ends(&mut open);
    s.bench.wait_ms(5_000);
    s.bench.assert_rest();
}

#[test]
fn an_agent_that_this_shard_does_not_know_yet_gets_its_chat_when_it_does() {
    ladder::lives_on!("a reload under way ends with its process");
    let mut s = chats(|_, _, agents| agents.clear());
    let waiting = s.waits(1);
    s.bench.loads_elsewhere(&[flow("sales", "sales")], &[chatter("ann", ANN, "sales", 2)], "ann");
    s.bench.wait_ms(1_000);
    s.client("ann").expect_nothing(&mut s.bench);
    s.bench.load_arrives();
    s.bench.wait_ms(1_000);
    let mut chat = s.chat_of(waiting, "ann");
    s.caller_ends(&mut chat);
    s.bench.assert_rest();
}
