//! The management interface over HTTP: POST of JSON-RPC, a health check, metrics.

mod serve;

pub use serve::{Patience, serve};

use super::{ControlPlane, metrics, mi};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::sync::Arc;

/// Resources: `path` (and with a slash behind it), `/healthz`, and where a path is given for them, the metrics.
pub fn router(plane: Arc<ControlPlane>, path: &str, metrics: Option<&str>, patience: Patience) -> Router {
    let call = move |State(plane): State<Arc<ControlPlane>>, body: Body| call(plane, body, patience);
    let router = match metrics {
        Some(path) => Router::new().route(path, get(page)),
        None => Router::new(),
    };
    router
        .route(path, post(call))
        .route(&format!("{path}/"), post(call))
        .route("/healthz", get(health))
        .with_state(plane)
}

async fn call(plane: Arc<ControlPlane>, body: Body, patience: Patience) -> Response {
    let body = match patience.body(body).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
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

/// Off the threads that serve others: a page of many agents takes its time.
async fn page(State(plane): State<Arc<ControlPlane>>) -> Response {
    match tokio::task::spawn_blocking(move || metrics::text(&plane)).await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page of metrics died");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
