//! What the driver and the servers say when something goes wrong, sorted: what lies in the row ([`StoreError::Refused`])
//! and what may pass ([`StoreError::Failed`]); and whether the session is still of use.

use super::{Cluster, Lease};
use crate::store::StoreError;
use scylla::errors::{DbError, ExecutionError, NewSessionError, RequestAttemptError};

impl Cluster {
    /// Sorts an error; one that says that no server can be reached ends the session's life.
    pub(super) fn fault(&self, lease: &Lease, e: ExecutionError) -> StoreError {
        if unreachable(&e) {
            self.broken(lease);
        }
        let what = format!("{}: {e}{}", self.url, fix(&e));
        if is_refusal(&e) { StoreError::Refused(what) } else { StoreError::Failed(what) }
    }
}

/// Every server that the driver would have asked is gone. A time-out is none of these: the server may have been frozen.
fn unreachable(e: &ExecutionError) -> bool {
    matches!(
        e,
        ExecutionError::ConnectionPoolError(_)
            | ExecutionError::EmptyPlan
            | ExecutionError::PrepareError(scylla::errors::PrepareError::ConnectionPoolError(_))
            | ExecutionError::LastAttemptError(RequestAttemptError::BrokenConnectionError(_))
    )
}

/// The same row would be refused again, and others would not.
fn is_refusal(e: &ExecutionError) -> bool {
    match e {
        ExecutionError::BadQuery(_) => true,
        ExecutionError::LastAttemptError(e) => match e {
            RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_) => true,
            // A table that somebody dropped is no fault of a row.
            RequestAttemptError::DbError(DbError::Invalid, what) => {
                !what.contains("unconfigured table") && !what.contains("does not exist")
            }
            _ => false,
        },
        _ => false,
    }
}

fn fix(e: &ExecutionError) -> &'static str {
    match e {
        ExecutionError::RequestTimeout(_) => "; the servers are too busy, or stand still",
        ExecutionError::ConnectionPoolError(_) => "; start a server, or correct the hosts of the URL",
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(e, _)) => match e {
            DbError::Unavailable { .. } => "; start the servers that are missing",
            DbError::Unauthorized => "; GRANT it to the user of the URL",
            _ => "",
        },
        _ => "",
    }
}

/// Why there is no session, and what to do.
pub(super) fn told(e: &NewSessionError) -> String {
    let said = e.to_string();
    let fix = match e {
        NewSessionError::FailedToResolveAnyHostname(_) => "; correct the hosts of the URL",
        _ if said.contains("Authentication is required") => "; put USER:PASSWORD@ before the hosts of the URL",
        _ if said.contains("bad credentials") => "; correct the user and password of the URL",
        _ => "; start a server, or correct the hosts of the URL",
    };
    format!("{said}{fix}")
}
