//! The SQL back ends: SQLite, MySQL or MariaDB, PostgreSQL.
//!
//! Everything is written once: [`dialect`] is what the three say differently, [`session`] the connections, [`schema`]
//! the tables, and a file for each kind of data. Invariants:
//!
//! - Every statement to a server has a time limit, and so has the wait for a connection: a frozen server holds nobody up.
//! - A connection whose last statement did not end well is closed, never used again; its server rolls back.
//! - Cells are read as the bytes of their text, so that what cannot be read costs its own row only.
//! - Timestamps are UTC. (OpenSIPS writes its host's local time: where that is not UTC, its rows and ours differ.)

pub(super) mod calls;
pub(super) mod cdrs;
mod dialect;
pub(super) mod provisioning;
mod rows;
mod schema;
mod session;
mod shapes;

pub(super) use session::{Sql, Unfit};
