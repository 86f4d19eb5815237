//! Refuses parameters that a path does not have: a misspelt filter would answer another question.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use axum::extract::{Query, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;
use utoipa::openapi::RefOr;

use super::{ApiError, Description};

/// Longest name that an error repeats.
const NAME_CHARS_MAX: usize = 64;

/// Paths of the API's description, with the names of their parameters.
static PARAMETERS: LazyLock<BTreeMap<String, BTreeSet<String>>> = LazyLock::new(|| {
    let paths = Description::openapi().paths.paths;
    let names = |item: utoipa::openapi::PathItem| {
        let operations = [item.get, item.post].into_iter().flatten();
        let parameters = operations.flat_map(|operation| operation.parameters.unwrap_or_default());
        parameters
            .filter_map(|parameter| match parameter {
                RefOr::T(parameter) => Some(parameter.name),
                RefOr::Ref(_) => None,
            })
            .collect()
    };
    paths
        .into_iter()
        .map(|(path, item)| (path, names(item)))
        .collect()
});

/// Answers 400 to a request with a parameter that its path does not have.
pub(super) async fn refuse_unknown(request: Request, next: Next) -> Response {
    match check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check(request: &Request) -> Result<(), ApiError> {
    let Query(given): Query<Vec<(String, String)>> = Query::try_from_uri(request.uri())?;
    let none = BTreeSet::new();
    let path = request.uri().path();
    let known = PARAMETERS.get(path).unwrap_or(&none);
    let mut seen = BTreeSet::new();
    for (name, _) in &given {
        let shown: String = name.chars().take(NAME_CHARS_MAX).collect();
        if !known.contains(name) {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            return Err(ApiError::bad_request(if known.is_empty() {
                format!("{shown}: {path} has no parameters")
            } else {
                format!(
                    "{shown}: no such parameter; {path} has {}",
                    known.join(", ")
                )
            }));
        }
        if !seen.insert(name) {
            return Err(ApiError::bad_request(format!("{shown}: given twice")));
        }
    }
    Ok(())
}
