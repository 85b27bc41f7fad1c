//! Errors as responses: each error of a room becomes a status here, once.

use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};
use plugins::call::{Body, CallError, Reply};
use plugins::registry::ChangeError;
use serde_json::json;

/// An error as JSON: `{"error": message}`.
#[must_use]
pub fn response(status: StatusCode, message: &str) -> Response<Body> {
    from_reply(Reply::json(status, &json!({ "error": message })))
}

/// A reply of a room as a response.
#[must_use]
pub fn from_reply(reply: Reply) -> Response<Body> {
    let mut response = Response::new(reply.body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}

/// The one answer to a missing or wrong key; it does not say which.
#[must_use]
pub fn unauthorized() -> Response<Body> {
    response(StatusCode::FORBIDDEN, "unauthorized")
}

/// Nothing is here.
#[must_use]
pub fn not_found(path: &str) -> Response<Body> {
    let path: String = path.chars().take(200).collect();
    response(StatusCode::NOT_FOUND, &format!("nothing answers at {path}"))
}

/// The path exists, the method does not fit.
#[must_use]
pub fn method_not_allowed(allowed: &[Method]) -> Response<Body> {
    let list = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let message = format!("this path answers {list}");
    let mut response = response(StatusCode::METHOD_NOT_ALLOWED, &message);
    if let Ok(list) = HeaderValue::from_str(&list) {
        response.headers_mut().insert(header::ALLOW, list);
    }
    response
}

/// A call that failed.
#[must_use]
pub fn of_call(error: &CallError) -> Response<Body> {
    let (status, retry_secs) = match error {
        CallError::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, None),
        CallError::WorkerLost => (StatusCode::BAD_GATEWAY, None),
        CallError::Unavailable { retry_secs } => {
            (StatusCode::SERVICE_UNAVAILABLE, Some(*retry_secs))
        }
        CallError::Busy => (StatusCode::SERVICE_UNAVAILABLE, Some(1)),
        CallError::Unloaded => (StatusCode::NOT_FOUND, None),
        CallError::ReplyTooLarge { .. } | CallError::Io(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, None)
        }
    };
    let mut response = response(status, &error.to_string());
    if let Some(secs) = retry_secs {
        response.headers_mut().insert(header::RETRY_AFTER, secs.into());
    }
    response
}

/// A change of plugins that failed.
#[must_use]
pub fn of_change(error: &ChangeError) -> Response<Body> {
    let status = match error {
        ChangeError::Unknown(_) | ChangeError::NoFile(_) => StatusCode::NOT_FOUND,
        ChangeError::Directory(..) | ChangeError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    response(status, &error.to_string())
}
