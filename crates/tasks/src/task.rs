//! What is known about a task.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

/// An agent, by the number of its account. Numbers are never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentId(pub i64);

macro_rules! number {
    ($(#[$about:meta])* $name:ident) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u64);

        impl $name {
            /// Reads the decimal number that other programs know it by.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                // SQLite counts to 2^63 - 1.
                let number = text.parse().ok().filter(|number| i64::try_from(*number).is_ok());
                number.filter(|_| is_plain).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A task. Numbers count up over all agents and are never used twice.
    TaskId
}
number! {
    /// One handing-out of a task. Numbers are never used twice, so that an old one tells itself by its number.
    Claim
}
number! {
    /// An event. Numbers count up over all agents in the order in which events were stored.
    EventId
}

/// Milliseconds since 1970, for people to read. Nothing is decided by it: clocks go backwards.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A task as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTask {
    /// Who is to do it.
    pub agent: AgentId,
    /// One JSON value, as it came.
    pub body: Bytes,
    /// Higher is handed out first.
    pub priority: i8,
    /// How long it may wait to be handed out, in seconds; `None` is for ever.
    pub ttl_secs: Option<u64>,
    /// How often it may be handed out under leases; `None` is as configured.
    pub attempts_max: Option<u32>,
    /// The account that sends it.
    pub by: Arc<str>,
}

/// A task as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its number.
    pub id: TaskId,
    /// Who is to do it.
    pub agent: AgentId,
    /// One JSON value, as it came.
    pub body: Bytes,
    /// Higher is handed out first.
    pub priority: i8,
    /// How often it may be handed out under leases.
    pub attempts_max: u32,
    /// When it was sent, in milliseconds since 1970.
    pub enqueued_at: u64,
    /// Until when it may be handed out, in milliseconds since 1970.
    pub expires_at: Option<u64>,
    /// The account that sent it.
    pub by: Arc<str>,
}

/// How a task can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Its agent sent a result.
    Done,
    /// Somebody cancelled it.
    Cancelled,
    /// Nobody took it in time.
    Expired,
    /// It was given up.
    Dead,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Done, Self::Cancelled, Self::Expired, Self::Dead];

    /// Its name in answers and in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Dead => "dead",
        }
    }

    /// The outcome of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// The end of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Which task.
    pub task: TaskId,
    /// How it ended.
    pub outcome: Outcome,
    /// How often it had been handed out.
    pub attempts: u32,
    /// When it was handed out last, in milliseconds since 1970.
    pub taken_at: Option<u64>,
    /// When it ended, in milliseconds since 1970.
    pub ended_at: u64,
    /// Why, unless it is done.
    pub reason: Option<Arc<str>>,
    /// What its agent sent: one JSON value.
    pub result: Option<Bytes>,
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It waits for its agent.
    Queued,
    /// Its agent has it.
    Taken,
    /// It has ended.
    Ended(Outcome),
}

impl State {
    /// Its name in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Taken => "taken",
            Self::Ended(outcome) => outcome.name(),
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "queued" => Some(Self::Queued),
            "taken" => Some(Self::Taken),
            _ => Outcome::parse(name).map(Self::Ended),
        }
    }
}

/// All that is known about a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// As it was sent.
    pub task: Task,
    /// Where it stands.
    pub state: State,
    /// How often it has been handed out.
    pub attempts: u32,
    /// When it was handed out last, in milliseconds since 1970.
    pub taken_at: Option<u64>,
    /// How it ended, if it has.
    pub ending: Option<Ending>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_plain_decimals_that_the_database_can_hold() {
        let check = |text, expected| assert_eq!(TaskId::parse(text).map(|id| id.0), expected);
        check("0", Some(0));
        check("9223372036854775807", Some(i64::MAX.unsigned_abs()));
        for wrong in ["", "+1", "-1", " 1", "1.0", "9223372036854775808", "1e3", "abc"] {
            check(wrong, None);
        }
    }

    #[test]
    fn names_of_states_lead_back_to_them() {
        for name in ["queued", "taken", "done", "cancelled", "expired", "dead"] {
            assert_eq!(State::parse(name).map(State::name), Some(name));
        }
        assert_eq!(State::parse("gone"), None);
    }
}
