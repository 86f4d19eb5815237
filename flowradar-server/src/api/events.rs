//! Events: those that are kept, and those that come.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::IntoParams;

use super::{Api, ApiError, ErrorBody};
use crate::notice::Notice;

/// Events waiting for a slow client; it is then told how many it missed.
const CLIENT_EVENTS_MAX: usize = 64;

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Events after this number only.
    after: Option<u64>,
    /// A kind, such as `link_loss` or `missing`.
    kind: Option<String>,
    /// Only what analyses found, not what the collector says of itself.
    #[serde(default)]
    analyses: bool,
}

/// The last events, oldest first
#[utoipa::path(get, path = "/api/v1/events", params(EventsQuery),
    responses((status = 200, body = [Object]), (status = 400, body = ErrorBody)))]
pub(super) async fn list(
    State(api): State<Api>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Json<Vec<Notice>>, ApiError> {
    let query = query?.0;
    let mut notices = api.shared.notices.after(query.after.unwrap_or(0));
    notices.retain(|notice| query.wants(notice));
    Ok(Json(notices))
}

/// Events as they come, as server-sent events
///
/// First those kept after the number in `after`, or in the header `Last-Event-ID`.
#[utoipa::path(get, path = "/api/v1/events/live", params(EventsQuery),
    responses((status = 200, content_type = "text/event-stream"), (status = 503, body = ErrorBody)))]
pub(super) async fn live(
    State(api): State<Api>,
    query: Result<Query<EventsQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let query = query?.0;
    let permit = Arc::clone(&api.streams)
        .try_acquire_owned()
        .map_err(|_| ApiError::Busy)?;
    let last = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok()?.parse().ok());
    let after = last.or(query.after);
    // First listen, then look back: what comes in between is seen twice, and left out once.
    let mut listener = api.shared.notices.listen();
    let kept = after.map_or_else(Vec::new, |after| api.shared.notices.after(after));
    let (events, receiver) = tokio::sync::mpsc::channel(CLIENT_EVENTS_MAX);
    tokio::spawn(async move {
        let _permit = permit;
        let mut last_id = 0;
        for notice in kept {
            last_id = notice.id;
            if query.wants(&notice) && events.send(Ok(event(&notice))).await.is_err() {
                return;
            }
        }
        loop {
            let next = tokio::select! {
                next = listener.recv() => next,
                () = events.closed() => return,
            };
            let sent = match next {
                Ok(notice) if notice.id <= last_id || !query.wants(&notice) => continue,
                Ok(notice) => events.send(Ok(event(&notice))).await,
                Err(RecvError::Lagged(missed)) => {
                    let event = Event::default().event("missed").data(missed.to_string());
                    events.send(Ok(event)).await
                }
                Err(RecvError::Closed) => return,
            };
            if sent.is_err() {
                return;
            }
        }
    });
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(15));
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(keep_alive))
}

impl EventsQuery {
    fn wants(&self, notice: &Notice) -> bool {
        let kind = self.kind.as_deref();
        kind.is_none_or(|kind| kind == notice.kind) && (!self.analyses || notice.event.is_some())
    }
}

fn event(notice: &Notice) -> Event {
    let data = serde_json::to_string(notice).unwrap_or_default();
    Event::default()
        .id(notice.id.to_string())
        .event(&notice.kind)
        .data(data)
}
