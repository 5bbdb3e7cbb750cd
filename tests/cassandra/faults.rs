//! A server that dies and comes back, and one that stands still: nothing acknowledged is lost, nothing is doubled.

use crate::cassandra::Cassandra;
use crate::{cdrs, read_on, row, rows};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use strowger::store::{CdrStore, Missing, StoreError, cdrs_at};
use strowger_engine::CdrRow;
use tokio::time::{sleep, timeout};

/// Tries until the rows are written, as the writer of records does.
async fn until_written(store: &dyn CdrStore, batch: &[CdrRow]) -> u64 {
    let mut failed = 0;
    loop {
        match store.write(batch).await {
            Ok(_) => return failed,
            Err(StoreError::Failed(_)) => failed += 1,
            Err(other) => panic!("{other}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_under_writes_loses_nothing_acknowledged_and_doubles_nothing() {
    let mut server = Cassandra::start();
    let store: Arc<dyn CdrStore> = cdrs(&server, "killed").await.into();
    let (over, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..4_u128)
        .map(|writer| {
            let (store, over, written) = (Arc::clone(&store), Arc::clone(&over), Arc::clone(&written));
            tokio::spawn(async move {
                let (mut next, mut failed) = (writer * 1_000_000, 0);
                while !over.load(Relaxed) {
                    failed += until_written(&*store, &rows(next..next + 50, "sales")).await;
                    written.fetch_add(50, Relaxed);
                    next += 50;
                }
                (rows(writer * 1_000_000..next, "sales"), failed)
            })
        })
        .collect();
    let grown = async |by: u64| {
        let enough = written.load(Relaxed) + by;
        let wait = async {
            while written.load(Relaxed) < enough {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(60), wait).await.expect("writes go on");
    };
    for _ in 0..2 {
        grown(1000).await;
        server = tokio::task::spawn_blocking(move || {
            server.kill();
            server.restart();
            server
        })
        .await
        .unwrap();
        let ready = Instant::now();
        grown(200).await;
        // Two seconds on a quiet machine; the driver alone would take up to ten.
        println!("writes go on {:?} after the server answers", ready.elapsed());
    }
    over.store(true, Relaxed);
    let (mut all, mut failed) = (vec![], 0);
    for writer in writers {
        let (rows, tries) = writer.await.unwrap();
        all.extend(rows);
        failed += tries;
    }
    assert!(failed > 0, "the crash was felt");
    assert_eq!(store.count().await.unwrap(), all.len() as u64);
    let (mut found, _) = read_on(&*store, None, 1000).await;
    found.sort_by_key(|r| r.key);
    assert_eq!(found.len(), all.len());
    assert!(found == all, "what was written is what is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_fails_writes_at_their_limit_and_serves_again_when_it_goes_on() {
    let server = Cassandra::start();
    drop(cdrs(&server, "frozen").await);
    let store = cdrs_at(&server.url("frozen").parse().unwrap(), Missing::Create).await.unwrap();
    store.write(&[row(0, "sales")]).await.unwrap();
    let (found, place) = read_on(&*store, None, 10).await;
    assert_eq!(found.len(), 1);
    server.freeze();
    let began = Instant::now();
    let failed = store.write(&[row(1, "sales")]).await.unwrap_err();
    let took = began.elapsed();
    assert!(matches!(&failed, StoreError::Failed(what) if what.contains("stand still")), "{failed}");
    assert!(took > Duration::from_millis(1900) && took < Duration::from_secs(4), "{took:?}");
    // Long enough for the driver to give its connections up.
    while began.elapsed() < Duration::from_secs(13) {
        assert!(matches!(store.write(&[row(1, "sales")]).await, Err(StoreError::Failed(_))));
        sleep(Duration::from_millis(100)).await;
    }
    server.thaw();
    timeout(Duration::from_secs(30), until_written(&*store, &[row(1, "sales"), row(2, "sales")]))
        .await
        .expect("it serves");
    // The server may still take up the writes that were given up.
    store.write(&[row(3, "sales")]).await.unwrap();
    assert_eq!(store.count().await.unwrap(), 4);
    let (found, _) = read_on(&*store, place, 10).await;
    assert_eq!(found, [row(1, "sales"), row(2, "sales"), row(3, "sales")]);
}
