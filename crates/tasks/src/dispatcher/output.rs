//! What tasks print while they run.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Dispatcher, blocking, confirmed};
use crate::ledger::{Open, Phase};
use crate::store::{OutputEnd, StoreError};
use crate::task::{AgentId, Claim, TaskId};

impl Dispatcher {
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
            if let Some(open) = shared.ledger().get(task) {
                open.ring_followers();
            }
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
            let bell = {
                let mut ledger = self.shared.ledger();
                let open = ledger.get_mut(task);
                open.map(|open| Arc::clone(open.followers.get_or_insert_default()))
            };
            let bell = bell.unwrap_or_default();
            // Listen before looking.
            let rung = bell.notified();
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
}
