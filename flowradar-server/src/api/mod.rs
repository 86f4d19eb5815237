//! The HTTP API: flows, epochs, switches, events; metrics; an OpenAPI description of itself.
//!
//! Everything is read-only but what is under `/api/v1/admin`, which wants the token of `[api]`. Live events
//! are a stream of server-sent events.

mod answers;
mod events;
mod filter;
mod flows;
mod group;
mod hops;
mod parameters;
mod rows;

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use utoipa::{IntoParams, OpenApi, ToSchema};

use crate::collector::Shared;
use crate::config::Config;
use crate::ingest::{Secret, SwitchStatus};
use crate::live::EpochSummary;
use crate::store::StoreSizes;

use answers::{ApiError, ErrorBody};

/// Scans of the store at the same time.
const SCANS_MAX: usize = 2;

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    shared: Shared,
    config: watch::Receiver<Arc<Config>>,
    scans: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    begin: Instant,
}

/// The API's description.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "FlowRadar collector",
        description = "Flows of a network's switches, epoch by epoch. Times are nanoseconds since 1970, or \
                       RFC 3339, or relative like -15m."
    ),
    paths(
        status,
        epochs,
        switches,
        analyses,
        flush_notice,
        flows::list,
        flows::top,
        flows::series,
        hops::hops,
        events::list,
        events::live
    )
)]
struct Description;

/// Serves the API until the collector stops.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Shared,
    config: watch::Receiver<Arc<Config>>,
    begin: Instant,
) {
    let streams = config.borrow().api.live_streams_max;
    let notices = shared.notices.clone();
    let api = Api {
        shared,
        config,
        scans: Arc::new(Semaphore::new(SCANS_MAX)),
        streams: Arc::new(Semaphore::new(streams)),
        begin,
    };
    if let Err(error) = axum::serve(listener, router(api)).await {
        notices.warn("api_failed", error.to_string());
    }
}

fn router(api: Api) -> Router {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/epochs", get(epochs))
        .route("/api/v1/switches", get(switches))
        .route("/api/v1/analyses", get(analyses))
        .route("/api/v1/flows", get(flows::list))
        .route("/api/v1/flows/top", get(flows::top))
        .route("/api/v1/flows/series", get(flows::series))
        .route("/api/v1/flows/hops", get(hops::hops))
        .route("/api/v1/events", get(events::list))
        .route("/api/v1/events/live", get(events::live))
        .route("/api/v1/admin/notice", post(flush_notice))
        .route("/api/v1/openapi.json", get(description))
        .route("/metrics", get(metrics))
        .layer(axum::middleware::from_fn(parameters::refuse_unknown))
        .fallback(not_found)
        .with_state(api)
}

/// What the collector is and holds.
#[derive(Debug, Serialize, ToSchema)]
struct Status {
    version: &'static str,
    uptime_seconds: f64,
    switches: usize,
    switches_connected: usize,
    /// The epoch decoded last.
    last_epoch: Option<EpochSummary>,
    /// From its end to its decode.
    lag_seconds: Option<f64>,
    open_events: usize,
    journal_bytes: u64,
    store: StoreSizes,
}

/// State of the collector
#[utoipa::path(get, path = "/api/v1/status", responses((status = 200, body = Status)))]
async fn status(State(api): State<Api>) -> Json<Status> {
    let switches = api.shared.switches.statuses();
    let last_epoch = api.shared.live.epochs(1, |_| true).pop();
    let journal_bytes = &api.shared.journal.gauges().bytes;
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: api.begin.elapsed().as_secs_f64(),
        switches_connected: switches.iter().filter(|switch| switch.connected).count(),
        switches: switches.len(),
        lag_seconds: last_epoch.as_ref().map(|epoch| epoch.lag_ns as f64 / 1e9),
        last_epoch,
        open_events: api.shared.live.open_events().len(),
        journal_bytes: journal_bytes.load(std::sync::atomic::Ordering::Relaxed),
        store: api.shared.reader.sizes(),
    })
}

/// Which epochs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct EpochsQuery {
    /// Earliest time.
    from: Option<String>,
    /// Time that is beyond.
    to: Option<String>,
    /// Number of an epoch.
    epoch: Option<u64>,
    /// Epochs at most; 100 if not said, 8192 at most.
    limit: Option<usize>,
}

/// The last epochs, newest first
#[utoipa::path(get, path = "/api/v1/epochs", params(EpochsQuery),
    responses((status = 200, body = [EpochSummary]), (status = 400, body = ErrorBody)))]
async fn epochs(
    State(api): State<Api>,
    query: Result<Query<EpochsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Vec<EpochSummary>>, ApiError> {
    let Query(query) = query?;
    let range = filter::range(query.from.as_deref(), query.to.as_deref())?;
    let limit = query.limit.unwrap_or(100).min(8192);
    let epochs = api.shared.live.epochs(limit, |epoch| {
        let time = i64::try_from(epoch.time_ns).unwrap_or(i64::MAX);
        range.overlaps(time, time) && query.epoch.is_none_or(|number| number == epoch.epoch)
    });
    Ok(Json(epochs))
}

/// The switches, with their links
#[utoipa::path(get, path = "/api/v1/switches", responses((status = 200, body = [SwitchStatus])))]
async fn switches(State(api): State<Api>) -> Json<Vec<SwitchStatus>> {
    Json(api.shared.switches.statuses())
}

/// What analyses found last: traffic, ECMP groups, loss map, and what they left out
#[utoipa::path(get, path = "/api/v1/analyses", responses((status = 200, body = Object)))]
async fn analyses(State(api): State<Api>) -> Json<serde_json::Value> {
    let (last, settled) = api.shared.live.findings();
    Json(serde_json::json!({
        "epoch": last.as_ref().map(|findings| findings.epoch),
        "traffic": last.as_ref().map(|findings| &findings.traffic),
        "groups": last.as_ref().map(|findings| &findings.groups),
        "losses": settled.as_ref().and_then(|findings| findings.losses.as_ref()),
        "open_events": api.shared.live.open_events(),
        "counters": api.shared.live.analysis_counters(),
    }))
}

/// A remark by an operator.
#[derive(Debug, Deserialize, ToSchema)]
struct Remark {
    /// What to note.
    message: String,
}

/// Puts a remark among the events, such as the begin of a maintenance
#[utoipa::path(post, path = "/api/v1/admin/notice", request_body = Remark,
    responses((status = 204), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn flush_notice(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Result<Json<Remark>, axum::extract::rejection::JsonRejection>,
) -> Result<StatusCode, ApiError> {
    api.authorize(&headers)?;
    let Json(remark) = body.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let message: String = remark.message.chars().take(1000).collect();
    api.shared.notices.info("remark", message);
    Ok(StatusCode::NO_CONTENT)
}

async fn description() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}

async fn metrics(State(api): State<Api>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], api.shared.metrics.text()).into_response()
}

async fn not_found() -> ApiError {
    ApiError::NotFound
}

impl Api {
    /// Lets only those pass who have the token.
    fn authorize(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let expected = self.config.borrow().api.token.clone();
        let Some(expected) = expected else {
            return Err(ApiError::Forbidden);
        };
        let shown = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .map(Secret::new);
        if shown.is_some_and(|shown| expected.matches(&shown)) {
            Ok(())
        } else {
            Err(ApiError::Unauthorized)
        }
    }
}
