//! What SQLite, MySQL and PostgreSQL say differently.

use super::super::StoreError;
use sqlx::mysql::MySqlDatabaseError;
use std::fmt::Write;

/// An SQL back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Sqlite,
    Mysql,
    Postgres,
}

/// Types of columns that we make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// So many characters at most.
    Text(u16),
    LongText,
    /// 32 bits, of which the upper half is not used.
    Int,
    BigInt,
    Time,
    /// The key of a record.
    Key,
    Bytes,
}

/// A value that a statement takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arg<'a> {
    Int(Option<i64>),
    Text(Option<&'a str>),
    Bytes(&'a [u8]),
}

/// What a database says of a table's column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    /// Most characters of a text.
    pub chars: Option<usize>,
    /// Largest whole number.
    pub max: Option<i64>,
    /// Whether its text is written in something that has all letters.
    pub all_letters: bool,
}

impl Dialect {
    /// A name as it stands in a statement, whatever word it is and however it is written.
    pub(super) fn quote(self, name: &str) -> String {
        match self {
            Dialect::Mysql => format!("`{}`", name.replace('`', "``")),
            Dialect::Sqlite | Dialect::Postgres => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    }

    /// Question marks as this dialect has them. Ours are never in quotes.
    pub(super) fn marked(self, sql: &str) -> String {
        if self != Dialect::Postgres {
            return sql.to_owned();
        }
        let mut marked = String::with_capacity(sql.len() + sql.len() / 2);
        let mut number = 0;
        for (i, part) in sql.split('?').enumerate() {
            if i > 0 {
                number += 1;
                let _ = write!(marked, "${number}");
            }
            marked.push_str(part);
        }
        marked
    }

    /// The bytes of a value's text, in the connection's UTF-8 where the database knows how its text is written.
    pub(super) fn text(self, expression: &str) -> String {
        match self {
            Dialect::Sqlite => format!("CAST({expression} AS TEXT)"),
            // A cast to CHAR would make question marks of what is binary.
            Dialect::Mysql => format!("CONCAT({expression}, '')"),
            Dialect::Postgres => format!("({expression})::text"),
        }
    }

    /// A timestamp column as Unix seconds.
    pub(super) fn unix(self, column: &str) -> String {
        match self {
            Dialect::Sqlite => format!("CAST(strftime('%s', {column}) AS INTEGER)"),
            Dialect::Mysql => format!("TIMESTAMPDIFF(SECOND, '1970-01-01 00:00:00', {column})"),
            Dialect::Postgres => format!("floor(extract(epoch FROM {column}))::bigint"),
        }
    }

    /// A timestamp from Unix seconds that are bound.
    pub(super) fn timestamp(self) -> &'static str {
        match self {
            Dialect::Sqlite => "datetime(?, 'unixepoch')",
            Dialect::Mysql => "TIMESTAMP('1970-01-01 00:00:00') + INTERVAL ? SECOND",
            Dialect::Postgres => "to_timestamp(?::double precision) AT TIME ZONE 'UTC'",
        }
    }

