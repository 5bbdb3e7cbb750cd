//! What the descriptions of chats are taken for, and how they pass.

mod ladder;

use ladder::chats::chats;
use ladder::{ANN, Bench, Phone};
use strowger_dispatch::AgentState;
use strowger_engine::{CallState, Control};

const COMEDIA: &str = "a=setup:active\r\n";

fn refused(bench: &mut Bench, caller: &mut Phone, body: &str, code: &str) {
    caller.invite(bench, "sales", body);
    caller.expect(bench, "100");
    caller.expect(bench, code);
    caller.ack_error(bench);
}

#[test]
fn the_first_stream_in_use_says_whether_it_is_a_call_or_a_chat_or_neither() {
    let mut s = chats(|cfg, _, agents| {
        agents[0].logstate = Some(0);
        cfg.call.refusals.bad_sdp = 606;
        cfg.call.refusals.bad_media = 415;
    });
    let mut caller = s.caller(1);
    let chat = caller.sdp();
    caller.chats = false;
    let audio = caller.sdp();
    let stream = |sdp: &str| sdp[sdp.find("m=").unwrap()..].to_owned();
    refused(&mut s.bench, &mut caller, &chat.replace("TCP/MSRP", "TCP/T38"), "415");
    refused(&mut s.bench, &mut caller, &chat.replace("m=message 40061", "m=message 0"), "606");
    assert_eq!(s.bench.calls().len(), 0);
    let unused = |sdp: &str| stream(sdp).replace(" 40061 ", " 0 ");
    for (body, is_chat) in [
        (chat.clone(), true),
        (chat.replace("TCP/MSRP", "TCP/TLS/MSRP"), true),
        (format!("{chat}{}", stream(&audio)), true),
        (format!("{audio}{}", stream(&chat)), false),
        (chat.replace(&stream(&chat), &format!("{}{}", unused(&audio), stream(&chat))), true),
        (String::new(), false),
    ] {
        caller.invite(&mut s.bench, "sales", &body);
        let calls = s.bench.calls();
        assert_eq!(
            calls.iter().map(|c| (c.chat, c.state)).collect::<Vec<_>>(),
            [(is_chat, CallState::Queued)],
            "{body}"
        );
        caller.cancel(&mut s.bench);
        while s.bench.next_for(caller.addr).is_some() {}
        caller.ack_error(&mut s.bench);
    }
    s.bench.control(Control::EndAll);
}

#[test]
fn a_waiting_chat_made_comedia_wise_asks_the_agent_for_its_offer() {
    let mut s = chats(|_, _, agents| agents[0].logstate = Some(0));
    let mut caller = s.caller(1);
    caller.more_sdp = COMEDIA.to_owned();
    let sdp = caller.sdp();
    caller.invite(&mut s.bench, "sales", &sdp);
    caller.expect(&mut s.bench, "100");
    s.music_for(&mut caller);
    s.bench.login("ann", true);
    let mut ann = s.client("ann");
    let invite = ann.expect(&mut s.bench, "INVITE");
    assert_eq!(invite.body(), "", "an answer cannot serve as an offer");
    ann.more_sdp = "a=setup:actpass\r\n".to_owned();
    let offer = ann.sdp();
    ann.answer(&mut s.bench, &invite, 200, &offer);
    let asked = caller.expect(&mut s.bench, "INVITE");
    assert!(asked.body().contains("a=setup:actpass") && asked.body().contains("/ann;tcp"), "{}", asked.body());
    caller.answer(&mut s.bench, &asked, 200, &sdp);
    caller.expect(&mut s.bench, "ACK");
    let ack = ann.expect(&mut s.bench, "ACK");
    assert!(ack.body().contains("a=setup:active") && ack.body().contains("/c1;tcp"), "{}", ack.body());
    s.media_bye();
    s.bench.control(Control::EndAll);
}

#[test]
fn a_plain_waiting_chat_is_offered_as_the_caller_described_it_and_a_changed_path_is_passed_on() {
    let mut s = chats(|_, _, agents| agents[0].logstate = Some(0));
    let mut caller = s.waits(1);
    s.bench.login("ann", true);
    let (mut ann, invite) = s.rings("ann", "c1");
    assert!(invite.body().contains("a=path:msrp://10.0.2.1:40061/c1;tcp"));
    let sdp = ann.sdp();
    ann.answer(&mut s.bench, &invite, 200, &sdp);
    ann.expect(&mut s.bench, "ACK");
    let asked = caller.expect(&mut s.bench, "INVITE");
    // Another session, another path (RFC 4975 section 8): the agent has to know it.
    let moved = caller.sdp().replace("/c1;tcp", "/again;tcp");
    caller.answer(&mut s.bench, &asked, 200, &moved);
    caller.expect(&mut s.bench, "ACK");
    s.media_bye();
    let told = ann.expect(&mut s.bench, "INVITE");
    assert!(told.body().contains("/again;tcp"), "{}", told.body());
    ann.answer(&mut s.bench, &told, 200, &sdp);
    ann.expect(&mut s.bench, "ACK");
    assert_eq!(s.at("ann").0, AgentState::InChat);
    s.bench.control(Control::EndAll);
}

