//! Tasks: sending, waiting, reading what they print.
//!
//! Invariant: a wait asked of the server is shorter than the time its answer may take.

use std::io::Read as _;
use std::time::Duration;

use ureq::SendBody;
use ureq::http::{HeaderMap, Method};
use wire::dispatch::{Cancelled, Enqueued, History, Task, TaskAnswer, TaskState};

use crate::call::{Patience, Route};
use crate::dispatch::{ANSWER, JSON};
use crate::{Client, ClientError};

/// The longest wait that the server takes.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// The most bytes of output that one call gives.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// How a task is to be treated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// Higher goes first, -100 to 100.
    pub priority: Option<i64>,
    /// Seconds after which it is void if no agent has taken it; 0 means never.
    pub ttl_secs: Option<u64>,
    /// How often it may be offered again.
    pub retries: Option<u32>,
}

/// Which tasks are wanted; all may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryFilter {
    /// Those of this agent.
    pub agent: Option<String>,
    /// Those that stand here.
    pub state: Option<TaskState>,
    /// Those older than this one.
    pub before: Option<String>,
    /// At most so many.
    pub limit: Option<u64>,
}

/// A piece of what a task printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The bytes from the offset that was asked for.
    pub bytes: Vec<u8>,
    /// The offset to ask for next.
    pub next: u64,
    /// The task has ended, and nothing follows.
    pub ended: bool,
}

impl Client {
    /// Sends the task `body` (JSON text) to `target`: an agent, several with commas between, or a
    /// beginning of names that ends in `*`. Does not wait for results.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 404 for an unknown agent, with 400 for a
    /// body that is not JSON.
    pub fn enqueue(
        &self,
        target: &str,
        options: &SendOptions,
        body: &str,
    ) -> Result<Enqueued, ClientError> {
        let route = Route::new("tasks")
            .with("target", target)
            .with("noWait", 1)
            .with_some("priority", options.priority)
            .with_some("ttl", options.ttl_secs)
            .with_some("retries", options.retries);
        self.json(Method::POST, &route, &[JSON], body, ANSWER)
    }

    /// The task `id`; with a `wait` (at most an hour counts), once it has ended or that has passed.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 404 for an unknown task.
    pub fn task(&self, id: u64, wait: Duration) -> Result<Task, ClientError> {
        let wait = wait.min(WAIT_MAX);
        let seconds = (!wait.is_zero()).then(|| rounded_up(wait));
        let route = Route::new("tasks").segment(id).with_some("wait", seconds);
        let patience = Patience::Whole(ANSWER.limit() + wait);
        self.json(Method::GET, &route, &[], SendBody::none(), patience)
            .map(|answer: TaskAnswer| answer.task)
    }

    /// Takes the task `id` back; gives where it stands then.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 404 for an unknown task, with 409 for one
    /// that has ended.
    pub fn cancel_task(&self, id: u64) -> Result<TaskState, ClientError> {
        let route = Route::new("tasks").segment(id);
        self.json(Method::DELETE, &route, &[], SendBody::none(), ANSWER)
            .map(|answer: Cancelled| answer.state)
    }

    /// What the task `id` printed from the byte `offset` on; with a `wait` (at most an hour counts),
    /// once there is something or that has passed.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 404 for an unknown task.
    pub fn task_output(&self, id: u64, offset: u64, wait: Duration) -> Result<Output, ClientError> {
        let wait = wait.min(WAIT_MAX);
        let route = Route::new("tasks").segment(id).segment("output").with("offset", offset);
        let route = route.with_some("wait", (!wait.is_zero()).then(|| rounded_up(wait)));
        let patience = Patience::Whole(ANSWER.limit() + wait);
        let response = self.send(Method::GET, &route, &[], SendBody::none(), patience)?;
        let ended = response.headers().contains_key("x-output-end");
        let announced = number(response.headers(), "x-output-next");
        let mut bytes = Vec::new();
        let mut body = response.into_body().into_reader().take(OUTPUT_BYTES_MAX);
        body.read_to_end(&mut bytes).map_err(|error| self.broken(patience, error))?;
        // A server that does not count leaves it to us.
        let next = announced.unwrap_or(offset.saturating_add(bytes.len() as u64));
        Ok(Output { bytes, next, ended })
    }

    /// One page of all tasks, newest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn history(&self, filter: &HistoryFilter) -> Result<History, ClientError> {
        let route = Route::new("tasks_history")
            .with_some("agent", filter.agent.as_deref())
            .with_some("state", filter.state.map(TaskState::name))
            .with_some("before", filter.before.as_deref())
            .with_some("limit", filter.limit);
        self.json(Method::GET, &route, &[], SendBody::none(), ANSWER)
    }
}

/// Whole seconds, so that the last part of one is waited for and not asked about again and again.
fn rounded_up(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// The number in a header.
pub(crate) fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
