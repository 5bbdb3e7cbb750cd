//! What an audit can find.

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $fault:ident = $name:literal;)*) => {
        /// A mismatch, by what is wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Fault { $($(#[doc = $doc])+ $fault,)* }

        impl Fault {
            /// Every fault, by number.
            pub const ALL: [Fault; Fault::COUNT] = [$(Fault::$fault,)*];
            pub const COUNT: usize = [$($name,)*].len();

            /// For logs, metrics and the management interface.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Fault::$fault => $name,)* }
            }
        }
    };
}

faults! {
    /// The table says that the agent has a call or chat, and no shard holds it: released.
    AgentUnheld = "agent_unheld";
    /// A leg holds an agent whom the table has free: claimed again, or given up.
    AgentUnclaimed = "agent_unclaimed";
    /// A leg holds an agent whom the table gives to another call: given up.
    AgentHeldTwice = "agent_held_twice";
    /// Legs hold more chats of an agent than the table says: claimed again.
    AgentUndercounted = "agent_undercounted";
    /// The shard's count of its claims on an agent is not that of its legs: set right.
    HoldsMiscounted = "holds_miscounted";
    /// The table names another call as the agent's: set right.
    OwnerWrong = "owner_wrong";
    /// The table says wrap-up, and no shard times it: timed, or ended where it is over.
    WrapupUntimed = "wrapup_untimed";
    /// The same, while the news of a chat's end has been on its way for seconds.
    ChatEndLost = "chat_end_lost";
    /// The timer of a wrap-up is gone: started again.
    WrapupTimerGone = "wrapup_timer_gone";
    /// An agent is free and a call waits that it could take: matched.
    MatchMissed = "match_missed";
    /// An entry of the waiting set that no call has: taken out, its agent given back.
    EntryOrphaned = "entry_orphaned";
    /// A call has been given an agent, and nobody has told it: told.
    MatchLost = "match_lost";
    /// A call whose caller's leg is gone: ended, with a record.
    CallerGone = "caller_gone";
    /// A call that believes to wait, and has no entry: it enters the queue again, in its place.
    NotQueued = "not_queued";
    /// A call that has an agent and waits all the same: taken out of the queue.
    StillQueued = "still_queued";
    /// A call that waits for nothing: sent on from its state.
    CallIdle = "call_idle";
    /// A message or music whose leg is gone: as if its server had hung up.
    MessageGone = "message_gone";
    /// A waiting call without music, and none will be tried: tried.
    MusicGivenUp = "music_given_up";
    /// An attempt whose leg is gone: an error of the attempt; the call waits on, or ends when it talked.
    AttemptGone = "attempt_gone";
    /// An attempt without its claim: claimed again, else as above.
    ClaimGone = "claim_gone";
    /// A message to an agent whose leg is gone: as if it were over.
    BriefingGone = "briefing_gone";
    /// A timer of a call that does not run: as if it had fired.
    CallTimerGone = "call_timer_gone";
    /// A call that waits without the limit of its flow: limited.
    HoldUnlimited = "hold_unlimited";
    /// A caller who is connected to a leg that is gone: connected to what is there.
    LinkBroken = "link_broken";
    /// A caller who is not connected to what it should be, though nothing hinders: connected.
    LinkIdle = "link_idle";
    /// A leg that its call does not know: ended by BYE or CANCEL.
    LegOrphaned = "leg_orphaned";
    /// A leg that nothing will end: ended.
    LegUnended = "leg_unended";
    /// A leg waits for a transaction that is gone: as if that had timed out.
    LegTransactionGone = "leg_transaction_gone";
    /// A timer of a leg does not run: started again, or as if it had fired.
    LegTimerGone = "leg_timer_gone";
    /// A session that nothing watches: timed.
    SessionUntimed = "session_untimed";
    /// A leg whose tag does not lead to it: listed.
    LegUnlisted = "leg_unlisted";
    /// An INVITE of ours rings on, and no leg waits for its answer: cancelled.
    InviteForgotten = "invite_forgotten";
    /// An INVITE that came in will be answered by nobody: refused.
    InviteUnanswered = "invite_unanswered";
    /// A gauge of a flow is not the number of its calls: set right.
    GaugeWrong = "gauge_wrong";
}

impl Fault {
    /// Looks at which it must be the same. A match may wait for a control plane that has made thousands of them and has little CPU, news
    /// of a chat's end in the outbox of a shard that has none for seconds. A claim's release is seen before its count goes down.
    pub(super) const fn looks(self) -> u32 {
        match self {
            Fault::ChatEndLost => 10,
            Fault::MatchLost | Fault::MatchMissed | Fault::AgentUndercounted => 3,
            _ => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Fault;

    #[test]
    fn faults_have_their_numbers_and_names_of_their_own() {
        for (n, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, n);
            assert_eq!(Fault::ALL.iter().filter(|f| f.name() == fault.name()).count(), 1, "{}", fault.name());
        }
    }
}
