//! The HTTP interface.
//!
//! | request | does |
//! | --- | --- |
//! | `GET /metrics` | Prometheus text |
//! | `GET /api/v1/status` | [`Status`](super::Status) as JSON |
//! | `GET /api/v1/config` | the configuration in force, as JSON |
//! | `POST /api/v1/reload` | reads the configuration file again |
//! | `POST /api/v1/collectors` | adds a collector: its settings, and `groups` |
//! | `DELETE /api/v1/collectors/{name}` | removes a collector |
//! | `POST /api/v1/collectors/{name}/drain` | sends it nothing more |
//! | `POST /api/v1/collectors/{name}/undrain` | gives it its share again |

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde::Deserialize;

use super::control::{Control, OrderError};
use super::metrics;
use crate::config::CollectorConfig;

type Shared = Arc<Mutex<Control>>;

/// Who may do what.
#[derive(Clone)]
struct Guard {
    token: Option<Arc<str>>,
    for_reading: bool,
}

#[derive(Debug, Deserialize)]
struct NewCollector {
    #[serde(flatten)]
    collector: CollectorConfig,
    groups: Vec<String>,
}

/// The routes. Without a token nothing can be changed.
pub(crate) fn router(control: Shared, token: Option<String>, token_for_reading: bool) -> Router {
    let guard = Guard {
        token: token.map(Arc::from),
        for_reading: token_for_reading,
    };
    Router::new()
        .route("/metrics", get(metrics_text))
        .route("/api/v1/status", get(status))
        .route("/api/v1/config", get(config))
        .route("/api/v1/reload", post(reload))
        .route("/api/v1/collectors", post(add))
        .route("/api/v1/collectors/{name}", delete(remove))
        .route("/api/v1/collectors/{name}/drain", post(drain))
        .route("/api/v1/collectors/{name}/undrain", post(undrain))
        .layer(DefaultBodyLimit::max(64 << 10))
        .layer(middleware::from_fn_with_state(guard, admit))
        .with_state(control)
}

async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let reads = request.method().is_safe();
    if !reads && guard.token.is_none() {
        let text = "changes need a token: set api.token_file\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let needed = guard.token.filter(|_| !reads || guard.for_reading);
    if needed.is_some_and(|token| !has_token(request.headers(), &token)) {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (
            StatusCode::UNAUTHORIZED,
            challenge,
            "a bearer token is needed\n",
        )
            .into_response();
    }
    next.run(request).await
}

fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let given = given
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or("");
    // The same time whatever the difference; only the length shows.
    let differs = given
        .bytes()
        .zip(token.bytes())
        .fold(0, |differs, (a, b)| differs | (a ^ b));
    given.len() == token.len() && differs == 0
}

async fn metrics_text(State(control): State<Shared>) -> Response {
    let text = metrics::render(&control.lock().status());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn status(State(control): State<Shared>) -> Response {
    Json(control.lock().status()).into_response()
}

async fn config(State(control): State<Shared>) -> Response {
    Json(control.lock().config.clone()).into_response()
}

async fn reload(State(control): State<Shared>) -> Response {
    answer(control.lock().reload())
}

async fn add(State(control): State<Shared>, Json(new): Json<NewCollector>) -> Response {
    answer(control.lock().add_collector(new.collector, &new.groups))
}

async fn remove(State(control): State<Shared>, Path(name): Path<String>) -> Response {
    answer(control.lock().remove_collector(&name))
}

async fn drain(State(control): State<Shared>, Path(name): Path<String>) -> Response {
    answer(control.lock().set_draining(&name, true))
}

async fn undrain(State(control): State<Shared>, Path(name): Path<String>) -> Response {
    answer(control.lock().set_draining(&name, false))
}

fn answer(result: Result<(), OrderError>) -> Response {
    let Err(error) = result else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let status = match error {
        OrderError::NoCollector(_) => StatusCode::NOT_FOUND,
        OrderError::Config(_) => StatusCode::BAD_REQUEST,
        OrderError::NeedsRestart(_) | OrderError::NoFile => StatusCode::CONFLICT,
        OrderError::File { .. } | OrderError::Socket { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, format!("{error}\n")).into_response()
}
