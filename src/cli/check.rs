//! `strowger check`: every fault of configuration and rows, one a line; or what the rules make of a request.

use super::{Failure, Settings, route, runtime, say};
use crate::config::Config;
use crate::store::names::Names;
use crate::store::{Missing, Provisioned, StoreError, cdrs_at, provisioning_at};
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
    let found = runtime()?.block_on(read(config)).map_err(|e| told(&e.to_string()))?;
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

/// Looks at the databases, and makes nothing in them; reads flows and agents where there are any.
async fn read(config: &Config) -> Result<Option<Provisioned>, StoreError> {
    there(cdrs_at(config.acc_db(), Missing::Tell).await)?;
    let names = Names::of(&config.call_center);
    match there(provisioning_at(&config.call_center.db_url, names, Missing::Tell).await)? {
        Some(store) => store.load().await.map(Some),
        None => Ok(None),
    }
}

/// What is not there yet is made at the first start.
fn there<T>(opened: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match opened {
        Ok(store) => Ok(Some(store)),
        Err(StoreError::Missing { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}
