//! Events: what agents report, in order, and who follows them.

use bytes::Bytes;
use tokio::sync::watch;

use crate::dispatcher::{Dispatcher, blocking, confirmed};
use crate::store::{Event, EventQuery, StoreError};
use crate::task::{AgentId, EventId, now_ms};

impl Dispatcher {
    /// Keeps an event; returns its number once it is on the disk.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn log_event(&self, agent: AgentId, body: Bytes) -> Result<EventId, StoreError> {
        let shared = std::sync::Arc::clone(self.shared());
        let (tell, told) = confirmed();
        shared.ledger().seen(agent, tokio::time::Instant::now());
        let store = std::sync::Arc::clone(&shared.store);
        store.add_event(
            agent,
            now_ms(),
            body,
            Box::new(move |outcome| {
                if let Ok(id) = &outcome {
                    shared.announce(*id);
                }
                tell(outcome);
            }),
        );
        told.await.unwrap_or(Err(StoreError::Ended))
    }

    /// Events that are kept.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn events(&self, query: EventQuery) -> Result<Vec<Event>, StoreError> {
        let store = std::sync::Arc::clone(&self.shared().store);
        blocking(move || store.events(&query)).await
    }

    /// Of which agents events after `after` have been dropped, and the newest of each that was.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn dropped_events(
        &self,
        agent: Option<AgentId>,
        after: EventId,
    ) -> Result<Vec<(AgentId, EventId)>, StoreError> {
        let store = std::sync::Arc::clone(&self.shared().store);
        blocking(move || store.dropped(agent, after)).await
    }

    /// The newest event on the disk: changes wake whoever follows.
    #[must_use]
    pub fn newest_event(&self) -> watch::Receiver<EventId> {
        self.shared().newest_event.subscribe()
    }
}
