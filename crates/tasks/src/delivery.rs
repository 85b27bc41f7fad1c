//! A task on its way to an agent.
//!
//! Invariant: one that is dropped before it was sent goes back to its place in the queue.

use std::sync::Arc;

use bytes::Bytes;

use crate::dispatcher::Shared;
use crate::store::{ClaimNote, Progress};
use crate::task::{Claim, TaskId};

/// A task that an answer carries to an agent. The door tells what becomes of that answer.
#[derive(Debug)]
pub struct Delivery {
    shared: Arc<Shared>,
    body: Bytes,
    note: ClaimNote,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Claimed,
    Sending,
    Sent,
}

impl Delivery {
    pub(crate) fn new(shared: Arc<Shared>, body: Bytes, note: ClaimNote) -> Self {
        Self { shared, body, note, stage: Stage::Claimed }
    }

    /// Which task.
    #[must_use]
    pub fn task(&self) -> TaskId {
        self.note.task
    }

    /// The number of this handing-out.
    #[must_use]
    pub fn claim(&self) -> Claim {
        self.note.claim
    }

    /// What is to be done: one JSON value.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    pub(crate) fn set_body(&mut self, body: Bytes) {
        self.body = body;
    }

    fn note(&self, progress: Progress) {
        self.shared.store.note_claim(ClaimNote { progress, ..self.note });
    }

    /// The answer is about to be written.
    pub fn sending(&mut self) {
        if self.stage == Stage::Claimed {
            self.stage = Stage::Sending;
            self.note(Progress::Sending);
        }
    }

    /// All of it has been written.
    pub fn sent(&mut self) {
        if self.stage == Stage::Sending {
            self.stage = Stage::Sent;
            self.note(Progress::Sent);
            // It may be held for a while, to see whether it arrives; the body need not be.
            self.body = Bytes::new();
        }
    }

    /// Whether all of it has been written.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.stage == Stage::Sent
    }

    /// The connection was reset: it did not arrive.
    pub fn lost(mut self) {
        self.put_back();
    }

    fn put_back(&mut self) {
        if self.shared.put_back(self.note.task, self.note.claim) && self.stage != Stage::Claimed {
            self.note(Progress::Returned);
        }
        self.stage = Stage::Sent;
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.stage != Stage::Sent {
            self.put_back();
        }
    }
}
