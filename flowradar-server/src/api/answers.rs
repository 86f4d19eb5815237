//! Errors of the API.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ApiError {
    /// A parameter makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// Too many requests of this kind are being answered.
    #[error("too many requests of this kind at the same time: try again")]
    Busy,
    /// There is no token to show.
    #[error("changes are not allowed: no token is configured ([api] token_file)")]
    Forbidden,
    /// The store could not be read.
    #[error("{0}")]
    Internal(String),
    /// There is nothing at this path.
    #[error("there is nothing here: /api/v1/openapi.json lists what there is")]
    NotFound,
    /// The token was not shown.
    #[error("show the token as \"authorization: Bearer TOKEN\"")]
    Unauthorized,
}

/// An error, as it is answered.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    /// What is wrong, and what to do.
    error: String,
}

impl ApiError {
    pub(super) fn bad_request(reason: impl Into<String>) -> Self {
        Self::BadRequest(reason.into())
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
        }
    }
}

impl From<QueryRejection> for ApiError {
    fn from(error: QueryRejection) -> Self {
        Self::BadRequest(error.body_text())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            error: self.to_string(),
        };
        (self.status(), Json(body)).into_response()
    }
}