    /// A condition on a text that tells letters apart whatever the column's collation, and its arguments.
    pub(super) fn same<'a>(self, column: &str, value: &'a str) -> (String, Vec<Arg<'a>>) {
        let arg = Arg::Text(Some(value));
        match self {
            Dialect::Sqlite | Dialect::Postgres => (format!("{column} = ?"), vec![arg]),
            // The first half finds the row by its index.
            Dialect::Mysql => {
                (format!("{column} = ? AND CONVERT({column} USING utf8mb4) COLLATE utf8mb4_bin = ?"), vec![arg; 2])
            }
        }
    }

    /// The end of an INSERT that changes these columns where a row with that `key` is there.
    pub(super) fn upsert(self, key: &str, columns: &[&str]) -> String {
        let set = |value: &dyn Fn(&str) -> String| {
            let sets: Vec<String> = columns.iter().map(|c| format!("{} = {}", self.quote(c), value(c))).collect();
            sets.join(", ")
        };
        match self {
            Dialect::Mysql => format!(" ON DUPLICATE KEY UPDATE {}", set(&|c| format!("VALUES({})", self.quote(c)))),
            Dialect::Sqlite | Dialect::Postgres => {
                let sets = set(&|c| format!("excluded.{}", self.quote(c)));
                format!(" ON CONFLICT ({}) DO UPDATE SET {sets}", self.quote(key))
            }
        }
    }

    pub(super) fn declare(self, kind: Type) -> String {
        match (kind, self) {
            (Type::Text(n), _) => format!("VARCHAR({n})"),
            (Type::LongText, Dialect::Mysql) => "MEDIUMTEXT".to_owned(),
            (Type::LongText, _) => "TEXT".to_owned(),
            (Type::Int, Dialect::Mysql) => "INT".to_owned(),
            (Type::BigInt, Dialect::Mysql | Dialect::Postgres) => "BIGINT".to_owned(),
            (Type::Int | Type::BigInt, _) => "INTEGER".to_owned(),
            (Type::Time, Dialect::Postgres) => "TIMESTAMP".to_owned(),
            (Type::Time, _) => "DATETIME".to_owned(),
            (Type::Key, Dialect::Mysql) => "BINARY(16)".to_owned(),
            (Type::Bytes, Dialect::Mysql) => "LONGBLOB".to_owned(),
            (Type::Key | Type::Bytes, Dialect::Sqlite) => "BLOB".to_owned(),
            (Type::Key | Type::Bytes, Dialect::Postgres) => "BYTEA".to_owned(),
        }
    }

    /// The column `id` of a table.
    pub(super) fn auto_id(self) -> &'static str {
        match self {
            Dialect::Sqlite => "id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL",
            Dialect::Mysql => "id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY NOT NULL",
            Dialect::Postgres => "id BIGSERIAL PRIMARY KEY NOT NULL",
        }
    }

    /// What stands behind the columns of a new table: text that tells letters apart, transactions.
    pub(super) fn table_options(self) -> &'static str {
        match self {
            Dialect::Mysql => " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
            Dialect::Sqlite | Dialect::Postgres => "",
        }
    }

    /// Finds the tables of this name, in any case; texts: name.
    pub(super) fn find_table(self) -> &'static str {
        match self {
            Dialect::Sqlite => {
                "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND lower(name) = lower(?)"
            }
            Dialect::Mysql => {
                "SELECT CONCAT(table_name, '') FROM information_schema.tables WHERE table_schema = DATABASE() \
                 AND LOWER(table_name) = LOWER(?)"
            }
            Dialect::Postgres => {
                "SELECT relname::text FROM pg_catalog.pg_class WHERE lower(relname) = lower(?) AND relkind IN \
                 ('r', 'p', 'v', 'f') AND pg_catalog.pg_table_is_visible(oid)"
            }
        }
    }

    /// The columns of the table of exactly this name; texts: name, type, most characters (0: not limited), charset.
    pub(super) fn columns(self) -> &'static str {
        match self {
            Dialect::Sqlite => "SELECT name, '', '0', '' FROM pragma_table_info(?)",
            Dialect::Mysql => {
                "SELECT CONCAT(column_name, ''), CONCAT(column_type, ''), \
                 CONCAT(COALESCE(character_maximum_length, 0), ''), CONCAT(COALESCE(character_set_name, ''), '') \
                 FROM information_schema.columns \
                 WHERE table_schema = DATABASE() AND table_name = ? ORDER BY ordinal_position"
            }
            Dialect::Postgres => {
                "SELECT a.attname::text, t.typname::text, (CASE WHEN t.typname IN ('varchar', 'bpchar') AND a.atttypmod > 4 \
                 THEN a.atttypmod - 4 ELSE 0 END)::text, '' FROM pg_catalog.pg_attribute a \
                 JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
                 WHERE c.relname = ? AND pg_catalog.pg_table_is_visible(c.oid) AND a.attnum > 0 \
                 AND NOT a.attisdropped ORDER BY a.attnum"
            }
        }
    }

    /// A column from a row of [`Dialect::columns`].
    pub(super) fn column(self, name: String, kind: &str, chars: &str, charset: &str) -> Column {
        let unsigned = kind.contains("unsigned");
        let word = kind.split(['(', ' ']).next().unwrap_or("");
        let max = match (self, word) {
            (Dialect::Sqlite, _) => None,
            (_, "tinyint") => Some(if unsigned { 0xff } else { 0x7f }),
            (_, "smallint" | "int2") => Some(if unsigned { 0xffff } else { 0x7fff }),
            (_, "mediumint") => Some(if unsigned { 0xff_ffff } else { 0x7f_ffff }),
            (_, "int" | "int4") => Some(if unsigned { 0xffff_ffff } else { 0x7fff_ffff }),
            _ => None,
        };
        let all_letters = ["", "utf8mb4", "utf16", "utf16le", "utf32", "binary"].contains(&charset);
        Column { name, chars: chars.parse().ok().filter(|n| *n > 0), max, all_letters }
    }

    /// Sorts out what the database says: about the row, or about the database. URL and fix are in the words.
    pub(super) fn sorted(self, url: &str, e: &sqlx::Error) -> StoreError {
        let code = e.as_database_error().and_then(|d| d.code());
        let code = code.as_deref().unwrap_or("");
        let about_the_row = match self {
            // Constraint, mismatch, too big, out of range.
            Dialect::Sqlite => matches!(primary(code), Some(18 | 19 | 20 | 25)),
            // No default, wrong value, CHECK (MySQL, MariaDB), wrong time.
            Dialect::Mysql => about_a_value(code) || matches!(number(e), Some(1364 | 1366 | 3819 | 4025 | 1292)),
            // Too many bytes for an index, a trigger's RAISE.
            Dialect::Postgres => about_a_value(code) || matches!(code, "54000" | "P0001"),
        };
        let what = format!("{url}: {e}{}", self.fix(code, e));
        if about_the_row { StoreError::Refused(what) } else { StoreError::Failed(what) }
    }

    /// What to do about it.
    pub(super) fn fix(self, code: &str, e: &sqlx::Error) -> &'static str {
        match (self, e) {
            (_, sqlx::Error::PoolTimedOut) => "; see whether the server runs and answers",
            (Dialect::Sqlite, _) => match primary(code) {
                Some(5 | 6) => "; end the program that holds it locked, or its transaction",
                Some(8) => "; let this user write to the file and to its directory",
                Some(13) => "; make room on its disk",
                Some(14) => "; create its directory, and let this user read and write there",
                Some(26) => "; name another file, or move this one away",
                _ => "",
            },
            (Dialect::Mysql, _) => match number(e) {
                Some(1044 | 1045 | 1698) => "; set user and password in the URL, and GRANT the user this database",
                Some(1049) => "; CREATE DATABASE, or name another in the URL",
                Some(1142) => "; GRANT it, or have `strowger db init` run by a user who may",
                Some(1021 | 1114) => "; make room on its disk",
                Some(1290 | 1836) => "; it takes no writes: name the primary server",
                Some(1205) => "; end the transaction that holds the row locked",
                _ => "",
            },
            (Dialect::Postgres, _) => match code {
                "28000" | "28P01" => "; set user and password in the URL, and let the user in (pg_hba.conf)",
                "3D000" => "; CREATE DATABASE, or name another in the URL",
                "42501" => "; GRANT it, or have `strowger db init` run by a user who may",
                "53100" => "; make room on its disk",
                "25006" => "; it takes no writes: name the primary server",
                "55P03" => "; end the transaction that holds the row or table locked",
                _ => "",
            },
        }
    }
}

