//! What each switch counted of a flow.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};

use super::filter::FilterQuery;
use super::flows::{Answer, FlowRow};
use super::{Api, ApiError, ErrorBody};

/// Rows at most.
const ROWS_MAX: usize = 10_000;

/// Per-hop counters of a flow: its records at every switch, by time
///
/// Name the flow by `src`, `dst`, `src_port`, `dst_port` and `protocol`.
#[utoipa::path(get, path = "/api/v1/flows/hops", params(FilterQuery),
    responses((status = 200, body = Answer<FlowRow>), (status = 400, body = ErrorBody)))]
pub(super) async fn hops(
    State(api): State<Api>,
    filter: Result<Query<FilterQuery>, QueryRejection>,
) -> Result<Json<Answer<FlowRow>>, ApiError> {
    let query = filter?.0;
    let flow = [query.src.is_some(), query.dst.is_some()];
    let ports = [query.src_port.is_some(), query.dst_port.is_some()];
    if flow != [true; 2] || ports != [true; 2] || query.protocol.is_none() {
        return Err(ApiError::bad_request(
            "name a flow by src, dst, src_port, dst_port and protocol",
        ));
    }
    let answer = api
        .scan(query.check()?, (vec![], 0), |(rows, records), row| {
            *records += 1;
            if rows.len() < ROWS_MAX {
                rows.push(FlowRow::from(row));
            }
            true
        })
        .await?;
    Ok(Json(answer.map(|(mut rows, records), missing| {
        if records > rows.len() as u64 {
            missing.push(format!("{} of {records} rows are shown", rows.len()));
        }
        rows.sort_by(|a: &FlowRow, b| a.order().cmp(&b.order()));
        (rows, records)
    })))
}
