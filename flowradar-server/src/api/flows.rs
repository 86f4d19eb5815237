//! Flow records: listed, in groups, over time.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::filter::{Filter, FilterQuery};
use super::group::{GroupRow, Groups, Measure, parse_columns};
use super::rows::{COLUMNS, Row, Rows};
use super::{Api, ApiError, ErrorBody};

/// Rows that are listed at most.
const LIST_MAX: usize = 10_000;
/// Groups that are answered at most.
const TOP_MAX: usize = 10_000;
/// Points in time of a series at most.
const POINTS_MAX: i64 = 10_000;

/// A flow record.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct FlowRow {
    time_ns: i64,
    length_ns: u64,
    epoch: Option<u64>,
    source: String,
    switch: String,
    src: String,
    dst: String,
    src_port: u16,
    dst_port: u16,
    protocol: u8,
    packets: u64,
    bytes: Option<u64>,
    status: String,
    packets_least: Option<u64>,
    packets_most: Option<u64>,
    bytes_least: Option<u64>,
    bytes_most: Option<u64>,
    sampling_rate: Option<u32>,
}

/// An answer, and how complete it is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Answer<T> {
    /// The rows.
    pub(super) rows: Vec<T>,
    /// Records that match.
    pub(super) records: u64,
    /// Records looked at.
    pub(super) scanned: u64,
    /// Whether the rows are all there is: false if a limit cut them off, and then why.
    pub(super) complete: bool,
    /// What is missing.
    pub(super) missing: Vec<String>,
}

/// Flow records in groups.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct TopQuery {
    /// Columns to group by, such as `src,dst`: any of `source`, `switch`, `src`, `dst`, `src_port`,
    /// `dst_port`, `protocol`, `status`, `epoch`.
    group_by: String,
    /// What is largest first: `packets`, `bytes` or `records`.
    by: Option<Measure>,
    /// Groups at most; 10 if not said, 10,000 at most.
    n: Option<usize>,
}

/// Flow records over time.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct SeriesQuery {
    /// Length of a point in time, such as `1s`.
    step: String,
    /// Columns to group by.
    group_by: Option<String>,
}

/// Flow records
#[utoipa::path(get, path = "/api/v1/flows", params(FilterQuery, Limit),
    responses((status = 200, body = Answer<FlowRow>), (status = 400, body = ErrorBody)))]
pub(super) async fn list(
    State(api): State<Api>,
    filter: Result<Query<FilterQuery>, QueryRejection>,
    limit: Result<Query<Limit>, QueryRejection>,
) -> Result<Json<Answer<FlowRow>>, ApiError> {
    let filter = filter?.0.check()?;
    let limit = limit?.0.limit.unwrap_or(100).min(LIST_MAX);
    let answer = api
        .scan(filter, (vec![], 0), move |(rows, records), row| {
            *records += 1;
            if rows.len() < limit {
                rows.push(FlowRow::from(row));
            }
            true
        })
        .await?;
    Ok(Json(answer.map(|(rows, records), missing| {
        if records > rows.len() as u64 {
            missing.push(format!("limit: {} of {records} rows are shown", rows.len()));
        }
        (rows, records)
    })))
}

/// How many rows.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct Limit {
    /// Rows at most; 100 if not said, 10,000 at most.
    limit: Option<usize>,
}

/// Largest groups of flow records: top flows, hosts, services, switches
///
/// A flow at five switches counts five times: name a switch, or group by it.
#[utoipa::path(get, path = "/api/v1/flows/top", params(FilterQuery, TopQuery),
    responses((status = 200, body = Answer<GroupRow>), (status = 400, body = ErrorBody)))]
pub(super) async fn top(
    State(api): State<Api>,
    filter: Result<Query<FilterQuery>, QueryRejection>,
    query: Result<Query<TopQuery>, QueryRejection>,
) -> Result<Json<Answer<GroupRow>>, ApiError> {
    let filter = filter?.0.check()?;
    let query = query?.0;
    let columns = parse_columns(&query.group_by)?;
    let n = query.n.unwrap_or(10).min(TOP_MAX);
    let by = query.by.unwrap_or_default();
    let answer = api
        .scan(filter, Groups::new(columns, None), |groups, row| {
            groups.add(row);
            true
        })
        .await?;
    Ok(Json(answer.map(|groups, missing| {
        let records = groups.records();
        missing.extend(groups.missing());
        let (rows, all) = groups.largest(n, by);
        if all > rows.len() {
            missing.push(format!("n: {} of {all} groups are shown", rows.len()));
        }
        (rows, records)
    })))
}

/// Sums of flow records over time, for each group
#[utoipa::path(get, path = "/api/v1/flows/series", params(FilterQuery, SeriesQuery),
    responses((status = 200, body = Answer<GroupRow>), (status = 400, body = ErrorBody)))]
