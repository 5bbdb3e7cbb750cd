//! The management interface: JSON-RPC 2.0 over one table of commands. Transports hand bytes in and get bytes back.
//!
//! Where the reference misbehaves (see spec: call-center.md "Recorded answers") this does better: batches are served,
//! notifications get no answer, qualified statistics are found.

mod audit;
mod cdrs;
mod core;
mod dispatching;
mod events;
mod lists;
mod params;
mod statistics;
mod table;

pub use table::{COMMANDS, Command};

use super::{ControlError, ControlPlane};
use params::Args;
use serde_json::{Map, Value, json};

/// What went wrong with a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MiError {
    pub code: i64,
    pub message: String,
    /// What is wrong in detail: for bad parameters, which.
    pub data: Option<String>,
}

impl MiError {
    /// An error of a command's own.
    pub fn new(code: i64, message: impl Into<String>) -> MiError {
        MiError { code, message: message.into(), data: None }
    }

    fn invalid_params(data: impl Into<String>) -> MiError {
        MiError { code: -32602, message: "Invalid params".to_owned(), data: Some(data.into()) }
    }

    /// With what is wrong, in words, as `data`.
    fn because(self, what: impl ToString) -> MiError {
        MiError { data: Some(what.to_string()), ..self }
    }

    fn invalid_request() -> MiError {
        MiError::new(-32600, "Invalid Request")
    }

    fn json(&self) -> Value {
        let mut error = json!({"code": self.code, "message": self.message});
        if let (Some(data), Some(map)) = (&self.data, error.as_object_mut()) {
            map.insert("data".to_owned(), json!(data));
        }
        error
    }
}

impl From<ControlError> for MiError {
    fn from(e: ControlError) -> MiError {
        match e {
            ControlError::NoAgent => MiError::new(404, "Agent not found"),
            other => {
                tracing::error!(error = %other, "management command failed");
                MiError::new(500, other.to_string())
            }
        }
    }
}

/// Carries out what `body` asks; `None` when there is nothing to answer (notifications).
pub async fn handle(plane: &ControlPlane, body: &[u8]) -> Option<Vec<u8>> {
    let answer = match serde_json::from_slice::<Value>(body) {
        Err(_) => Some(failure(&MiError::new(-32700, "Parse error"), Value::Null)),
        Ok(Value::Array(batch)) if batch.is_empty() => Some(failure(&MiError::invalid_request(), Value::Null)),
        Ok(Value::Array(batch)) => {
            let mut answers = vec![];
            for request in batch {
                answers.extend(one(plane, request).await);
            }
            (!answers.is_empty()).then_some(Value::Array(answers))
        }
        Ok(request) => one(plane, request).await,
    };
    answer.map(|a| a.to_string().into_bytes())
}

/// An answer to `request` that is an error, made by a transport: it carries the request's id if it has one.
#[must_use]
pub fn refusal(request: &[u8], code: i64, message: &str) -> Vec<u8> {
    let id = match serde_json::from_slice::<Value>(request) {
        Ok(Value::Object(mut request)) => request.remove("id"),
        _ => None,
    };
    failure(&MiError::new(code, message), id.unwrap_or(Value::Null)).to_string().into_bytes()
}

/// One request; `None` for a notification.
async fn one(plane: &ControlPlane, request: Value) -> Option<Value> {
    let Value::Object(mut request) = request else { return Some(failure(&MiError::invalid_request(), Value::Null)) };
    let id = request.remove("id");
    let call = match valid(&request, id.as_ref()) {
        Some(call) => call,
        None => {
            let id = id.filter(|id| id.is_string() || id.is_number()).unwrap_or(Value::Null);
            return Some(failure(&MiError::invalid_request(), id));
        }
    };
    let result = run(plane, call.0, call.1).await;
    let id = id?;
    Some(match result {
        Ok(result) => json!({"jsonrpc": "2.0", "result": result, "id": id}),
        Err(error) => failure(&error, id),
    })
}

/// Method and parameters of a well-formed request.
fn valid<'a>(request: &'a Map<String, Value>, id: Option<&Value>) -> Option<(&'a str, Option<&'a Value>)> {
    let id_fits = id.is_none_or(|id| id.is_null() || id.is_string() || id.is_number());
    let params = request.get("params");
    let params_fit = params.is_none_or(|p| p.is_object() || p.is_array());
    let version = request.get("jsonrpc").and_then(Value::as_str) == Some("2.0");
    let method = request.get("method").and_then(Value::as_str)?;
    (id_fits && params_fit && version).then_some((method, params))
}

/// Runs a command by either of its names.
///
/// # Errors
/// Unknown command, bad parameters, or the command's own.
pub async fn run(plane: &ControlPlane, method: &str, params: Option<&Value>) -> Result<Value, MiError> {
    let command = table::find(method).ok_or_else(|| MiError::new(-32601, "Method not found"))?;
    let args = Args::read(command.params, params)?;
    (command.run)(plane, args).await
}

fn failure(error: &MiError, id: Value) -> Value {
    json!({"jsonrpc": "2.0", "error": error.json(), "id": id})
}

#[cfg(test)]
mod tests;
