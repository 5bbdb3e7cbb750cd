//! For audits: which transactions there are, and which of them somebody must still answer.

use super::client::{Cancel, State};
use super::server::State as ServerState;
use super::{ClientTxn, Endpoint, ServerTxn, User, handle};
use crate::txn::{ClientInvite, ServerInvite};

impl Endpoint {
    /// Whether the transaction lives: until it ends, its TU has an event to come.
    #[must_use]
    pub fn is_client(&self, txn: ClientTxn) -> bool {
        self.live_client(txn).is_some()
    }

    /// Whether the transaction lives: it waits for an answer, or for the ACK to one.
    #[must_use]
    pub fn is_server(&self, txn: ServerTxn) -> bool {
        self.live_server(txn).is_some()
    }

    /// Slots of requests of the TU, those free for now among them.
    #[must_use]
    pub fn client_slots(&self) -> usize {
        self.clients.extent()
    }

    /// Slots of requests that came in, those free for now among them.
    #[must_use]
    pub fn server_slots(&self) -> usize {
        self.servers.extent()
    }

    /// The INVITE in a slot, with its user, when it has no final answer and has not been given up.
    #[must_use]
    pub fn open_invite_of_ours(&self, slot: usize) -> Option<(ClientTxn, User)> {
        let client = self.clients.get(slot).filter(|c| !c.dropped && c.cancel == Cancel::No)?;
        let open = matches!(client.state, State::Invite(ClientInvite::Calling { .. } | ClientInvite::Proceeding));
        open.then(|| (ClientTxn::of(handle(slot, client.generation)), client.user))
    }

    /// The INVITE that came in and is in this slot, with its user, when it has no final answer.
    #[must_use]
    pub fn open_invite_of_theirs(&self, slot: usize) -> Option<(ServerTxn, User)> {
        let server = self.servers.get(slot)?;
        let open = matches!(server.state, ServerState::Invite(ServerInvite::Proceeding));
        open.then(|| (ServerTxn::of(handle(slot, server.generation)), server.user))
    }
}
