//! Tasks as they stand, and as they ended.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Dispatcher, blocking};
use crate::ledger::Phase;
use crate::store::{Late, StoreError, Stored, TaskPage, TaskQuery};
use crate::task::{State, TaskId, View};

impl Dispatcher {
    /// A task as it stands.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn task(&self, id: TaskId) -> Result<Option<View>, StoreError> {
        let store = Arc::clone(&self.shared.store);
        let read = {
            let store = Arc::clone(&store);
            move || store.task(id)
        };
        let mut stored = blocking(read).await?;
        let seems_open = stored.as_ref().is_some_and(|stored| stored.ending.is_none());
        if seems_open && self.shared.ledger().get(id).is_none() {
            // It ended just after it was read.
            stored = blocking(move || store.task(id)).await?;
        }
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
            Some(open) => {
                // Those who have hung up.
                open.waiters.retain(|waiter| !waiter.is_closed());
                open.waiters.push(tell);
            }
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
}
