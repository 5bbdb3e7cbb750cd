//! External dispatch: a waiting call is placed with an agent of somebody else's choice (spec: call-center.md,
//! "External dispatching").
//!
//! The dispatch words decide every race: a call that was taken, diverted or left, or an agent that was taken, logged out or
//! put in wrap-up a moment before, is refused here. A claim that succeeds goes the way of any match from there on.

use crate::arena::Key;
use crate::control::{CallId, NotPlaced};
use crate::engine::Engine;
use strowger_dispatch::{AgentRef, ClaimError, Match, Media};
use strowger_sip::time::Now;

impl Engine {
    /// Gives a waiting call of this shard to this agent.
    pub(crate) fn place(&mut self, call: CallId, agent: AgentRef, now: Now) -> Result<(), NotPlaced> {
        match self.shared.agent(agent) {
            None => return Err(NotPlaced::NoAgent),
            Some(view) if !view.logged_in => return Err(NotPlaced::NotLoggedIn),
            Some(_) => {}
        }
        let c = Key { slot: call.slot, generation: call.generation };
        let known = self.calls.get(c).filter(|_| call.shard == self.shard).ok_or(NotPlaced::NoCall)?;
        let wait = known.wait.ok_or(NotPlaced::NotQueued)?;
        if !self.speaks(c, known.medium) {
            return Err(NotPlaced::UnsupportedMedia);
        }
        let claimed = self.dispatch.claim(wait, agent);
        self.dispatch.take_late(&mut self.made);
        self.deliver(now.mono);
        claimed.map_err(refusal)?;
        self.matches.push_back((Match { wait, agent }, now.mono));
        Ok(())
    }

    /// Whether the caller's latest description is still of this media: while it waits, it may have been changed to what no
    /// agent takes. A caller who has described nothing yet leaves it open.
    fn speaks(&self, c: Key, media: Media) -> bool {
        let Some(caller) = self.calls.get(c).and_then(|call| self.legs.get(call.caller)) else { return false };
        caller.remote.as_ref().is_none_or(|body| body.media() == Some(media))
    }
}

fn refusal(error: ClaimError) -> NotPlaced {
    match error {
        ClaimError::NotWaiting => NotPlaced::NotQueued,
        ClaimError::StaleAgent => NotPlaced::NoAgent,
        ClaimError::NotLoggedIn => NotPlaced::NotLoggedIn,
        ClaimError::NoSkill => NotPlaced::NoSkill,
        ClaimError::NotFreeAudio => NotPlaced::NotFreeAudio,
        ClaimError::NotFreeChat => NotPlaced::NotFreeChat,
    }
}
