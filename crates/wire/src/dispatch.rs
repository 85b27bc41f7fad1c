//! JSON of the dispatch routes: agents, tasks, events, files, webhooks, audit.
//!
//! Invariant: bodies of tasks, results and events are kept as the sender wrote them ([`RawValue`]):
//! big integers, decimals and the order of keys survive. Unknown fields are passed over, so that a
//! newer server can say more.
//! Not here: routes, statuses and the `"error"` field that every answer carries.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::Secret;
use crate::secret::exposed;

/// Somebody's JSON, as it was sent.
pub type Json = Box<RawValue>;

/// Answer of `POST /login`.
#[derive(Debug, Clone, Deserialize)]
pub struct Login {
    /// What authorizes from now on.
    #[serde(deserialize_with = "exposed::deserialize")]
    pub token: Secret,
    /// `admin`, `operator` or `viewer`, where the server tells.
    pub role: Option<String>,
    /// Seconds after which an unused session ends.
    pub expires_in: Option<u64>,
}

/// Answer of `GET /agents`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agents {
    /// The names of all agents.
    pub agents: Vec<String>,
    /// Who is there now.
    #[serde(default)]
    pub online: BTreeMap<String, bool>,
}

/// What `POST /tasks?noWait=1` answers: `id` for one target, `ids` for several.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enqueued {
    /// The task of the one target.
    pub id: Option<String>,
    /// The tasks by agent.
    #[serde(default)]
    pub ids: BTreeMap<String, String>,
    /// Why an agent got none.
    #[serde(default)]
    pub failed: BTreeMap<String, String>,
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Waits for its agent.
    Queued,
    /// The agent has it.
    Taken,
    /// Its result is there.
    Done,
    /// Somebody took it back.
    Cancelled,
    /// Its time to live passed before an agent took it.
    Expired,
    /// It was taken too often without a result.
    Dead,
}

impl TaskState {
    /// All states, in the order of a task's life.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Taken, Self::Done, Self::Cancelled, Self::Expired, Self::Dead];

    /// The word for it on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Taken => "taken",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Dead => "dead",
        }
    }

    /// Whether nothing more will happen to the task.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        !matches!(self, Self::Queued | Self::Taken)
    }
}

/// A task as `GET /tasks/ID` and the history show it. Times are milliseconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// Its number, in decimal.
    pub id: String,
    /// The agent that it is for.
    pub agent: String,
    /// Where it stands.
    pub state: TaskState,
    /// Higher goes first.
    #[serde(default)]
    pub priority: i64,
    /// How often it was taken.
    #[serde(default)]
    pub attempts: u64,
    /// Who sent it.
    pub by: Option<String>,
    /// When it was sent.
    pub enqueued_at: Option<i64>,
    /// When it was last taken.
    pub taken_at: Option<i64>,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// When it ends by itself if nobody takes it.
    pub expires_at: Option<i64>,
    /// Why it ended without a result.
    pub reason: Option<String>,
    /// What was sent; a list may leave it out.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub body: Option<Json>,
    /// What the agent answered, which may be `null`; none when there is none or it is long.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub result: Option<Json>,
}

/// Answer of `GET /tasks/ID`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskAnswer {
    /// The task.
    pub task: Task,
}

/// Answer of `DELETE /tasks/ID`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Where the task stands now.
    pub state: TaskState,
}

/// A page of `GET /tasks_history`, newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct History {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// What to give as `before` for the next page.
    pub next: Option<String>,
}

/// One event with its number and time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventRecord {
    /// Its number, in decimal; it grows.
    pub id: String,
    /// When it came, in milliseconds since 1970.
    pub at: i64,
    /// What the agent said.
    pub event: Json,
}

/// Answer of `GET /events?details=1`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Events {
    /// The events, oldest first.
    pub details: Vec<EventRecord>,
    /// How many the server keeps of one agent.
    pub max_size: Option<u64>,
}

/// The data of an `event` in the live stream; its number is the stream's `id`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StreamedEvent {
    /// Whose event it is.
    pub agent: String,
    /// When it came, in milliseconds since 1970.
    pub at: i64,
    /// What the agent said.
    pub event: Json,
}

/// The data of a `gap` in the live stream: events that were dropped before the reader saw them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Whose events are missing.
    pub agent: String,
    /// The first event that is there again.
    pub before: String,
}

