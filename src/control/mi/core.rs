//! Commands about the server itself.

use super::MiError;
use super::params::Args;
use super::table::{COMMANDS, Command, find};
use crate::control::{ControlPlane, clock, latency as measured};
use crate::logs;
use serde_json::{Map, Value, json};

/// All names, the new ones first; or the sets of parameters of one command.
pub fn which(args: &Args<'_>) -> Result<Value, MiError> {
    let Some(name) = args.text("command")? else {
        let names: Vec<&str> = COMMANDS.iter().map(|c| c.new).chain(COMMANDS.iter().map(|c| c.old)).collect();
        return Ok(json!(names));
    };
    let command = known(&name)?;
    let first = |name: &&'static str| name.split('|').next().unwrap_or(name);
    let sets: Vec<Vec<&str>> = command.params.iter().map(|set| set.iter().map(first).collect()).collect();
    Ok(json!(sets))
}

/// What a command does.
pub fn help(args: &Args<'_>) -> Result<Value, MiError> {
    let Some(name) = args.text("mi_cmd")? else {
        return Ok(json!("Usage: help mi_cmd - returns information about 'mi_cmd'"));
    };
    let command = known(&name)?;
    let module = command.new.split(':').next().unwrap_or_default();
    Ok(json!({"Help": command.help, "Exported by": module}))
}

/// Name and version, as `opensips-cli` expects them.
pub fn version() -> Value {
    let (version, arch, os) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS);
    json!({"Server": format!("Strowger ({version} ({arch}/{os}))")})
}

/// What the shards measure; nothing where there is nothing that measures.
pub fn latency(plane: &ControlPlane, args: &Args<'_>) -> Result<Value, MiError> {
    let whole = args.integer("histograms")?.is_some_and(|on| on != 0);
    Ok(plane.latency().map_or_else(|| json!({}), |snapshot| measured::tell(&snapshot, whole)))
}

/// Since when it runs.
pub fn uptime(plane: &ControlPlane) -> Value {
    let (now, since) = (clock::unix_us() / 1_000_000, plane.started_unix_us / 1_000_000);
    json!({
        "Now": clock::ctime(now),
        "Up since": clock::ctime(since),
        "Up time": format!("{} [sec]", now.saturating_sub(since)),
    })
}

/// The process and its threads, which stand where the reference has processes.
pub fn ps() -> Value {
    let row = |(id, (pid, kind)): (usize, &(u32, String))| json!({"ID": id, "PID": pid, "Type": kind});
    let rows: Vec<Value> = threads().iter().enumerate().map(row).collect();
    json!({"Processes": rows})
}

/// Tells the log level of each thread, or sets it; all have the same.
pub fn log_level(args: &Args<'_>) -> Result<Value, MiError> {
    let threads = threads();
    let Some(level) = args.integer("level")? else {
        let level = logs::level();
        let row = |(pid, kind): &(u32, String)| json!({"PID": pid, "Log level": level, "Type": kind});
        let rows: Vec<Value> = threads.iter().map(row).collect();
        return Ok(json!({"Processes": rows}));
    };
    let pid = args.integer("pid")?;
    if pid.is_some_and(|pid| !threads.iter().any(|(known, _)| i64::from(*known) == pid)) {
        return Err(MiError::invalid_params("Bad PID"));
    }
    if !logs::LEVELS.contains(&level) {
        return Err(MiError::invalid_params("Bad value for parameter 'level': expected -3 (alerts) to 4 (debug)"));
    }
    if !logs::set_level(level) {
        return Err(MiError::new(500, "The logs of this process are not the server's own; their level is fixed"));
    }
    tracing::info!(level, "log level set by the management interface");
    let mut result = Map::new();
    result.insert(if pid.is_some() { "Log level" } else { "New global log level" }.to_owned(), json!(level));
    Ok(Value::Object(result))
}

/// Tells whether new calls are refused, after switching that if asked to.
pub async fn drain(plane: &ControlPlane, args: &Args<'_>) -> Result<Value, MiError> {
    if let Some(on) = args.integer("state")? {
        plane.drain(on != 0).await?;
        tracing::info!(on = on != 0, "drain switched by the management interface");
    }
    Ok(json!({"draining": i32::from(plane.draining()), "calls": plane.count_calls().await?}))
}

/// Asks for an orderly stop, as SIGTERM does.
pub fn kill(plane: &ControlPlane) -> Value {
    plane.kill();
    json!("OK")
}

/// Ids and names of this process's threads, the oldest first; the first is the process.
fn threads() -> Vec<(u32, String)> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let mut found: Vec<(u32, String)> = tasks
        .filter_map(|task| {
            let id = task.file_name().to_str()?.parse().ok()?;
            let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
            Some((id, name.trim_end().to_owned()))
        })
        .collect();
    let own = std::process::id();
    found.sort_by_key(|(id, _)| (*id != own, *id));
    match found.first_mut() {
        Some(first) => "attendant".clone_into(&mut first.1),
        None => found.push((own, "attendant".to_owned())),
    }
    found
}

fn known(name: &str) -> Result<&'static Command, MiError> {
    find(name).ok_or_else(|| MiError::new(404, "Command not found"))
}
