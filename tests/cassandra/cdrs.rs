//! Records: one row each however often it is written, read once and in the order of writing.

use crate::{cdrs, cql, read_on, row, rows, session, shared};
use std::collections::HashSet;
use strowger::store::StoreError;

#[tokio::test]
async fn a_record_is_one_row_however_often_it_is_written() {
    let store = cdrs(shared(), "often").await;
    let all = rows(0..600, "sales");
    assert_eq!(store.write(&[]).await.unwrap(), 0);
    assert_eq!(store.write(&all[..400]).await.unwrap(), 400);
    store.write(&all[200..]).await.unwrap();
    store.write(&[all[0].clone(), all[0].clone()]).await.unwrap();
    assert_eq!(store.count().await.unwrap(), 600);
    let (mut found, _) = read_on(&*store, None, 1000).await;
    found.sort_by_key(|r| r.key);
    assert_eq!(found, all, "each once, with all that it had");
}

#[tokio::test]
async fn a_reader_goes_on_where_it_was_whatever_was_written_meanwhile() {
    let store = cdrs(shared(), "places").await;
    let other = cdrs(shared(), "places").await;
    assert_eq!(read_on(&*store, None, 10).await, (vec![], None), "an empty table");
    assert_eq!(store.back(5).await.unwrap(), None);
    let mut place = None;
    let mut written = 0;
    // Later records with lower keys and older times, several flows, two writers, pages of all sizes.
    for (round, size) in [1_usize, 700, 3, 90, 1300].into_iter().enumerate() {
        let first = 10_000 - 2000 * u128::try_from(round).unwrap();
        let mut new = rows(first..first + u128::try_from(size).unwrap(), "sales");
        new.iter_mut().step_by(3).for_each(|r| r.flow_id = "support".into());
        new.iter_mut().for_each(|r| r.received_unix_us -= round as u64 * 3_600_000_000);
        let writer = if round % 2 == 0 { &store } else { &other };
        writer.write(&new).await.unwrap();
        written += size;
        let (found, next) = read_on(&*store, place, 1 + round * 100).await;
        assert_eq!(found, new, "round {round}");
        place = next;
        assert_eq!(read_on(&*store, place.clone(), 10).await, (vec![], place.clone()));
    }
    let (all, _) = read_on(&*store, None, 50).await;
    assert_eq!(all.len(), written);
    let page = store.read(None, 1).await.unwrap();
    assert_eq!(page.rows, all[..1], "a page is about as long as was asked for");
    // The last 4, or the entry that they are in.
    let back = store.back(4).await.unwrap();
    let (last, _) = read_on(&*store, back, 1000).await;
    assert!(last.len() >= 4 && last.len() < 600, "{}", last.len());
    assert_eq!(last[..], all[all.len() - last.len()..]);
    assert_eq!(store.back(100_000).await.unwrap(), None);
    let wrong = store.read(Some("there"), 1).await.unwrap_err();
    assert!(matches!(&wrong, StoreError::Refused(what) if what.contains("`there` is no place")), "{wrong}");
}

