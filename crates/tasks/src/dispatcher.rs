//! What doors ask of the room.
//!
//! Invariant: durable first, wake second. A task is handed out, a waiter told and an answer given only after the
//! store has said that what they rest on is kept; so a wake-up that is lost costs time, never a task.

mod ending;
mod error;
mod history;
mod output;
mod polling;
mod start;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use self::start::{opened, take_up};
use crate::ledger::{Ledger, Phase};
use crate::settings::Settings;
use crate::store::{Rider, SharedStore, StoreError};
use crate::task::{AgentId, Ending, EventId, NewTask, Task, TaskId, now_ms};
use crate::timekeeper;

pub use self::error::{CancelError, EnqueueError, PollError};
pub use self::polling::Bell;

/// The longest lease, in seconds: what a clock that was set back can add to one.
pub const LEASE_SECS_MAX: u64 = 86_400;
/// The longest time that a task may wait to be handed out, in seconds: a year.
pub const TTL_SECS_MAX: u64 = 366 * 86_400;

/// A task that was taken up, and what is to come of it.
#[derive(Debug)]
pub struct Enqueued {
    /// Its number.
    pub id: TaskId,
    /// Resolves when it is on the disk.
    pub stored: Told<()>,
    /// Resolves when it has ended. An error says that its agent was removed.
    pub ended: oneshot::Receiver<Arc<Ending>>,
}

/// The room, shared with what is under way in it.
#[derive(Debug)]
pub(crate) struct Shared {
    ledger: Mutex<Ledger>,
    pub(crate) store: SharedStore,
    pub(crate) settings: Settings,
    pub(crate) newest_event: watch::Sender<EventId>,
}

/// The room of tasks and events. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

impl Dispatcher {
    /// Takes up where the last run ended.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open(store: SharedStore, settings: Settings) -> Result<Self, StoreError> {
        let loaded = store.load()?;
        let mut ledger = Ledger::new(settings, loaded.next_task, loaded.run);
        let newest_event = watch::Sender::new(loaded.last_event);
        take_up(&mut ledger, loaded, Instant::now(), now_ms());
        let shared = Shared { ledger: Mutex::new(ledger), store, settings, newest_event };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Watches leases and lifetimes as long as it is polled.
    pub async fn keep_time(&self) {
        timekeeper::run(&self.shared).await;
    }

    /// Takes up a task. It is handed out once it is on the disk.
    ///
    /// # Errors
    /// When too many wait for the agent.
    pub fn enqueue(&self, new: NewTask) -> Result<Enqueued, EnqueueError> {
        let (task, ended) = self.take_up(new)?;
        Ok(self.keep(task, ended, None))
    }

    /// Takes up a task, and has what `ride` makes of its number written with it: both are kept or neither.
    ///
    /// # Errors
    /// When too many wait for the agent.
    pub fn enqueue_with(
        &self,
        new: NewTask,
        ride: impl FnOnce(TaskId) -> Rider,
    ) -> Result<Enqueued, EnqueueError> {
        let (task, ended) = self.take_up(new)?;
        let rider = ride(task.id);
        Ok(self.keep(task, ended, Some(rider)))
    }

    /// Takes up many. What `ride` makes of their numbers (`None` where too many wait for the agent) is written with the
    /// first of them, so that no other is kept before it.
    pub fn enqueue_all(
        &self,
        new: impl IntoIterator<Item = NewTask>,
        ride: impl FnOnce(&[Option<TaskId>]) -> Rider,
    ) -> Vec<Result<Enqueued, EnqueueError>> {
        let taken: Vec<_> = new.into_iter().map(|new| self.take_up(new)).collect();
        let ids: Vec<_> =
            taken.iter().map(|taken| taken.as_ref().ok().map(|(task, _)| task.id)).collect();
        let mut rider = ids.iter().any(Option::is_some).then(|| ride(&ids));
        taken
            .into_iter()
            .map(|taken| taken.map(|(task, ended)| self.keep(task, ended, rider.take())))
            .collect()
    }

