//! The table of commands: each declared once, with its names, parameters, help and handler.

use super::params::Args;
use super::{MiError, audit, cdrs, core, dispatching, events, lists, statistics};
use crate::control::{ControlError, ControlPlane};
use serde_json::{Value, json};
use std::future::Future;
use std::pin::Pin;

/// A command under way.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<Value, MiError>> + Send + 'a>>;

/// A command.
#[derive(Debug)]
pub struct Command {
    /// Its old, flat name.
    pub old: &'static str,
    /// Its new name, `module:name`.
    pub new: &'static str,
    pub help: &'static str,
    /// Sets of parameters that it takes; `a|b`: b is taken for a.
    pub params: &'static [&'static [&'static str]],
    pub run: for<'a> fn(&'a ControlPlane, Args<'a>) -> Running<'a>,
}

/// The command of that name, old or new.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|c| c.old == name || c.new == name)
}

const NONE: &[&[&str]] = &[&[]];

/// All commands.
pub const COMMANDS: &[Command] = &[
    Command {
        old: "cc_reload",
        new: "call_center:reload",
        help: "reads flows and agents from the database again; ongoing calls keep their definitions",
        params: NONE,
        run: |plane, _| Box::pin(reload(plane)),
    },
    Command {
        old: "cc_agent_login",
        new: "call_center:agent_login",
        help: "logs an agent in (state 1) or out (state 0)",
        params: &[&["agent_id", "state"]],
        run: |plane, args| Box::pin(agent_login(plane, args)),
    },
    Command {
        old: "cc_list_queue",
        new: "call_center:list_queue",
        help: "lists the waiting calls in the order in which they will be served",
        params: NONE,
        run: |plane, _| Box::pin(lists::queue(plane)),
    },
    Command {
        old: "cc_list_flows",
        new: "call_center:list_flows",
        help: "lists the flows",
        params: NONE,
        run: |plane, _| Box::pin(async { Ok(lists::flows(plane)) }),
    },
    Command {
        old: "cc_list_agents",
        new: "call_center:list_agents",
        help: "lists the agents and what they do",
        params: NONE,
        run: |plane, _| Box::pin(async { Ok(lists::agents(plane)) }),
    },
    Command {
        old: "cc_list_calls",
        new: "call_center:list_calls",
        help: "lists the ongoing calls",
        params: NONE,
        run: |plane, _| Box::pin(lists::calls(plane)),
    },
    Command {
        old: "cc_dispatch_call_to_agent",
        new: "call_center:dispatch_call_to_agent",
        help: "gives a waiting call to an agent, while internal dispatching is off",
        params: &[&["call_id", "agent_id"]],
        run: |plane, args| Box::pin(async move { dispatching::place(plane, &args).await }),
    },
    Command {
        old: "cc_internal_call_dispatching",
        new: "call_center:internal_call_dispatching",
        help: "tells whether the server matches calls and agents by itself; with a parameter, switches it (0: off)",
        params: &[&[], &["dispatching"]],
        run: |plane, args| Box::pin(async move { dispatching::switch(plane, &args).await }),
    },
    Command {
        old: "cc_reset_stats",
        new: "call_center:reset_stats",
        help: "sets the counters of flows and agents to 0; gauges and averages go on",
        params: NONE,
        run: |plane, _| Box::pin(async { Ok(reset_stats(plane)) }),
    },
    Command {
        old: "get_statistics",
        new: "statistics:get",
        help: "returns statistics by name, by group (\"call_center:\") or \"all\"",
        params: &[&["statistics"]],
        run: |plane, args| Box::pin(async move { statistics::get(plane, &args) }),
    },
    Command {
        old: "list_statistics",
        new: "statistics:list",
        help: "lists the names of all statistics and whether they count up",
        params: &[&[], &["statistics"]],
        run: |plane, args| Box::pin(async move { statistics::list(plane, &args) }),
    },
    Command {
        old: "reset_statistics",
        new: "statistics:reset",
        help: "sets counters to 0, by name or all of \"call_center:\"; gauges and averages go on",
        params: &[&["statistics"]],
        run: |plane, args| Box::pin(async move { statistics::reset(plane, &args) }),
    },
    Command {
        old: "cdr_status",
        new: "strowger:cdr_status",
        help: "tells where CDRs are on their way to the database, and how long they take",
        params: NONE,
        run: |plane, _| Box::pin(async { Ok(cdrs::status(plane)) }),
    },
    Command {
        old: "audit",
        new: "strowger:audit",
        help: "tells what the shards' live audits have looked at, found and repaired",
        params: NONE,
        run: |plane, _| Box::pin(audit::status(plane)),
    },
    Command {
        old: "events_list",
        new: "evi:list",
        help: "lists the events that can be subscribed to",
        params: NONE,
        run: |_, _| Box::pin(async { Ok(events::events()) }),
    },
    Command {
        old: "event_subscribe",
        new: "evi:subscribe",
        help: "sends an event to a socket (udp:HOST:PORT, unix:PATH, tcp:HOST:PORT[/METHOD]) for so many seconds; 0 ends it",
        params: &[&["event", "socket"], &["event", "socket", "expire"]],
        run: |plane, args| Box::pin(events::subscribe(plane, args)),
    },
    Command {
        old: "subscribers_list",
        new: "evi:subscribers",
        help: "lists the subscribers: of all events, of one, or one by its socket",
        params: &[&[], &["event"], &["event", "socket"]],
        run: |plane, args| Box::pin(async move { events::subscribers(plane, &args) }),
    },
    Command {
        old: "which",
        new: "core:which",
        help: "lists all commands, or the sets of parameters of one",
        params: &[&[], &["command"]],
        run: |_, args| Box::pin(async move { core::which(&args) }),
    },
    Command {
        old: "help",
        new: "core:help",
        help: "tells what a command does",
        params: &[&[], &["mi_cmd|command"]],
        run: |_, args| Box::pin(async move { core::help(&args) }),
    },
    Command {
        old: "version",
        new: "core:version",
        help: "tells name and version of this server",
        params: NONE,
        run: |_, _| Box::pin(async { Ok(core::version()) }),
    },
    Command {
        old: "uptime",
        new: "core:uptime",
        help: "tells since when this server runs",
        params: NONE,
        run: |plane, _| Box::pin(async { Ok(core::uptime(plane)) }),
    },
    Command {
        old: "ps",
        new: "core:ps",
        help: "lists the process and its threads",
        params: NONE,
        run: |_, _| Box::pin(async { Ok(core::ps()) }),
    },
    Command {
        old: "log_level",
        new: "core:log_level",
        help: "tells the log level, or sets it for the whole server: -3 (alerts) to 4 (debug)",
        params: &[&[], &["level"], &["level", "pid"]],
        run: |_, args| Box::pin(async move { core::log_level(&args) }),
    },
    Command {
        old: "drain",
        new: "core:drain",
        help: "tells whether new calls are refused and how many there are; with a parameter, refuses them (1) or takes them (0)",
        params: &[&[], &["state"]],
        run: |plane, args| Box::pin(async move { core::drain(plane, &args).await }),
    },
    Command {
        old: "kill",
        new: "core:kill",
        help: "stops the server orderly, as SIGTERM does",
        params: NONE,
        run: |plane, _| Box::pin(async { Ok(core::kill(plane)) }),
    },
    Command {
        old: "latency",
        new: "strowger:latency",
        help: "tells the percentiles of what the shards measure since the start, by stage; with histograms=1 all of it",
        params: &[&[], &["histograms"]],
        run: |plane, args| Box::pin(async move { core::latency(plane, &args) }),
    },
];

async fn reload(plane: &ControlPlane) -> Result<Value, MiError> {
    match plane.reload().await {
        Ok(_) => Ok(json!("OK")),
        Err(error @ ControlError::Store(_)) => {
            tracing::error!(%error, "reload failed; all is as before");
            Err(MiError::new(500, "Failed to reload"))
        }
        Err(other) => Err(other.into()),
    }
}

async fn agent_login(plane: &ControlPlane, args: Args<'_>) -> Result<Value, MiError> {
    let agent = args.text("agent_id")?.unwrap_or_default();
    let on = args.integer("state")?.unwrap_or(0) != 0;
    plane.login(&agent, on).await?;
    Ok(json!("OK"))
}

fn reset_stats(plane: &ControlPlane) -> Value {
    plane.statistics.reset(&plane.provisioning());
    json!("OK")
}
