//! The control plane: everything between the shards and the world that is not SIP.
//!
//! - [`ControlPlane`]: provisioning and logins, lists, statistics; what the management interface calls.
//! - [`dispatching`]: matching switched on and off, calls placed by hand.
//! - [`mi`]: JSON-RPC over a table of commands; [`http`] and [`fronts`]: its HTTP, FIFO and datagram fronts.
//! - [`events`]: agent events to subscribers.
//! - [`ongoing`]: ongoing calls into `cc_calls`.
//! - [`cdr`]: CDRs on their way to the database, and their spool. [`resolve`]: name resolution for the shards. [`wrapup`]: wrap-ups into the database.
//!
//! Invariants
//! - Changes of provisioning are one at a time; every shard knows a definition before a match names it.
//! - Nothing here is waited for by a shard; lists go through the shards in pages.

pub mod cdr;
pub mod clock;
pub mod dispatching;
pub mod events;
pub mod fronts;
pub mod hlog;
pub mod http;
pub mod latency;
pub mod mail;
pub mod metrics;
pub mod mi;
pub mod ongoing;
mod port;
pub mod resolve;
pub mod stats;
pub mod wrapup;

pub use port::{Answer, ShardPort};

use crate::store::names::Names;
use crate::store::{Provisioned, Provisioning as Store, StoreError};
use cdr::CdrCounts;
use stats::Statistics;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use strowger_dispatch::{AgentRef, Dispatch, Handle, Match};
use strowger_engine::control::home_shard;
use strowger_engine::registry::{Registry, RowFault, Rows};
use strowger_engine::{CallInfo, Control, Provisioning, Reply};
use strowger_runtime::Gone;
use thiserror::Error;
use tokio::sync::{Mutex, Notify};

/// Changes of one slice of a reload; between slices others get the thread.
const SLICE: usize = 256;
/// Call slots of one page of a list: few, for a page is read within one turn of a shard.
const PAGE: u32 = 32;

/// Why an operation of the control plane failed.
#[derive(Debug, Error)]
pub enum ControlError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Gone(#[from] Gone),
    #[error("agent not found")]
    NoAgent,
}

/// Puts a file in another's place, or leaves that as it is.
fn replace_file(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, path))
}

/// What a [`ControlPlane`] is made of.
pub struct Parts {
    pub shards: Arc<dyn ShardPort>,
    pub dispatch: Arc<Dispatch>,
    pub statistics: Statistics,
    pub store: Arc<dyn Store>,
    pub names: Names,
    /// Loaded once already; its commits are pending.
    pub registry: Registry,
    pub cdrs: Arc<CdrCounts>,
    pub events: Arc<events::Hub>,
}

/// See the module.
pub struct ControlPlane {
    pub(crate) shards: Arc<dyn ShardPort>,
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) statistics: Statistics,
    pub(crate) peaks: std::sync::Mutex<metrics::Peaks>,
    pub(crate) cdrs: Arc<CdrCounts>,
    pub(crate) rows: Arc<ongoing::RowCounts>,
    pub(crate) events: Arc<events::Hub>,
    /// Somebody has told the server to stop.
    kill: Notify,
    pub(crate) started_unix_us: u64,
    store: Arc<dyn Store>,
    names: Names,
    /// Its lock makes changes of provisioning one at a time.
    registry: Mutex<Registry>,
    /// For readers, who wait for no reload.
    current: RwLock<Arc<Provisioning>>,
    draining: AtomicBool,
    /// For what is matched when matching is switched on; its lock makes the switches one at a time.
    matcher: Mutex<Handle>,
    keep_dispatching: OnceLock<dispatching::Keep>,
}

impl ControlPlane {
    /// A control plane over running shards that know the registry's first load.
    #[must_use]
    pub fn new(parts: Parts) -> ControlPlane {
        let current = RwLock::new(Arc::clone(parts.registry.current()));
        let matcher = Mutex::new(parts.dispatch.handle(parts.shards.count()));
        ControlPlane {
            shards: parts.shards,
            dispatch: parts.dispatch,
            statistics: parts.statistics,
            peaks: std::sync::Mutex::default(),
            cdrs: parts.cdrs,
            rows: Arc::default(),
            events: parts.events,
            kill: Notify::new(),
            started_unix_us: clock::unix_us(),
            store: parts.store,
            names: parts.names,
            registry: Mutex::new(parts.registry),
            current,
            draining: AtomicBool::new(false),
            matcher,
            keep_dispatching: OnceLock::new(),
        }
    }

    /// What shards and the writer of CDRs have measured; `None` where there is nothing that measures.
    pub(crate) fn latency(&self) -> Option<strowger_runtime::LatencySnapshot> {
        let mut snapshot = self.shards.latency()?;
        latency::add_cdrs(&mut snapshot, &self.cdrs);
        Some(snapshot)
    }

