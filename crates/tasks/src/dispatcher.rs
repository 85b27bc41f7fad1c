//! What doors ask of the room.
//!
//! Invariant: durable first, wake second. A task is handed out, a waiter told and an answer given only after the
//! store has said that what they rest on is kept; so a wake-up that is lost costs time, never a task.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::delivery::Delivery;
use crate::ledger::{Claimed, Judgement, Ledger, Open, Phase};
use crate::settings::Settings;
use crate::store::{
    ClaimNote, Late, Loaded, OutputEnd, Progress, SharedStore, StoreError, Stored, TaskPage,
    TaskQuery,
};
use crate::task::{
    AgentId, Claim, Ending, EventId, NewTask, Outcome, State, Task, TaskId, View, now_ms,
};
use crate::timekeeper;

/// The longest lease, in seconds: what a clock that was set back can add to one.
pub const LEASE_SECS_MAX: u64 = 86_400;

/// Why a task was not taken up.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// Too many wait for the agent already.
    #[error("Queue is overflowed. Check agent.")]
    QueueFull,
}

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

/// The room, shared with what is under way in it.
#[derive(Debug)]
pub(crate) struct Shared {
    ledger: Mutex<Ledger>,
    pub(crate) store: SharedStore,
    pub(crate) settings: Settings,
    pub(crate) newest_event: watch::Sender<EventId>,
    output_bell: Notify,
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
        take_up(&mut ledger, loaded, settings, Instant::now(), now_ms());
        let shared = Shared {
            ledger: Mutex::new(ledger),
            store,
            settings,
            newest_event,
            output_bell: Notify::new(),
        };
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
        let now_ms = now_ms();
        let (end, ended) = oneshot::channel();
        let (tell, stored) = confirmed();
        let task = {
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
                expires_at: new.ttl_secs.map(|secs| now_ms.saturating_add(secs * 1000)),
                by: new.by,
            };
            let mut open = opened(&task, Phase::Storing);
            open.expires = new.ttl_secs.map(|secs| Instant::now() + Duration::from_secs(secs));
            open.waiters.push(end);
            ledger.add(id, open);
            task
        };
        let (id, shared) = (task.id, Arc::clone(&self.shared));
        let then = move |outcome: Result<(), StoreError>| {
            match &outcome {
                Ok(()) => shared.ring(|ledger| ledger.stored(id)),
                Err(_) => drop(shared.ledger().ended(id)),
            }
            tell(outcome);
        };
        self.shared.store.add_task(task, Box::new(then));
        Ok(Enqueued { id, stored, ended })
    }

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
                return Ok(self.deliveries(claimed, lease, now_ms).await?);
            }
            tokio::select! {
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
        for at in unread {
            let (store, id) = (Arc::clone(&self.shared.store), deliveries[at].task());
            if let Some(stored) = blocking(move || store.task(id)).await? {
                deliveries[at].set_body(stored.task.body);
            }
        }
        Ok(deliveries)
    }

    /// An agent's result. The first one wins; a late one is kept as such.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn complete(
        &self,
        agent: AgentId,
        task: TaskId,
        claim: Option<Claim>,
        result: Bytes,
    ) -> Result<Judgement, StoreError> {
        let judgement = {
            let mut ledger = self.shared.ledger();
            let now = Instant::now();
            ledger.seen(agent, now);
            ledger.begin_end(task, Some(agent), claim, now)
        };
        match judgement {
            Judgement::First => {
                let told = self.shared.store_end(task, Outcome::Done, None, Some(result));
                told.await.unwrap_or(Err(StoreError::Ended))?;
                Ok(Judgement::First)
            }
            Judgement::Late => self.keep_late(task, claim, result).await,
            Judgement::Unknown => {
                let store = Arc::clone(&self.shared.store);
                let stored = blocking(move || store.task(task)).await?;
                let is_its = |s: &Stored| s.task.agent == agent && s.ending.is_some();
                if stored.is_some_and(|stored| is_its(&stored)) {
                    return self.keep_late(task, claim, result).await;
                }
                tracing::info!(
                    task = task.0,
                    agent = agent.0,
                    "a result for no task of this agent"
                );
                Ok(Judgement::Unknown)
            }
        }
    }

    async fn keep_late(
        &self,
        task: TaskId,
        claim: Option<Claim>,
        result: Bytes,
    ) -> Result<Judgement, StoreError> {
        tracing::info!(task = task.0, "a late result");
        let (tell, told) = confirmed();
        let late = Late { task, claim, at: now_ms(), result };
        self.shared.store.add_late(late, Box::new(tell));
        told.await.unwrap_or(Err(StoreError::Ended))?;
        Ok(Judgement::Late)
    }

    /// The agent works on the task still. Says whether it holds it.
    #[must_use]
    pub fn extend(&self, agent: AgentId, task: TaskId, claim: Claim, lease: Duration) -> bool {
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

    /// Ends a task before its agent does. `only_queued` leaves one alone that its agent has.
    ///
    /// # Errors
    /// When there is none, it has ended, or the end cannot be stored.
    pub async fn cancel(
        &self,
        task: TaskId,
        why: &str,
        only_queued: bool,
    ) -> Result<(), CancelError> {
        if only_queued {
            let is_queued = self.shared.ledger().get(task).map(|open| open.phase == Phase::Queued);
            if is_queued == Some(false) {
                return Err(CancelError::Ended);
            }
        }
        match self.shared.end(task, Outcome::Cancelled, why) {
            Ok(told) => Ok(told.await.unwrap_or(Err(StoreError::Ended))?),
            Err(Judgement::First | Judgement::Late) => Err(CancelError::Ended),
            Err(Judgement::Unknown) => {
                let store = Arc::clone(&self.shared.store);
                match blocking(move || store.task(task)).await? {
                    Some(_) => Err(CancelError::Ended),
                    None => Err(CancelError::Unknown),
                }
            }
        }
    }

    /// A task as it stands.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn task(&self, id: TaskId) -> Result<Option<View>, StoreError> {
        let store = Arc::clone(&self.shared.store);
        let stored = blocking(move || store.task(id)).await?;
        Ok(stored.map(|stored| self.view(stored)))
    }

    fn view(&self, stored: Stored) -> View {
        let Stored { task, ending } = stored;
        let open = self.shared.ledger().get(task.id).map(|open| {
            let state = match open.phase {
                Phase::Taken { .. } | Phase::Unsure => State::Taken,
                Phase::Storing | Phase::Queued => State::Queued,
            };
            (state, open.attempts, open.taken_at)
        });
        let (state, attempts, taken_at) = match (&ending, open) {
            (Some(end), _) => (State::Ended(end.outcome), end.attempts, end.taken_at),
            (None, Some(open)) => open,
            // It ended after it was read.
            (None, None) => (State::Taken, 0, None),
        };
        View { task, state, attempts, taken_at, ending }
    }

    /// Waits until a task has ended, or until `until`; returns at once for one that is not open.
    pub async fn wait_for_end(&self, id: TaskId, until: Instant) {
        let (tell, told) = oneshot::channel();
        match self.shared.ledger().get_mut(id) {
            Some(open) => open.waiters.push(tell),
            None => return,
        }
        // An error says that the agent was removed: that is an end as well.
        let _ = tokio::time::timeout_at(until, told).await;
        if let Some(open) = self.shared.ledger().get_mut(id) {
            open.waiters.retain(|waiter| !waiter.is_closed());
        }
    }

    /// Tasks of the past and of now, the newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn tasks(&self, query: TaskQuery) -> Result<(Vec<View>, Option<TaskId>), StoreError> {
        let store = Arc::clone(&self.shared.store);
        let TaskPage { tasks, next } = blocking(move || store.tasks(&query)).await?;
        Ok((tasks.into_iter().map(|stored| self.view(stored)).collect(), next))
    }

    /// Results of a task that came too late.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn late_results(&self, id: TaskId) -> Result<Vec<Late>, StoreError> {
        let store = Arc::clone(&self.shared.store);
        blocking(move || store.late(id)).await
    }

    /// Keeps a piece of the output of an open task of `agent`; `None` when it has no such task, or holds it no longer
    /// by `claim`.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn add_output(
        &self,
        agent: AgentId,
        task: TaskId,
        claim: Option<Claim>,
        offset: u64,
        bytes: Bytes,
    ) -> Result<Option<OutputEnd>, StoreError> {
        let holds = |open: &Open| {
            let held = match open.phase {
                Phase::Taken { claim, .. } => Some(claim),
                Phase::Storing | Phase::Queued | Phase::Unsure => None,
            };
            open.agent == agent && !open.is_ending && (claim.is_none() || claim == held)
        };
        if !self.shared.ledger().get(task).is_some_and(holds) {
            return Ok(None);
        }
        let (tell, told) = confirmed();
        let shared = Arc::clone(&self.shared);
        let then = move |outcome| {
            tell(outcome);
            shared.output_bell.notify_waiters();
        };
        let bytes_max = self.shared.settings.output_bytes_max;
        self.shared.store.add_output(task, offset, bytes, bytes_max, Box::new(then));
        told.await.unwrap_or(Err(StoreError::Ended)).map(Some)
    }

    /// Up to `max` bytes of a task's output from `offset`, where it ends now, and whether the task has ended; waits for
    /// more until `until` when there is nothing new.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn output(
        &self,
        task: TaskId,
        offset: u64,
        max: usize,
        until: Instant,
    ) -> Result<(Bytes, OutputEnd, bool), StoreError> {
        loop {
            let rung = self.shared.output_bell.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            let is_open = self.shared.ledger().get(task).is_some();
            let store = Arc::clone(&self.shared.store);
            let (bytes, end) = blocking(move || store.output(task, offset, max)).await?;
            if !bytes.is_empty() || !is_open || Instant::now() >= until {
                return Ok((bytes, end, !is_open));
            }
            let _ = tokio::time::timeout_at(until, rung).await;
        }
    }

    /// Forgets an agent that was removed: its polls end, who waits for its tasks is told, nothing of it is kept.
    ///
    /// # Errors
    /// When what is stored cannot be removed.
    pub async fn forget(&self, agent: AgentId) -> Result<(), StoreError> {
        drop(self.shared.ledger().forget(agent));
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

    /// Says whether there was something to put back.
    pub(crate) fn put_back(&self, task: TaskId, claim: Claim) -> bool {
        let bell = self.ledger().put_back(task, claim);
        if let Some(bell) = &bell {
            bell.ring();
        }
        bell.is_some()
    }

    pub(crate) fn announce(&self, event: EventId) {
        self.newest_event.send_if_modified(|newest| {
            let is_newer = event > *newest;
            *newest = event.max(*newest);
            is_newer
        });
    }

    /// Ends a task without its agent; says why not otherwise.
    pub(crate) fn end(
        self: &Arc<Self>,
        task: TaskId,
        outcome: Outcome,
        why: &str,
    ) -> Result<Told<()>, Judgement> {
        match self.ledger().begin_end(task, None, None, Instant::now()) {
            Judgement::First => {}
            other => return Err(other),
        }
        Ok(self.store_end(task, outcome, Some(why.into()), None))
    }

    /// Stores the end of a task that is being ended; then tells who waits for it.
    fn store_end(
        self: &Arc<Self>,
        task: TaskId,
        outcome: Outcome,
        reason: Option<Arc<str>>,
        result: Option<Bytes>,
    ) -> Told<()> {
        let (attempts, taken_at) = match self.ledger().get(task) {
            Some(open) => (open.attempts, open.taken_at),
            None => (0, None),
        };
        let ended_at = now_ms();
        let ending = Ending { task, outcome, attempts, taken_at, ended_at, reason, result };
        let (tell, told) = confirmed();
        let (shared, end) = (Arc::clone(self), ending.clone());
        let then = move |outcome: Result<(), StoreError>| {
            match &outcome {
                Ok(()) => shared.tell_end(end),
                Err(_) => shared.ring(|ledger| ledger.end_failed(task)),
            }
            tell(outcome);
        };
        self.store.end_task(ending, Box::new(then));
        told
    }

    fn tell_end(&self, ending: Ending) {
        let open = self.ledger().ended(ending.task);
        let waiters = open.map(|open| open.waiters).unwrap_or_default();
        let ending = Arc::new(ending);
        for waiter in waiters {
            // Who has left is not told: the end is kept for when they come back.
            let _ = waiter.send(Arc::clone(&ending));
        }
        self.output_bell.notify_waiters();
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

fn opened(task: &Task, phase: Phase) -> Open {
    Open {
        agent: task.agent,
        priority: task.priority,
        phase,
        is_ending: false,
        body: Some(task.body.clone()),
        attempts: 0,
        attempts_max: task.attempts_max,
        expires: None,
        taken_at: None,
        waiters: Vec::new(),
    }
}

/// Brings the open tasks of an earlier run into the ledger.
fn take_up(ledger: &mut Ledger, loaded: Loaded, settings: Settings, now: Instant, now_ms: u64) {
    // A clock that was set back must not make a lease last for years.
    let from_now = |at: u64, secs_max: u64| {
        now + Duration::from_millis(at.saturating_sub(now_ms).min(secs_max * 1000))
    };
    let ttl_max = settings.result_timeout.as_secs().max(366 * 86_400);
    for (task, note) in loaded.open {
        let phase = match note {
            None => Phase::Queued,
            Some(ClaimNote { progress: Progress::Returned, .. }) => Phase::Queued,
            Some(ClaimNote { until_ms: Some(until), claim, .. }) => {
                Phase::Taken { claim, until: Some(from_now(until, LEASE_SECS_MAX)) }
            }
            Some(ClaimNote { progress: Progress::Sending, .. }) => Phase::Unsure,
            Some(ClaimNote { claim, .. }) => Phase::Taken { claim, until: None },
        };
        let mut open = opened(&task, phase);
        open.expires = task.expires_at.map(|at| from_now(at, ttl_max));
        if let Some(note) = note {
            open.attempts = note.attempts;
            open.taken_at = Some(note.taken_at);
        }
        ledger.add(task.id, open);
    }
}

#[cfg(test)]
mod tests;
