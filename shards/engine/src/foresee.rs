//! Looking ahead: calls outgrow the processor's caches, and several waits for memory at once take no longer than one.

use crate::arena::Key;
use crate::engine::Engine;
use crate::leg::Leg;
use strowger_sip::scan::Hint;

impl Engine {
    /// Has the processor fetch what a datagram is looked up by that will be handled soon. Steps 0, 1 and 2 are to be made in turn,
    /// each for all datagrams at hand before the next: what one finds the other has had fetched.
    pub fn foresee(&self, hint: Hint, step: u8) {
        let leg = |slot: u32| self.legs.at(slot).map(|(_, leg)| leg);
        let beyond = |leg: &Leg| {
            leg.dialog.soon();
            leg.call.into_iter().for_each(|call| self.calls.soon(call.slot));
        };
        let leg_of = |slot| self.ep.user_of(slot).map(|user| Key::from_u64(user).slot);
        match (hint, step) {
            (Hint::Transaction(slot), 0) => self.ep.soon(slot),
            (Hint::Transaction(slot), 1) => {
                self.ep.soon_with(slot);
                leg_of(slot).into_iter().for_each(|slot| self.legs.soon(slot));
            }
            (Hint::Transaction(slot), _) => leg_of(slot).and_then(leg).into_iter().for_each(beyond),
            (Hint::Dialog(slot), 0) => self.legs.soon(slot),
            (Hint::Dialog(slot), 1) => leg(slot).into_iter().for_each(beyond),
            (Hint::Dialog(_), _) => {}
        }
    }
}
