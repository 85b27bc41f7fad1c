//! Why a request about machines is refused: each error of the room becomes a status here, once.

use std::net::IpAddr;

use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};
use machines::MachineError;
use machines::hypervisor::HypervisorError;
use plugins::call::{Body, Reply};
use serde_json::{Value, json};

use crate::accounts::AuthError;
use crate::http::body::ReadError;

/// When somebody who found no place may come again.
const RETRY_SECS: u64 = 5;

/// A refusal: `{"error": true, "msg": …}`.
#[derive(Debug)]
pub(in crate::http) struct Refusal {
    status: StatusCode,
    message: String,
    retry_secs: Option<u64>,
    allow: Option<&'static [Method]>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_secs: None, allow: None }
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// The one answer to all that is wrong with who asks.
    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Authorization failure")
    }

    pub(super) fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "this account may look and not change")
    }

    /// Whoever is filtered is told so: an operator who has locked himself out finds out why.
    pub(super) fn not_admitted(address: IpAddr) -> Self {
        let message = format!("{address} may have no machines here ([containers.ip_filter])");
        Self::new(StatusCode::FORBIDDEN, message)
    }

    pub(super) fn method(allow: &'static [Method]) -> Self {
        let names: Vec<&str> = allow.iter().map(Method::as_str).collect();
        let message = format!("this path answers {}", names.join(", "));
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, message) }
    }

    /// What went wrong is ours to know.
    pub(super) fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!("a request about machines failed: {error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error; the server's log says more")
    }

    pub(in crate::http) fn status(&self) -> StatusCode {
        self.status
    }

    fn later(self, secs: u64) -> Self {
        Self { retry_secs: Some(secs), ..self }
    }

    /// What is told, for those who are told by other means than a status.
    pub(super) fn value(&self) -> Value {
        json!({ "error": true, "status": self.status.as_u16(), "msg": self.message })
    }

    pub(super) fn response(self) -> Response<Body> {
        let body = json!({ "error": true, "msg": self.message });
        let mut response = crate::http::error::from_reply(Reply::json(self.status, &body));
        let headers = response.headers_mut();
        if let Some(secs) = self.retry_secs {
            headers.insert(header::RETRY_AFTER, secs.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = self.allow {
            let names: Vec<&str> = allow.iter().map(Method::as_str).collect();
            if let Ok(names) = HeaderValue::from_str(&names.join(", ")) {
                headers.insert(header::ALLOW, names);
            }
        }
        response
    }
}

impl From<MachineError> for Refusal {
    fn from(error: MachineError) -> Self {
        let message = error.to_string();
        match error {
            MachineError::NoCapacity { .. } | MachineError::NoPort { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, message).later(RETRY_SECS)
            }
            MachineError::Closing => Self::new(StatusCode::SERVICE_UNAVAILABLE, message),
            MachineError::Quota { .. } => Self::new(StatusCode::TOO_MANY_REQUESTS, message),
            // One answer for both: a stranger must not learn which machines there are.
            MachineError::NotFound | MachineError::WrongToken => {
                Self::new(StatusCode::NOT_FOUND, MachineError::NotFound.to_string())
            }
            MachineError::Order(_) => Self::bad(message),
            MachineError::Ended(_) => Self::new(StatusCode::CONFLICT, message),
            MachineError::Image { .. } => Self::new(StatusCode::BAD_REQUEST, message),
            MachineError::Hypervisor(HypervisorError::NotReady { .. }) => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, message)
            }
            MachineError::Hypervisor(_) | MachineError::SetUp(_) | MachineError::Io { .. } => {
                Self::internal(message)
            }
        }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        let status = match &error {
            ReadError::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            ReadError::Crowded => StatusCode::SERVICE_UNAVAILABLE,
            ReadError::TimedOut => StatusCode::REQUEST_TIMEOUT,
            ReadError::Broken | ReadError::NotAForm(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Refused => Self::unauthorized(),
            AuthError::TooMany { retry_secs } => {
                let message = "Too many attempts; wait before the next";
                Self::new(StatusCode::TOO_MANY_REQUESTS, message).later(retry_secs)
            }
            AuthError::Busy => {
                let message = "Too many passwords are being checked; try again";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, message).later(1)
            }
            AuthError::Unavailable(error) => Self::internal(error),
        }
    }
}
