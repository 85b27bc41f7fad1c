//! The seam: what a store must do for the room.
//!
//! Invariant, for every backend (`contract` checks it): what `then` was told `Ok` about is found again after a new
//! start; `then` calls come in the order of the changes, from one thread, and before that nothing of a change is seen.
//! A store keeps; it decides nothing.

#[cfg(test)]
pub mod contract;
pub mod memory;
pub mod sqlite;

use bytes::Bytes;
use std::sync::Arc;

use crate::settings::Settings;
use crate::task::{AgentId, Claim, Ending, EventId, Outcome, State, Task, TaskId};

pub use database::DatabaseError as StoreError;
/// What another room wants written with a change: both are kept or neither is. A store that shares no database with
/// that room drops it.
pub use database::Rider;

/// Late results that are kept of one task; the first ones.
pub const LATE_MAX: usize = 10;

/// Told the outcome of a change, on a thread of the store: it must be quick.
pub type Then<T> = Box<dyn FnOnce(Result<T, StoreError>) + Send>;

/// What a start begins with.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The first number of a task that was never used.
    pub next_task: u64,
    /// How often the store has been opened for serving, this time included.
    pub run: u32,
    /// The newest event.
    pub last_event: EventId,
    /// Tasks that have not ended, in order.
    pub open: Vec<(Task, Option<ClaimNote>)>,
}

/// How far a handing-out has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The answer that carries the task is about to be written.
    Sending,
    /// It has been written.
    Sent,
    /// It did not arrive.
    Returned,
}

/// What is noted of a handing-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimNote {
    /// Which task.
    pub task: TaskId,
    /// The number of the handing-out.
    pub claim: Claim,
    /// How far it has come.
    pub progress: Progress,
    /// How often the task had been handed out by then, this time included.
    pub attempts: u32,
    /// The end of its lease in milliseconds since 1970, if it has one.
    pub until_ms: Option<u64>,
    /// When it was handed out, in milliseconds since 1970.
    pub taken_at: u64,
}

/// A result that came when the task had ended, or under a claim that was over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// Which task.
    pub task: TaskId,
    /// The claim that it named.
    pub claim: Option<Claim>,
    /// When it came, in milliseconds since 1970.
    pub at: u64,
    /// What it says: one JSON value.
    pub result: Bytes,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number.
    pub id: EventId,
    /// Whose it is.
    pub agent: AgentId,
    /// When it was stored, in milliseconds since 1970.
    pub at: u64,
    /// One JSON value, as it came.
    pub body: Bytes,
}

/// Which events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventQuery {
    /// Of one agent, or of all.
    pub agent: Option<AgentId>,
    /// Newer than this one.
    pub after: EventId,
    /// So many; fewer of the oldest where they are large (but one at least): a page has to fit into memory.
    pub limit: usize,
    /// Whether the newest are meant where there are more, or the oldest.
    pub newest: bool,
}

/// A task as it was sent, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// As it was sent.
    pub task: Task,
    /// How it ended, if it has.
    pub ending: Option<Ending>,
}

/// Which tasks of the past and of now; the newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskQuery {
    /// Of one agent, or of all.
    pub agent: Option<AgentId>,
    /// Those that ended so; of the others when `open` is set.
    pub outcome: Option<Outcome>,
    /// Only those that have not ended.
    pub open: bool,
    /// Older than this one.
    pub before: TaskId,
    /// So many.
    pub limit: usize,
}

impl TaskQuery {
    /// Whether a task with this ending is meant.
    #[must_use]
    pub fn wants(&self, ending: Option<&Ending>) -> bool {
        match (self.open, self.outcome) {
            (true, _) => ending.is_none(),
            (false, Some(outcome)) => ending.is_some_and(|ending| ending.outcome == outcome),
            (false, None) => true,
        }
    }

