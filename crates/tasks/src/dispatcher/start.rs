//! How a task enters the ledger: when it is sent, and when the server starts again.

use std::time::Duration;

use tokio::time::Instant;

use super::LEASE_SECS_MAX;
use crate::ledger::{Ledger, Open, Phase};
use crate::store::{ClaimNote, Loaded, Progress};
use crate::task::Task;

/// A task of which only what was sent is known.
pub(super) fn opened(task: &Task, phase: Phase) -> Open {
    Open {
        agent: task.agent,
        priority: task.priority,
        phase,
        is_ending: false,
        // A JSON value is never empty: one that is was too long to be read at once.
        body: Some(task.body.clone()).filter(|body| !body.is_empty()),
        attempts: 0,
        attempts_max: task.attempts_max,
        expires: None,
        taken_at: None,
        lease: None,
        waiters: Vec::new(),
        followers: None,
    }
}

/// Brings the open tasks of an earlier run into the ledger.
pub(super) fn take_up(ledger: &mut Ledger, loaded: Loaded, now: Instant, now_ms: u64) {
    // A clock that was set back must not make a lease or a lifetime last for years.
    let from_now =
        |at: u64, ms_max: u64| now + Duration::from_millis(at.saturating_sub(now_ms).min(ms_max));
    for (task, note) in loaded.open {
        let phase = match note {
            None => Phase::Queued,
            Some(ClaimNote { progress: Progress::Returned, .. }) => Phase::Queued,
            Some(ClaimNote { until_ms: Some(until), claim, .. }) => {
                Phase::Taken { claim, until: Some(from_now(until, LEASE_SECS_MAX * 1000)) }
            }
            Some(ClaimNote { progress: Progress::Sending, .. }) => Phase::Unsure,
            Some(ClaimNote { claim, .. }) => Phase::Taken { claim, until: None },
        };
        let mut open = opened(&task, phase);
        open.expires = task.expires_at.map(|at| from_now(at, at.saturating_sub(task.enqueued_at)));
        if let Some(note) = note {
            // What did not arrive was no attempt.
            let returned = u32::from(note.progress == Progress::Returned);
            open.attempts = note.attempts.saturating_sub(returned);
            open.taken_at = Some(note.taken_at);
        }
        ledger.add(task.id, open);
    }
}
