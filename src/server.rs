//! A whole server in this process: shards, control plane, management interface. Start, ready, orderly stop.

mod rows;
mod takeover;

use crate::config::{Config, Listen, Metrics, OnStop};
use crate::control::cdr::spool::{self, SpoolError};
use crate::control::cdr::{self, CdrCounts};
use crate::control::fronts::{self, FrontError, Fronts};
use crate::control::hlog::Hlog;
use crate::control::latency::add_cdrs;
use crate::control::mail::Inbox;
use crate::control::ongoing::{self, Table};
use crate::control::stats::Statistics;
use crate::control::{self, ControlError, ControlPlane, events, http, resolve, wrapup};
use crate::memory::{self, MemoryError};
use crate::store::names::Names;
use crate::store::{CdrStore, Provisioned, StoreError, open_cdrs_soon, open_provisioning};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};
use strowger_dispatch::{Dispatch, Limits};
use strowger_engine::control::{Audit, Control, Reply};
use strowger_engine::registry::{Registry, RegistryLimits};
use strowger_engine::{BucketTable, EngineConfig, StatsHub};
use strowger_runtime::journal::{Follower, JournalError};
use strowger_runtime::post::Mail;
use strowger_runtime::{Bound, Gone, ServerSpec, ShardFailure, Shards, StartError, bind, start};
use strowger_sip::hash::HashKey;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long what was ended at the stop may take to say goodbye.
const GOODBYES: Duration = Duration::from_secs(3);
/// How long a start that takes over from another waits for the CDR database.
const CDR_DATABASE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why a server does not start or does not go on.
#[derive(Debug, Error)]
pub enum ServerError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("cannot listen on http {addr}: {source}; choose another with --mi-http ADDR:PORT")]
    Http { addr: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Front(#[from] FrontError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(
        "{records} CDRs of the journal are safe nowhere yet: neither the CDR spool nor the database takes them, as the log says; \
         set right one of the two, and start again"
    )]
    Recovered { records: u64 },
    #[error("cannot use {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("the process has too few file descriptors ({0}): raise its limit (ulimit -n, LimitNOFILE)")]
    Descriptors(std::io::Error),
    #[error("shard {} died: {}", .0.shard, .0.reason)]
    Shard(ShardFailure),
}

/// A server that serves.
pub struct Server {
    plane: Arc<ControlPlane>,
    /// The only lasting owner: see `ShardPort for Weak<Shards>`.
    shards: Arc<Shards>,
    listen: Vec<String>,
    mi_http: Option<SocketAddr>,
    stop_timeout: Duration,
    on_stop: OnStop,
    cdrs: Arc<CdrCounts>,
    http: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    fronts: Fronts,
    resolver: JoinHandle<()>,
    writers: Vec<JoinHandle<()>>,
    /// What keeps the ongoing calls in a database.
    rows: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    hlog: Option<Hlog>,
}

