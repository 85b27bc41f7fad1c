//! Why the room refuses something.
//!
//! Not here: statuses and how they are told. Doors decide that.

use crate::store::StoreError;

/// Why a task was not taken up.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// Too many wait for the agent already.
    #[error("Queue is overflowed. Check agent.")]
    QueueFull,
}

/// Why an agent gets no tasks.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// It was removed while it waited.
    #[error("Agent deregistered")]
    Gone,
    /// A task could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a task was not cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// No task has the number.
    #[error("Task doesn't exist")]
    Unknown,
    /// It has ended already, or is just ending.
    #[error("Task has ended already")]
    Ended,
    /// The end could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}