    /// What is provisioned now.
    #[must_use]
    pub fn provisioning(&self) -> Arc<Provisioning> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// After the start: wrap-ups that ran when the last process stopped go on, then agents log in by their rows. `restored`:
    /// the shards know their agents' states already.
    ///
    /// # Errors
    /// When a shard is gone.
    pub async fn begin(&self, rows: &Rows, restored: bool) -> Result<(), ControlError> {
        let mut registry = self.registry.lock().await;
        self.statistics.note(registry.current());
        let now = clock::unix_us();
        for row in rows.agents.iter().filter(|_| !restored) {
            let until = row.wrapup_end_time.and_then(|s| u64::try_from(s).ok()).unwrap_or(0).saturating_mul(1_000_000);
            let agent = row.agentid.as_deref().and_then(|id| registry.agent(id.trim()));
            if let (Some(agent), true) = (agent, until > now) {
                let command = Control::BeginWrapup { agent, until_unix_us: until };
                self.shards.ask(self.home(agent), command).await?;
            }
        }
        self.commit(&mut registry).await
    }

    /// Reads flows and agents again; returns what is wrong with rows that were left out.
    ///
    /// # Errors
    /// When the database cannot be read: everything is as before.
    pub async fn reload(&self) -> Result<Vec<RowFault>, ControlError> {
        let mut registry = self.registry.lock().await;
        let Provisioned { rows, mut faults } = self.store.load().await?;
        // The last to let go of it frees it, which for many thousand agents takes milliseconds: not a shard.
        let _before = self.provisioning();
        let (next, unsound) = registry.load(&rows);
        faults.extend(unsound);
        for fault in &faults {
            tracing::error!("row not loaded: {}", self.names.tell(fault));
        }
        self.statistics.note(&next);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&next);
        for shard in 0..self.shards.count() {
            self.shards.ask(shard, Control::Provision(Arc::clone(&next))).await?;
        }
        self.commit(&mut registry).await?;
        tracing::info!(
            flows = next.flows.len(),
            agents = next.agents_by_id.len(),
            left_out = faults.len(),
            "provisioning loaded"
        );
        Ok(faults)
    }

    async fn commit(&self, registry: &mut Registry) -> Result<(), ControlError> {
        loop {
            let mut matches = vec![];
            let more = registry.commit(SLICE, &mut matches);
            self.tell(matches).await?;
            if !more {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    /// Hands each match to the shard of its call.
    async fn tell(&self, matches: Vec<Match>) -> Result<(), ControlError> {
        let mut by_shard: BTreeMap<u16, Vec<Match>> = BTreeMap::new();
        for m in matches {
            by_shard.entry(m.wait.shard).or_default().push(m);
        }
        for (shard, matches) in by_shard {
            self.shards.ask(shard, Control::Matched(matches)).await?;
        }
        Ok(())
    }

    /// Logs an agent in or out.
    ///
    /// # Errors
    /// [`ControlError::NoAgent`] when there is none of that id.
    pub async fn login(&self, id: &str, on: bool) -> Result<(), ControlError> {
        let agent = *self.provisioning().agents_by_id.get(id).ok_or(ControlError::NoAgent)?;
        match self.shards.ask(self.home(agent), Control::Login { agent, on }).await? {
            Reply::NotFound => Err(ControlError::NoAgent),
            _ => Ok(()),
        }
    }

    /// Ongoing calls of all shards, page by page.
    ///
    /// # Errors
    /// When a shard is gone.
    pub async fn calls(&self, queued_only: bool) -> Result<Vec<CallInfo>, ControlError> {
        let mut all = vec![];
        for shard in 0..self.shards.count() {
            let mut from = Some(0);
            while let Some(at) = from {
                let page = self.shards.ask(shard, Control::ListCalls { from: at, max: PAGE, queued_only }).await?;
                let Reply::Calls { calls, next } = page else { break };
                all.extend(calls);
                from = next;
            }
        }
        Ok(all)
    }

    /// Asks for an orderly stop, as SIGTERM does.
    pub fn kill(&self) {
        self.kill.notify_one();
    }

    /// Ends when somebody has asked for a stop.
    pub async fn killed(&self) {
        self.kill.notified().await;
    }

    /// No new calls from here on (or again).
    ///
    /// # Errors
    /// When a shard is gone.
    pub async fn drain(&self, on: bool) -> Result<(), ControlError> {
        self.draining.store(on, Ordering::Relaxed);
        self.on_all(&Control::Drain { on }).await
    }

    /// Calls at present, all shards together.
    ///
    /// # Errors
    /// When a shard is gone.
    pub async fn count_calls(&self) -> Result<usize, ControlError> {
        let mut calls = 0;
        for shard in 0..self.shards.count() {
            if let Reply::Audit(audit) = self.shards.ask(shard, Control::Audit).await? {
                calls += audit.calls;
            }
        }
        Ok(calls)
    }

    /// Whether new calls are refused.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Sends a command to every shard.
    ///
    /// # Errors
    /// When a shard is gone.
    pub async fn on_all(&self, command: &Control) -> Result<(), ControlError> {
        // A shard that has died must not keep the command from the others.
        let mut outcome = Ok(());
        for shard in 0..self.shards.count() {
            if let Err(gone) = self.shards.ask(shard, command.clone()).await {
                outcome = outcome.and(Err(gone));
            }
        }
        outcome.map_err(Into::into)
    }

    /// The shard that carries out commands about an agent.
    fn home(&self, agent: AgentRef) -> u16 {
        home_shard(agent, self.shards.count())
    }

    /// What a row's fault reads like in this database's words.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }
}