    /// The query for tasks in `state`, or in any.
    #[must_use]
    pub fn in_state(mut self, state: Option<State>) -> Self {
        self.open = matches!(state, Some(State::Queued | State::Taken));
        self.outcome = match state {
            Some(State::Ended(outcome)) => Some(outcome),
            _ => None,
        };
        self
    }
}

/// A page of tasks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TaskPage {
    /// The tasks, the newest first.
    pub tasks: Vec<Stored>,
    /// Where the next page begins, if there may be one.
    pub next: Option<TaskId>,
}

/// Where the output of a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputEnd {
    /// How many bytes there are.
    pub next: u64,
    /// Whether some were not kept because there were too many.
    pub is_capped: bool,
}

/// Keeps tasks and events.
pub trait TaskStore: std::fmt::Debug + Send + Sync {
    /// What a start begins with; asked once.
    ///
    /// # Errors
    /// When it cannot be read.
    fn load(&self) -> Result<Loaded, StoreError>;

    /// Keeps a new task, and what rides with it.
    fn add_task(&self, task: Task, rider: Option<Rider>, then: Then<()>);

    /// Keeps the end of a task, which has none yet, and what rides with it.
    fn end_task(&self, ending: Ending, rider: Option<Rider>, then: Then<()>);

    /// Keeps a result that came too late.
    fn add_late(&self, late: Late, then: Then<()>);

    /// Keeps an event and numbers it.
    fn add_event(&self, agent: AgentId, at: u64, body: Bytes, then: Then<EventId>);

    /// Notes how far a handing-out has come, unless a later one of the same task is noted or the task has ended: at once, so that it survives the end of the process (not of the machine).
    fn note_claim(&self, note: ClaimNote);

    /// Keeps a piece of a task's output that begins at `offset`: what of it is new, unless there would be a hole
    /// before it; and no more than `bytes_max` in all.
    fn add_output(
        &self,
        task: TaskId,
        offset: u64,
        bytes: Bytes,
        bytes_max: u64,
        then: Then<OutputEnd>,
    );

    /// Forgets an agent: its tasks, results and events, also those that are still on their way when it is asked; what
    /// comes for its tasks afterwards is not kept.
    fn forget(&self, agent: AgentId, then: Then<()>);

    /// Agents of which anything is kept.
    ///
    /// # Errors
    /// When it cannot be read.
    fn agents(&self) -> Result<Vec<AgentId>, StoreError>;

    /// Puts things in order: drops what is no longer to be kept. Asked about once a second.
    fn keep_house(&self, settings: &Settings);

    /// A task, with its body.
    ///
    /// # Errors
    /// When it cannot be read.
    fn task(&self, id: TaskId) -> Result<Option<Stored>, StoreError>;

    /// Results that came too late, in order.
    ///
    /// # Errors
    /// When they cannot be read.
    fn late(&self, id: TaskId) -> Result<Vec<Late>, StoreError>;

    /// A page of tasks.
    ///
    /// # Errors
    /// When they cannot be read.
    fn tasks(&self, query: &TaskQuery) -> Result<TaskPage, StoreError>;

    /// Events, in order.
    ///
    /// # Errors
    /// When they cannot be read.
    fn events(&self, query: &EventQuery) -> Result<Vec<Event>, StoreError>;

    /// Agents (or the one that is named) of which events after `after` have been dropped, and the newest that was.
    ///
    /// # Errors
    /// When it cannot be read.
    fn dropped(
        &self,
        agent: Option<AgentId>,
        after: EventId,
    ) -> Result<Vec<(AgentId, EventId)>, StoreError>;

    /// Up to `max` bytes of a task's output, from `offset`; and where the output ends.
    ///
    /// # Errors
    /// When it cannot be read.
    fn output(&self, id: TaskId, offset: u64, max: usize)
    -> Result<(Bytes, OutputEnd), StoreError>;
}

/// A store that several parts share.
pub type SharedStore = Arc<dyn TaskStore>;