/// Writes whose answer was lost: an entry of the log that the rows do not name, rows that name an entry which is not there.
#[tokio::test]
async fn what_is_left_of_interrupted_writes_is_read_once() {
    let store = cdrs(shared(), "left").await;
    let all = rows(0..20, "sales");
    store.write(&all[..10]).await.unwrap();
    store.write(&all[5..]).await.unwrap();
    let db = session(shared()).await;
    // Rows whose write was tried a third time, and got no further than the rows.
    let key = format!("0x{:032x}", all[19].key);
    let update = "SELECT flow_id, hour, part, received FROM left.cc_cdrs WHERE key = ";
    let found =
        db.query_unpaged(format!("{update}{key} ALLOW FILTERING"), &[]).await.unwrap().into_rows_result().unwrap();
    let at = found.single_row::<(String, i32, i16, scylla::value::CqlTimestamp)>().unwrap();
    let update = format!(
        "UPDATE left.cc_cdrs SET log_at = 77, log_writer = 7 WHERE flow_id = ? AND hour = ? AND part = ? AND received = ? AND key = {key}"
    );
    db.query_unpaged(update, &at).await.unwrap();
    let (mut found, _) = read_on(&*store, None, 100).await;
    found.sort_by_key(|r| r.key);
    assert_eq!(found, all);
    // An entry whose rows are on their way is waited for, and no other held up.
    store.write(&rows(20..30, "sales")).await.unwrap();
    let (_, place) = read_on(&*store, None, 100).await;
    store.write(&rows(30..40, "sales")).await.unwrap();
    let key = format!("0x{:032x}", row(35, "sales").key);
    let delete = "DELETE FROM left.cc_cdrs WHERE flow_id = ? AND hour = ? AND part = ? AND received = ? AND key = ";
    let received = scylla::value::CqlTimestamp(i64::try_from(row(35, "sales").received_unix_us / 1000).unwrap());
    db.query_unpaged(format!("{delete}{key}"), (at.0, at.1, at.2, received)).await.unwrap();
    store.write(&rows(40..45, "sales")).await.unwrap();
    let (found, place) = read_on(&*store, place, 100).await;
    assert_eq!(found, rows(40..45, "sales"));
    store.write(&rows(35..36, "sales")).await.unwrap();
    let (found, _) = read_on(&*store, place, 100).await;
    assert_eq!(found.len(), 10, "late, and each once");
    // Records that the operator deleted are gone.
    cql(&db, &["TRUNCATE left.cc_cdrs"]).await;
    assert_eq!(read_on(&*store, None, 100).await.0, []);
}

#[tokio::test]
async fn a_partition_is_of_one_flow_and_hour_and_a_bounded_run_of_records() {
    let store = cdrs(shared(), "parts").await;
    let mut all = rows(0..5000, "sales");
    all.iter_mut().skip(2500).for_each(|r| r.received_unix_us += 3_600_000_000);
    all.iter_mut().step_by(2).for_each(|r| r.flow_id = "support".into());
    store.write(&all).await.unwrap();
    let db = session(shared()).await;
    let found = db.query_unpaged("SELECT DISTINCT flow_id, hour, part FROM parts.cc_cdrs", &[]).await.unwrap();
    let found = found.into_rows_result().unwrap();
    let parts: HashSet<_> = found.rows::<(String, i32, i16)>().unwrap().map(Result::unwrap).collect();
    // Runs of 1024: five, one of them over the hour; two flows.
    assert_eq!(parts.len(), 12, "{parts:?}");
    assert_eq!(parts.iter().map(|p| p.1).collect::<HashSet<_>>().len(), 2);
}

#[tokio::test]
async fn a_bad_record_is_refused_and_a_missing_table_is_not_the_records_fault() {
    let store = cdrs(shared(), "bad").await;
    let long = |n: usize| "x".repeat(n).into_boxed_str();
    // The server could not even be asked for it again.
    let mut bad = row(1, "");
    (bad.caller, bad.sip_call_id, bad.agent_id, bad.flow_id) = ("".into(), "".into(), None, long(65_530));
    let refused = store.write(&[row(0, "sales"), bad.clone()]).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Refused(what) if what.contains("65530 bytes in its flow's id")),
        "{refused}"
    );
    // Long before the server's own limit of a row.
    bad.flow_id = "sales".into();
    bad.param = Some(long(20_000_000));
    let refused = store.write(std::slice::from_ref(&bad)).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Refused(what) if what.contains("bytes of text")), "{refused}");
    bad.param = Some(long(60_000));
    store.write(&[row(0, "sales"), bad.clone()]).await.unwrap();
    let (found, _) = read_on(&*store, None, 10).await;
    assert_eq!(found, [row(0, "sales"), bad]);
    cql(&session(shared()).await, &["DROP TABLE bad.cc_cdrs"]).await;
    let failed = store.write(&[row(3, "sales")]).await.unwrap_err();
    assert!(matches!(failed, StoreError::Failed(_)), "{failed}");
}
