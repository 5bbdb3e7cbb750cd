//! Flows and agents.

use super::super::names::Names;
use super::super::{Cell, Missing, Provisioned, Provisioning, StoreError, Task};
use super::dialect::{Arg, Type};
use super::rows::read;
use super::schema::{self, Form, Found, Wanted};
use super::session::{Mode, Session, Sql};
use strowger_engine::registry::Table;

/// Flows and agents in an SQL database.
pub struct SqlProvisioning {
    db: Sql,
    names: Names,
    flows: Found,
    agents: Found,
}

impl SqlProvisioning {
    pub async fn open(db: Sql, names: Names, missing: Missing) -> Result<SqlProvisioning, StoreError> {
        let flows = db.ensure(&wanted(Table::Flows, 2, &names), missing).await?;
        let agents = db.ensure(&wanted(Table::Agents, 3, &names), missing).await?;
        Ok(SqlProvisioning { db, names, flows, agents })
    }

    fn found(&self, table: Table) -> &Found {
        match table {
            Table::Flows => &self.flows,
            Table::Agents => &self.agents,
        }
    }

    /// The place of a column of data.md.
    fn place(&self, table: Table, canonical: &str) -> Result<usize, StoreError> {
        let place = self.names.table(table).1.iter().position(|c| c.canonical == canonical);
        place.ok_or_else(|| StoreError::Refused(format!("no column {canonical}")))
    }

    async fn select(&self, s: &mut Session<'_>) -> Result<Provisioned, StoreError> {
        let statement = |found: &Found| {
            let columns: Vec<String> = found.names().iter().map(|c| self.db.dialect.text(c)).collect();
            format!("SELECT {} FROM {} ORDER BY {}", columns.join(", "), found.table, found.order)
        };
        let flows = s.rows(&statement(&self.flows), &[]).await?;
        let agents = s.rows(&statement(&self.agents), &[]).await?;
        Ok(read(&flows, &agents, &self.names))
    }

    async fn put(
        &self,
        s: &mut Session<'_>,
        table: Table,
        id: &str,
        cells: &[(&'static str, Cell)],
    ) -> Result<bool, StoreError> {
        let found = self.found(table);
        let mut named = Vec::with_capacity(cells.len());
        for (canonical, cell) in cells {
            named.push((found.name(self.place(table, canonical)?), arg(canonical, cell)));
        }
        let id_column = found.name(0);
        // A row that is there is touched in any case, so that the count tells whether it is.
        let sets: Vec<String> = named.iter().map(|(c, _)| format!("{c} = ?")).collect();
        let sets = if sets.is_empty() { format!("{id_column} = {id_column}") } else { sets.join(", ") };
        let (condition, ids) = self.db.dialect.same(id_column, id);
        let args: Vec<Arg<'_>> = named.iter().map(|(_, a)| *a).chain(ids).collect();
        let update = format!("UPDATE {} SET {sets} WHERE {condition}", found.table);
        let added = s.run(&update, &args).await?.rows == 0;
        if added {
            let columns: Vec<&str> = std::iter::once(id_column).chain(named.iter().map(|(c, _)| *c)).collect();
            let marks = vec!["?"; columns.len()].join(", ");
            let insert = format!("INSERT INTO {} ({}) VALUES ({marks})", found.table, columns.join(", "));
            let args: Vec<Arg<'_>> =
                std::iter::once(Arg::Text(Some(id))).chain(named.iter().map(|(_, a)| *a)).collect();
            s.run(&insert, &args).await?;
        }
        Ok(added)
    }

    async fn ends(&self, s: &mut Session<'_>, ends: &[(Box<str>, u64)]) -> Result<(), StoreError> {
        let end = self.place(Table::Agents, "wrapup_end_time")?;
        for (agent, unix) in ends {
            let (condition, ids) = self.db.dialect.same(self.agents.name(0), agent);
            let update = format!("UPDATE {} SET {} = ? WHERE {condition}", self.agents.table, self.agents.name(end));
            let args: Vec<Arg<'_>> = std::iter::once(Arg::Int(Some(self.agents.most(end, *unix)))).chain(ids).collect();
            s.run(&update, &args).await?;
        }
        Ok(())
    }
}

impl Provisioning for SqlProvisioning {
    fn load(&self) -> Task<'_, Provisioned> {
        Box::pin(async {
            let mut s = self.db.begin(Mode::Read).await?;
            let found = self.select(&mut s).await;
            s.end(found).await
        })
    }

    fn set<'a>(&'a self, table: Table, id: &'a str, cells: &'a [(&'static str, Cell)]) -> Task<'a, bool> {
        Box::pin(async move {
            let mut s = self.db.begin(Mode::Write).await?;
            let added = self.put(&mut s, table, id, cells).await;
            s.end(added).await
        })
    }

    fn remove<'a>(&'a self, table: Table, id: &'a str) -> Task<'a, bool> {
        Box::pin(async move {
            let found = self.found(table);
            let (condition, ids) = self.db.dialect.same(found.name(0), id);
            let mut s = self.db.session().await?;
            let done = s.run(&format!("DELETE FROM {} WHERE {condition}", found.table), &ids).await;
            s.done(done.map(|d| d.rows > 0))
        })
    }

    fn save_wrapups<'a>(&'a self, ends: &'a [(Box<str>, u64)]) -> Task<'a, ()> {
        Box::pin(async move {
            let mut s = self.db.begin(Mode::Write).await?;
            let saved = self.ends(&mut s, ends).await;
            s.end(saved).await
        })
    }
}

/// An empty cell has the type of its column.
fn arg<'c>(canonical: &str, cell: &'c Cell) -> Arg<'c> {
    match cell {
        Cell::Null if matches!(kind(canonical).0, Type::Int) => Arg::Int(None),
        Cell::Null => Arg::Text(None),
        Cell::Int(i) => Arg::Int(Some(*i)),
        Cell::Text(s) => Arg::Text(Some(s)),
    }
}

fn wanted(table: Table, version: i64, names: &Names) -> schema::Table<'_> {
    let (name, columns) = names.table(table);
    let unique = columns.first().map(|c| c.name.as_str());
    let columns = columns.iter().map(|c| {
        let (kind, rule) = kind(c.canonical);
        Wanted { name: &c.name, key: c.key, kind, rule }
    });
    schema::Table { name, form: Form::Versioned { version, unique }, columns: columns.collect() }
}

/// Types of data.md.
fn kind(canonical: &str) -> (Type, &'static str) {
    match canonical {
        "flowid" | "skill" => (Type::Text(64), "NOT NULL"),
        "agentid" | "message_queue" => (Type::Text(128), "NOT NULL"),
        "skills" => (Type::Text(255), "DEFAULT '' NOT NULL"),
        "prependcid" => (Type::Text(32), "DEFAULT NULL"),
        "priority" => (Type::Int, "DEFAULT 256 NOT NULL"),
        "msrp_max_sessions" => (Type::Int, "DEFAULT 4 NOT NULL"),
        "max_wrapup_time"
        | "dissuading_hangup"
        | "dissuading_onhold_th"
        | "dissuading_ewt_th"
        | "dissuading_qsize_th"
        | "logstate"
        | "wrapup_time"
        | "wrapup_end_time" => (Type::Int, "DEFAULT 0 NOT NULL"),
        _ => (Type::Text(128), "DEFAULT NULL"),
    }
}
