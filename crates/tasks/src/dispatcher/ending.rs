//! How tasks end: by a result, by somebody, by time.
//!
//! Invariant: a task ends once. Who waits for it is told when its end is on the disk; an end that cannot be stored
//! did not happen.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::{CancelError, Dispatcher, Shared, Told, blocking, confirmed};
use crate::ledger::{Judgement, Open, Phase};
use crate::store::{Late, Rider, StoreError, Stored};
use crate::task::{AgentId, Claim, Ending, Outcome, TaskId, now_ms};

/// How a task is to end.
struct End {
    outcome: Outcome,
    reason: Option<Arc<str>>,
    result: Option<Bytes>,
}

impl Dispatcher {
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
        let mut judgement = self.judge(agent, task, claim);
        if judgement == Judgement::Late {
            self.keep_late(task, claim, result.clone()).await?;
            // The end that was faster was asked of the store before, so its outcome is known by now. Where it could not
            // be stored, this is the first result: nobody sends it again, as it is acknowledged.
            judgement = self.judge(agent, task, claim);
            if judgement != Judgement::First {
                return Ok(Judgement::Late);
            }
        }
        match judgement {
            Judgement::First => {
                let end = End { outcome: Outcome::Done, reason: None, result: Some(result) };
                let told = self.shared.store_end(task, end, None);
                told.await.unwrap_or(Err(StoreError::Ended))?;
                Ok(Judgement::First)
            }
            Judgement::Late | Judgement::Unknown => {
                let store = Arc::clone(&self.shared.store);
                let stored = blocking(move || store.task(task)).await?;
                let is_its = |s: &Stored| s.task.agent == agent && s.ending.is_some();
                if stored.is_some_and(|stored| is_its(&stored)) {
                    self.keep_late(task, claim, result).await?;
                    return Ok(Judgement::Late);
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

    fn judge(&self, agent: AgentId, task: TaskId, claim: Option<Claim>) -> Judgement {
        let mut ledger = self.shared.ledger();
        let now = Instant::now();
        ledger.seen(agent, now);
        ledger.begin_end(task, Some(agent), claim, now)
    }

    async fn keep_late(
        &self,
        task: TaskId,
        claim: Option<Claim>,
        result: Bytes,
    ) -> Result<(), StoreError> {
        tracing::info!(task = task.0, "a late result");
        let (tell, told) = confirmed();
        let late = Late { task, claim, at: now_ms(), result };
        self.shared.store.add_late(late, Box::new(tell));
        told.await.unwrap_or(Err(StoreError::Ended))
    }

    /// Ends a task before its agent does, and has `rider` written with its end. `only_queued` leaves one alone that its
    /// agent has.
    ///
    /// # Errors
    /// When there is none, it has ended, or the end cannot be stored.
    pub async fn cancel(
        &self,
        task: TaskId,
        why: &str,
        only_queued: bool,
        rider: Option<Rider>,
    ) -> Result<(), CancelError> {
        let judgement = {
            let mut ledger = self.shared.ledger();
            let its_agent_has_it =
                |open: &Open| matches!(open.phase, Phase::Taken { .. } | Phase::Unsure);
            if only_queued && ledger.get(task).is_some_and(its_agent_has_it) {
                Judgement::Late
            } else {
                ledger.begin_end(task, None, None, Instant::now())
            }
        };
        match judgement {
            Judgement::First => {
                let end =
                    End { outcome: Outcome::Cancelled, reason: Some(why.into()), result: None };
                let told = self.shared.store_end(task, end, rider);
                Ok(told.await.unwrap_or(Err(StoreError::Ended))?)
            }
            Judgement::Late => Err(CancelError::Ended),
            Judgement::Unknown => {
                let store = Arc::clone(&self.shared.store);
                match blocking(move || store.task(task)).await? {
                    Some(_) => Err(CancelError::Ended),
                    None => Err(CancelError::Unknown),
                }
            }
        }
    }
}

impl Shared {
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
        Ok(self.store_end(task, End { outcome, reason: Some(why.into()), result: None }, None))
    }

    /// Stores the end of a task that is being ended; then tells who waits for it.
    fn store_end(self: &Arc<Self>, task: TaskId, end: End, rider: Option<Rider>) -> Told<()> {
        let End { outcome, reason, result } = end;
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
        self.store.end_task(ending, rider, Box::new(then));
        told
    }

    fn tell_end(&self, ending: Ending) {
        let Some(open) = self.ledger().ended(ending.task) else { return };
        open.ring_followers();
        let ending = Arc::new(ending);
        for waiter in open.waiters {
            // Who has left is not told: the end is kept for when they come back.
            let _ = waiter.send(Arc::clone(&ending));
        }
    }
}
