//! The routes of the second job: sessions, agents, tasks, events.
//!
//! Invariant: every answer here is one of the documents' (`../../../docs/dispatch.md`), and every error is
//! `{"error": true, "msg": …}`. What is refused is refused in this order: method, authorization, parameters, body.

mod agents;
mod answer;
mod audit;
mod enrolment;
mod events;
mod files;
pub mod openapi;
mod parameters;
mod refusal;
mod sending;
mod sessions;
mod stream;
mod sutrc;
mod tasks;
mod webhooks;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::tasks::{AgentId, TaskId};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use plugins::call::Body;
use tokio::time::Instant;

use self::parameters::Parameters;
use self::refusal::Refusal;
use super::activity::Activity;
use super::body::{self, ReadError, Room};
use super::policy::Policy;
use super::way_back::WayBack;
use crate::accounts::{Act, Credential, Identity};
use crate::dispatch::Dispatch;
use crate::files::FileId;

/// After so long a wait it is looked again whether who waits may be answered.
const STILL: Duration = Duration::from_secs(1);

/// What an endpoint gives.
type Answer = Result<Response<Body>, Refusal>;

/// An endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/login`
    Login,
    /// `/logout`
    Logout,
    /// `/agents`
    Agents,
    /// `/agents_selfreg`, which the documents also call `/agent_selfreg`.
    SelfRegistration,
    /// `/events`
    Events,
    /// `/events/stream`
    Stream,
    /// `/tasks`
    Tasks,
    /// `/tasks_result`, later `/task_result`.
    Result,
    /// `/tasks_lease`
    Lease,
    /// `/tasks_output`
    Output,
    /// `/tasks_history`
    History,
    /// `/tasks/ID`
    Task(Option<TaskId>),
    /// `/tasks/ID/output`
    TaskOutput(Option<TaskId>),
    /// `/enroll_tokens`
    EnrolTokens,
    /// `/enroll`
    Enrol,
    /// `/files/NAME`
    NewFile,
    /// `/files/ID/NAME`
    File(Option<FileId>),
    /// `/webhooks`
    Webhooks,
    /// `/audit`
    Audit,
    /// `/sutrc/…`: the later protocol.
    Sutrc(sutrc::Endpoint),
    /// `/healthz`
    Health,
    /// `/openapi.json`
    Description,
}

/// The endpoint at `path`.
#[must_use]
pub fn find(path: &str) -> Option<Endpoint> {
    let path = path.strip_prefix('/')?;
    Some(match path.strip_suffix('/').unwrap_or(path) {
        "login" => Endpoint::Login,
        "logout" => Endpoint::Logout,
        "agents" => Endpoint::Agents,
        "agents_selfreg" | "agent_selfreg" => Endpoint::SelfRegistration,
        "events" => Endpoint::Events,
        "events/stream" => Endpoint::Stream,
        "tasks" => Endpoint::Tasks,
        "tasks_result" | "task_result" => Endpoint::Result,
        "tasks_lease" => Endpoint::Lease,
        "tasks_output" => Endpoint::Output,
        "tasks_history" => Endpoint::History,
        "enroll_tokens" => Endpoint::EnrolTokens,
        "enroll" => Endpoint::Enrol,
        "webhooks" => Endpoint::Webhooks,
        "audit" => Endpoint::Audit,
        "healthz" => Endpoint::Health,
        "openapi.json" => Endpoint::Description,
        other => {
            if let Some(later) = other.strip_prefix("sutrc/") {
                return sutrc::find(later).map(Endpoint::Sutrc);
            }
            if let Some(file) = other.strip_prefix("files/") {
                return files::find(file);
            }
            let task = other.strip_prefix("tasks/")?;
            match task.split_once('/') {
                None => Endpoint::Task(TaskId::parse(task)),
                Some((task, "output")) => Endpoint::TaskOutput(TaskId::parse(task)),
                Some(_) => return None,
            }
        }
    })
}

impl Endpoint {
    /// Whether very many requests may wait here at a time.
    #[must_use]
    pub fn may_park(self) -> bool {
        matches!(self, Self::Tasks | Self::Sutrc(sutrc::Endpoint::Tasks))
    }

