//! What an audit can find.

/// A mismatch, by what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fault {
    /// The table says that the agent has a call or chat, and no shard holds it: released.
    AgentUnheld,
    /// A leg holds an agent whom the table has free: claimed again, or given up.
    AgentUnclaimed,
    /// A leg holds an agent whom the table gives to another call: given up.
    AgentHeldTwice,
    /// The shard's count of its claims on an agent is not that of its legs: set right.
    HoldsMiscounted,
    /// The table names another call as the agent's: set right.
    OwnerWrong,
    /// The table says wrap-up, and no shard times it: timed, or ended where it is over.
    WrapupUntimed,
    /// The same, while the news of a chat's end has been on its way for seconds.
    ChatEndLost,
    /// The timer of a wrap-up is gone: started again.
    WrapupTimerGone,
    /// An agent is free and a call waits that it could take: matched.
    MatchMissed,
    /// An entry of the waiting set that no call has: taken out, its agent given back.
    EntryOrphaned,
    /// A call has been given an agent, and nobody has told it: told.
    MatchLost,
    /// A call whose caller's leg is gone: ended, with a record.
    CallerGone,
    /// A call that believes to wait, and has no entry: it enters the queue again, in its place.
    NotQueued,
    /// A call that waits for nothing: sent on from its state.
    CallIdle,
    /// A message or music whose leg is gone: as if its server had hung up.
    MessageGone,
    /// A waiting call without music, and none will be tried: tried.
    MusicGivenUp,
    /// An attempt whose leg is gone: an error of the attempt; the call waits on, or ends when it talked.
    AttemptGone,
    /// An attempt without its claim: claimed again, else as above.
    ClaimGone,
    /// A message to an agent whose leg is gone: as if it were over.
    BriefingGone,
    /// A timer of a call that does not run: as if it had fired.
    CallTimerGone,
    /// A call that waits without the limit of its flow: limited.
    HoldUnlimited,
    /// A caller who is connected to a leg that is gone: connected to what is there.
    LinkBroken,
    /// A caller who is not connected to what it should be, though nothing hinders: connected.
    LinkIdle,
    /// A leg that its call does not know: ended by BYE or CANCEL.
    LegOrphaned,
    /// A leg that nothing will end: ended.
    LegUnended,
    /// A leg waits for a transaction that is gone: as if that had timed out.
    LegTransactionGone,
    /// A timer of a leg does not run: started again, or as if it had fired.
    LegTimerGone,
    /// A session that nothing watches: timed.
    SessionUntimed,
    /// A leg whose tag does not lead to it: listed.
    LegUnlisted,
    /// An INVITE of ours rings on, and no leg waits for its answer: cancelled.
    InviteForgotten,
    /// An INVITE that came in will be answered by nobody: refused.
    InviteUnanswered,
    /// A gauge of a flow is not the number of its calls: set right.
    GaugeWrong,
}

use Fault::{
    AgentHeldTwice, AgentUnclaimed, AgentUnheld, AttemptGone, BriefingGone, CallIdle, CallTimerGone, CallerGone,
    ChatEndLost, ClaimGone, EntryOrphaned, GaugeWrong, HoldUnlimited, HoldsMiscounted, InviteForgotten,
    InviteUnanswered, LegOrphaned, LegTimerGone, LegTransactionGone, LegUnended, LegUnlisted, LinkBroken, LinkIdle,
    MatchLost, MatchMissed, MessageGone, MusicGivenUp, NotQueued, OwnerWrong, SessionUntimed, WrapupTimerGone,
    WrapupUntimed,
};

impl Fault {
    pub const COUNT: usize = 32;

    /// Every fault, by number.
    pub const ALL: [Fault; Fault::COUNT] = [
        AgentUnheld,
        AgentUnclaimed,
        AgentHeldTwice,
        HoldsMiscounted,
        OwnerWrong,
        WrapupUntimed,
        ChatEndLost,
        WrapupTimerGone,
        MatchMissed,
        EntryOrphaned,
        MatchLost,
        CallerGone,
        NotQueued,
        CallIdle,
        MessageGone,
        MusicGivenUp,
        AttemptGone,
        ClaimGone,
        BriefingGone,
        CallTimerGone,
        HoldUnlimited,
        LinkBroken,
        LinkIdle,
        LegOrphaned,
        LegUnended,
        LegTransactionGone,
        LegTimerGone,
        SessionUntimed,
        LegUnlisted,
        InviteForgotten,
        InviteUnanswered,
        GaugeWrong,
    ];

    /// For logs, metrics and the management interface.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            AgentUnheld => "agent_unheld",
            AgentUnclaimed => "agent_unclaimed",
            AgentHeldTwice => "agent_held_twice",
            HoldsMiscounted => "holds_miscounted",
            OwnerWrong => "owner_wrong",
            WrapupUntimed => "wrapup_untimed",
            ChatEndLost => "chat_end_lost",
            WrapupTimerGone => "wrapup_timer_gone",
            MatchMissed => "match_missed",
            EntryOrphaned => "entry_orphaned",
            MatchLost => "match_lost",
            CallerGone => "caller_gone",
            NotQueued => "not_queued",
            CallIdle => "call_idle",
            MessageGone => "message_gone",
            MusicGivenUp => "music_given_up",
            AttemptGone => "attempt_gone",
            ClaimGone => "claim_gone",
            BriefingGone => "briefing_gone",
            CallTimerGone => "call_timer_gone",
            HoldUnlimited => "hold_unlimited",
            LinkBroken => "link_broken",
            LinkIdle => "link_idle",
            LegOrphaned => "leg_orphaned",
            LegUnended => "leg_unended",
            LegTransactionGone => "leg_transaction_gone",
            LegTimerGone => "leg_timer_gone",
            SessionUntimed => "session_untimed",
            LegUnlisted => "leg_unlisted",
            InviteForgotten => "invite_forgotten",
            InviteUnanswered => "invite_unanswered",
            GaugeWrong => "gauge_wrong",
        }
    }

    /// Looks at which it must be the same. A match may wait for a control plane that has made thousands of them and has little CPU, news
    /// of a chat's end in the outbox of a shard that has none for seconds.
    pub(super) const fn looks(self) -> u32 {
        match self {
            ChatEndLost => 10,
            MatchLost | MatchMissed => 3,
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