impl Server {
    /// Starts everything; `seed` makes tags, branches and Call-IDs (none: from the system).
    ///
    /// # Errors
    /// The first thing that cannot be had.
    pub async fn start(config: &Config, seed: Option<[u8; 32]>) -> Result<Server, ServerError> {
        let count = config.shard_count();
        let bound = bind(&config.server.data_dir, &config.listeners(), count)?;
        memory::without_huge_pages();
        memory::reserve(config.shards.reserve_mb.0)?;
        let addrs = bound.addrs();
        let http = listen_http(config).await?;
        let fronts = fronts::Bound::open(config)?;
        let store: Arc<dyn crate::store::Provisioning> = open_provisioning(config).await?.into();
        let mut takeover = takeover::begin(config.journal_spec(), count).await?;
        let table = rows::open(config, !takeover.journal).await?;
        if let (false, Some(Table::Open(calls))) = (takeover.journal, &table) {
            takeover.take_rows(rows::restore(&**calls).await?);
        }
        // The journal is followed from its beginning.
        let follower = takeover.generation.as_ref().filter(|_| table.is_some()).map(|g| g.follow());
        let restoring = !takeover.restored.is_empty();
        // Calls that go on do not wait for a database that stands still.
        let cdr_store = open_cdrs_soon(config, restoring.then_some(CDR_DATABASE)).await?.into();
        let mut pipeline = cdr_pipeline(config, cdr_store).await?;
        takeover.save_cdrs(&mut pipeline).await?;
        let found = store.load().await?;
        let dispatch = Arc::new(Dispatch::new(limits(config, count), config.call_center.chat_dispatch_policy.0));
        // Nothing is matched before every shard has restored its calls and agents.
        dispatch.set_dispatching(config.call_center.internal_call_dispatching.0 && !restoring);
        let names = Names::of(&config.call_center);
        let mut registry = first_load(config, &dispatch, &found, &names);
        if restoring {
            // Logins by the rows; what the journal knows of agents goes over them. Nobody waits yet.
            while registry.commit(usize::MAX, &mut vec![]) {}
        }
        let stats = Arc::new(StatsHub::new(count, config.shards.max_flows.u32(), config.shards.max_agents.u32()));
        let spec = ServerSpec {
            engine: Arc::new(EngineConfig {
                endpoint: Arc::new(config.endpoint_config(&addrs)),
                buckets: Arc::new(BucketTable::even(count)),
                key: hash_key(&config.server.data_dir)?,
                call: config.call_config(),
            }),
            shards: count,
            dispatch: Arc::clone(&dispatch),
            stats: Arc::clone(&stats),
            provisioning: Arc::clone(registry.current()),
            cdr_capacity: config.cdr.channel.usize(),
            overload: config.overload_config(),
            pin: config.shards.pin.0,
            real_time: config.shards.real_time.0,
            busy_poll_us: u32::try_from(config.shards.busy_poll_us.0).unwrap_or(u32::MAX),
            seed: seed.map_or_else(random, Ok)?,
            journal: takeover.generation.clone(),
            restored: Arc::clone(&takeover.restored),
        };
        let began = control::clock::unix_us();
        let shards = Arc::new(start_shards(bound, spec).await?);
        let cdrs = Arc::clone(pipeline.counts());
        let hub = Arc::new(events::Hub::new(config.events.queue.usize(), config.events.expire.us / 1_000_000));
        let plane = Arc::new(ControlPlane::new(control::Parts {
            shards: Arc::new(Arc::downgrade(&shards)),
            dispatch: Arc::clone(&dispatch),
            statistics: Statistics::new(stats, dispatch),
            store: Arc::clone(&store),
            names,
            registry,
            cdrs: Arc::clone(&cdrs),
            events: Arc::clone(&hub),
        }));
        let writer = pipeline.run(inbox(shards.cdrs())?, takeover::safe_cdrs(&shards, began));
        let writers = vec![tokio::spawn(writer), tokio::spawn(reports(inbox(shards.events())?, hub, store))];
        let resolver = tokio::spawn(resolve::run(inbox(shards.resolves())?, Arc::downgrade(&shards)));
        if let Some(dir) = &takeover.dir {
            plane.statistics.keep(dir, restoring && takeover.journal, &plane.provisioning());
        }
        plane.begin(&found.rows, restoring && takeover.journal).await?;
        let configured = config.call_center.internal_call_dispatching.0;
        plane.begin_dispatching(configured, takeover.dir.as_deref(), restoring).await?;
        shards.serve();
        takeover::forget(takeover.generation).await;
        let pause = Duration::from_millis(config.journal.rows_ms.0);
        let rows = follower.zip(table).map(|(follower, table)| keep_rows(follower, table, pause, &plane));
        let hlog = keep_hlog(&config.metrics, &shards, &cdrs)?;
        let patience = http::Patience { max_body: config.mi.max_request_size.usize(), ..http::Patience::default() };
        let metrics = config.metrics.enabled.0.then_some(&*config.metrics.path.0);
        let router = http::router(Arc::clone(&plane), &config.mi.http_path.0, metrics, patience);
        let fronts = fronts.serve(&plane, config.mi.max_request_size.usize());
        let listen = config.sip.listen.iter().zip(addrs);
        Ok(Server {
            plane,
            shards,
            listen: listen.map(|(l, addr)| Listen { addr, ..*l }.to_string()).collect(),
            mi_http: http.as_ref().and_then(|l| l.local_addr().ok()),
            stop_timeout: Duration::from_micros(config.server.stop_timeout.us),
            on_stop: config.server.on_stop.0,
            cdrs,
            http: http.map(|listener| serve_http(listener, router, patience)),
            fronts,
            resolver,
            writers,
            rows,
            hlog,
        })
    }

