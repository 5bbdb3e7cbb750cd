//! Taking over from the process before: its journal is read, its CDRs are made safe, its state goes to the new shards.

use super::ServerError;
use crate::control::cdr::machine::Aside;
use crate::control::cdr::{Mark, Pipeline, Unsafe};
use std::mem::take;
use std::path::PathBuf;
use std::sync::Arc;
use strowger_engine::CdrRow;
use strowger_engine::journal::Recovered;
use strowger_runtime::Shards;
use strowger_runtime::journal::{Generation, JournalError, JournalSpec, prior};

/// What the new shards begin with.
pub(super) struct Takeover {
    pub generation: Option<Arc<Generation>>,
    /// Empty: there was nothing before.
    pub restored: Arc<[Recovered]>,
    /// There was a journal, so it tells all.
    pub journal: bool,
    /// Where the control plane keeps what it wants to find again.
    pub dir: Option<PathBuf>,
    /// CDRs that are nowhere else, and what of the journal's cannot be read.
    cdrs: Vec<CdrRow>,
    unreadable: Vec<Aside>,
}

/// Reads the journal, if there is to be one, and begins this process's own.
pub(super) async fn begin(spec: Option<JournalSpec>, shards: u16) -> Result<Takeover, ServerError> {
    let Some(spec) = spec else {
        return Ok(Takeover {
            generation: None,
            restored: [].into(),
            journal: false,
            dir: None,
            cdrs: vec![],
            unreadable: vec![],
        });
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
    let (mut cdrs, mut unreadable) = (vec![], vec![]);
    for bytes in found.cdrs {
        match CdrRow::decode(&bytes) {
            Ok(row) => cdrs.push(row),
            Err(e) => unreadable.push(Aside::Unreadable { bytes, why: e.to_string() }),
        }
    }
    let (generation, restored) = (Some(Arc::new(generation)), found.shards.into());
    Ok(Takeover { generation, restored, journal, dir: Some(dir), cdrs, unreadable })
}

impl Takeover {
    /// Goes on with the calls of a database, and has CDRs of those that cannot.
    pub fn take_rows(&mut self, (restored, lost): (Vec<Recovered>, Vec<CdrRow>)) {
        self.restored = restored.into();
        self.cdrs.extend(lost);
    }

    /// CDRs that are nowhere else are safe when this returns: the pipeline has them in its spool, or where that takes
    /// nothing, in the database.
    pub async fn save_cdrs(&mut self, pipeline: &mut Pipeline) -> Result<(), ServerError> {
        let (cdrs, unreadable) = (take(&mut self.cdrs), take(&mut self.unreadable));
        pipeline.take_over(cdrs, unreadable).await.map_err(|Unsafe(records)| ServerError::Recovered { records })
    }
}

/// Tells the shards' journals of records that are safe. Those of an earlier process, born before `began`, are in no journal.
pub(super) fn safe_cdrs(shards: &Arc<Shards>, began: u64) -> Box<dyn FnMut(Mark) + Send> {
    let shards = Arc::downgrade(shards);
    Box::new(move |mark| {
        if let Some(shards) = shards.upgrade().filter(|_| mark.born_us >= began) {
            shards.cdrs_safe(mark.shard, mark.sequence);
        }
    })
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
