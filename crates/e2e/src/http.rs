//! Ordinary requests, by an ordinary client.
//!
//! Invariant: no redirect is followed and no status is an error: a test sees what was sent.
//! Not here: malformed requests (`raw`).

use serde_json::Value;
use ureq::Agent;

use crate::DEADLINE;

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers as they came.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {} {}", self.status, self.text()))
    }

    /// The first header of this name, or nothing.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Every header of this name.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// Asserts that this is an error told in JSON, with this status, and gives what it says.
    ///
    /// # Panics
    /// When it is anything else.
    #[must_use]
    pub fn json_error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/json"), "{kind}: {}", self.text());
        let error = self.json()["error"].as_str().map(str::to_owned);
        error.unwrap_or_else(|| panic!("no `error` in {}", self.text()))
    }
}

impl Reply {
    /// The JSON of an answer that must be 200.
    ///
    /// # Panics
    /// When it is another.
    #[must_use]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// Asserts that this is an error as dispatch tells it, `{"error": true, "msg": …}` with this
    /// status, and gives what it says.
    ///
    /// # Panics
    /// When it is anything else.
    #[track_caller]
    pub fn refused(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/json"), "{kind}: {}", self.text());
        let said = self.json();
        assert_eq!(said["error"], true, "{said}");
        said["msg"].as_str().unwrap_or_else(|| panic!("no `msg` in {said}")).to_owned()
    }
}

/// A request in the making.
#[derive(Debug, Clone)]
pub struct Request {
    agent: Agent,
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

/// A client that keeps its connections.
pub(crate) fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(DEADLINE))
        .max_idle_connections_per_host(64)
        .allow_non_standard_methods(true)
        .build();
    config.into()
}

impl Request {
    pub(crate) fn new(agent: &Agent, method: &str, url: String) -> Self {
        let (agent, method) = (agent.clone(), method.to_owned());
        Self { agent, method, url, headers: Vec::new(), body: None }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the body and its type.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self.header("content-type", content_type)
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// Sets an urlencoded body.
    #[must_use]
    pub fn form(self, body: &str) -> Self {
        self.body("application/x-www-form-urlencoded", body)
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Panics
    /// When there is no answer.
    #[must_use]
    pub fn send(self) -> Reply {
        let (method, url) = (self.method.clone(), self.url.clone());
        self.try_send().unwrap_or_else(|error| panic!("{method} {url}: {error}"))
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn try_send(self) -> Result<Reply, ureq::Error> {
        let mut builder =
            ureq::http::Request::builder().method(self.method.as_str()).uri(self.url.as_str());
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        let mut response = match self.body {
            Some(body) => self.agent.run(builder.body(body)?)?,
            None => self.agent.run(builder.body(())?)?,
        };
        let headers = response.headers().iter();
        let headers = headers
            .map(|(name, value)| {
                (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(u64::MAX).read_to_vec()?;
        Ok(Reply { status, headers, body })
    }
}
