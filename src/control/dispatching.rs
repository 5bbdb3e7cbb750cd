//! External dispatch (spec: call-center.md, "External dispatching"): matching switched on and off, and calls placed with
//! agents by somebody else's choice.
//!
//! Invariant: who switches matching on has matched all that waits before the answer goes out; calls and agents that come in
//! the meantime match by themselves.

use super::{ControlError, ControlPlane};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use strowger_engine::{CallId, Control, NotPlaced, Reply};
use thiserror::Error;

/// Name of the file in which the switch outlives the process.
const FILE: &str = "dispatching.json";

/// What is in it: the switch, and what the configuration said then. As with logins, what a command said holds until the
/// configuration says something else than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    on: bool,
    configured: bool,
}

/// Where the switch is kept.
#[derive(Debug)]
pub(super) struct Keep {
    path: PathBuf,
    configured: bool,
}

/// Why `cc_dispatch_call_to_agent` did nothing.
#[derive(Debug, Error)]
pub enum PlaceError {
    #[error("Internal dispatching is enabled")]
    Internal,
    #[error(transparent)]
    Refused(#[from] NotPlaced),
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl ControlPlane {
    /// Whether the server matches calls and agents by itself.
    #[must_use]
    pub fn dispatching(&self) -> bool {
        self.dispatch.dispatching()
    }

    /// Matching begins, as configured, or after a restart that `restored` calls as it was. The switch is kept in `dir` from
    /// now on.
    ///
    /// # Errors
    /// When a shard is gone.
    pub async fn begin_dispatching(
        &self,
        configured: bool,
        dir: Option<&Path>,
        restored: bool,
    ) -> Result<(), ControlError> {
        let Some(path) = dir.map(|dir| dir.join(FILE)) else { return self.set_dispatching(configured).await };
        let read = || serde_json::from_slice::<Kept>(&std::fs::read(&path).ok()?).ok();
        let kept = restored.then(read).flatten().filter(|kept| kept.configured == configured);
        // Set once: a server begins once.
        let _ = self.keep_dispatching.set(Keep { path, configured });
        self.set_dispatching(kept.map_or(configured, |kept| kept.on)).await
    }

    fn write_dispatching(&self, on: bool) {
        let Some(Keep { path, configured }) = self.keep_dispatching.get() else { return };
        let kept = Kept { on, configured: *configured };
        let text = serde_json::to_vec(&kept).unwrap_or_default();
        if let Err(error) = super::replace_file(path, &text) {
            tracing::warn!(path = %path.display(), %error, "the switch of internal dispatching will not outlive a restart");
        }
    }

    /// Switches matching on or off. On: all that waits and can be matched is matched before this returns.
    ///
    /// # Errors
    /// When a shard is gone.
    pub async fn set_dispatching(&self, on: bool) -> Result<(), ControlError> {
        let mut matcher = self.matcher.lock().await;
        self.dispatch.set_dispatching(on);
        let mut matches = vec![];
        if on {
            matcher.match_all(&mut matches);
            matcher.collect();
        }
        let told = self.tell(matches).await;
        // No call waits for the disk; two switches are written in their order.
        self.write_dispatching(on);
        told
    }

    /// Gives the waiting call of this name, as the lists show it, to the agent of this id.
    ///
    /// # Errors
    /// What stands against it, in the order of the reference's checks; or a shard is gone.
    pub async fn place(&self, call: &str, agent: &str) -> Result<(), PlaceError> {
        if self.dispatching() {
            return Err(PlaceError::Internal);
        }
        let agent = *self.provisioning().agents_by_id.get(agent).ok_or(NotPlaced::NoAgent)?;
        match self.dispatch.agent(agent) {
            None => return Err(NotPlaced::NoAgent.into()),
            Some(view) if !view.logged_in => return Err(NotPlaced::NotLoggedIn.into()),
            Some(_) => {}
        }
        let call: CallId = call.parse().map_err(|()| NotPlaced::NoCall)?;
        if call.shard >= self.shards.count() {
            return Err(NotPlaced::NoCall.into());
        }
        let reply = self.shards.ask(call.shard, Control::Place { call, agent }).await;
        match reply.map_err(ControlError::from)? {
            Reply::NotPlaced(why) => Err(why.into()),
            _ => Ok(()),
        }
    }
}
