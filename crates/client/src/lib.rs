//! Typed calls to the control routes of a running server.
//!
//! Invariant: the key goes to the one address that was given, in a header, and nowhere else: no
//! redirect is followed, no proxy of the environment is used, no error shows it.
//! Not here: where address and key come from, and how an answer is shown (`cli`).

mod error;

use std::path::Path;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::http::{HeaderValue, StatusCode, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use wire::Secret;

pub use error::ClientError;

/// What a connection may take to open.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// What a call may take: a reload starts every plugin anew before it answers.
const CALL_LIMIT: Duration = Duration::from_secs(120);
/// What an answer may be long; the names of ten thousand plugins fit.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a name that stand in a path as they are.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A server that can be asked. Calls block.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    /// Without a slash at the end.
    base_url: String,
    key: Option<HeaderValue>,
}

impl Client {
    /// A client of the server at `base_url` (`http://…` or `https://…`, with or without a path).
    /// The certificates in `ca_file` (PEM) replace the public authorities as what is trusted.
    ///
    /// # Errors
    /// When the address is none, the key cannot stand in a header, or `ca_file` has no certificate.
    /// Nothing is connected yet.
    pub fn new(
        base_url: &str,
        key: Option<&Secret>,
        ca_file: Option<&Path>,
    ) -> Result<Self, ClientError> {
        let base_url = base_url.trim_end_matches('/').to_owned();
        check_address(&base_url)?;
        let key = key.map(bearer).transpose()?;
        let roots = ca_file.map_or(Ok(RootCerts::WebPki), read_roots)?;
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_global(Some(CALL_LIMIT))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build()
            .new_agent();
        Ok(Self { agent, base_url, key })
    }

    /// The names of the plugins that are served.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn plugins(&self) -> Result<Vec<String>, ClientError> {
        self.names("plugins")
    }

    /// Starts the plugin `name` anew from its file and the configuration; until that succeeded the
    /// old one goes on.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 404 for an unknown plugin, with 500 when
    /// the new version does not start.
    pub fn reload(&self, name: &str) -> Result<(), ClientError> {
        self.ask(&format!("reload/{}", encoded(name))).map(drop)
    }

    /// Starts all plugins anew; gives the names that are served then.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn reload_all(&self) -> Result<Vec<String>, ClientError> {
        self.names("reload/all")
    }

    /// Loads a file that was added to the plugin directory; gives what the server answers.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn load(&self, file: &str) -> Result<Value, ClientError> {
        self.ask(&format!("load/{}", encoded(file)))
    }

    /// Takes the plugin `name` out of service; gives what the server answers.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 404 for an unknown plugin.
    pub fn unload(&self, name: &str) -> Result<Value, ClientError> {
        self.ask(&format!("unload/{}", encoded(name)))
    }

    fn names(&self, route: &str) -> Result<Vec<String>, ClientError> {
        let answer = self.ask(route)?;
        let names = answer.get("loaded_plugins").and_then(Value::as_array);
        names
            .and_then(|names| names.iter().map(|n| n.as_str().map(str::to_owned)).collect())
            .ok_or_else(|| self.unexpected(route, "it has no list of names `loaded_plugins`"))
    }

    /// Posts to `route` and gives the JSON of a good answer.
    fn ask(&self, route: &str) -> Result<Value, ClientError> {
        let url = format!("{}/{route}", self.base_url);
        let mut request = self.agent.post(&url);
        if let Some(key) = &self.key {
            request = request.header("Authorization", key);
        }
        let failed = |error| ClientError::transport(&self.base_url, CALL_LIMIT, error);
        let mut response = request.send_empty().map_err(failed)?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body: Result<Value, _> = serde_json::from_slice(&body.map_err(failed)?);
        match (status, body) {
            (StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED, _) => {
                Err(ClientError::Unauthorized {
                    url: self.base_url.clone(),
                    hint: if self.key.is_some() {
                        "it does not take this key"
                    } else {
                        "give its key; without one it answers only to its own machine, if at all"
                    },
                })
            }
            (status, Ok(body)) if status.is_success() => Ok(body),
            (status, Ok(body)) => match body.get("error").and_then(Value::as_str) {
                Some(error) => {
                    Err(ClientError::Refused { status: status.as_u16(), error: error.to_owned() })
                }
                None => Err(self.unexpected(route, &format!("status {status} without an `error`"))),
            },
            (status, Err(_)) => {
                Err(self.unexpected(route, &format!("status {status}, and it is not JSON")))
            }
        }
    }

    fn unexpected(&self, route: &str, why: &str) -> ClientError {
        ClientError::Unexpected { url: format!("{}/{route}", self.base_url), why: why.to_owned() }
    }
}

fn encoded(name: &str) -> String {
    utf8_percent_encode(name, PLAIN).to_string()
}

fn check_address(url: &str) -> Result<(), ClientError> {
    let bad = |why: &str| ClientError::BadAddress { url: url.to_owned(), why: why.to_owned() };
    let uri: Uri = url.parse().map_err(|error| bad(&format!("{error}")))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(bad("it must begin with http:// or https://"));
    }
    if uri.query().is_some() || uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err(bad("it must be scheme, host, port and path alone"));
    }
    Ok(())
}

fn bearer(key: &Secret) -> Result<HeaderValue, ClientError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose()))
        .map_err(|_| ClientError::BadKey)?;
    value.set_sensitive(true);
    Ok(value)
}

fn read_roots(file: &Path) -> Result<RootCerts, ClientError> {
    let bad = |why: String| ClientError::BadRoots { file: file.to_owned(), why };
    let text = std::fs::read(file).map_err(|error| bad(error.to_string()))?;
    let mut roots = Vec::new();
    for item in parse_pem(&text) {
        match item.map_err(|error| bad(error.to_string()))? {
            PemItem::Certificate(root) => roots.push(root),
            _ => return Err(bad("it holds something else than certificates".to_owned())),
        }
    }
    if roots.is_empty() {
        return Err(bad("there is no certificate in it".to_owned()));
    }
    Ok(RootCerts::new_with_certs(&roots))
}

#[cfg(test)]
mod tests;