/// Answer of `POST /enroll_tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollToken {
    /// What the new agent must show. It is meant to be printed, once.
    pub token: String,
    /// Seconds until it is void.
    pub expires_in: Option<u64>,
    /// How many agents may use it.
    pub uses: Option<u64>,
}

/// Answer of `POST /files/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Where it is, as a path on the same server.
    pub url: String,
    /// Its number.
    pub id: Option<String>,
    /// Its length.
    pub bytes: Option<u64>,
    /// Its checksum in hexadecimal.
    pub sha256: Option<String>,
    /// Seconds until it is removed.
    pub expires_in: Option<u64>,
    /// How often it may be fetched.
    pub uses: Option<u64>,
}

/// What `POST /webhooks` takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewWebhook {
    /// Where events are sent.
    pub url: String,
    /// What signs them; the server makes one when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Whose events: names, or beginnings that end in `*`; everybody's when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<String>,
}

/// Answer of `POST /webhooks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedWebhook {
    /// Its number, in decimal.
    pub id: String,
    /// What signs its deliveries. It is told this once.
    pub secret: Option<String>,
}

/// One entry of `GET /webhooks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Its number, in decimal.
    pub id: String,
    /// Where events are sent.
    pub url: String,
    /// Whose events; everybody's when there are none.
    #[serde(default)]
    pub agents: Option<Vec<String>>,
    /// The newest event that was taken there.
    pub delivered_to: Option<String>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

/// Answer of `GET /webhooks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhooks {
    /// All of them.
    pub webhooks: Vec<Webhook>,
}

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its number, in decimal.
    pub id: String,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// Whose account.
    pub who: Option<String>,
    /// From which address.
    pub from: Option<String>,
    /// What was done.
    pub act: String,
    /// To what.
    pub what: Option<String>,
    /// How it ended.
    pub outcome: Option<String>,
}

/// A page of `GET /audit`, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// The lines.
    pub entries: Vec<AuditEntry>,
    /// What to give as `before` for the next page.
    pub next: Option<String>,
}

/// Tells a field that is `null` from one that is not there.
fn present<'de, D: Deserializer<'de>>(field: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(field).map(Some)
}

#[cfg(test)]
mod tests {
    use super::{Enqueued, Login, Task, TaskAnswer, TaskState};

    fn task(fields: &str) -> Task {
        let text =
            format!(r#"{{"error":false,"task":{{"id":"17","agent":"a","state":"done"{fields}}}}}"#);
        serde_json::from_str::<TaskAnswer>(&text).unwrap().task
    }

    #[test]
    fn a_result_of_null_is_a_result() {
        assert_eq!(task(r#","result":null"#).result.unwrap().get(), "null");
        assert!(task("").result.is_none());
    }

    #[test]
    fn a_result_stays_as_it_was_sent() {
        let sent = r#"{"z":18446744073709551617,"a":1.0,"z":2}"#;
        assert_eq!(task(&format!(r#","result":{sent}"#)).result.unwrap().get(), sent);
        let shown = serde_json::to_string(&task(&format!(r#","result":{sent}"#))).unwrap();
        assert!(shown.contains(sent), "{shown}");
    }

    #[test]
    fn every_state_has_its_word() {
        for state in TaskState::ALL {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{}\"", state.name()));
        }
        assert!(!TaskState::Taken.has_ended() && TaskState::Dead.has_ended());
    }

    #[test]
    fn one_target_and_several_are_both_read() {
        let one: Enqueued = serde_json::from_str(r#"{"msg":"Task enqueued","id":"17"}"#).unwrap();
        assert_eq!((one.id.as_deref(), one.ids.len()), (Some("17"), 0));
        let several = r#"{"error":false,"ids":{"a":"1"},"failed":{"b":"no"}}"#;
        let several: Enqueued = serde_json::from_str(several).unwrap();
        assert_eq!((several.ids["a"].as_str(), several.failed["b"].as_str()), ("1", "no"));
    }

    #[test]
    fn a_token_is_a_secret_at_once() {
        let login: Login = serde_json::from_str(r#"{"token":"t0ken","role":"admin"}"#).unwrap();
        assert_eq!(login.token.expose(), "t0ken");
        assert!(!format!("{login:?}").contains("t0ken"));
    }
}