/// SQLite's primary result code.
fn primary(code: &str) -> Option<u32> {
    code.parse::<u32>().ok().map(|c| c & 0xff)
}

/// MySQL's own number of an error.
fn number(e: &sqlx::Error) -> Option<u16> {
    e.as_database_error().and_then(|d| d.try_downcast_ref::<MySqlDatabaseError>()).map(MySqlDatabaseError::number)
}

/// SQLSTATE classes: data exception, integrity constraint; a trigger's SIGNAL.
fn about_a_value(state: &str) -> bool {
    state.starts_with("22") || state.starts_with("23") || state == "45000"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_marks_are_as_each_dialect_has_them() {
        let told = |d: Dialect| format!("{} {}", d.quote("rejected"), d.marked("a = ? AND b IN (?, ?)"));
        assert_eq!(told(Dialect::Sqlite), "\"rejected\" a = ? AND b IN (?, ?)");
        assert_eq!(told(Dialect::Mysql), "`rejected` a = ? AND b IN (?, ?)");
        assert_eq!(told(Dialect::Postgres), "\"rejected\" a = $1 AND b IN ($2, $3)");
        assert_eq!(
            (Dialect::Mysql.quote("a`b"), Dialect::Postgres.quote("a\"b")),
            ("`a``b`".into(), "\"a\"\"b\"".into())
        );
    }

    #[test]
    fn a_column_has_the_bounds_of_its_type() {
        let max = |d: Dialect, kind: &str| d.column(String::new(), kind, "0", "").max;
        assert_eq!(max(Dialect::Mysql, "int(11)"), Some(2_147_483_647));
        assert_eq!(max(Dialect::Mysql, "int unsigned"), Some(4_294_967_295));
        assert_eq!(max(Dialect::Mysql, "tinyint(3) unsigned"), Some(255));
        assert_eq!(max(Dialect::Postgres, "int2"), Some(32_767));
        assert_eq!((max(Dialect::Postgres, "int8"), max(Dialect::Sqlite, "int")), (None, None));
        let latin = Dialect::Mysql.column("c".into(), "varchar(64)", "64", "latin1");
        assert_eq!((latin.chars, latin.all_letters), (Some(64), false));
    }
}
