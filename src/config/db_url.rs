//! Where data lives: database URLs. What is shown of them in messages and logs has no password.

use super::value::{Ident, Value, quoted, text};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use toml::de::DeValue;

/// Where a kind of data lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DbUrl {
    /// `sqlite:PATH`, relative to the working directory.
    Sqlite(PathBuf),
    /// `scylla://[USER:PASSWORD@]HOST[,HOST..][:PORT]/KEYSPACE`; a host may have a port of its own.
    Scylla { user: Option<(String, String)>, hosts: Vec<String>, keyspace: Ident },
    /// `mysql://USER:PASSWORD@HOST/DATABASE`, in the driver's own form.
    Mysql(String),
    /// `postgres://USER:PASSWORD@HOST/DATABASE`, in the driver's own form.
    Postgres(String),
}

impl FromStr for DbUrl {
    type Err = String;
    fn from_str(s: &str) -> Result<DbUrl, String> {
        let (scheme, rest) = s.split_once(':').unwrap_or((s, ""));
        match scheme {
            "sqlite" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if path.is_empty() || path == ":memory:" {
                    return Err(format!("`{s}` names no file; use sqlite:PATH, such as sqlite:strowger.db"));
                }
                Ok(DbUrl::Sqlite(PathBuf::from(path)))
            }
            "scylla" => scylla(rest),
            "mysql" | "mariadb" => server(rest).map(|rest| DbUrl::Mysql(format!("mysql:{rest}"))),
            "postgres" | "postgresql" => server(rest).map(|rest| DbUrl::Postgres(format!("postgres:{rest}"))),
            _ => {
                Err("no database URL; use sqlite:PATH, scylla://HOST/KEYSPACE, mysql://USER:PASSWORD@HOST/DATABASE or \
                      postgres://USER:PASSWORD@HOST/DATABASE"
                    .to_owned())
            }
        }
    }
}

impl Value for DbUrl {
    fn read(v: &DeValue<'_>) -> Result<DbUrl, String> {
        text(v)?.parse()
    }
    fn show(&self) -> String {
        match self {
            DbUrl::Scylla { user: Some((name, password)), hosts, keyspace } => {
                quoted(&format!("scylla://{name}:{password}@{}/{keyspace}", hosts.join(",")))
            }
            DbUrl::Mysql(url) | DbUrl::Postgres(url) => quoted(url),
            DbUrl::Sqlite(_) | DbUrl::Scylla { .. } => quoted(&self.to_string()),
        }
    }
}

/// Errors do not repeat the URL: it may hold a password.
fn server(rest: &str) -> Result<&str, String> {
    let database = rest.strip_prefix("//").and_then(|r| r.split(['?', '#']).next()?.split_once('/'));
    match database {
        Some((host, name)) if !name.is_empty() && (!host.is_empty() || rest.contains('?')) => Ok(rest),
        _ => Err("names no host or no database; use SCHEME://USER:PASSWORD@HOST/DATABASE".to_owned()),
    }
}

fn scylla(rest: &str) -> Result<DbUrl, String> {
    const FORM: &str = "use scylla://HOST,HOST:9042/KEYSPACE";
    let (place, keyspace) = rest.strip_prefix("//").and_then(|r| r.split_once('/')).ok_or(FORM)?;
    let (user, hosts) = match place.rsplit_once('@') {
        Some((user, hosts)) => {
            let (name, password) =
                user.split_once(':').ok_or("has a user without a password; use USER:PASSWORD@HOST")?;
            (Some((name.to_owned(), password.to_owned())), hosts)
        }
        None => (None, place),
    };
    let hosts: Vec<String> = hosts.split(',').map(str::to_owned).collect();
    if hosts.iter().any(String::is_empty) {
        return Err(format!("names no host; {FORM}"));
    }
    Ok(DbUrl::Scylla { user, hosts, keyspace: keyspace.parse::<Ident>().map_err(|e| format!("keyspace: {e}"))? })
}

/// Without passwords; [`Value::show`] has them.
impl fmt::Display for DbUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DbUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            DbUrl::Scylla { hosts, keyspace, .. } => write!(f, "scylla://{}/{keyspace}", hosts.join(",")),
            DbUrl::Mysql(url) | DbUrl::Postgres(url) => {
                let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
                let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
                let host = place.rsplit_once('@').map_or(place, |(_, host)| host);
                write!(f, "{scheme}://{host}/{}", path.split('?').next().unwrap_or(path))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_told_without_its_password_and_kept_with_it() {
        for (url, told) in [
            ("sqlite:/a/b.db", "sqlite:/a/b.db"),
            ("scylla://u:p:w@h1,h2:9043/calls", "scylla://h1,h2:9043/calls"),
            ("scylla://h/calls", "scylla://h/calls"),
            ("mysql://u:p@ss@h:3306/openSips?ssl-mode=required", "mysql://h:3306/openSips"),
            ("postgres://h/d", "postgres://h/d"),
            ("postgres:///d?host=/run/p", "postgres:///d"),
        ] {
            let read: DbUrl = url.parse().unwrap();
            assert_eq!((read.to_string().as_str(), read.show()), (told, quoted(url)));
        }
    }

    #[test]
    fn what_is_no_url_is_said_without_repeating_it() {
        for (url, said) in [
            ("strowger.db", "no database URL"),
            ("sqlite:", "names no file"),
            ("mysql://u:secret@h", "names no host or no database"),
            ("postgres:///d", "names no host or no database"),
            ("scylla://secret@h/k", "user without a password"),
            ("scylla://h,/k", "names no host"),
            ("scylla://h/9k", "keyspace: "),
        ] {
            let error = url.parse::<DbUrl>().unwrap_err();
            assert!(error.contains(said) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
