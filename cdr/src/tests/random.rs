//! Faults at random, crashes among them.

use super::world::{Health, MS, SETTINGS, World};
use crate::*;

/// A xorshift generator.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Faults of every kind at random, crashes in which all memory is lost and what was under way may have happened or not;
/// then what is left of the journal comes again. At the end the database has each record.
#[test]
fn whatever_happens_each_record_gets_to_the_database() {
    for seed in 1..=400 {
        let (mut dice, mut w) = (Dice(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15)), World::new());
        w.bad = |key| key % 97 == 0;
        let (mut sent, mut most) = (0, 0);
        for _ in 0..150 {
            match dice.roll(20) {
                0 => w.database = Health::Good,
                1 => w.database = Health::Fails,
                2 => w.database = Health::Hangs,
                3 => w.disk_full = !w.disk_full,
                4 => w.latency = (1 + dice.roll(300)) * MS,
                5 => {
                    for (_, output) in std::mem::take(&mut w.under_way) {
                        match output {
                            Output::Write { rows, part, .. } if dice.roll(2) == 0 => drop(w.write(&rows[part])),
                            Output::Append { batches } if dice.roll(2) == 0 && !w.disk_full => {
                                w.spool.extend(batches.iter().flat_map(|b| b.iter().cloned()));
                            }
                            _ => {}
                        }
                    }
                    w.m = Machine::new(SETTINGS, w.left());
                    w.m.handle_time(w.now);
                    // The journal has what is not safe, and the shards give it again.
                    (most, sent) = (most.max(sent), w.safe);
                }
                6..=12 => {
                    let end = sent + dice.roll(40);
                    while sent < end && w.m.wants_records() {
                        sent += 1;
                        w.send(sent..=sent);
                    }
                }
                _ => w.run(1 + dice.roll(400)),
            }
        }
        (w.database, w.disk_full, w.latency) = (Health::Good, false, MS);
        w.run(120_000);
        while sent < most {
            sent += 1;
            w.send(sent..=sent);
            w.run(1);
        }
        w.run(10_000);
        w.stop();
        assert_eq!((w.safe, w.left()), (sent, 0), "seed {seed}");
        for s in 1..=u128::from(sent) {
            assert_eq!(w.rows.contains_key(&s), s % 97 != 0, "seed {seed}: {s}");
            assert!(w.has(s), "seed {seed}: {s}");
        }
    }
}
