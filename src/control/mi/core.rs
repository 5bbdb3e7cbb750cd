//! Commands about the server itself.

use super::MiError;
use super::params::Args;
use super::table::{COMMANDS, Command, find};
use crate::control::{ControlPlane, clock};
use serde_json::{Value, json};

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

/// Since when it runs.
pub fn uptime(plane: &ControlPlane) -> Value {
    let (now, since) = (clock::unix_us() / 1_000_000, plane.started_unix_us / 1_000_000);
    json!({
        "Now": clock::ctime(now),
        "Up since": clock::ctime(since),
        "Up time": format!("{} [sec]", now.saturating_sub(since)),
    })
}

fn known(name: &str) -> Result<&'static Command, MiError> {
    find(name).ok_or_else(|| MiError::new(404, "Command not found"))
}
