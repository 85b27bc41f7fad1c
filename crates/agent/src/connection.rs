//! What the agent says to the server, one function per route.
//!
//! Invariant: the agent's authorization goes to the configured server alone: no redirect is followed
//! with it, no proxy of the environment is used, no error shows it.
//! Not here: when to ask again (`backoff`).

mod error;
mod place;

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use ureq::http::{HeaderValue, Response};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Body, SendBody};
use wire::Secret;

pub(crate) use error::CallError;
pub(crate) use place::Place;

use crate::task::{Offer, Offers, TaskId};

/// What a connection may take to open.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// What a call may take that the server answers at once.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How long the server holds a poll that has nothing to give.
const POLL_WAIT: Duration = Duration::from_secs(26);
/// What an answer may be long: a hundred tasks of the largest size would be more, but then fewer are
/// asked for.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How many redirects a download from elsewhere may follow.
const REDIRECTS_MAX: u32 = 5;

/// Bytes of a name that stand in a path as they are.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A server that can be asked. Calls block.
#[derive(Debug)]
pub(crate) struct Connection {
    /// For the configured server.
    http: ureq::Agent,
    /// For everywhere else.
    elsewhere: ureq::Agent,
    place: Place,
    authorization: Option<HeaderValue>,
}

/// What the server took of a command's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// How many bytes it has.
    pub(crate) next: u64,
    /// It takes no more.
    pub(crate) capped: bool,
}

impl Connection {
    /// A connection to the server at `url`, as agent `name`. The certificates in `ca_file` (PEM)
    /// replace the public authorities as what is trusted. Nothing is connected yet.
    ///
    /// # Errors
    /// In words: a bad address, a secret that cannot stand in a header, a file without certificates.
    pub(crate) fn new(
        url: &str,
        who: Option<(&str, &Secret)>,
        ca_file: Option<&Path>,
    ) -> Result<Self, String> {
        let place = Place::parse(url)?;
        let authorization = who.map(|(name, secret)| authorization(name, secret)).transpose()?;
        let roots = ca_file.map_or(Ok(RootCerts::WebPki), read_roots)?;
        let tls = TlsConfig::builder().root_certs(roots).build();
        let agent = |redirects| {
            ureq::Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(redirects)
                .proxy(None)
                .user_agent(concat!("gatehouse-agent/", env!("CARGO_PKG_VERSION")))
                .timeout_connect(Some(CONNECT_LIMIT))
                .timeout_global(Some(CALL_LIMIT))
                .tls_config(tls.clone())
                .build()
                .new_agent()
        };
        Ok(Self { http: agent(0), elsewhere: agent(REDIRECTS_MAX), place, authorization })
    }

    /// Waits for tasks, `count_max` at most, each held for `lease`. The server may give another lease.
    pub(crate) fn poll(
        &self,
        count_max: usize,
        lease: Duration,
    ) -> Result<(Vec<Offer>, Vec<String>, Duration), CallError> {
        let url = self.place.route("tasks");
        let request = self.authorized(self.http.get(&url));
        let request = request
            .query("lease", lease.as_secs().to_string())
            .query("max", count_max.to_string())
            .config()
            .timeout_global(Some(POLL_WAIT + CALL_LIMIT))
            .build();
        let answer = read_bytes(request.call())?;
        let Offers { offers, odd, lease_secs } = Offer::read(&answer).map_err(|_| not_json())?;
        Ok((offers, odd, lease_within_reason(lease_secs, lease)))
    }

    /// Tells that the task is still being worked on; gives the lease from now on.
    pub(crate) fn heartbeat(
        &self,
        id: &TaskId,
        claim: &str,
        lease: Duration,
    ) -> Result<Duration, CallError> {
        let secs = lease.as_secs().to_string();
        let query = [("id", id.as_str()), ("claim", claim), ("lease", &secs)];
        let answer = self.post("tasks_lease", &query, "application/json", b"")?;
        Ok(lease_of(&answer, lease))
    }

    /// Hands in what came of a task.
    pub(crate) fn send_result(
        &self,
        id: &TaskId,
        claim: Option<&str>,
        result: &Value,
    ) -> Result<(), CallError> {
        let mut query = vec![("id", id.as_str())];
        query.extend(claim.map(|claim| ("claim", claim)));
        let body = result.to_string();
        self.post("tasks_result", &query, "application/json", body.as_bytes()).map(drop)
    }

