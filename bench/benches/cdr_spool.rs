//! What the spool takes and gives: records a second, each append on the disk before the next.
//!
//! - `append/N`: N records in one append, fsync included; 256 is one batch, 4096 what gathers while the disk is busy.
//! - `load`: a batch read back, as a replay does.
//!
//! Run it where the spool will be: `TMPDIR=/var/lib/strowger cargo bench -p strowger-bench --bench cdr_spool`.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use strowger::control::cdr::spool;
use strowger_bench::pieces::cdr;
use strowger_engine::CdrRow;
use tempfile::TempDir;

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEGMENT: u64 = 64 << 20;

fn rows(count: u64) -> Vec<CdrRow> {
    let row = |n: u64| CdrRow {
        key: (1_795_000_000_000_000 << 64) | u128::from(n),
        sip_call_id: format!("{n}-3848276298220188511@atlanta.example.com").into(),
        received_unix_us: 1_795_000_000_000_000 + n,
        cid: n,
        ..cdr()
    };
    (0..count).map(row).collect()
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    for count in [256, 4096] {
        let (dir, rows) = (TempDir::new().expect("a folder"), rows(count));
        let (mut spool, _) = spool::open(dir.path(), SEGMENT).expect("a spool");
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| spool.append(rows.iter()).expect("the disk takes it"));
        });
    }
}

fn load(c: &mut Criterion) {
    let dir = TempDir::new().expect("a folder");
    let (mut spool, _) = spool::open(dir.path(), SEGMENT).expect("a spool");
    spool.append(rows(4096).iter()).expect("the disk takes it");
    let mut group = c.benchmark_group("load");
    group.throughput(Throughput::Elements(256));
    group.bench_function("256", |b| {
        b.iter_batched(|| (), |()| spool.load(256).expect("it reads"), BatchSize::SmallInput)
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = append, load
}
criterion_main!(benches);