    /// Addresses of the listeners, as `udp:ADDR:PORT`, ports known.
    #[must_use]
    pub fn listen(&self) -> &[String] {
        &self.listen
    }

    /// Where the management interface answers.
    #[must_use]
    pub fn mi_http(&self) -> Option<SocketAddr> {
        self.mi_http
    }

    /// The management interface's FIFO and datagram sockets.
    #[must_use]
    pub fn fronts(&self) -> &Fronts {
        &self.fronts
    }

    /// The control plane.
    #[must_use]
    pub fn plane(&self) -> &Arc<ControlPlane> {
        &self.plane
    }

    /// The shards.
    #[must_use]
    pub fn shards(&self) -> &Shards {
        &self.shards
    }

    /// Ends when a shard has died.
    pub async fn failure(&self) -> ServerError {
        match self.shards.failed().recv_async().await {
            Ok(failure) => ServerError::Shard(failure),
            Err(_) => ServerError::Control(ControlError::Gone(Gone(0))),
        }
    }

    /// What all shards hold together.
    ///
    /// # Errors
    /// When a shard is gone.
    pub async fn audit(&self) -> Result<Audit, ServerError> {
        let mut sum = Audit::default();
        for shard in 0..self.shards.shards() {
            if let Reply::Audit(a) = self.shards.control(shard, Control::Audit).await.map_err(ControlError::from)? {
                sum.calls += a.calls;
                sum.legs += a.legs;
                sum.client_transactions += a.client_transactions;
                sum.server_transactions += a.server_transactions;
                sum.timers += a.timers;
                sum.buffers += a.buffers;
                sum.wrapups += a.wrapups;
            }
        }
        Ok(sum)
    }

