//! Why a call brought nothing.
//!
//! Invariant: no variant can hold a secret, nor the query of an address.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use ureq::Body;
use ureq::http::Response;

/// What is read of an answer that says no, in bytes.
const REFUSAL_BYTES_MAX: u64 = 64 << 10;
/// What is shown of the server's words, in characters.
const WORDS_MAX: usize = 300;

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The server could not be asked, or did not answer; it may have heard us.
    #[error("cannot reach the server: {0}")]
    Unreachable(String),
    /// An address that cannot be asked.
    #[error("{0}")]
    BadAddress(String),
    /// The server said no.
    #[error("the server refuses: {msg} (status {status})")]
    Refused {
        /// The status of its answer.
        status: u16,
        /// Its own words.
        msg: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
        /// Its whole answer, where that was JSON.
        answer: Value,
    },
    /// Whatever answers does not speak like a Gatehouse server.
    #[error("it answers something unexpected: {0}; is it a Gatehouse server?")]
    Unexpected(String),
}

impl CallError {
    /// A failure below HTTP.
    pub(super) fn transport(error: ureq::Error) -> Self {
        match error {
            ureq::Error::BodyExceedsLimit(bytes) => {
                Self::Unexpected(format!("more than {bytes} bytes"))
            }
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                Self::BadAddress("this is no address that can be asked".to_owned())
            }
            error @ (ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..)) => {
                Self::Unexpected(error.to_string())
            }
            error => Self::Unreachable(error.to_string()),
        }
    }

    /// A plain refusal.
    #[cfg(test)]
    pub(crate) fn refused(status: u16, msg: &str, retry_after: Option<Duration>) -> Self {
        Self::Refused { status, msg: msg.to_owned(), retry_after, answer: Value::Null }
    }

    /// The status of a refusal.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// When the server wants to be asked again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the server does not know us, or not any more.
    pub(crate) fn is_authorization(&self) -> bool {
        matches!(self.status(), Some(401 | 403))
    }

    /// Whether the same call may go well later: whatever is not a final no.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Unexpected(_) => true,
            Self::BadAddress(_) => false,
            Self::Refused { status, .. } => {
                matches!(status, 401 | 403 | 408 | 425 | 429) || *status >= 500
            }
        }
    }

    /// Whether the server says that an operator has cancelled the task.
    pub(crate) fn is_cancelled(&self) -> bool {
        match self {
            Self::Refused { status: 409 | 410, msg, answer, .. } => {
                let state = answer.get("state").and_then(Value::as_str);
                state == Some("cancelled") || msg.to_lowercase().contains("cancelled")
            }
            _ => false,
        }
    }

    /// How much of the output the server has, where it says so.
    pub(crate) fn next_offset(&self) -> Option<u64> {
        match self {
            Self::Refused { status: 409, answer, .. } => answer.get("next")?.as_u64(),
            _ => None,
        }
    }
}

/// The error that an answer is whose status says no.
pub(super) fn refusal(mut response: Response<Body>) -> CallError {
    let status = response.status();
    let retry_after = response.headers().get("retry-after").and_then(|v| v.to_str().ok());
    let retry_after = retry_after.and_then(|text| read_retry_after(text, SystemTime::now()));
    let body = response.body_mut().with_config().limit(REFUSAL_BYTES_MAX).read_to_vec();
    let answer: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    let words = answer.get("msg").and_then(Value::as_str);
    let words = words.or_else(|| status.canonical_reason()).unwrap_or("no reason given");
    let msg = words.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect();
    CallError::Refused { status: status.as_u16(), msg, retry_after, answer }
}

/// Seconds, or a date.
fn read_retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let secs = text.trim().parse().ok().map(Duration::from_secs);
    secs.or_else(|| {
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(now).unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let check = |text: &str, secs: Option<u64>| {
            assert_eq!(read_retry_after(text, now), secs.map(Duration::from_secs), "{text}");
        };
        check("12", Some(12));
        check("Sun, 06 Nov 1994 08:50:00 GMT", Some(23));
        check("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        check("soon", None);
        check("-1", None);
    }

    #[test]
    fn a_final_no_is_told_from_a_passing_one() {
        for passing in [403, 429, 500, 503] {
            assert!(CallError::refused(passing, "", None).is_passing(), "{passing}");
        }
        for last in [400, 404, 409, 413] {
            assert!(!CallError::refused(last, "", None).is_passing(), "{last}");
        }
        assert!(CallError::Unreachable(String::new()).is_passing());
    }

    #[test]
    fn a_lost_claim_is_not_a_cancelled_task() {
        let refused = |msg: &str, answer| CallError::Refused {
            status: 409,
            msg: msg.to_owned(),
            retry_after: None,
            answer,
        };
        assert!(refused("Task was cancelled", Value::Null).is_cancelled());
        assert!(refused("", json!({"state": "cancelled"})).is_cancelled());
        assert!(!refused("Claim is no longer held", Value::Null).is_cancelled());
        assert_eq!(refused("", json!({"next": 7})).next_offset(), Some(7));
    }
}
