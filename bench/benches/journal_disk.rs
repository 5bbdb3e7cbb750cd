//! What the journal takes of a shard's time, on the folder of temporary files: one turn that changes one call (its record
//! and its leg's, committed), with the cleaning that a long run needs.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use strowger_engine::journal::{Entity, Kind, Sink};
use strowger_runtime::journal::{Generation, JournalSpec, prior};

/// Calls that live at once.
const CALLS: u64 = 2_000;

fn turns(c: &mut Criterion) {
    let mut group = c.benchmark_group("journal");
    for size in [300, 1000] {
        let dir = tempfile::tempdir().expect("a scratch folder");
        let spec =
            JournalSpec { dir: dir.path().to_owned(), memory: None, segment: 16 << 20, sync: Duration::from_secs(1) };
        let before = prior(dir.path()).expect("a journal");
        let (generation, _) = Generation::begin(spec, before, 1).expect("a generation");
        let keeper = generation.keep().expect("threads");
        let safe: Arc<[AtomicU64]> = [AtomicU64::new(0)].into();
        let mut journal = generation.journal(0, safe, Arc::default()).expect("a shard");
        let record = vec![7u8; size];
        let mut turn = 0;
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("put {size} bytes, commit"), |b| {
            b.iter(|| {
                turn += 1;
                // The calls change in an order that is not that of their slots.
                let id = turn * 7919 % CALLS;
                journal.put(Entity { kind: Kind::Call, id }, black_box(&record));
                journal.commit();
            });
        });
        group.bench_function(format!("put {size} bytes"), |b| {
            b.iter(|| {
                turn += 1;
                journal.put(Entity { kind: Kind::Call, id: turn * 7919 % CALLS }, black_box(&record));
                if turn % 16 == 0 {
                    journal.commit();
                }
            });
        });
        drop(keeper);
    }
    group.finish();
}

criterion_group!(benches, turns);
criterion_main!(benches);
