//! The storage room on real databases: one suite for all back ends, then what is particular to servers.

#[path = "../support/databases.rs"]
mod databases;
mod db_command;
mod opensips;
mod servers;
mod suite;
#[path = "../support/mod.rs"]
mod support;

use databases::{Kind, shared};
use suite::suite;
use tempfile::TempDir;

#[tokio::test]
async fn sqlite_does_what_every_back_end_does() {
    let dir = TempDir::new().unwrap();
    let next = std::cell::Cell::new(0);
    suite(async || {
        next.set(next.get() + 1);
        format!("sqlite:{}/{}.db", dir.path().display(), next.get())
    })
    .await;
}

#[tokio::test]
async fn mariadb_does_what_every_back_end_does() {
    let server = shared(Kind::Mariadb).await;
    suite(async || server.fresh().await).await;
}

#[tokio::test]
async fn postgres_does_what_every_back_end_does() {
    let server = shared(Kind::Postgres).await;
    suite(async || server.fresh().await).await;
}
