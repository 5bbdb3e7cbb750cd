//! Tables: made where they are missing and may be made; versions and columns checked where they are there.
//!
//! What is there is looked at first: a user who may not create tables runs on those that somebody else has made.

use super::super::{Missing, StoreError};
use super::dialect::{Arg, Column, Dialect, Type};
use super::rows::word;
use super::session::{Mode, Session, Sql};

/// A column as it should be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub name: &'a str,
    /// The configuration key that renames it; empty: none.
    pub key: &'a str,
    pub kind: Type,
    /// What stands behind its type.
    pub rule: &'a str,
}

/// A table as it should be.
#[derive(Debug, Clone)]
pub(super) struct Table<'a> {
    pub name: &'a str,
    pub form: Form<'a>,
    /// Without `id`.
    pub columns: Vec<Wanted<'a>>,
}

/// Whose form a table has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form<'a> {
    /// OpenSIPS': with an `id`, a row in `version`, perhaps a unique column.
    Versioned { version: i64, unique: Option<&'a str> },
    /// Ours: with this primary key and an index. Columns that an older one lacks are added.
    Ours { key: &'a str, index: Option<&'a str> },
}

/// A table as it is.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Quoted.
    pub table: String,
    /// What the order of insertion is told by, quoted.
    pub order: String,
    /// In the order of [`Table::columns`].
    columns: Vec<Column>,
    quoted: Vec<String>,
}

impl Found {
    /// A column's name, quoted.
    pub fn name(&self, i: usize) -> &str {
        self.quoted.get(i).map_or("", String::as_str)
    }

    /// All names, quoted.
    pub fn names(&self) -> &[String] {
        &self.quoted
    }

    /// As much of a text as the column takes, in whole characters.
    pub fn cut<'t>(&self, i: usize, text: &'t str) -> &'t str {
        let most = self.columns.get(i).and_then(|c| c.chars).unwrap_or(usize::MAX);
        text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
    }

    /// Whether a text comes back from the column as it went in, as far as can be told.
    pub fn keeps(&self, i: usize, text: &str) -> bool {
        let all_letters = self.columns.get(i).is_none_or(|c| c.all_letters);
        self.cut(i, text).len() == text.len() && (all_letters || text.is_ascii())
    }

    /// A number, or the largest that the column takes.
    pub fn most(&self, i: usize, n: u64) -> i64 {
        let max = self.columns.get(i).and_then(|c| c.max).unwrap_or(i64::MAX);
        i64::try_from(n).unwrap_or(i64::MAX).min(max)
    }

    /// A number that begins anew where the column's largest is passed.
    pub fn around(&self, i: usize, n: u64) -> i64 {
        let max = self.columns.get(i).and_then(|c| c.max).unwrap_or(i64::MAX);
        i64::try_from(n % (max.unsigned_abs() + 1)).unwrap_or(i64::MAX)
    }
}

impl Sql {
    /// Makes the table where it is missing, unless it is only to be told; checks its version and columns.
    pub(super) async fn ensure(&self, table: &Table<'_>, missing: Missing) -> Result<Found, StoreError> {
        let mode = if missing == Missing::Create { Mode::Write } else { Mode::Read };
        let mut session = self.begin(mode).await?;
        let found = self.made(&mut session, table, missing).await;
        session.end(found).await
    }

    async fn made(&self, s: &mut Session<'_>, table: &Table<'_>, missing: Missing) -> Result<Found, StoreError> {
        if self.dialect == Dialect::Postgres && missing == Missing::Create {
            // Two that start at once make each table once.
            s.rows("SELECT pg_advisory_xact_lock(hashtext('strowger schema'))::text", &[]).await?;
        }
        let (name, present) = match self.present(s, table.name).await? {
            Some(present) => present,
            None if missing == Missing::Create => {
                self.create(s, table).await?;
                self.present(s, table.name).await?.ok_or_else(|| self.no_table(table.name))?
            }
            None => return Err(self.no_table(table.name)),
        };
        let mut lacking = table.columns.iter().filter(|c| find(&present, c.name).is_none());
        match table.form {
            Form::Versioned { version, .. } => {
                self.check_version(s, table.name, version).await?;
                if let Some(c) = lacking.next() {
                    return Err(self.no_column(table.name, c));
                }
            }
            Form::Ours { .. } => {
                let added: Vec<&Wanted<'_>> = lacking.collect();
                for c in &added {
                    if missing == Missing::Tell {
                        return Err(self.no_column(table.name, c));
                    }
                    let (table, column) = (self.dialect.quote(&name), self.declared(c));
                    s.script(&format!("ALTER TABLE {table} ADD COLUMN {column}")).await?;
                }
                if !added.is_empty() {
                    let present = self.present(s, table.name).await?.map(|p| p.1).unwrap_or_default();
                    return Ok(self.found(&name, &present, table));
                }
            }
        }
        Ok(self.found(&name, &present, table))
    }

    fn found(&self, name: &str, present: &[Column], table: &Table<'_>) -> Found {
        let columns: Vec<Column> = table.columns.iter().filter_map(|c| find(present, c.name).cloned()).collect();
        let quoted: Vec<String> = columns.iter().map(|c| self.dialect.quote(&c.name)).collect();
        let order = match find(present, "id") {
            Some(id) => self.dialect.quote(&id.name),
            None if self.dialect == Dialect::Sqlite => "rowid".to_owned(),
            None => quoted.first().cloned().unwrap_or_default(),
        };
        Found { table: self.dialect.quote(name), order, columns, quoted }
    }

