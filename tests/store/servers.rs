//! Database servers that freeze, die and come back; users who may not create; two that write at once; what is refused.

use super::databases::{Database, Kind, shared};
use super::suite::{cdr, cdrs, everything, names, ongoing, own_names, provisioned, url};
use std::time::{Duration, Instant};
use strowger::store::{CdrStore, Cell, Missing, StoreError, cdrs_at, provisioning_at};
use strowger_engine::CdrRow;
use strowger_engine::registry::Table;

const BOTH: [Kind; 2] = [Kind::Mariadb, Kind::Postgres];
/// Longer than any time limit of the stores: connection, turn, statement.
const HANGS: Duration = Duration::from_secs(15);

fn flow() -> [(&'static str, Cell); 2] {
    [("skill", Cell::Text("en".to_owned())), ("message_queue", Cell::Text("sip:m@h".to_owned()))]
}

/// The error of something that must end by itself.
async fn fails<T>(what: &str, work: impl Future<Output = Result<T, StoreError>>) -> StoreError {
    let began = Instant::now();
    let result = tokio::time::timeout(HANGS, work).await.unwrap_or_else(|_| panic!("{what}: hangs"));
    let error = result.err().unwrap_or_else(|| panic!("{what}: no error"));
    println!("{what}: {error} (after {} ms)", began.elapsed().as_millis());
    error
}

/// Tries until it is written, as the writer does.
async fn until_written(c: &dyn CdrStore, batch: &[CdrRow]) -> Duration {
    let began = Instant::now();
    while let Err(e) = c.write(batch).await {
        assert!(matches!(e, StoreError::Failed(_)), "{e}");
        assert!(began.elapsed() < Duration::from_secs(60), "{e}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

async fn freezes_dies_and_comes_back(kind: Kind) {
    let mut server = Database::start(kind).await;
    let at = server.create("calls").await;
    let (p, c, o) = (provisioned(&at, &own_names()).await, cdrs(&at).await, ongoing(&at).await);
    p.set(Table::Flows, "f", &flow()).await.unwrap();
    let all: Vec<CdrRow> = (1..=512).map(cdr).collect();
    c.write(&all[..100]).await.unwrap();

    server.freeze();
    for n in 0..3 {
        let e = fails(&format!("{kind:?} frozen, batch {n}"), c.write(&all[..200])).await;
        assert!(matches!(e, StoreError::Failed(_)), "{e}");
    }
    fails("load", p.load()).await;
    fails("calls", o.load()).await;
    let e = fails("open", cdrs_at(&url(&at), Missing::Create)).await;
    assert!(matches!(e, StoreError::Open { .. }) && e.to_string().contains("no answer within 2 s"), "{e}");
    server.thaw();
    println!("{kind:?}: written {:?} after the thaw", until_written(&*c, &all[..200]).await);
    assert_eq!((c.count().await.unwrap(), p.load().await.unwrap().rows.flows.len()), (200, 1));

    server.kill();
    fails(&format!("{kind:?} killed"), c.write(&all[200..300])).await;
    fails("load", p.load()).await;
    let began = Instant::now();
    server.run().await;
    println!("{kind:?}: up after {:?}, written {:?} later", began.elapsed(), until_written(&*c, &all[200..300]).await);
    // Killed and back between two batches: the connections of before are found dead and replaced.
    server.kill();
    server.run().await;
    until_written(&*c, &all).await;
    let mut found = everything(&*c).await;
    found.sort_by_key(|r| r.key);
    assert_eq!(found.len(), 512, "each record once");
    assert!(found == all);
    assert_eq!(p.load().await.unwrap().rows.flows.len(), 1);
    assert_eq!(o.load().await.unwrap(), []);
}

#[tokio::test]
async fn a_mariadb_that_freezes_dies_and_comes_back_holds_nobody_up() {
    freezes_dies_and_comes_back(Kind::Mariadb).await;
}

#[tokio::test]
async fn a_postgres_that_freezes_dies_and_comes_back_holds_nobody_up() {
    freezes_dies_and_comes_back(Kind::Postgres).await;
}

/// A batch in whose midst the server freezes may have been written: it is tried again, and each record is one row.
async fn a_batch_cut_short_is_one_row_each(kind: Kind) {
    let server = Database::start(kind).await;
    let at = server.create("calls").await;
    let c = cdrs(&at).await;
    let all: Vec<CdrRow> = (1..=3000).map(cdr).collect();
    for (n, batch) in all.chunks(500).enumerate() {
        let freezing = async {
            // At another moment each time; whatever statement that is.
            tokio::time::sleep(Duration::from_millis(3 * n as u64)).await;
            server.freeze();
        };
        let (written, ()) = tokio::join!(c.write(batch), freezing);
        server.thaw();
        if written.is_err() {
            until_written(&*c, batch).await;
        }
    }
    let mut found = everything(&*c).await;
    found.sort_by_key(|r| r.key);
    assert!(found == all, "{} rows", found.len());
}

#[tokio::test]
async fn a_batch_that_a_frozen_mariadb_cuts_short_is_one_row_each() {
    a_batch_cut_short_is_one_row_each(Kind::Mariadb).await;
}

#[tokio::test]
async fn a_batch_that_a_frozen_postgres_cuts_short_is_one_row_each() {
    a_batch_cut_short_is_one_row_each(Kind::Postgres).await;
}

#[tokio::test]
async fn two_that_write_the_same_records_at_once_double_none() {
    for kind in BOTH {
        let at = shared(kind).await.fresh().await;
        let (a, b) = (cdrs(&at).await, cdrs(&at).await);
        let all: Vec<CdrRow> = (1..=2000).map(cdr).collect();
        let writes = async |c: &dyn CdrStore| {
            for batch in all.chunks(100) {
                until_written(c, batch).await;
            }
        };
        tokio::join!(writes(&*a), writes(&*b));
        assert_eq!(a.count().await.unwrap(), 2000, "{kind:?}");
    }
}

/// Tables by the administrator, a user who may read and write rows alone.
#[tokio::test]
async fn a_user_who_may_not_create_runs_on_tables_that_are_there() {
    for kind in BOTH {
        let server = shared(kind).await;
        let name = format!("grants_{kind:?}").to_lowercase();
        let whole = server.create(&name).await;
        let at = whole.replace("strowger:secret", "guest:guest");
        let who = match kind {
            Kind::Mariadb => vec![
                "CREATE USER guest@'%' IDENTIFIED BY 'guest'".to_owned(),
                format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.* TO guest@'%'"),
            ],
            Kind::Postgres => vec!["CREATE USER guest".to_owned()],
        };
        server.script(Some(&name), &who.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let e = provisioning_at(&url(&at), own_names(), Missing::Create).await.err().unwrap().to_string();
        assert!(e.contains("cannot create table `cc_flows`") && e.contains("strowger db init"), "{e}");
        drop((provisioned(&whole, &own_names()).await, cdrs(&whole).await, ongoing(&whole).await));
        if kind == Kind::Postgres {
            let grants = [
                "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest",
                "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO guest",
            ];
            server.script(Some(&name), &grants).await;
        }
        let p = provisioned(&at, &own_names()).await;
        assert!(p.set(Table::Flows, "f", &flow()).await.unwrap());
        assert_eq!(p.load().await.unwrap().rows.flows.len(), 1);
        assert_eq!(cdrs(&at).await.write(&[cdr(1)]).await.unwrap(), 1);
        assert_eq!(ongoing(&at).await.load().await.unwrap(), []);
        assert!(!e.contains("guest:guest") && !e.contains(":guest@"), "no password in messages: {e}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_tables_is_told_by_name() {
    for kind in BOTH {
        let server = shared(kind).await;
        let name = format!("faults_{kind:?}").to_lowercase();
        let at = server.create(&name).await;
        drop((provisioned(&at, &own_names()).await, cdrs(&at).await));
        let script = async |sql: &str| server.script(Some(&name), &[sql]).await;
        let error = async || provisioning_at(&url(&at), own_names(), Missing::Create).await.err().unwrap().to_string();
        script("UPDATE version SET table_version = 1 WHERE table_name = 'cc_flows'").await;
        let e = error().await;
        assert!(e.contains("table `cc_flows` has version 1 in table `version`, expected 2"), "{e}");
        script("UPDATE version SET table_version = 2 WHERE table_name = 'cc_flows'").await;
        script("DELETE FROM version WHERE table_name = 'cc_agents'").await;
        let e = error().await;
        assert!(e.contains("VALUES ('cc_agents', 3)"), "{e}");
        script("INSERT INTO version (table_name, table_version) VALUES ('cc_agents', 3)").await;
        script("ALTER TABLE cc_agents DROP COLUMN skills").await;
        let e = error().await;
        assert!(
            e.contains("table `cc_agents` has no column `skills`; add it, or set [call_center] cca_skills_column"),
            "{e}"
        );
        script("ALTER TABLE cc_cdrs DROP COLUMN media").await;
        let e = cdrs_at(&url(&at), Missing::Create).await.err().unwrap().to_string();
        assert!(e.contains("table `cc_cdrs` has no column `media`; add it"), "{e}");
        let nowhere = at.replace(&name, "nowhere");
        let e = cdrs_at(&url(&nowhere), Missing::Create).await.err().unwrap();
        assert!(matches!(e, StoreError::Open { .. }) && e.to_string().contains("CREATE DATABASE"), "{e}");
        assert!(!e.to_string().contains("secret"), "{e}");
    }
    let at = shared(Kind::Mariadb).await.create("doors").await.replace("secret", "wrong");
    let e = cdrs_at(&url(&at), Missing::Create).await.err().unwrap().to_string();
    assert!(e.contains("set user and password in the URL") && !e.contains("wrong"), "{e}");
}

/// About the row: no use in trying again. About the database: worth it.
#[tokio::test]
async fn refusals_of_a_row_are_told_from_failures_of_the_database() {
    for kind in BOTH {
        let server = shared(kind).await;
        let name = format!("refusals_{kind:?}").to_lowercase();
        let at = server.create(&name).await;
        let (p, c) = (provisioned(&at, &own_names()).await, cdrs(&at).await);
        let refused = async |what: &str, cells: &[(&'static str, Cell)]| {
            let e = p.set(Table::Flows, "f", cells).await.err();
            assert!(matches!(e, Some(StoreError::Refused(_))), "{kind:?} {what}: {e:?}");
        };
        refused("no default", &[("skill", Cell::Text("en".to_owned()))]).await;
        refused("empty", &[flow()[0].clone(), ("message_queue", Cell::Null)]).await;
        refused("too long", &[flow()[1].clone(), ("skill", Cell::Text("x".repeat(65)))]).await;
        let [a, b] = flow();
        refused("out of range", &[a, b, ("priority", Cell::Int(1 << 40))]).await;
        let (trigger, lock, unlock): (Vec<&str>, &str, &str) = match kind {
            Kind::Mariadb => (
                vec![
                    "CREATE TRIGGER no BEFORE INSERT ON cc_cdrs FOR EACH ROW IF NEW.caller = 'bad' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no bad ones'; END IF",
                ],
                "SET GLOBAL read_only = 1",
                "SET GLOBAL read_only = 0",
            ),
            Kind::Postgres => (
                vec![
                    "CREATE FUNCTION no() RETURNS trigger AS $$ BEGIN IF NEW.caller = 'bad' THEN RAISE 'no bad ones'; END IF; RETURN NEW; END $$ LANGUAGE plpgsql",
                    "CREATE TRIGGER no BEFORE INSERT ON cc_cdrs FOR EACH ROW EXECUTE FUNCTION no()",
                ],
                "ALTER DATABASE refusals_postgres SET default_transaction_read_only = on",
                "ALTER DATABASE refusals_postgres RESET default_transaction_read_only",
            ),
        };
        server.script(Some(&name), &trigger).await;
        let bad = CdrRow { caller: "bad".into(), ..cdr(1) };
        let e = c.write(&[cdr(2), bad]).await.unwrap_err();
        assert!(matches!(&e, StoreError::Refused(w) if w.contains("no bad ones")), "{e}");
        assert_eq!(c.count().await.unwrap(), 0, "all or none");
        assert_eq!(c.write(&[cdr(2)]).await.unwrap(), 1);
        if kind == Kind::Postgres {
            server.script(None, &[lock]).await;
            let e = cdrs(&at).await.write(&[cdr(3)]).await.unwrap_err();
            assert!(matches!(&e, StoreError::Failed(w) if w.contains("primary")), "{e}");
            server.script(None, &[unlock]).await;
        }
    }
}

/// Both tables as of one moment, while another program changes them together.
#[tokio::test]
async fn flows_and_agents_are_loaded_as_of_one_moment() {
    for kind in BOTH {
        let server = shared(kind).await;
        let name = format!("moment_{kind:?}").to_lowercase();
        let p = provisioned(&server.create(&name).await, &own_names()).await;
        p.set(Table::Flows, "f", &flow()).await.unwrap();
        p.set(Table::Agents, "a", &[("wrapup_time", Cell::Int(256))]).await.unwrap();
        let changes: Vec<String> = (0..200)
            .map(|n| {
                format!("BEGIN; UPDATE cc_flows SET priority = {n}; UPDATE cc_agents SET wrapup_time = {n}; COMMIT")
            })
            .collect();
        let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
        let changing = server.script(Some(&name), &changes);
        let loading = async {
            for _ in 0..200 {
                let rows = p.load().await.unwrap().rows;
                assert_eq!(rows.flows[0].priority, rows.agents[0].wrapup_time, "{kind:?}");
            }
        };
        tokio::join!(changing, loading);
    }
}

/// PostgreSQL folds unquoted names: a table made without quotes is found under the name as the configuration writes it.
#[tokio::test]
async fn names_written_in_another_case_are_found() {
    let server = shared(Kind::Postgres).await;
    let at = server.create("cases").await;
    drop(provisioned(&at, &own_names()).await);
    let p = provisioned(&at, &names(&[("cc_flows_table", "CC_FLOWS"), ("cca_agentid_column", "AgentID")])).await;
    assert!(p.set(Table::Agents, "ann", &[("location", Cell::Text("sip:a@h".to_owned()))]).await.unwrap());
    assert_eq!(p.load().await.unwrap().rows.agents[0].agentid.as_deref(), Some("ann"));
}

/// How fast records are written, in batches of the default size; told, and held to a floor that a slow disk passes.
#[tokio::test]
async fn batches_are_written_at_a_good_pace() {
    let dir = tempfile::TempDir::new().unwrap();
    let places = [
        ("sqlite", format!("sqlite:{}/pace.db", dir.path().display())),
        ("mariadb", shared(Kind::Mariadb).await.fresh().await),
        ("postgres", shared(Kind::Postgres).await.fresh().await),
    ];
    for (what, at) in places {
        let c = cdrs(&at).await;
        let all: Vec<CdrRow> = (1..=256 * 40).map(cdr).collect();
        let began = Instant::now();
        for batch in all.chunks(256) {
            c.write(batch).await.unwrap();
        }
        let rate = all.len() as f64 / began.elapsed().as_secs_f64();
        println!("{what}: {rate:.0} records a second in batches of 256");
        assert!(rate > 300.0, "{what}: {rate:.0} records a second");
    }
}
