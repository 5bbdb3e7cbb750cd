//! `strowger run`: serve until SIGTERM or SIGINT; a second one does not wait for the present calls.

use super::{Failure, Settings, runtime, say};
use crate::logs;
use crate::server::Server;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

pub(super) fn run(settings: &Settings) -> Result<(), Failure> {
    let loaded = settings.load()?;
    logs::start(&loaded.config);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let fault = |e: &dyn std::fmt::Display| Failure::Fault(e.to_string());
    runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| fault(&e))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| fault(&e))?;
        let server = Server::start(&loaded.config, None).await.map_err(|e| fault(&e))?;
        let count = server.shards().shards();
        let mut ready = json!({"ready": true, "listen": server.listen(), "mi_http": server.mi_http(), "shards": count});
        if let Some(fifo) = server.fronts().fifo() {
            ready["mi_fifo"] = json!(fifo);
        }
        if !server.fronts().datagrams().is_empty() {
            ready["mi_datagram"] = json!(server.fronts().datagrams());
        }
        say(&ready.to_string());
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = server.plane().killed() => tracing::info!("told to stop by the management interface"),
            failure = server.failure() => return Err(fault(&failure)),
        }
        let again = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        server.stop(again).await.map_err(|e| fault(&e))
    })
}
