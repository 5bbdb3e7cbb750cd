//! `strowger check`: every fault of configuration and rows, one a line.

use super::{Failure, Settings, runtime, say};
use crate::config::{Config, DbUrl};
use crate::control::unused;
use crate::store::names::Names;
use crate::store::{Provisioned, StoreError, open_cdrs, open_provisioning};
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
    let told = |what: &str| {
        say(what);
        Failure::Told
    };
    let there = is_there(&config.call_center.db_url).map_err(|e| told(&e))?;
    let cdrs_there = is_there(config.acc_db()).map_err(|e| told(&e))?;
    let found = runtime()?.block_on(read(config, there, cdrs_there)).map_err(|e| told(&e.to_string()))?;
    let Some(Provisioned { rows, mut faults }) = found else {
        let url = &config.call_center.db_url;
        say(&format!("configuration sound; {url} is not there yet: it is made at the first start"));
        return Ok(());
    };
    for what in unused(&rows) {
        say(&format!("warning: {what}"));
    }
    let names = Names::of(&config.call_center);
    faults.extend(registry::check(&rows));
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

/// Whether the database is there. Checking makes none; the start makes the file, but not its directory.
fn is_there(url: &DbUrl) -> Result<bool, String> {
    let DbUrl::Sqlite(path) = url;
    match path.parent().filter(|p| !p.as_os_str().is_empty() && !p.is_dir()) {
        Some(directory) => Err(format!("{url}: there is no directory {}; create it", directory.display())),
        None => Ok(path.exists()),
    }
}

/// Opens, and so checks, the databases that are there; reads flows and agents.
async fn read(config: &Config, there: bool, cdrs_there: bool) -> Result<Option<Provisioned>, StoreError> {
    if cdrs_there {
        drop(open_cdrs(config).await?);
    }
    if there { open_provisioning(config).await?.load().await.map(Some) } else { Ok(None) }
}
