//! The baseline of the counters, over a restart: they are restored by the shards, and what a reset took from them stays taken.
//!
//! A file in the journal's directory, by the ids of flows and agents; written when the baseline changes, which is rare.

use super::{AGENT_COUNTERS, Baseline, FLOW_COUNTERS, Statistics};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use strowger_engine::Provisioning;

/// The file's name.
const FILE: &str = "statistics-baseline.json";

/// What is in the file.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    flows: BTreeMap<String, [i64; FLOW_COUNTERS]>,
    global: [i64; FLOW_COUNTERS],
    agents: BTreeMap<String, [i64; AGENT_COUNTERS]>,
}

/// Where the baseline is kept, and what was written last.
#[derive(Debug, Default)]
pub(super) struct File {
    path: Option<PathBuf>,
    written: Option<Kept>,
}

impl Statistics {
    /// Keeps the baseline in that directory from now on. `restored`: the shards have restored their counters, so the one that
    /// is there goes on. Call it before [`Statistics::note`].
    pub fn keep(&self, dir: &Path, restored: bool, p: &Provisioning) {
        let path = dir.join(FILE);
        if restored {
            match std::fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice::<Kept>(&bytes)?)) {
                Ok(kept) => self.take(&kept, p),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => self.take(&Kept::default(), p),
                Err(e) => {
                    tracing::warn!(path = %path.display(), error = %e, "counters go on as if they had not been reset");
                    self.take(&Kept::default(), p);
                }
            }
        }
        self.file.lock().unwrap_or_else(PoisonError::into_inner).path = Some(path);
        self.save(p);
    }

    fn take(&self, kept: &Kept, p: &Provisioning) {
        let mut base = self.baseline.lock().unwrap_or_else(PoisonError::into_inner);
        base.global = kept.global;
        base.flows = p.flows.values().filter_map(|f| Some((f.idx, *kept.flows.get(&*f.flowid)?))).collect();
        let of = |id: &str| kept.agents.get(id).copied().unwrap_or_default();
        base.agents = p.agents.iter().flatten().map(|def| (def.agent, of(&def.agentid))).collect();
    }

    /// Writes the baseline, if it is kept and has changed.
    pub(super) fn save(&self, p: &Provisioning) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = file.path.clone() else { return };
        let now = Kept::of(&self.baseline.lock().unwrap_or_else(PoisonError::into_inner), p);
        if file.written.as_ref() == Some(&now) {
            return;
        }
        let text = serde_json::to_vec(&now).unwrap_or_default();
        match crate::control::replace_file(&path, &text) {
            Ok(()) => file.written = Some(now),
            Err(e) => {
                tracing::warn!(path = %path.display(), error = %e, "a reset of counters will not outlive a restart")
            }
        }
    }
}

impl Kept {
    /// Without those at 0.
    fn of(base: &Baseline, p: &Provisioning) -> Kept {
        let ids: HashMap<u32, &str> = p.flows.values().map(|f| (f.idx, &*f.flowid)).collect();
        let flows = base.flows.iter().filter(|(_, b)| b.iter().any(|n| *n != 0));
        let agents = base.agents.iter().filter(|(_, b)| b.iter().any(|n| *n != 0));
        Kept {
            flows: flows.filter_map(|(idx, b)| Some(((*ids.get(idx)?).to_owned(), *b))).collect(),
            global: base.global,
            agents: agents.filter_map(|(agent, b)| Some((p.agent(*agent)?.agentid.to_string(), *b))).collect(),
        }
    }
}
