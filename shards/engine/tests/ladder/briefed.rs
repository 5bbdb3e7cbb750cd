//! A flow with `message_flow_id`, and the steps between that message and the talk.

use super::{Got, Scene};
use strowger_engine::EngineConfig;

/// Ann's flow has the message.
pub fn scene_with(logged_in: bool, change: impl FnOnce(&mut EngineConfig)) -> Scene {
    Scene::with(|cfg, flows, agents| {
        agents[0].logstate = Some(i64::from(logged_in));
        flows[0].message_flow_id = Some("sip:flowid@10.0.3.2:5060".into());
        change(cfg);
    })
}

/// Ann is asked for another offer, and gives it.
#[track_caller]
pub fn ann_moves(s: &mut Scene) -> Got {
    let reinvite = s.ann.expect(&mut s.bench, "INVITE");
    assert_eq!(reinvite.body(), "");
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, &reinvite, 200, &sdp);
    reinvite
}

/// The caller answers Ann's offer, and she gets the answer in her ACK.
#[track_caller]
pub fn bridged(s: &mut Scene) {
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "ann");
    let ack = s.ann.expect(&mut s.bench, "ACK");
    assert_eq!(ack.sdp('s'), "caller");
    s.media_bye();
}

#[track_caller]
pub fn ann_bye(s: &mut Scene) {
    let bye = s.ann.expect(&mut s.bench, "BYE");
    s.ann.answer(&mut s.bench, &bye, 200, "");
}
