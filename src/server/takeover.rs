//! Taking over from the process before: its journal is read, its CDRs are made safe, its state goes to the new shards.

use super::ServerError;
use crate::store::{CdrStore, StoreError};
use std::path::PathBuf;
use std::sync::Arc;
use strowger_engine::CdrRow;
use strowger_engine::journal::Recovered;
use strowger_runtime::Shards;
use strowger_runtime::journal::{Generation, JournalError, JournalSpec, prior};

/// Records of the journal that go to the database at once.
const BATCH: usize = 256;

/// What the new shards begin with.
pub(super) struct Takeover {
    pub generation: Option<Arc<Generation>>,
    /// Empty: there was nothing before.
    pub restored: Arc<[Recovered]>,
    /// There was a journal, so it tells all.
    pub journal: bool,
    /// Where the control plane keeps what it wants to find again.
    pub dir: Option<PathBuf>,
}

/// Reads the journal, if there is to be one, and begins this process's own. CDRs that only the journal has are safe when this
/// returns.
pub(super) async fn begin(
    spec: Option<JournalSpec>,
    shards: u16,
    cdrs: &dyn CdrStore,
) -> Result<Takeover, ServerError> {
    let Some(spec) = spec else {
        return Ok(Takeover { generation: None, restored: [].into(), journal: false, dir: None });
    };
    let dir = spec.dir.clone();
    let read = tokio::task::spawn_blocking(move || {
        let prior = prior(&spec.dir)?;
        let journal = prior.number != 0;
        Generation::begin(spec, prior, shards).map(|(generation, found)| (generation, journal, found))
    });
    let gone = |e| ServerError::File { path: dir.clone(), source: std::io::Error::other(e) };
    let (generation, journal, found) = read.await.map_err(gone)??;
    for fault in &found.faults {
        tracing::warn!("journal: {fault}");
    }
    let rows: Vec<CdrRow> = found.cdrs.iter().filter_map(|bytes| decode(bytes)).collect();
    save_all(&rows, cdrs).await?;
    if !rows.is_empty() {
        tracing::info!(records = rows.len(), "CDRs of the journal are in the database");
    }
    Ok(Takeover { generation: Some(Arc::new(generation)), restored: found.shards.into(), journal, dir: Some(dir) })
}

/// Makes records safe.
pub(super) async fn save_all(rows: &[CdrRow], cdrs: &dyn CdrStore) -> Result<(), ServerError> {
    for batch in rows.chunks(BATCH) {
        save(batch, cdrs).await.map_err(|source| ServerError::Recovered { records: rows.len(), source })?;
    }
    Ok(())
}

/// Writes records; those that the database refuses as bad go into the log and hold up no other.
async fn save(batch: &[CdrRow], cdrs: &dyn CdrStore) -> Result<(), StoreError> {
    match cdrs.write(batch).await {
        Err(StoreError::Refused(_)) => {}
        outcome => return outcome.map(drop),
    }
    for row in batch {
        match cdrs.write(std::slice::from_ref(row)).await {
            Err(StoreError::Refused(why)) => tracing::error!(why, ?row, "journal: the database refuses a CDR"),
            outcome => drop(outcome?),
        }
    }
    Ok(())
}

/// Tells the shards' journals of records that are safe. Those of an earlier process, born before `began`, are in no journal.
pub(super) fn safe_cdrs(shards: &Arc<Shards>, began: u64) -> impl FnMut(u128) + Send + use<> {
    let shards = Arc::downgrade(shards);
    move |key| {
        let (born, shard, sequence) = ((key >> 64) as u64, (key >> 48) as u16, key as u64 & 0xffff_ffff_ffff);
        if let Some(shards) = shards.upgrade().filter(|_| born >= began) {
            shards.cdrs_safe(shard, sequence);
        }
    }
}

/// A record that cannot be read goes into the log, the last place left.
fn decode(bytes: &[u8]) -> Option<CdrRow> {
    CdrRow::decode(bytes).inspect_err(|error| tracing::error!(%error, ?bytes, "journal: a CDR cannot be read")).ok()
}

/// The generation before is not needed any more.
pub(super) async fn forget(generation: Option<Arc<Generation>>) {
    let Some(generation) = generation else { return };
    let dropped = tokio::task::spawn_blocking(move || generation.drop_prior()).await;
    let failed: Option<JournalError> = dropped.ok().and_then(Result::err);
    if let Some(error) = failed {
        tracing::warn!(%error, "the journal of the process before is still there; the next start removes it");
    }
}
