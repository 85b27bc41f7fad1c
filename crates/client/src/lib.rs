//! Typed calls to a running server: its plugins, agents, tasks, events, files and
//! machines.
//!
//! Invariant: the key goes to the one address that was given, in a header, and nowhere else: no
//! redirect is followed, no proxy of the environment is used, no error shows it.
//! Not here: where address and key come from, and how an answer is shown (`cli`).

mod call;
mod dispatch;
mod error;
mod files;
mod machines;
mod stream;
mod tasks;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{HeaderValue, Method, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use wire::Secret;

use call::{NOTHING, Patience, Route};
pub use error::ClientError;
pub use files::{Fetched, Progress, Upload};
pub use machines::{Creating, Creation};
pub use stream::{EventStream, Streamed};
pub use tasks::{HistoryFilter, Output, SendOptions};

/// What a connection may take to open.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// What a call about plugins may take: a reload starts every one anew before it answers.
const PLUGIN_CALL: Patience = Patience::Whole(Duration::from_secs(120));
/// What an answer about plugins may be long; the names of ten thousand fit.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// How many connections are kept for the next call: as many as one command uses at a time.
const IDLE_CONNECTIONS_MAX: usize = 32;

/// A server that can be asked. Calls block; a clone shares the connections.
#[derive(Debug, Clone)]
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
            .max_idle_connections(IDLE_CONNECTIONS_MAX)
            .max_idle_connections_per_host(IDLE_CONNECTIONS_MAX)
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
        self.names(&Route::new("plugins"))
    }

    /// Starts the plugin `name` anew from its file and the configuration; until that succeeded the
    /// old one goes on.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 404 for an unknown plugin, with 500 when
    /// the new version does not start.
    pub fn reload(&self, name: &str) -> Result<(), ClientError> {
        self.ask(&Route::new("reload").segment(name)).map(drop)
    }

    /// Starts all plugins anew; gives the names that are served then.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn reload_all(&self) -> Result<Vec<String>, ClientError> {
        self.names(&Route::new("reload/all"))
    }

    /// Loads a file that was added to the plugin directory; gives what the server answers.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn load(&self, file: &str) -> Result<Value, ClientError> {
        self.ask(&Route::new("load").segment(file))
    }

    /// Takes the plugin `name` out of service; gives what the server answers.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 404 for an unknown plugin.
    pub fn unload(&self, name: &str) -> Result<Value, ClientError> {
        self.ask(&Route::new("unload").segment(name))
    }

    /// A client of the same server with another key.
    ///
    /// # Errors
    /// When the key cannot stand in a header.
    pub fn with_key(&self, key: &Secret) -> Result<Self, ClientError> {
        Ok(Self { key: Some(bearer(key)?), ..self.clone() })
    }

    /// The address of the server, without a slash at the end.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The server's name or address alone; of IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> String {
        // The address was read when this client was made.
        let uri: Result<Uri, _> = self.base_url.parse();
        let host = uri.ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
        host.trim_matches(['[', ']']).to_owned()
    }

    fn names(&self, route: &Route) -> Result<Vec<String>, ClientError> {
        let answer = self.ask(route)?;
        let names = answer.get("loaded_plugins").and_then(Value::as_array);
        names
            .and_then(|names| names.iter().map(|n| n.as_str().map(str::to_owned)).collect())
            .ok_or_else(|| self.unexpected(route, "it has no list of names `loaded_plugins`"))
    }

    /// Posts to `route` and gives the JSON of a good answer.
    fn ask(&self, route: &Route) -> Result<Value, ClientError> {
        let response = self.send(Method::POST, route, &[], NOTHING, PLUGIN_CALL)?;
        self.read(route, response, ANSWER_BYTES_MAX, PLUGIN_CALL)
    }
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
