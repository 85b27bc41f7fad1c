//! One call: a route, its query, a body, limits; a good answer or an error in words.
//!
//! Invariant: every piece of a route that a caller supplies is encoded, so that it stays one piece.

use std::fmt::Display;
use std::io::Read as _;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::{AsSendBody, Body};

use crate::{Client, ClientError};

/// Bytes of a name that stand in a path or a query as they are.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// What an error's body may be long.
const ERROR_BYTES_MAX: u64 = 64 << 10;
/// The body of a call that says all in its route. No body at all would be sent in chunks, of which
/// there is none.
pub(crate) const NOTHING: &[u8] = &[];

/// A path below the server's address, with its query.
#[derive(Debug, Clone)]
pub(crate) struct Route(String);

impl Route {
    /// The route `path`, which is our own text.
    pub(crate) fn new(path: &str) -> Self {
        Self(path.to_owned())
    }

    /// With one more segment, whatever is in it.
    pub(crate) fn segment(mut self, name: impl Display) -> Self {
        self.0.push('/');
        self.push_encoded(&name.to_string());
        self
    }

    /// With a parameter in the query.
    pub(crate) fn with(mut self, name: &str, value: impl Display) -> Self {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(name);
        self.0.push('=');
        self.push_encoded(&value.to_string());
        self
    }

    /// With a parameter, if there is a value for it.
    pub(crate) fn with_some(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    fn push_encoded(&mut self, text: &str) {
        self.0.extend(utf8_percent_encode(text, PLAIN));
    }

    /// For messages: without the query, which may hold what is nobody's business.
    pub(crate) fn path(&self) -> &str {
        self.0.split('?').next().unwrap_or_default()
    }
}

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    /// From the first byte sent to the last one read.
    Whole(Duration),
    /// For each reading and writing, while the whole takes as long as it needs.
    Each(Duration),
}

impl Patience {
    pub(crate) const fn limit(self) -> Duration {
        match self {
            Self::Whole(limit) | Self::Each(limit) => limit,
        }
    }
}

impl Client {
    /// Sends one request; gives the response if its status is a good one.
    pub(crate) fn send(
        &self,
        method: Method,
        route: &Route,
        headers: &[(&str, &str)],
        body: impl AsSendBody,
        patience: Patience,
    ) -> Result<Response<Body>, ClientError> {
        let mut request =
            Request::builder().method(method).uri(format!("{}/{}", self.base_url, route.0));
        if let Some(key) = &self.key {
            request = request.header("Authorization", key);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).map_err(|error| self.unexpected(route, error))?;
        let config = self.agent.configure_request(request);
        let request = match patience {
            Patience::Whole(limit) => config.timeout_global(Some(limit)).build(),
            Patience::Each(limit) => config
                .timeout_global(None)
                .timeout_recv_response(Some(limit))
                .timeout_per_read(Some(limit))
                .timeout_per_write(Some(limit))
                .build(),
        };
        let failed = |error| ClientError::transport(&self.base_url, patience.limit(), error);
        let response = self.agent.run(request).map_err(failed)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let mut said = Vec::new();
        // What cannot be read of an error is missing from its words; the status is there.
        let _ = response.into_body().into_reader().take(ERROR_BYTES_MAX).read_to_end(&mut said);
        Err(self.refusal(route, status, &said))
    }

    /// Reads the answer's JSON as a `T` of at most `bytes_max`.
    pub(crate) fn read<T: DeserializeOwned>(
        &self,
        route: &Route,
        mut response: Response<Body>,
        bytes_max: u64,
        patience: Patience,
    ) -> Result<T, ClientError> {
        let body = response.body_mut().with_config().limit(bytes_max).read_to_vec();
        let failed = |error| ClientError::transport(&self.base_url, patience.limit(), error);
        // Agents may have sent what is not UTF-8 inside their strings.
        let body = String::from_utf8_lossy(&body.map_err(failed)?).into_owned();
        serde_json::from_str(&body).map_err(|error| {
            let status = response.status();
            self.unexpected(route, format_args!("status {status}, and in its JSON: {error}"))
        })
    }

    /// The error for an answer with a bad status. Plugins' routes say why in `error`, the others in
    /// `msg`.
    pub(crate) fn refusal(&self, route: &Route, status: StatusCode, said: &[u8]) -> ClientError {
        let said: Option<Value> = serde_json::from_slice(said).ok();
        let words = |field| said.as_ref().and_then(|said| said.get(field)).and_then(Value::as_str);
        let unauthorized = |hint| ClientError::Unauthorized { url: self.base_url.clone(), hint };
        let is_stranger = status == StatusCode::UNAUTHORIZED;
        match (words("msg"), words("error")) {
            (Some(msg), _) if is_stranger || msg == "Authorization failure" => {
                unauthorized(if self.key.is_some() {
                    "it does not take this session, or its role may not do that; `gatehouse login` \
                     begins another"
                } else {
                    "log in with `gatehouse login`, or set GATEHOUSE_TOKEN"
                })
            }
            (Some(error), _) => {
                ClientError::Refused { status: status.as_u16(), error: error.to_owned() }
            }
            _ if matches!(status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) => {
                unauthorized(if self.key.is_some() {
                    "it does not take this key"
                } else {
                    "give its key; without one it answers only to its own machine, if at all"
                })
            }
            (None, Some(error)) => {
                ClientError::Refused { status: status.as_u16(), error: error.to_owned() }
            }
            (None, None) => {
                self.unexpected(route, format_args!("status {status} without a reason in JSON"))
            }
        }
    }

    pub(crate) fn unexpected(&self, route: &Route, why: impl Display) -> ClientError {
        let url = format!("{}/{}", self.base_url, route.path());
        ClientError::Unexpected { url, why: why.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::Route;

    #[test]
    fn a_value_stays_one_piece_of_the_route() {
        let route =
            Route::new("files").segment("a/b?").with("x", "1&y=2 ü").with_some("z", Some(3));
        assert_eq!(route.0, "files/a%2Fb%3F?x=1%26y%3D2%20%C3%BC&z=3");
        assert_eq!(route.with_some("no", None::<u8>).path(), "files/a%2Fb%3F");
    }
}
