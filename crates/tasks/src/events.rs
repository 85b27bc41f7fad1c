//! Events: what agents report, in order, and who follows them.

use bytes::Bytes;
use tokio::sync::watch;

use crate::dispatcher::{Dispatcher, blocking, confirmed};
use crate::store::{Event, EventQuery, StoreError};
use crate::task::{AgentId, EventId, now_ms};

/// How often a page is read again because events were dropped while it was read.
const READS_MAX: usize = 4;

/// The next events for somebody who follows, and what is missing before or among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Followed {
    /// Events, in order: at most as many as were asked for, fewer where they are large, but one at least if there
    /// is any.
    pub events: Vec<Event>,
    /// Agents of which events were dropped that the follower has not seen, and the newest that was. It can lie behind
    /// the last of `events`: it is told again then, with what is read next.
    pub dropped: Vec<(AgentId, EventId)>,
}

/// What has been dropped of some agents.
type Dropped = Vec<(AgentId, EventId)>;

/// Reads a page, and what is missing in it. Nothing that is dropped meanwhile goes unnoticed: what was missing before
/// the reading must be what is missing after it.
fn read(
    dropped: impl Fn() -> Result<Dropped, StoreError>,
    events: impl Fn() -> Result<Vec<Event>, StoreError>,
) -> Result<Followed, StoreError> {
    let mut followed = Followed { events: Vec::new(), dropped: dropped()? };
    for _ in 0..READS_MAX {
        followed.events = events()?;
        let before = std::mem::replace(&mut followed.dropped, dropped()?);
        if followed.dropped == before {
            break;
        }
    }
    Ok(followed)
}

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

    /// The next events after `after`, of one agent or of all, and what has been dropped of them.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn follow(
        &self,
        agent: Option<AgentId>,
        after: EventId,
        limit: usize,
    ) -> Result<Followed, StoreError> {
        let store = std::sync::Arc::clone(&self.shared().store);
        let query = EventQuery { agent, after, limit, newest: false };
        let read = move || read(|| store.dropped(agent, after), || store.events(&query));
        blocking(read).await
    }

    /// The newest event on the disk: changes wake whoever follows.
    #[must_use]
    pub fn newest_event(&self) -> watch::Receiver<EventId> {
        self.shared().newest_event.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn event(id: u64) -> Event {
        Event { id: EventId(id), agent: AgentId(1), at: 0, body: Bytes::new() }
    }

    /// Reads while, before each reading, the store drops its oldest event up to `drops` times.
    fn check(drops: u64, readings: u64, kept_from: u64) {
        let (cut, reading) = (Cell::new(0), Cell::new(0));
        let dropped = || {
            let cut = cut.get();
            Ok(if cut > 0 { vec![(AgentId(1), EventId(cut))] } else { Vec::new() })
        };
        let events = || {
            reading.set(reading.get() + 1);
            if cut.get() < drops {
                cut.set(cut.get() + 1);
            }
            Ok((cut.get() + 1..=9).map(event).collect())
        };
        let followed = read(dropped, events).unwrap();
        assert_eq!(reading.get(), readings);
        assert_eq!(followed.events, (kept_from..=9).map(event).collect::<Vec<_>>());
        let cut = kept_from - 1;
        let missing: Vec<_> = (cut > 0).then_some((AgentId(1), EventId(cut))).into_iter().collect();
        assert_eq!(followed.dropped, missing);
    }

    #[test]
    fn what_is_dropped_while_it_is_read_is_told() {
        check(0, 1, 1);
        check(1, 2, 2);
        check(2, 3, 3);
        check(9, 4, 5);
    }
}
