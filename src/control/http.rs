//! The management interface over HTTP: POST of JSON-RPC, and a health check.

use super::{ControlPlane, mi};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::sync::Arc;

/// Resources: `path` (and with a slash behind it), `/healthz`.
pub fn router(plane: Arc<ControlPlane>, path: &str, max_request: usize) -> Router {
    Router::new()
        .route(path, post(call))
        .route(&format!("{path}/"), post(call))
        .route("/healthz", get(health))
        .layer(DefaultBodyLimit::max(max_request))
        .with_state(plane)
}

async fn call(State(plane): State<Arc<ControlPlane>>, body: Bytes) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    let status = if body.iter().all(u8::is_ascii_whitespace) { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    // On a task of its own: a client that goes away does not cut a reload in two.
    let answer = tokio::spawn(async move { mi::handle(&plane, &body).await }).await;
    match answer {
        Ok(Some(answer)) => (status, json, answer).into_response(),
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => {
            tracing::error!(%error, "a management command died");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn health(State(plane): State<Arc<ControlPlane>>) -> Response {
    let (status, word) =
        if plane.draining() { (StatusCode::SERVICE_UNAVAILABLE, "draining") } else { (StatusCode::OK, "ok") };
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{{\"status\":\"{word}\"}}")).into_response()
}
