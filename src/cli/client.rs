//! `strowger mi`, and how other commands reach a running server.

use super::{Failure, MiAddress, Settings, say};
use crate::config::Config;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct MiArgs {
    #[command(flatten)]
    address: MiAddress,
    /// Command, by its old or new name: `which` lists them
    command: String,
    /// Parameters by place (ann 1) or by name (agent_id=ann state=1); [..] and {..} are JSON
    args: Vec<String>,
}

pub(super) fn mi(settings: &Settings, args: &MiArgs) -> Result<(), Failure> {
    let client = Client::new(&args.address, &settings.load()?.config)?;
    let result =
        client.call(&args.command, &params(&args.command, &args.args)).map_err(|e| Failure::Fault(e.to_string()))?;
    say(&serde_json::to_string_pretty(&result).unwrap_or_else(|_| result.to_string()));
    Ok(())
}

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    address: MiAddress,
    #[arg(value_enum, default_value_t = Drain::On)]
    state: Drain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Drain {
    /// Refuse new calls; present ones go on
    On,
    /// Take new calls again
    Off,
    /// Only tell
    Status,
}

pub(super) fn drain(settings: &Settings, args: &DrainArgs) -> Result<(), Failure> {
    let client = Client::new(&args.address, &settings.load()?.config)?;
    let params = match args.state {
        Drain::On => json!([1]),
        Drain::Off => json!([0]),
        Drain::Status => json!([]),
    };
    let answer = client.call("drain", &params).map_err(|e| Failure::Fault(e.to_string()))?;
    let state = if answer["draining"] == json!(1) { "new calls are refused" } else { "new calls are taken" };
    say(&format!("{state}; calls at present: {}", answer["calls"]));
    Ok(())
}

/// Why a call brought no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("no server answers at {url}: {what}; start one, or name it with --mi URL")]
    Unreachable { url: String, what: String },
    #[error("{url} answers, but not as a management interface: {what}")]
    Strange { url: String, what: String },
    #[error("error {code}: {message}")]
    Refused { code: i64, message: String },
}

/// A management interface over HTTP.
pub(super) struct Client {
    url: String,
    http: ureq::Agent,
}

impl Client {
    /// At the address given, else where this configuration's server is.
    pub fn new(address: &MiAddress, config: &Config) -> Result<Client, Failure> {
        let path = &config.mi.http_path.0;
        let url = match (&address.mi, config.mi.http) {
            (Some(given), _) => full(given, path)?,
            (None, Some(addr)) => format!("http://{addr}{path}"),
            (None, None) => {
                return Err(Failure::Usage(
                    "the configuration has no [mi] http; name the server with --mi URL".to_owned(),
                ));
            }
        };
        let http = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build();
        Ok(Client { url, http: http.into() })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Calls a command.
    pub fn call(&self, method: &str, params: &Value) -> Result<Value, CallError> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let sent = self.http.post(&self.url).send_json(&request);
        let mut response = sent.map_err(|e| CallError::Unreachable { url: self.url.clone(), what: e.to_string() })?;
        let strange = |what: String| CallError::Strange { url: self.url.clone(), what };
        let status = response.status();
        // A list of a hundred thousand calls is some tens of megabytes.
        let text =
            response.body_mut().with_config().limit(1 << 30).read_to_string().map_err(|e| strange(e.to_string()))?;
        let mut answer: Value = serde_json::from_str(&text).map_err(|_| strange(format!("HTTP {status}")))?;
        if let Some(error) = answer.get("error") {
            let data = error["data"].as_str().map(|d| format!(" ({d})")).unwrap_or_default();
            let message = format!("{}{data}", error["message"].as_str().unwrap_or("unknown"));
            return Err(CallError::Refused { code: error["code"].as_i64().unwrap_or(0), message });
        }
        Ok(answer["result"].take())
    }
}

/// `ADDR:PORT`, `http://ADDR:PORT` and `http://ADDR:PORT/path` are all taken.
fn full(given: &str, path: &str) -> Result<String, Failure> {
    let rest = given.strip_prefix("http://").unwrap_or(given);
    if rest.contains("://") || rest.is_empty() {
        return Err(Failure::Usage(format!("--mi {given}: expected http://ADDR:PORT/mi")));
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    Ok(if rest.contains('/') { format!("http://{rest}") } else { format!("http://{rest}{path}") })
}

/// Parameters as typed: all `name=value`, or by place. What takes a list takes it as words.
fn params(command: &str, args: &[String]) -> Value {
    let value = |s: &str| match s.as_bytes().first() {
        Some(b'[' | b'{') => serde_json::from_str(s).unwrap_or_else(|_| json!(s)),
        _ => json!(s),
    };
    let named: Option<Map<String, Value>> = args
        .iter()
        .map(|a| a.split_once('=').filter(|(n, _)| n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')))
        .map(|pair| pair.map(|(name, v)| (name.to_owned(), value(v))))
        .collect();
    let takes_list = ["get_statistics", "statistics:get", "list_statistics", "statistics:list"].contains(&command);
    match named {
        _ if args.is_empty() => json!([]),
        Some(named) => Value::Object(named),
        None if takes_list && !args.iter().any(|a| a.starts_with('[')) => json!([args]),
        None => Value::Array(args.iter().map(|a| value(a)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_go_by_place_or_by_name() {
        let of =
            |command: &str, args: &[&str]| params(command, &args.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(of("cc_reload", &[]), json!([]));
        assert_eq!(of("cc_agent_login", &["ann", "1"]), json!(["ann", "1"]));
        assert_eq!(of("cc_agent_login", &["agent_id=ann", "state=1"]), json!({"agent_id": "ann", "state": "1"}));
        assert_eq!(of("get_statistics", &["ccg_incalls", "call_center:"]), json!([["ccg_incalls", "call_center:"]]));
        assert_eq!(of("get_statistics", &["[\"all\"]"]), json!([["all"]]));
        assert_eq!(of("get_statistics", &["statistics=[\"all\"]"]), json!({"statistics": ["all"]}));
    }

    #[test]
    fn addresses_are_completed() {
        for given in ["127.0.0.1:8888", "http://127.0.0.1:8888", "http://127.0.0.1:8888/", "http://127.0.0.1:8888/mi/"]
        {
            assert_eq!(full(given, "/mi").unwrap(), "http://127.0.0.1:8888/mi", "{given}");
        }
        assert!(full("https://h/mi", "/mi").is_err());
    }
}
