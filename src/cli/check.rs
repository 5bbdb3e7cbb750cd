//! `strowger check`: every fault of configuration and rows, one a line; or what the rules make of a request.

use super::{Failure, Settings, route, runtime, say};
use crate::config::{Config, DbUrl};
use crate::store::names::Names;
use crate::store::{Provisioned, StoreError, open_cdrs, open_provisioning};
use clap::Args;
use std::net::IpAddr;
use strowger_engine::registry;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Say which routing rule takes this request and what it would do; exit code 1 when nothing takes it
    #[arg(long, value_name = "METHOD URI")]
    pub route: Option<String>,
    /// Its From: a URI, or a whole value
    #[arg(long, value_name = "FROM", requires = "route")]
    pub from: Option<String>,
    /// Its To [default: the request's URI]
    #[arg(long, value_name = "TO", requires = "route")]
    pub to: Option<String>,
    /// A header of it; repeatable
    #[arg(long, value_name = "NAME: VALUE", requires = "route")]
    pub header: Vec<String>,
    /// Where it comes from [default: 127.0.0.1]
    #[arg(long, value_name = "ADDR", requires = "route")]
    pub source: Option<IpAddr>,
}

pub(super) fn check(settings: &Settings, args: &CheckArgs) -> Result<(), Failure> {
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
    if let Some(line) = &args.route {
        let rows = found.map(|f| f.rows).unwrap_or_default();
        return route::route(config, args, line, &rows);
    }
    let Some(Provisioned { rows, mut faults }) = found else {
        let url = &config.call_center.db_url;
        say(&format!("configuration sound; {url} is not there yet: it is made at the first start"));
        return Ok(());
    };
    for what in route::strangers(config, &rows) {
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

/// Whether the database is there, as far as a file tells. Checking makes none; the start makes the file, but not its directory.
pub(super) fn is_there(url: &DbUrl) -> Result<bool, String> {
    let DbUrl::Sqlite(path) = url else { return Ok(true) };
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