pub(super) async fn series(
    State(api): State<Api>,
    filter: Result<Query<FilterQuery>, QueryRejection>,
    query: Result<Query<SeriesQuery>, QueryRejection>,
) -> Result<Json<Answer<GroupRow>>, ApiError> {
    let filter = filter?.0.check()?;
    let query = query?.0;
    let columns = parse_columns(query.group_by.as_deref().unwrap_or_default())?;
    let step = humantime::parse_duration(&query.step)
        .ok()
        .and_then(|step| i64::try_from(step.as_nanos()).ok())
        .filter(|step| *step > 0)
        .ok_or_else(|| ApiError::bad_request("step: use a time such as 1s or 5m"))?;
    let range = filter.range;
    let long = range.to_ns.saturating_sub(range.from_ns) / step > POINTS_MAX;
    if long && range.from_ns != i64::MIN && range.to_ns != i64::MAX {
        return Err(ApiError::bad_request(format!(
            "step: from and to are more than {POINTS_MAX} steps apart: use a longer step"
        )));
    }
    let answer = api
        .scan(filter, Groups::new(columns, Some(step)), |groups, row| {
            groups.add(row);
            true
        })
        .await?;
    Ok(Json(answer.map(|groups, missing| {
        let records = groups.records();
        missing.extend(groups.missing());
        (groups.by_time(), records)
    })))
}

/// What a scan gave.
pub(super) struct ScanOutcome<T> {
    gathered: T,
    scanned: u64,
    missing: Vec<String>,
}

impl<T> ScanOutcome<T> {
    /// The answer, from what was gathered.
    pub(super) fn map<R>(
        mut self,
        rows: impl FnOnce(T, &mut Vec<String>) -> (Vec<R>, u64),
    ) -> Answer<R> {
        let (rows, records) = rows(self.gathered, &mut self.missing);
        Answer {
            rows,
            records,
            scanned: self.scanned,
            complete: self.missing.is_empty(),
            missing: self.missing,
        }
    }
}

impl Api {
    /// Shows the rows that a filter wants to `take`, until it says no.
    pub(super) async fn scan<T: Send + 'static>(
        &self,
        filter: Filter,
        mut gathered: T,
        take: impl Fn(&mut T, &Row<'_>) -> bool + Send + 'static,
    ) -> Result<ScanOutcome<T>, ApiError> {
        let permit = Arc::clone(&self.scans)
            .acquire_owned()
            .await
            .map_err(|_| ApiError::Busy)?;
        let reader = Arc::clone(&self.shared.reader);
        let rows_max = self.config.borrow().api.scan_rows_max;
        let scan = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut missing = vec![];
            let mut seen = 0u64;
            let scanned = reader.scan(filter.range, COLUMNS, &mut |batch| {
                let Some(rows) = Rows::new(batch) else {
                    missing.push("a stored file has other columns".to_owned());
                    return ControlFlow::Continue(());
                };
                for row in rows.iter() {
                    if filter.matches(&row) && !take(&mut gathered, &row) {
                        return ControlFlow::Break(());
                    }
                }
                seen += batch.num_rows() as u64;
                if seen >= rows_max {
                    missing.push(format!(
                        "scan_rows_max: only the first {seen} records were looked at; use a shorter time range"
                    ));
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
            let scanned = scanned.map_err(|error| ApiError::Internal(error.to_string()))?;
            if scanned.unreadable_files > 0 {
                missing.push(format!(
                    "{} files could not be read: the collector's log says why",
                    scanned.unreadable_files
                ));
            }
            Ok(ScanOutcome {
                gathered,
                scanned: scanned.rows,
                missing,
            })
        });
        scan.await
            .map_err(|error| ApiError::Internal(error.to_string()))?
    }
}

impl From<&Row<'_>> for FlowRow {
    fn from(row: &Row<'_>) -> Self {
        Self {
            time_ns: row.time_ns,
            length_ns: row.length_ns,
            epoch: row.epoch,
            source: row.source.to_owned(),
            switch: row.switch.to_owned(),
            src: row.src.to_owned(),
            dst: row.dst.to_owned(),
            src_port: row.src_port,
            dst_port: row.dst_port,
            protocol: row.protocol,
            packets: row.packets,
            bytes: row.bytes,
            status: row.status.to_owned(),
            packets_least: row.packets_bounds.0,
            packets_most: row.packets_bounds.1,
            bytes_least: row.bytes_bounds.0,
            bytes_most: row.bytes_bounds.1,
            sampling_rate: row.sampling_rate,
        }
    }
}

impl FlowRow {
    /// By time, then by switch.
    pub(super) fn order(&self) -> (i64, &str, &str) {
        (self.time_ns, &self.switch, &self.source)
    }
}
