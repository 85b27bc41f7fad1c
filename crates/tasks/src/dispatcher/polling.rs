//! Agents that wait for tasks, and what they are handed.
//!
//! Invariant: a poll listens before it looks, so that a ring in between is not lost; whatever it has claimed and does
//! not give to its caller goes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Dispatcher, LEASE_SECS_MAX, PollError, Shared, blocking};
use crate::delivery::Delivery;
use crate::ledger::Claimed;
use crate::store::{ClaimNote, Progress, StoreError};
use crate::task::{AgentId, Claim, TaskId, now_ms};

const LEASE_MAX: Duration = Duration::from_secs(LEASE_SECS_MAX);

/// Wakes the polls of one agent.
#[derive(Debug, Default)]
pub struct Bell {
    notify: Notify,
    is_gone: AtomicBool,
}

impl Bell {
    /// Wakes one poll, or the next one to come.
    pub fn ring(&self) {
        self.notify.notify_one();
    }

    /// The agent was removed: wakes all.
    pub fn close(&self) {
        self.is_gone.store(true, Relaxed);
        self.notify.notify_waiters();
    }
}

impl Dispatcher {
    /// Tasks for an agent: up to `max` at once, as soon as there is one, or none at `until`.
    ///
    /// # Errors
    /// When the agent was removed, or a task cannot be read.
    pub async fn poll(
        &self,
        agent: AgentId,
        max: usize,
        lease: Option<Duration>,
        until: Instant,
    ) -> Result<Vec<Delivery>, PollError> {
        let lease = lease.map(|lease| lease.min(LEASE_MAX));
        let bell = self.shared.ledger().bell(agent);
        let _polling = Polling::begin(&self.shared, agent);
        loop {
            // Listen before looking: a ring in between is not lost.
            let rung = bell.notify.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            if bell.is_gone.load(Relaxed) {
                return Err(PollError::Gone);
            }
            let now_ms = now_ms();
            let claimed = self.shared.ledger().claim(agent, max, lease, Instant::now(), now_ms);
            if !claimed.is_empty() {
                let deliveries = self.deliveries(claimed, lease, now_ms).await?;
                if !deliveries.is_empty() {
                    return Ok(deliveries);
                }
                continue;
            }
            tokio::select! {
                // A ring in the last moment brings a task still.
                biased;
                () = rung => {}
                () = tokio::time::sleep_until(until) => return Ok(Vec::new()),
            }
        }
    }

    async fn deliveries(
        &self,
        claimed: Vec<Claimed>,
        lease: Option<Duration>,
        now_ms: u64,
    ) -> Result<Vec<Delivery>, StoreError> {
        let millis = |lease: Duration| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        // All of them first, so that an error puts back those that are not yet read as well.
        let mut deliveries = Vec::with_capacity(claimed.len());
        let mut unread = Vec::new();
        for Claimed { task, claim, attempts, body } in claimed {
            let note = ClaimNote {
                task,
                claim,
                progress: Progress::Sending,
                attempts,
                until_ms: lease.map(|lease| now_ms.saturating_add(millis(lease))),
                taken_at: now_ms,
            };
            if body.is_none() {
                unread.push(deliveries.len());
            }
            let shared = Arc::clone(&self.shared);
            deliveries.push(Delivery::new(shared, body.unwrap_or_default(), note));
        }
        for at in unread.into_iter().rev() {
            let (store, id) = (Arc::clone(&self.shared.store), deliveries[at].task());
            match blocking(move || store.task(id)).await? {
                Some(stored) => deliveries[at].set_body(stored.task.body),
                // Its agent was removed meanwhile: there is nothing to be done.
                None => {
                    drop(self.shared.ledger().ended(id));
                    deliveries.remove(at);
                }
            }
        }
        Ok(deliveries)
    }

    /// How long the lease was under which a task is held, if it is.
    #[must_use]
    pub fn lease_of(&self, task: TaskId) -> Option<Duration> {
        self.shared.ledger().get(task)?.lease
    }

    /// The agent works on the task still. Says whether it holds it.
    #[must_use]
    pub fn extend(&self, agent: AgentId, task: TaskId, claim: Claim, lease: Duration) -> bool {
        let lease = lease.min(LEASE_MAX);
        let (now, now_ms) = (Instant::now(), now_ms());
        let mut ledger = self.shared.ledger();
        ledger.seen(agent, now);
        if !ledger.extend(task, agent, claim, lease, now) {
            return false;
        }
        let Some(open) = ledger.get(task) else { return false };
        let millis = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let note = ClaimNote {
            task,
            claim,
            progress: Progress::Sent,
            attempts: open.attempts,
            until_ms: Some(now_ms.saturating_add(millis)),
            taken_at: open.taken_at.unwrap_or(now_ms),
        };
        drop(ledger);
        self.shared.store.note_claim(note);
        true
    }
}

impl Shared {
    /// Says whether there was something to put back.
    pub(crate) fn put_back(&self, task: TaskId, claim: Claim) -> bool {
        let bell = self.ledger().put_back(task, claim);
        if let Some(bell) = &bell {
            bell.ring();
        }
        bell.is_some()
    }
}

/// An agent waits as long as this lives.
struct Polling<'a> {
    shared: &'a Shared,
    agent: AgentId,
}

impl<'a> Polling<'a> {
    fn begin(shared: &'a Shared, agent: AgentId) -> Self {
        shared.ledger().polls(agent, true, Instant::now());
        Self { shared, agent }
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.shared.ledger().polls(self.agent, false, Instant::now());
    }
}
