//! External dispatch (spec: call-center.md, "External dispatching"): matching switched on and off, and calls placed with
//! agents by somebody else's choice.
//!
//! Invariant: who switches matching on has matched all that waits before the answer goes out; calls and agents that come in
//! the meantime match by themselves.

use super::{ControlError, ControlPlane};
use strowger_engine::{CallId, Control, NotPlaced, Reply};
use thiserror::Error;

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

    /// Switches matching on or off. On: all that waits and can be matched is matched before this returns.
    ///
    /// # Errors
    /// When a shard is gone.
    pub async fn set_dispatching(&self, on: bool) -> Result<(), ControlError> {
        let mut matcher = self.matcher.lock().await;
        self.dispatch.set_dispatching(on);
        if !on {
            return Ok(());
        }
        let mut matches = vec![];
        matcher.match_all(&mut matches);
        matcher.collect();
        drop(matcher);
        self.tell(matches).await
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