    /// The table's own way to write its name, and its columns. A table in another case is taken when it is the only one.
    async fn present(&self, s: &mut Session<'_>, name: &str) -> Result<Option<(String, Vec<Column>)>, StoreError> {
        let tables = s.rows(self.dialect.find_table(), &[Arg::Text(Some(name))]).await?;
        let tables: Vec<String> = tables.iter().filter_map(|r| word(r, 0)).collect();
        let Some(own) = tables.iter().find(|t| *t == name).or(tables.first()) else { return Ok(None) };
        let columns = s.rows(self.dialect.columns(), &[Arg::Text(Some(own))]).await?;
        let column = |r| Some(self.dialect.column(word(r, 0)?, &word(r, 1)?, &word(r, 2)?, &word(r, 3)?));
        Ok(Some((own.clone(), columns.iter().filter_map(column).collect())))
    }

    async fn create(&self, s: &mut Session<'_>, table: &Table<'_>) -> Result<(), StoreError> {
        let mut parts: Vec<String> = vec![];
        match table.form {
            Form::Versioned { unique, .. } => {
                parts.push(self.dialect.auto_id().to_owned());
                parts.extend(table.columns.iter().map(|c| self.declared(c)));
                parts.extend(unique.map(|c| format!("UNIQUE ({})", self.dialect.quote(c))));
            }
            Form::Ours { key, .. } => {
                parts.extend(table.columns.iter().map(|c| self.declared(c)));
                parts.push(format!("PRIMARY KEY ({})", self.dialect.quote(key)));
            }
        }
        let name = self.dialect.quote(table.name);
        let options = self.dialect.table_options();
        self.creating(s, table.name, &format!("CREATE TABLE {name} ({}){options}", parts.join(", "))).await?;
        match table.form {
            Form::Versioned { version, .. } => self.note_version(s, table.name, version).await,
            Form::Ours { index: Some(column), .. } => {
                let (index, column) =
                    (self.dialect.quote(&format!("{}_{column}", table.name)), self.dialect.quote(column));
                self.creating(s, table.name, &format!("CREATE INDEX {index} ON {name} ({column})")).await
            }
            Form::Ours { index: None, .. } => Ok(()),
        }
    }

    async fn creating(&self, s: &mut Session<'_>, table: &str, sql: &str) -> Result<(), StoreError> {
        s.script(sql).await.map_err(|e| StoreError::Failed(format!("cannot create table `{table}`: {e}")))
    }

    fn declared(&self, c: &Wanted<'_>) -> String {
        format!("{} {} {}", self.dialect.quote(c.name), self.dialect.declare(c.kind), c.rule)
    }

    async fn note_version(&self, s: &mut Session<'_>, table: &str, version: i64) -> Result<(), StoreError> {
        if self.present(s, "version").await?.is_none() {
            let create = format!(
                "CREATE TABLE version (table_name VARCHAR(64) NOT NULL, table_version INTEGER DEFAULT 0 NOT NULL, \
                 UNIQUE (table_name)){}",
                self.dialect.table_options()
            );
            self.creating(s, "version", &create).await?;
        }
        let args = [Arg::Int(Some(version)), Arg::Text(Some(table))];
        if s.run("UPDATE version SET table_version = ? WHERE table_name = ?", &args).await?.rows == 0 {
            s.run("INSERT INTO version (table_version, table_name) VALUES (?, ?)", &args).await?;
        }
        Ok(())
    }

    async fn check_version(&self, s: &mut Session<'_>, table: &str, expected: i64) -> Result<(), StoreError> {
        let none = || StoreError::NoVersion { url: self.url.clone(), table: table.to_owned(), expected };
        if self.present(s, "version").await?.is_none() {
            return Err(none());
        }
        let select =
            format!("SELECT {} FROM version WHERE lower(table_name) = lower(?)", self.dialect.text("table_version"));
        let rows = s.rows(&select, &[Arg::Text(Some(table))]).await?;
        let found =
            rows.first().and_then(|r| word(r, 0)).and_then(|v| v.trim().parse::<i64>().ok()).ok_or_else(none)?;
        if found == expected {
            return Ok(());
        }
        Err(StoreError::Version { url: self.url.clone(), table: table.to_owned(), found, expected })
    }

    fn no_table(&self, table: &str) -> StoreError {
        StoreError::Missing { url: self.url.clone(), what: format!("table `{table}`") }
    }

    fn no_column(&self, table: &str, c: &Wanted<'_>) -> StoreError {
        let fix = match c.key {
            "" => "add it".to_owned(),
            key => format!("add it, or set [call_center] {key}"),
        };
        StoreError::Column { url: self.url.clone(), table: table.to_owned(), column: c.name.to_owned(), fix }
    }
}

/// By its name, else in another case.
fn find<'c>(present: &'c [Column], name: &str) -> Option<&'c Column> {
    let own = present.iter().find(|c| c.name == name);
    own.or_else(|| present.iter().find(|c| c.name.eq_ignore_ascii_case(name)))
}
