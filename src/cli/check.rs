//! `strowger check`: every fault of configuration and rows, one a line.

use super::{Failure, Settings, runtime, say};
use crate::config::DbUrl;
use crate::control::unused;
use crate::store::names::Names;
use crate::store::open_provisioning;
use strowger_engine::registry;

pub(super) fn check(settings: &Settings) -> Result<(), Failure> {
    let loaded = match settings.load() {
        Ok(loaded) => loaded,
        Err(e) => {
            e.to_string().lines().for_each(say);
            return Err(Failure::Told);
        }
    };
    for warning in &loaded.warnings {
        say(&format!("warning: {warning}"));
    }
    let config = &loaded.config;
    let DbUrl::Sqlite(path) = &config.call_center.db_url;
    if !path.exists() {
        say(&format!(
            "configuration sound; {} is not there yet: it is made at the first start",
            config.call_center.db_url
        ));
        return Ok(());
    }
    let rows = runtime()?.block_on(async { open_provisioning(config).await?.load().await });
    let rows = rows.map_err(|e| {
        say(&e.to_string());
        Failure::Told
    })?;
    for what in unused(&rows) {
        say(&format!("warning: {what}"));
    }
    let names = Names::of(&config.call_center);
    let faults = registry::check(&rows);
    for fault in &faults {
        say(&names.tell(fault));
    }
    if faults.is_empty() {
        say(&format!("configuration sound; {} flows and {} agents sound", rows.flows.len(), rows.agents.len()));
        Ok(())
    } else {
        Err(Failure::Told)
    }
}