    fn methods(self) -> &'static [Method] {
        const READ: &[Method] = &[Method::GET, Method::HEAD];
        const WRITE: &[Method] = &[Method::POST];
        const BOTH: &[Method] = &[Method::GET, Method::HEAD, Method::POST];
        match self {
            Self::Login | Self::Logout | Self::Result | Self::Lease | Self::Output => WRITE,
            Self::EnrolTokens | Self::Enrol | Self::NewFile => WRITE,
            Self::Agents => {
                &[Method::GET, Method::HEAD, Method::POST, Method::DELETE, Method::PATCH]
            }
            Self::SelfRegistration | Self::Events => BOTH,
            // HEAD would take a task and throw it away.
            Self::Tasks => &[Method::GET, Method::POST],
            Self::Task(_) | Self::File(_) => &[Method::GET, Method::HEAD, Method::DELETE],
            Self::Webhooks => &[Method::GET, Method::HEAD, Method::POST, Method::DELETE],
            Self::Sutrc(endpoint) => endpoint.methods(),
            Self::History | Self::TaskOutput(_) | Self::Health => READ,
            Self::Stream | Self::Audit | Self::Description => READ,
        }
    }
}

/// One request, as endpoints see it.
pub(super) struct Request<'a> {
    pub(super) dispatch: &'a Arc<Dispatch>,
    pub(super) policy: &'a Policy,
    pub(super) room: &'a Room,
    pub(super) activity: &'a Activity,
    pub(super) client: IpAddr,
    /// Whether the client speaks TLS, to us or to a proxy that we trust.
    pub(super) is_secure: bool,
    pub(super) head: &'a mut Parts,
    pub(super) incoming: &'a mut Incoming,
}

impl Request<'_> {
    fn is(&self, method: &Method) -> bool {
        // HEAD is GET without the body, which the door sees to.
        self.head.method == method || (method == Method::GET && self.head.method == Method::HEAD)
    }

    /// The request will wait for so long, and its head is not needed any more. While headers are held, so is the
    /// buffer that they were read into, and the connection gets another one to read into: thousands of parked polls
    /// would keep twice the memory.
    fn park(&mut self, wait: Duration) {
        self.activity.parks(wait);
        if self.incoming.is_end_stream()
            && let Some(way_back) = WayBack::of(self.head)
        {
            self.activity.may_leave(way_back);
        }
        self.head.headers = HeaderMap::new();
        self.head.uri = Uri::default();
    }

    fn parameters(&self) -> Result<Parameters<'_>, Refusal> {
        Parameters::parse(self.head.uri.query())
    }

    /// Who asks, if they may do this.
    async fn who_may(&self, act: Act) -> Result<Identity, Refusal> {
        let mut headers = self.head.headers.get_all(AUTHORIZATION).iter();
        let header = headers.next().ok_or_else(Refusal::unauthorized)?;
        // A proxy in front might look at another of them.
        if headers.next().is_some() {
            return Err(Refusal::unauthorized());
        }
        let credential = Credential::parse(header.as_bytes()).ok_or_else(Refusal::unauthorized)?;
        let accounts = &self.dispatch.accounts;
        let known = match accounts.authenticate_now(&credential, self.client) {
            Some(known) => known,
            None => Box::pin(accounts.authenticate(&credential, self.client)).await,
        };
        let identity = known?;
        if identity.role.may(act) { Ok(identity) } else { Err(Refusal::unauthorized()) }
    }

    /// Whether who asked at `since`, and has waited, may do this still: the account can have gone meanwhile.
    async fn may_still(&self, act: Act, since: Instant) -> Result<(), Refusal> {
        // Who waits shortly is not looked at twice.
        if since.elapsed() < STILL {
            return Ok(());
        }
        self.who_may(act).await.map(drop)
    }

    /// The body. It counts against the room for bodies also while it waits for the disk.
    async fn body(&mut self) -> Result<Bytes, Refusal> {
        let held = body::read(self.incoming, self.policy, self.room).await;
        Ok(held.map_err(|error| Refusal::of_body(&error))?.into_bytes())
    }

    /// The body of somebody who is not known yet. Strangers must not take the room of others.
    async fn small_body(&mut self) -> Result<Bytes, Refusal> {
        let read = body::read_small(self.incoming, self.policy, self.room).await;
        read.map_err(|error| match error {
            ReadError::TooLong { limit_bytes } => Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is longer than {limit_bytes} bytes"),
            ),
            other => Refusal::of_body(&other),
        })
    }

    /// The body, which must be one JSON value.
    async fn json(&mut self, message: &'static str) -> Result<Bytes, Refusal> {
        let body = self.body().await?;
        parameters::json(&body).ok_or(Refusal::new(StatusCode::BAD_REQUEST, message))
    }
}