    /// Enters a new task as one that is on its way to the disk.
    fn take_up(
        &self,
        new: NewTask,
    ) -> Result<(Task, oneshot::Receiver<Arc<Ending>>), EnqueueError> {
        let now_ms = now_ms();
        let ttl_secs = new.ttl_secs.map(|secs| secs.min(TTL_SECS_MAX));
        let (end, ended) = oneshot::channel();
        let mut ledger = self.shared.ledger();
        if !ledger.has_room(new.agent) {
            return Err(EnqueueError::QueueFull);
        }
        let attempts_max = new.attempts_max.unwrap_or(self.shared.settings.attempts_max);
        let id = ledger.number();
        let task = Task {
            id,
            agent: new.agent,
            body: new.body,
            priority: new.priority,
            attempts_max,
            enqueued_at: now_ms,
            expires_at: ttl_secs.map(|secs| now_ms.saturating_add(secs * 1000)),
            by: new.by,
        };
        let mut open = opened(&task, Phase::Storing);
        open.expires = ttl_secs.map(|secs| Instant::now() + Duration::from_secs(secs));
        open.waiters = vec![end];
        ledger.add(id, open);
        Ok((task, ended))
    }

    /// Has it stored.
    fn keep(
        &self,
        task: Task,
        ended: oneshot::Receiver<Arc<Ending>>,
        rider: Option<Rider>,
    ) -> Enqueued {
        let (tell, stored) = confirmed();
        let (id, shared) = (task.id, Arc::clone(&self.shared));
        let then = move |outcome: Result<(), StoreError>| {
            match &outcome {
                Ok(()) => shared.ring(|ledger| ledger.stored(id)),
                Err(_) => drop(shared.ledger().ended(id)),
            }
            tell(outcome);
        };
        self.shared.store.add_task(task, rider, Box::new(then));
        Enqueued { id, stored, ended }
    }

    /// Forgets an agent that was removed: its polls end, who waits for its tasks is told, nothing of it is kept.
    ///
    /// # Errors
    /// When what is stored cannot be removed.
    pub async fn forget(&self, agent: AgentId) -> Result<(), StoreError> {
        let forgotten = self.shared.ledger().forget(agent);
        forgotten.iter().for_each(|(_, open)| open.ring_followers());
        drop(forgotten);
        let (tell, told) = confirmed();
        self.shared.store.forget(agent, Box::new(tell));
        told.await.unwrap_or(Err(StoreError::Ended))
    }

    /// Agents of which anything is kept.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn agents(&self) -> Result<Vec<AgentId>, StoreError> {
        let store = Arc::clone(&self.shared.store);
        let mut agents = blocking(move || store.agents()).await?;
        agents.extend(self.shared.ledger().agents());
        Ok(agents)
    }

    /// Whether an agent waits for tasks, or has asked for something within the last seconds.
    #[must_use]
    pub fn is_online(&self, agent: AgentId) -> bool {
        self.shared.ledger().is_online(agent, Instant::now())
    }

    /// An agent asked for something else.
    pub fn seen(&self, agent: AgentId) {
        self.shared.ledger().seen(agent, Instant::now());
    }
}

impl Shared {
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rings the bell that a change of the ledger gives, after the ledger is free again.
    fn ring(&self, change: impl FnOnce(&mut Ledger) -> Option<Arc<Bell>>) {
        let bell = change(&mut self.ledger());
        if let Some(bell) = bell {
            bell.ring();
        }
    }

    pub(crate) fn announce(&self, event: EventId) {
        self.newest_event.send_if_modified(|newest| {
            let is_newer = event > *newest;
            *newest = event.max(*newest);
            is_newer
        });
    }
}

/// Where an outcome is told.
pub type Told<T> = oneshot::Receiver<Result<T, StoreError>>;

/// A call that tells an outcome, and where it is told.
pub(crate) fn confirmed<T: Send + 'static>() -> (impl FnOnce(Result<T, StoreError>) + Send, Told<T>)
{
    let (tell, told) = oneshot::channel();
    (move |outcome| drop(tell.send(outcome)), told)
}

/// Reads on a thread for blocking work.
pub(crate) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(read).await.unwrap_or(Err(StoreError::Ended))
}

#[cfg(test)]
mod tests;