    /// Hands in a piece of output that begins `offset` bytes from the start.
    pub(crate) fn send_output(
        &self,
        id: &TaskId,
        claim: Option<&str>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Accepted, CallError> {
        let offset_text = offset.to_string();
        let mut query = vec![("id", id.as_str()), ("offset", &offset_text)];
        query.extend(claim.map(|claim| ("claim", claim)));
        let answer = self.post("tasks_output", &query, "application/octet-stream", bytes)?;
        Ok(Accepted {
            next: answer.get("next").and_then(Value::as_u64).unwrap_or(offset + bytes.len() as u64),
            capped: answer.get("capped").and_then(Value::as_bool).unwrap_or(false),
        })
    }

    /// Gives the server `bytes` bytes of `content` to keep as `name` for a while, within `limit`.
    pub(crate) fn upload(
        &self,
        name: &str,
        content: &mut dyn Read,
        bytes: u64,
        limit: Duration,
    ) -> Result<Value, CallError> {
        let url = self.place.route(&format!("files/{}", utf8_percent_encode(name, PLAIN)));
        let request = self.authorized(self.http.post(&url));
        let request = request
            .header("content-type", "application/octet-stream")
            .header("content-length", bytes.to_string())
            .config()
            .timeout_global(Some(limit))
            .build();
        read_answer(request.send(SendBody::from_reader(content)))
    }

    /// Asks for a file, from wherever it is, within `limit`. The answer's body is still to be read.
    /// The server's own files are asked for with authorization, all else without.
    pub(crate) fn download(&self, url: &str, limit: Duration) -> Result<Response<Body>, CallError> {
        let request = match self.place.own_file(url).map_err(CallError::BadAddress)? {
            Some(own) => self.authorized(self.http.get(&own)),
            None => self.elsewhere.get(url),
        };
        let response = request.config().timeout_global(Some(limit)).build().call();
        let response = response.map_err(CallError::transport)?;
        if response.status().is_success() { Ok(response) } else { Err(error::refusal(response)) }
    }

    /// Gives up a one-use token for a secret.
    pub(crate) fn enroll(&self, token: &Secret, name: &str) -> Result<Secret, CallError> {
        let body = json!({"token": token.expose(), "name": name}).to_string();
        let answer = self.post("enroll", &[], "application/json", body.as_bytes())?;
        let secret = answer.get("secret").and_then(Value::as_str).filter(|s| !s.is_empty());
        secret
            .map(Secret::new)
            .ok_or_else(|| CallError::Unexpected("there is no `secret` in its answer".to_owned()))
    }

    /// Makes an account of this name with this password, where the server lets agents do so.
    pub(crate) fn register(&self, name: &str, secret: &Secret) -> Result<(), CallError> {
        let query = [("user", name), ("pass", secret.expose())];
        self.post("agents", &query, "application/json", b"").map(drop)
    }

    fn post(
        &self,
        route: &str,
        query: &[(&str, &str)],
        content_type: &str,
        body: &[u8],
    ) -> Result<Value, CallError> {
        let mut request = self.authorized(self.http.post(self.place.route(route)));
        request = request.header("content-type", content_type);
        for (key, value) in query {
            request = request.query(key, value);
        }
        read_answer(request.send(body))
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.authorization {
            Some(value) => request.header("authorization", value),
            None => request,
        }
    }
}

fn authorization(name: &str, secret: &Secret) -> Result<HeaderValue, String> {
    let text = wire::Secret::new(format!("{name}:{}", secret.expose()));
    let mut value = HeaderValue::from_bytes(text.expose().as_bytes())
        .map_err(|_| "the name or the secret has characters that cannot be sent".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// The body of a good answer.
fn read_bytes(answer: Result<Response<Body>, ureq::Error>) -> Result<Vec<u8>, CallError> {
    let mut response = answer.map_err(CallError::transport)?;
    if !response.status().is_success() {
        return Err(error::refusal(response));
    }
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    body.map_err(CallError::transport)
}

/// The JSON of a good answer; `null` for an empty one.
fn read_answer(answer: Result<Response<Body>, ureq::Error>) -> Result<Value, CallError> {
    let body = read_bytes(answer)?;
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&body).map_err(|_| not_json())
}

fn not_json() -> CallError {
    CallError::Unexpected("its answer is not JSON".to_owned())
}

/// The lease that an answer names, within reason.
fn lease_of(answer: &Value, asked: Duration) -> Duration {
    lease_within_reason(answer.get("lease").and_then(Value::as_u64), asked)
}

fn lease_within_reason(secs: Option<u64>, asked: Duration) -> Duration {
    secs.map_or(asked, |secs| Duration::from_secs(secs.clamp(1, 86_400)))
}

fn read_roots(file: &Path) -> Result<RootCerts, String> {
    let bad = |why: String| format!("{}: no certificates to trust: {why}", file.display());
    let text = std::fs::read(file).map_err(|error| bad(error.to_string()))?;
    let mut roots = Vec::new();
    for item in parse_pem(&text) {
        match item.map_err(|error| bad(error.to_string()))? {
            PemItem::Certificate(root) => roots.push(root),
            _ => return Err(bad("it holds something else than certificates".to_owned())),
        }
    }
    if roots.is_empty() {
        return Err(bad("there is none in it".to_owned()));
    }
    Ok(RootCerts::new_with_certs(&roots))
}