#[test]
fn a_chat_in_a_multipart_body_passes_whole_with_our_origin() {
    let mut s = chats(|_, _, _| {});
    let mut caller = s.caller(1);
    let sdp = caller.sdp();
    caller.content_type = "multipart/mixed;boundary=b".to_owned();
    let body = format!(
        "--b\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--b\r\nContent-Type: text/x-note\r\n\r\nVIP\r\n--b--\r\n"
    );
    caller.invite(&mut s.bench, "sales", &body);
    caller.expect(&mut s.bench, "100");
    let mut ann = s.client("ann");
    let invite = ann.expect(&mut s.bench, "INVITE");
    let theirs = invite.body();
    assert!(invite.header(strowger_sip::msg::Name::ContentType).starts_with("multipart/mixed"));
    assert!(theirs.contains("VIP") && theirs.contains("a=path:msrp://10.0.2.1:40061/c1;tcp"), "{theirs}");
    assert!(!theirs.contains("o=c1 77") && theirs.contains("IN IP4 10.0.0.1"), "{theirs}");
    assert!(s.bench.calls()[0].chat);
    s.bench.control(Control::EndAll);
}

#[test]
fn an_agent_who_answers_a_chat_with_audio_has_refused_it() {
    let mut s = chats(|_, _, _| {});
    let mut caller = s.asks(1);
    let (mut ann, invite) = s.rings("ann", "c1");
    ann.chats = false;
    let audio = ann.sdp();
    ann.answer(&mut s.bench, &invite, 200, &audio);
    ann.expect(&mut s.bench, "ACK");
    let bye = ann.expect(&mut s.bench, "BYE");
    ann.answer(&mut s.bench, &bye, 200, "");
    s.assert_cdrs(&["type -2 agent ann fstats 3 rejected 0 wait 0s pickup 0s talk 0s cause 488"]);
    s.music_for(&mut caller);
    s.leaves_queue(&mut caller);
    s.bench.wait_ms(5_000);
    s.bench.assert_rest();
}

#[test]
fn an_agent_without_a_location_for_audio_takes_no_calls() {
    let mut s = chats(|_, _, _| {});
    let mut caller = s.caller(1);
    caller.chats = false;
    let sdp = caller.sdp();
    caller.invite(&mut s.bench, "sales", &sdp);
    caller.expect(&mut s.bench, "100");
    s.media.chats = false;
    s.music_for(&mut caller);
    s.bench.wait_ms(5_000);
    s.nobody_rings();
    assert_eq!((s.at("ann").0, s.bench.flow_count("sales", |f| f.onhold_chats.get())), (AgentState::Free, 0));
    assert!(ANN.ends_with("5060"));
    s.leaves_queue(&mut caller);
    s.bench.assert_rest();
}

/// The agent hears the flow's message first, in its own medium, then is given the caller's chat.
#[test]
fn the_message_to_the_agent_works_for_chats() {
    let mut s = chats(|_, flows, agents| {
        flows[0].message_flow_id = Some("sip:brief@10.0.3.1:5060".into());
        agents[0].logstate = Some(0);
    });
    let mut caller = s.waits(1);
    let mut music = s.media;
    s.media = s.bench.phone("media", ladder::MEDIA);
    s.media.chats = true;
    s.bench.login("ann", true);
    let mut ann = s.client("ann");
    let invite = ann.expect(&mut s.bench, "INVITE");
    assert_eq!(invite.body(), "");
    assert_eq!(s.bench.calls()[0].state, CallState::Preagent);
    let sdp = ann.sdp();
    ann.answer(&mut s.bench, &invite, 200, &sdp);
    let brief = s.media.expect(&mut s.bench, "INVITE");
    assert!(brief.uri().starts_with("sip:brief@") && brief.body().contains("/ann;tcp"));
    let words = s.media.sdp();
    s.media.answer(&mut s.bench, &brief, 200, &words);
    s.media.expect(&mut s.bench, "ACK");
    assert!(ann.expect(&mut s.bench, "ACK").body().contains("/media;tcp"));
    s.media.send(&mut s.bench, "BYE", "");
    s.media.expect(&mut s.bench, "200");
    let moved = ann.expect(&mut s.bench, "INVITE");
    ann.answer(&mut s.bench, &moved, 200, &sdp);
    let asked = caller.expect(&mut s.bench, "INVITE");
    assert!(asked.body().contains("/ann;tcp"));
    let answer = caller.sdp();
    caller.answer(&mut s.bench, &asked, 200, &answer);
    caller.expect(&mut s.bench, "ACK");
    assert!(ann.expect(&mut s.bench, "ACK").body().contains("/c1;tcp"));
    let bye = music.expect(&mut s.bench, "BYE");
    music.answer(&mut s.bench, &bye, 200, "");
    assert_eq!((s.bench.calls()[0].state, s.at("ann")), (CallState::ToAgent, (AgentState::InChat, 1, false)));
    s.bench.control(Control::EndAll);
}