fn agent_of(identity: &Identity) -> AgentId {
    AgentId(identity.account.0)
}

/// Answers a request to `endpoint`.
pub(super) async fn answer(endpoint: Endpoint, mut request: Request<'_>) -> Response<Body> {
    let methods = endpoint.methods();
    if !methods.contains(&request.head.method) {
        return Refusal::method(methods).response();
    }
    let request = &mut request;
    // What comes seldom is kept on the heap, so that a poll that is parked takes no more room than it needs.
    let answer = match endpoint {
        Endpoint::Login => Box::pin(sessions::login(request)).await,
        Endpoint::Logout => Box::pin(sessions::logout(request)).await,
        Endpoint::Agents => Box::pin(agents::agents(request)).await,
        Endpoint::SelfRegistration => Box::pin(agents::self_registration(request)).await,
        Endpoint::Events => events::events(request).await,
        Endpoint::Stream => Box::pin(stream::stream(request)).await,
        Endpoint::Tasks if request.is(&Method::GET) => tasks::poll(request).await,
        Endpoint::Tasks => Box::pin(tasks::send(request)).await,
        Endpoint::Result => tasks::result(request).await,
        Endpoint::Lease => Box::pin(tasks::extend(request)).await,
        Endpoint::Output => Box::pin(tasks::add_output(request)).await,
        Endpoint::History => Box::pin(tasks::history(request)).await,
        Endpoint::Task(id) => Box::pin(tasks::task(request, id)).await,
        Endpoint::TaskOutput(id) => Box::pin(tasks::output(request, id)).await,
        Endpoint::EnrolTokens => Box::pin(enrolment::make_token(request)).await,
        Endpoint::Enrol => Box::pin(enrolment::enrol(request)).await,
        Endpoint::NewFile => Box::pin(files::put(request)).await,
        Endpoint::File(id) => Box::pin(files::file(request, id)).await,
        Endpoint::Webhooks => Box::pin(webhooks::webhooks(request)).await,
        Endpoint::Audit => Box::pin(audit::audit(request)).await,
        Endpoint::Sutrc(endpoint) => Box::pin(sutrc::answer(endpoint, request)).await,
        Endpoint::Health => Ok(answer::ok()),
        Endpoint::Description => openapi::description(),
    };
    answer.unwrap_or_else(|refusal| refusal.response())
}

/// Nothing is at `path`.
#[must_use]
pub fn not_found(path: &str) -> Response<Body> {
    let path: String = path.chars().take(200).collect();
    Refusal::new(StatusCode::NOT_FOUND, format!("Nothing answers at {path}")).response()
}

/// The request cannot be read as one of HTTP.
#[must_use]
pub fn bad_request(message: &'static str) -> Response<Body> {
    Refusal::bad(message).response()
}

#[cfg(test)]
mod tests_of_paths {
    use super::*;

    #[test]
    fn paths_lead_to_endpoints_in_both_spellings() {
        let check = |path, expected| assert_eq!(find(path), expected, "{path}");
        check("/agent_selfreg", Some(Endpoint::SelfRegistration));
        check("/agents_selfreg", Some(Endpoint::SelfRegistration));
        check("/tasks_result", Some(Endpoint::Result));
        check("/task_result", Some(Endpoint::Result));
        check("/tasks/", Some(Endpoint::Tasks));
        check("/tasks/17", Some(Endpoint::Task(Some(TaskId(17)))));
        check("/tasks/x", Some(Endpoint::Task(None)));
        check("/tasks/17/output", Some(Endpoint::TaskOutput(Some(TaskId(17)))));
        for other in ["/", "/task", "/tasks/17/x", "/login/x", "tasks"] {
            check(other, None);
        }
    }
}
