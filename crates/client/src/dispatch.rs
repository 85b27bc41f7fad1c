//! Sessions, agents, events, enrolment, webhooks and the audit log.
//!
//! Not here: tasks (`tasks`), files (`files`), the live stream of events (`stream`).

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::http::Method;
use ureq::{AsSendBody, SendBody};
use wire::Secret;
use wire::dispatch::{
    AddedWebhook, Agents, Audit, EnrollToken, Events, Login, NewWebhook, Webhooks,
};

use crate::call::{NOTHING, Patience, Route};
use crate::{Client, ClientError};

/// What a call may take that does not wait for anything.
pub(crate) const ANSWER: Patience = Patience::Whole(Duration::from_secs(30));
/// What an answer may be long: a page of results, each as long as a body may be.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// What a body of JSON is announced with.
pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");

impl Client {
    /// Begins a session for the account `user`. This client goes on with the key it has.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 403 for a wrong name or password, with 429
    /// after too many attempts.
    pub fn login(&self, user: &str, password: &Secret) -> Result<Login, ClientError> {
        // In the body: a query would be seen by every proxy on the way.
        let body = json!({ "user": user, "pass": password.expose() }).to_string();
        self.json(Method::POST, &Route::new("login"), &[JSON], &body, ANSWER)
    }

    /// Ends the session whose token is this client's key.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn logout(&self) -> Result<(), ClientError> {
        self.done(Method::POST, &Route::new("logout"))
    }

    /// All agents, and who of them is there.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn agents(&self) -> Result<Agents, ClientError> {
        self.get(&Route::new("agents"))
    }

    /// Gives the agent `name` another name; its queue goes with it.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 404 for an unknown agent, with 409 for a
    /// name that is taken.
    pub fn rename_agent(&self, name: &str, new_name: &str) -> Result<(), ClientError> {
        self.done(Method::PATCH, &Route::new("agents").with("id", name).with("newId", new_name))
    }

    /// Removes the agent `name`, its queue and its events.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 404 for an unknown agent.
    pub fn remove_agent(&self, name: &str) -> Result<(), ClientError> {
        self.done(Method::DELETE, &Route::new("agents").with("id", name))
    }

    /// Whether agents may register themselves.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn selfreg(&self) -> Result<bool, ClientError> {
        let digit: u8 = self.get(&Route::new("agent_selfreg"))?;
        Ok(digit == 1)
    }

    /// Lets agents register themselves, or not.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn set_selfreg(&self, enabled: bool) -> Result<(), ClientError> {
        self.done(Method::POST, &Route::new("agent_selfreg").with("enabled", u8::from(enabled)))
    }

    /// The events of `agent` that the server has, oldest first: those after the event `after`, and
    /// at most `limit`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn events(
        &self,
        agent: &str,
        after: Option<&str>,
        limit: Option<u64>,
    ) -> Result<Events, ClientError> {
        let route = Route::new("events").with("agent", agent).with("details", 1);
        self.get(&route.with_some("after", after).with_some("limit", limit))
    }

    /// A token with which `uses` agents may enrol within `ttl_secs`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn enroll_token(
        &self,
        ttl_secs: Option<u64>,
        uses: Option<u64>,
    ) -> Result<EnrollToken, ClientError> {
        let route = Route::new("enroll_tokens").with_some("ttl", ttl_secs);
        let route = route.with_some("uses", uses);
        self.json(Method::POST, &route, &[], NOTHING, ANSWER)
    }

    /// Has events sent somewhere as they come.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn add_webhook(&self, webhook: &NewWebhook) -> Result<AddedWebhook, ClientError> {
        let body = json!(webhook).to_string();
        self.json(Method::POST, &Route::new("webhooks"), &[JSON], &body, ANSWER)
    }

    /// All webhooks and how they fare.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn webhooks(&self) -> Result<Webhooks, ClientError> {
        self.get(&Route::new("webhooks"))
    }

    /// Ends the webhook `id`.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 404 for an unknown one.
    pub fn remove_webhook(&self, id: u64) -> Result<(), ClientError> {
        self.done(Method::DELETE, &Route::new("webhooks").with("id", id))
    }

    /// A page of the audit log, newest first: lines older than `before`, and at most `limit`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn audit(&self, before: Option<&str>, limit: Option<u64>) -> Result<Audit, ClientError> {
        self.get(&Route::new("audit").with_some("before", before).with_some("limit", limit))
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, route: &Route) -> Result<T, ClientError> {
        self.json(Method::GET, route, &[], SendBody::none(), ANSWER)
    }

    /// A call whose answer, if it is good, says nothing more; some are documented as empty.
    pub(crate) fn done(&self, method: Method, route: &Route) -> Result<(), ClientError> {
        let mut response = self.send(method, route, &[], NOTHING, ANSWER)?;
        let body = response.body_mut().with_config().limit(1 << 10).read_to_string();
        match body.map(|body| body.is_empty() || serde_json::from_str::<Value>(&body).is_ok()) {
            Ok(true) => Ok(()),
            _ => Err(self.unexpected(route, "it is neither empty nor JSON")),
        }
    }

    /// A call whose answer is JSON.
    pub(crate) fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        route: &Route,
        headers: &[(&str, &str)],
        body: impl AsSendBody,
        patience: Patience,
    ) -> Result<T, ClientError> {
        let response = self.send(method, route, headers, body, patience)?;
        self.read(route, response, ANSWER_BYTES_MAX, patience)
    }

    /// The error for an answer that broke off.
    pub(crate) fn broken(&self, patience: Patience, error: std::io::Error) -> ClientError {
        ClientError::transport(&self.base_url, patience.limit(), error.into())
    }
}
