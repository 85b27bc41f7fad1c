//! The moment between a machine's being lent and its owner's knowing of it.
//!
//! Invariant: a machine whose owner could not be told of it is taken back, however the telling ended.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::driver::{Command, Stop};
use super::{MachineId, Shared};

/// What has become of telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// The owner knows of the machine.
    Told,
    /// Nobody does.
    Failed,
}

type End = Box<dyn FnOnce(Telling) + Send>;

/// A machine that is lent and whose owner does not know of it yet. Dropped before [`Handover::told`], it takes the
/// machine back.
#[must_use = "dropped, it takes the machine back"]
pub struct Handover(Mutex<Option<End>>);

impl Handover {
    /// One that says once to `end` what has become of it. Must not wait.
    pub fn new(end: impl FnOnce(Telling) + Send + 'static) -> Self {
        Self(Mutex::new(Some(Box::new(end))))
    }

    /// Hands it to somebody else to tell. What is left behind does nothing.
    pub fn pass_on(&mut self) -> Self {
        std::mem::replace(self, Self(Mutex::new(None)))
    }

    /// That of a machine of ours. It does not keep the server.
    pub(super) fn of(shared: &Arc<Shared>, id: MachineId) -> Self {
        let shared = Arc::downgrade(shared);
        Self::new(move |telling| {
            if let Some(shared) = shared.upgrade() {
                ended(&shared, id, telling);
            }
        })
    }

    /// The owner knows of it. Noted on disk a moment later, for servers to come; nothing is waited for.
    pub fn told(&self) {
        self.end(Telling::Told);
    }

    fn end(&self, telling: Telling) {
        let end = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(end) = end {
            end(telling);
        }
    }
}

fn ended(shared: &Shared, id: MachineId, telling: Telling) {
    match telling {
        Telling::Told => {
            // Gone already, it has nothing to note.
            let Ok(commands) = shared.register().commands(id) else { return };
            if commands.try_send(Command::Told).is_err() {
                tracing::warn!(machine = %id, "it could not be noted that its owner knows of it");
            }
        }
        Telling::Failed => {
            tracing::info!(machine = %id, "taken back: nobody could be told of it");
            // Gone already is as good.
            let _ = shared.register().stop(id, Stop::Abandoned);
        }
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        self.end(Telling::Failed);
    }
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handover")
    }
}
