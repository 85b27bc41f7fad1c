//! Machines that were made for a client, and that it is to be told of.
//!
//! Invariant: each is either told of by an answer with success, or taken back once.

use std::sync::{Mutex, MutexGuard, PoisonError};

use machines::manager::Handover;

/// What a client is to be told of by the end of its session; nothing once that has come.
#[derive(Debug)]
pub(super) struct Handovers(Mutex<Option<Vec<Handover>>>);

impl Default for Handovers {
    fn default() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }
}

impl Handovers {
    /// One more. `false`: it is too late for that, and the machine is taken back at once.
    pub(super) fn add(&self, handover: Handover) -> bool {
        match self.lock().as_mut() {
            Some(all) => {
                all.push(handover);
                true
            }
            None => false,
        }
    }

    /// Whether there is anything to tell.
    pub(super) fn are_there(&self) -> bool {
        self.lock().as_ref().is_some_and(|all| !all.is_empty())
    }

    /// The end: the client was told of them, or they are taken back. Only the first one counts.
    pub(super) fn settle(&self, is_told: bool) {
        let all = self.lock().take().unwrap_or_default();
        if is_told {
            all.iter().for_each(Handover::told);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Handover>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