    /// No new calls; waits for the present ones up to the limit, or until `hurry` ends; ends the rest, writes every CDR. Or, as
    /// configured, leaves them to the next start.
    ///
    /// # Errors
    /// When a shard is gone before the end; CDRs are written all the same.
    pub async fn stop(mut self, hurry: impl Future<Output = ()>) -> Result<(), ServerError> {
        let orderly = match self.on_stop {
            OnStop::Finish => self.end_calls(hurry).await,
            OnStop::Leave => {
                tracing::info!("the calls are left to the next start");
                Ok(())
            }
        };
        if let Some((stop, task)) = self.http.take() {
            drop(stop);
            // A client that holds its connection open does not hold up the stop.
            let _ = tokio::time::timeout(Duration::from_secs(1), task).await;
        }
        self.fronts.stop().await;
        self.resolver.abort();
        drop(self.hlog.take());
        let (mut shards, writers) = (self.shards, self.writers);
        let shards = loop {
            // Answers on their way hold the shards for a moment.
            match Arc::try_unwrap(shards) {
                Ok(alone) => break alone,
                Err(shared) => shards = shared,
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        let _ = tokio::task::spawn_blocking(move || shards.stop()).await;
        for writer in writers {
            let _ = writer.await;
        }
        if let Some((stop, task)) = self.rows {
            drop(stop);
            let _ = task.await;
        }
        let c = &self.cdrs;
        let (written, refused, spooled) = (c.written.load(Relaxed), c.refused.load(Relaxed), c.in_spool.load(Relaxed));
        tracing::info!(cdrs = written, refused, spooled, "stopped");
        orderly
    }

    /// Every living shard is told, whatever has become of another; the first fault is returned at the end.
    async fn end_calls(&self, hurry: impl Future<Output = ()>) -> Result<(), ServerError> {
        let mut outcome = self.plane.drain(true).await.map_err(ServerError::from);
        tracing::info!(limit_s = self.stop_timeout.as_secs(), "no new calls; waiting for the present ones");
        let quiet = tokio::select! {
            quiet = self.quiet(self.stop_timeout, |a| a.calls == 0) => quiet,
            () = hurry => Ok(false),
        };
        if !matches!(quiet, Ok(true)) {
            tracing::warn!("ending the calls that are left");
            outcome = outcome.and(self.plane.on_all(&Control::EndAll).await.map_err(ServerError::from));
        }
        // A leg goes when its BYE is answered; the BYE may have to be repeated.
        let goodbyes = self.quiet(GOODBYES, |a| a.calls == 0 && a.legs == 0).await;
        outcome.and(goodbyes.map(|_| ()))
    }

    async fn quiet(&self, limit: Duration, done: impl Fn(&Audit) -> bool) -> Result<bool, ServerError> {
        let until = Instant::now() + limit;
        while !done(&self.audit().await?) {
            if Instant::now() >= until {
                return Ok(false);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(true)
    }
}

/// Latency histograms on disk, if they are to be there.
fn keep_hlog(config: &Metrics, shards: &Arc<Shards>, cdrs: &Arc<CdrCounts>) -> Result<Option<Hlog>, ServerError> {
    if config.hlog_dir.is_empty() {
        return Ok(None);
    }
    let (dir, shards, cdrs) = (PathBuf::from(&config.hlog_dir), Arc::downgrade(shards), Arc::clone(cdrs));
    let source = Box::new(move || {
        let mut snapshot = shards.upgrade()?.latency();
        add_cdrs(&mut snapshot, &cdrs);
        Some(snapshot)
    });
    let hlog = Hlog::begin(&dir, Duration::from_secs(config.hlog_s.0), source);
    hlog.map(Some).map_err(|source| ServerError::File { path: dir, source })
}

fn inbox<T>(mail: Mail<T>) -> Result<Inbox<T>, ServerError> {
    Inbox::new(mail).map_err(ServerError::Descriptors)
}

/// Agent events until the shards are gone, then the last ends of wrap-ups into the database.
async fn reports(
    from: Inbox<strowger_engine::control::AgentEvent>,
    hub: Arc<events::Hub>,
    store: Arc<dyn crate::store::Provisioning>,
) {
    let latest = wrapup::Latest::default();
    let (open, ended) = oneshot::channel();
    let writer = tokio::spawn(wrapup::run(latest.clone(), store, ended));
    events::run(from, hub, latest).await;
    drop(open);
    let _ = writer.await;
}

/// Has the ongoing calls kept in a database until the sender is dropped.
fn keep_rows(
    follower: Follower,
    table: Table,
    pause: Duration,
    plane: &Arc<ControlPlane>,
) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel();
    let (plane, counts) = (Arc::clone(plane), Arc::clone(&plane.rows));
    // A call that enters a queue waits behind all others of it.
    let wait = move |flow: &str| plane.provisioning().flow(flow).map_or(0, |f| plane.statistics.wait_of_last(f));
    let parts = ongoing::Parts { follower, table, pause, estimate: Box::new(wait), counts };
    (stop, tokio::spawn(ongoing::run(parts, stopped)))
}

/// The registry with its first load; its commits are pending.
fn first_load(config: &Config, dispatch: &Arc<Dispatch>, found: &Provisioned, names: &Names) -> Registry {
    let limits = RegistryLimits { flows: config.shards.max_flows.u32(), skills: config.shards.max_skills.u32() };
    let mut registry = Registry::new(dispatch.handle(config.shard_count()), limits);
    let faults = registry.load(&found.rows).1;
    for fault in found.faults.iter().chain(&faults) {
        tracing::error!("row not loaded: {}", names.tell(fault));
    }
    registry
}

fn limits(config: &Config, shards: u16) -> Limits {
    let s = &config.shards;
    Limits {
        shards,
        agents: s.max_agents.u32(),
        waiting_per_shard: config.call_center.max_calls.u32(),
        skills: s.max_skills.u32(),
    }
}

/// Starting waits for threads, so not on the control plane's own; nor on one of those that block for it: they step behind, and
/// what they start does.
async fn start_shards(bound: Bound, spec: ServerSpec) -> Result<Shards, ServerError> {
    let failed = |reason: String| StartError::Executor { shard: 0, reason };
    let (told, started) = oneshot::channel();
    let work = move || drop(told.send(start(bound, spec)));
    thread::Builder::new().name("start".to_owned()).spawn(work).map_err(|e| failed(e.to_string()))?;
    Ok(started.await.map_err(|e| failed(e.to_string()))??)
}

async fn listen_http(config: &Config) -> Result<Option<TcpListener>, ServerError> {
    let Some(addr) = config.mi.http else { return Ok(None) };
    TcpListener::bind(addr).await.map(Some).map_err(|source| ServerError::Http { addr, source })
}

fn serve_http(
    listener: TcpListener,
    router: axum::Router,
    patience: http::Patience,
) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    (stop, tokio::spawn(http::serve(listener, router, patience, stopped)))
}

fn cdr_settings(config: &Config) -> cdr::Settings {
    cdr::Settings {
        batch: config.cdr.batch.usize(),
        batch_time_us: config.cdr.batch_ms.0 * 1000,
        concurrency: config.cdr_concurrency(),
        retry_max_us: config.cdr.retry_max_ms.0 * 1000,
    }
}

/// Looking for the spool's end reads a segment, so not on the control plane's own threads.
async fn cdr_pipeline(config: &Config, store: Arc<dyn CdrStore>) -> Result<cdr::Pipeline, ServerError> {
    let (dir, bytes) = (config.cdr_spool_dir(), config.cdr.spool_segment_mb.0 << 20);
    let path = dir.clone();
    let (spool, torn) = match tokio::task::spawn_blocking(move || spool::open(&dir, bytes)).await {
        Ok(opened) => opened?,
        Err(e) => return Err(ServerError::File { path, source: std::io::Error::other(e) }),
    };
    let (settings, refused_file) = (cdr_settings(config), config.refused_cdr_file());
    Ok(cdr::Pipeline::new(cdr::Parts { store, spool, torn, settings, refused_file, counts: Arc::default() }))
}

fn random<const N: usize>() -> Result<[u8; N], ServerError> {
    let path = PathBuf::from("/dev/urandom");
    let mut bytes = [0; N];
    let read = std::fs::File::open(&path).and_then(|mut f| f.read_exact(&mut bytes));
    read.map(|()| bytes).map_err(|source| ServerError::File { path, source })
}

/// The key of the Call-ID hash: made at the first start, kept in the data directory.
fn hash_key(data_dir: &Path) -> Result<HashKey, ServerError> {
    let path = data_dir.join("hash.key");
    let failed = |source| ServerError::File { path: path.clone(), source };
    let bytes: [u8; 16] = match std::fs::read(&path) {
        Ok(kept) => kept.try_into().map_err(|_| {
            let what = "it is not 16 bytes long; remove it, and a new one is made";
            failed(std::io::Error::new(std::io::ErrorKind::InvalidData, what))
        })?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let made = random::<16>()?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
            file.write_all(&made).and_then(|()| file.sync_all()).map_err(failed)?;
            made
        }
        Err(e) => return Err(failed(e)),
    };
    let half = |i: usize| u64::from_le_bytes(std::array::from_fn(|b| bytes[i + b]));
    Ok(HashKey(half(0), half(8)))
}
