//! `cc_dispatch_call_to_agent` and `cc_internal_call_dispatching`.

use super::MiError;
use super::params::Args;
use crate::control::ControlPlane;
use crate::control::dispatching::PlaceError;
use serde_json::{Value, json};
use strowger_engine::NotPlaced;

/// Places a waiting call with an agent.
pub async fn place(plane: &ControlPlane, args: &Args<'_>) -> Result<Value, MiError> {
    let call = args.text("call_id")?.unwrap_or_default();
    let agent = args.text("agent_id")?.unwrap_or_default();
    plane.place(&call, &agent).await?;
    Ok(json!("OK"))
}

/// Tells whether matching is on, after switching it if asked to.
pub async fn switch(plane: &ControlPlane, args: &Args<'_>) -> Result<Value, MiError> {
    if let Some(on) = args.integer("dispatching")? {
        plane.set_dispatching(on != 0).await?;
    }
    Ok(json!({"dispatching": i32::from(plane.dispatching())}))
}

impl From<PlaceError> for MiError {
    fn from(e: PlaceError) -> MiError {
        let code = match e {
            PlaceError::Control(e) => return e.into(),
            PlaceError::Internal => 403,
            PlaceError::Refused(
                NotPlaced::NoAgent | NotPlaced::NotLoggedIn | NotPlaced::NoCall | NotPlaced::NotQueued,
            ) => 404,
            PlaceError::Refused(
                NotPlaced::NoSkill | NotPlaced::NotFreeAudio | NotPlaced::NotFreeChat | NotPlaced::UnsupportedMedia,
            ) => 488,
        };
        MiError::new(code, e.to_string())
    }
}
