//! The histograms of waits, ringing and talk: one value for each attempt or call, in its bucket.

mod ladder;

use ladder::Scene;
use strowger_engine::stats::{Durations, DurationsSum, ShardStats};

fn sum(s: &Scene, pick: impl Fn(&ShardStats) -> &Durations) -> (DurationsSum, i64) {
    let sum = s.bench.stats.durations(|shard| Some(pick(shard)));
    (sum, sum.buckets.iter().sum())
}

/// Buckets: 0.1, 0.5, 1, 2, 5, 10 seconds and on.
#[test]
fn each_time_is_recorded_once_where_its_record_is_made() {
    let mut s = Scene::queued();
    s.wait_ms(6_000);
    s.bench.login("ann", true);
    // A refusal rings, and is neither a wait nor a talk.
    let invite = s.ann_rings();
    s.wait_ms(300);
    s.ann.answer(&mut s.bench, &invite, 486, "");
    s.ann.expect(&mut s.bench, "ACK");
    s.wait_ms(2_000);
    let invite = s.ann_rings();
    s.wait_ms(1_500);
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(3_000);
    s.caller_hangs_up_on_ann();
    // And one who leaves.
    s.bench.login("ann", false);
    s.joins_queue();
    s.wait_ms(400);
    s.caller_leaves_queue();
    let flow = s.bench.registry.current().flow("sales").unwrap().idx;
    let (rings, count) = sum(&s, |shard| &shard.rings);
    assert_eq!((count, rings.buckets[1], rings.buckets[3]), (2, 1, 1), "{rings:?}");
    let (talks, count) = sum(&s, |shard| &shard.talks);
    assert_eq!((count, talks.buckets[4], talks.sum_us), (1, 1, 3_000_000), "{talks:?}");
    let (answered, count) = sum(&s, |shard| &shard.flows.at(flow).waits_answered);
    assert_eq!((count, answered.buckets[5]), (1, 1), "{answered:?}");
    let (abandoned, count) = sum(&s, |shard| &shard.flows.at(flow).waits_abandoned);
    assert_eq!((count, abandoned.buckets[1], abandoned.sum_us), (1, 1, 400_000), "{abandoned:?}");
    s.assert_rest();
}
