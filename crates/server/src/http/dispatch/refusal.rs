//! Why a request of the second job is refused, as the documents have it.

use ::tasks::dispatcher::{CancelError, EnqueueError, PollError};
use database::DatabaseError;
use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};
use plugins::call::{Body, Reply};
use serde_json::json;

use crate::accounts::{AuthError, ChangeError};
use crate::files::FileError;
use crate::http::body::ReadError;

/// A refusal: `{"error": true, "msg": …}`.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: std::borrow::Cow<'static, str>,
    retry_secs: Option<u64>,
    allow: Option<&'static [Method]>,
    /// The task that it is about.
    id: Option<String>,
}

impl Refusal {
    /// One with this status and message.
    pub(super) fn new(
        status: StatusCode,
        message: impl Into<std::borrow::Cow<'static, str>>,
    ) -> Self {
        Self { status, message: message.into(), retry_secs: None, allow: None, id: None }
    }

    /// The one answer to all that is wrong with an authorization.
    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::FORBIDDEN, "Authorization failure")
    }

    pub(super) fn bad(message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn no_agent(name: &str) -> Self {
        let name: String = name.chars().take(200).collect();
        Self::new(StatusCode::NOT_FOUND, format!("Agent '{name}' doesn't exist"))
    }

    pub(super) fn no_task() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Task doesn't exist")
    }

    pub(super) fn no_such_task(id: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("Task {id} doesn't exist"))
    }

    pub(super) fn no_file() -> Self {
        Self::new(StatusCode::NOT_FOUND, "File doesn't exist, has expired or is used up")
    }

    pub(super) fn method(allow: &'static [Method]) -> Self {
        let names: Vec<&str> = allow.iter().map(Method::as_str).collect();
        let message = format!("This endpoint only supports {}", names.join(", "));
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, message) }
    }

    pub(super) fn about(mut self, id: impl ToString) -> Self {
        self.id = Some(id.to_string());
        self
    }

    pub(super) fn of_body(error: &ReadError) -> Self {
        let status = match error {
            ReadError::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            ReadError::Crowded => StatusCode::SERVICE_UNAVAILABLE,
            ReadError::TimedOut => StatusCode::REQUEST_TIMEOUT,
            ReadError::Broken | ReadError::NotAForm(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }

    fn later(status: StatusCode, message: String, retry_secs: u64) -> Self {
        Self { retry_secs: Some(retry_secs), ..Self::new(status, message) }
    }

    /// Its status.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The message alone.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// As a response.
    pub(super) fn response(self) -> Response<Body> {
        let mut body = json!({ "error": true, "msg": self.message });
        if let Some(id) = self.id {
            body["id"] = id.into();
        }
        let mut response = crate::http::error::from_reply(Reply::json(self.status, &body));
        if let Some(secs) = self.retry_secs {
            response.headers_mut().insert(header::RETRY_AFTER, secs.into());
        }
        if let Some(allow) = self.allow {
            let names: Vec<&str> = allow.iter().map(Method::as_str).collect();
            if let Ok(names) = HeaderValue::from_str(&names.join(", ")) {
                response.headers_mut().insert(header::ALLOW, names);
            }
        }
        response
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Refused => Self::unauthorized(),
            AuthError::TooMany { retry_secs } => {
                let message = "Too many attempts; wait before the next".to_owned();
                Self::later(StatusCode::TOO_MANY_REQUESTS, message, retry_secs)
            }
            AuthError::Busy => {
                let message = "Too many passwords are being checked; try again".to_owned();
                Self::later(StatusCode::SERVICE_UNAVAILABLE, message, 1)
            }
            AuthError::Unavailable(error) => error.into(),
        }
    }
}

impl From<DatabaseError> for Refusal {
    fn from(error: DatabaseError) -> Self {
        tracing::error!("a request failed: {error}");
        // Paths and table names are not the client's affair.
        let message = match error {
            DatabaseError::Locked => "The store is locked by another program",
            DatabaseError::Full => "The store's disk is full",
            DatabaseError::ReadOnly => "The store cannot be written",
            DatabaseError::Busy => "Too many writes wait for the store",
            DatabaseError::Corrupt { .. }
            | DatabaseError::TooNew { .. }
            | DatabaseError::Open { .. }
            | DatabaseError::Constraint(_)
            | DatabaseError::Other(_)
            | DatabaseError::Ended => "The store is unavailable",
        };
        Self::later(StatusCode::SERVICE_UNAVAILABLE, message.to_owned(), 1)
    }
}

impl From<FileError> for Refusal {
    fn from(error: FileError) -> Self {
        let status = match &error {
            FileError::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            FileError::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            FileError::Io(_) => {
                tracing::error!("a file in transfer failed: {error}");
                let message = "The store of files is unavailable".to_owned();
                return Self::later(StatusCode::SERVICE_UNAVAILABLE, message, 1);
            }
            FileError::Database(error) => return error.clone().into(),
        };
        Self::new(status, error.to_string())
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        let status = match &error {
            ChangeError::NameTaken => StatusCode::CONFLICT,
            ChangeError::Unknown => StatusCode::NOT_FOUND,
            ChangeError::Disabled => StatusCode::METHOD_NOT_ALLOWED,
            ChangeError::Name(_)
            | ChangeError::Password(_)
            | ChangeError::Hardware
            | ChangeError::TokenBounds => StatusCode::BAD_REQUEST,
            ChangeError::BadToken => StatusCode::FORBIDDEN,
            ChangeError::TooMany | ChangeError::Full => StatusCode::TOO_MANY_REQUESTS,
            ChangeError::TooManyAttempts { retry_secs } => {
                return AuthError::TooMany { retry_secs: *retry_secs }.into();
            }
            ChangeError::Busy => return AuthError::Busy.into(),
            ChangeError::Unavailable(error) => return error.clone().into(),
        };
        Self::new(status, error.to_string())
    }
}

impl From<EnqueueError> for Refusal {
    fn from(error: EnqueueError) -> Self {
        match error {
            EnqueueError::QueueFull => {
                Self::later(StatusCode::TOO_MANY_REQUESTS, error.to_string(), 5)
            }
        }
    }
}

impl From<PollError> for Refusal {
    fn from(error: PollError) -> Self {
        match error {
            PollError::Gone => Self::new(StatusCode::FORBIDDEN, error.to_string()),
            PollError::Store(error) => error.into(),
        }
    }
}

impl From<CancelError> for Refusal {
    fn from(error: CancelError) -> Self {
        match error {
            CancelError::Unknown => Self::no_task(),
            CancelError::Ended => Self::new(StatusCode::CONFLICT, error.to_string()),
            CancelError::Store(error) => error.into(),
        }
    }
}
