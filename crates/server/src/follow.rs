//! Reads events for those who follow them: live streams and webhooks.
//!
//! Invariant: whoever goes on from the cursor of what was read misses nothing silently. Each event comes once and in
//! order; where events were dropped before they could be read, there is a [`Told::Gap`] in their place.
//! Not here: how an event is told, and what happens when nobody takes it.

mod filter;
mod places;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ::tasks::events::Followed;
use ::tasks::{AgentId, Dispatcher, EventId};
use bytes::Bytes;
use database::DatabaseError;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::accounts::{AccountId, Accounts};

pub use filter::{Filter, FilterError};
pub use places::{Place, Places};

/// Events that are read at once.
const PAGE_MAX: usize = 256;
/// Pages that are remembered for the next who goes the same way; each has about a megabyte at most.
const PAGES_MAX: usize = 8;
/// From how far behind one agent's events are looked for by its index, and not among those of all.
const FAR: u64 = 4 * PAGE_MAX as u64;
/// How long events are gathered when they come faster than that.
const PACE: Duration = Duration::from_millis(10);

/// Something that followers are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// An event.
    Event {
        /// Its number.
        id: EventId,
        /// The name of its agent.
        agent: Arc<str>,
        /// When it was stored, in milliseconds since 1970.
        at: u64,
        /// What it says: one JSON value.
        body: Bytes,
    },
    /// Events of this agent were dropped before they were read.
    Gap {
        /// The name of the agent.
        agent: Arc<str>,
        /// The newest that is missing.
        last: EventId,
    },
}

impl Told {
    /// The cursor with which one goes on behind it.
    #[must_use]
    pub fn id(&self) -> EventId {
        match self {
            Self::Event { id, .. } => *id,
            Self::Gap { last, .. } => *last,
        }
    }
}

/// The last pages of all agents' events, with the cursor behind which each begins.
type Pages = VecDeque<(EventId, Arc<Followed>)>;

/// Where events are read. Cheap to clone: all followers share what one of them has read.
#[derive(Debug, Clone)]
pub struct Feed {
    accounts: Accounts,
    dispatcher: Dispatcher,
    pages: Arc<Mutex<Pages>>,
}

impl Feed {
    /// Reads the events of `dispatcher`, whose agents `accounts` can name.
    #[must_use]
    pub fn new(accounts: Accounts, dispatcher: Dispatcher) -> Self {
        Self { accounts, dispatcher, pages: Arc::default() }
    }

    /// The newest event: where somebody begins who begins with now.
    #[must_use]
    pub fn newest(&self) -> EventId {
        *self.dispatcher.newest_event().borrow()
    }

    /// Follows the events that `filter` wants, behind `cursor`.
    #[must_use]
    pub fn follow(&self, filter: Filter, cursor: EventId) -> Follower {
        // Numbers that were never given (the database is an older copy) would hide those to come.
        let cursor = cursor.min(self.newest());
        Follower { feed: self.clone(), filter, cursor, read_at: None }
    }

    /// The next events behind `after` of all agents. What one has read serves all who follow closely.
    async fn page(&self, after: EventId) -> Result<Arc<Followed>, DatabaseError> {
        // Locked while it is read: a hundred who wait for the same read it once.
        let mut pages = self.pages.lock().await;
        if let Some((_, page)) = pages.iter().find(|(behind, _)| *behind == after) {
            return Ok(Arc::clone(page));
        }
        let page = Arc::new(self.dispatcher.follow(None, after, PAGE_MAX).await?);
        // More may come behind an empty page, but never into one that is not.
        if !page.events.is_empty() {
            if pages.len() == PAGES_MAX {
                pages.pop_front();
            }
            pages.push_back((after, Arc::clone(&page)));
        }
        Ok(page)
    }

    fn name(&self, agent: AgentId) -> Option<Arc<str>> {
        self.accounts.agent_by_id(AccountId(agent.0)).map(|agent| agent.name)
    }
}

/// Somebody who follows.
#[derive(Debug)]
pub struct Follower {
    feed: Feed,
    filter: Filter,
    cursor: EventId,
    read_at: Option<Instant>,
}

impl Follower {
    /// Up to where everything has been told or is not wanted.
    #[must_use]
    pub fn cursor(&self) -> EventId {
        self.cursor
    }

    /// What comes next, as soon as there is something. Nothing is lost when the future is dropped before.
    ///
    /// # Errors
    /// When events cannot be read.
    pub async fn next(&mut self) -> Result<Vec<Told>, DatabaseError> {
        loop {
            let newest = self.newer().await;
            let page = match self.sole_agent(newest) {
                Some(agent) => {
                    let read = self.feed.dispatcher.follow(Some(agent), self.cursor, PAGE_MAX);
                    Arc::new(read.await?)
                }
                None => self.feed.page(self.cursor).await?,
            };
            let is_wanted = |agent| {
                let name = self.feed.name(agent);
                name.filter(|name| self.filter.wants(name))
            };
            let (told, cursor) = arrange(&page, newest, is_wanted);
            self.cursor = cursor;
            if !told.is_empty() {
                return Ok(told);
            }
        }
    }

    /// Waits until there is an event behind the cursor; gives the newest.
    async fn newer(&mut self) -> EventId {
        let mut newest = self.feed.dispatcher.newest_event();
        if *newest.borrow() <= self.cursor {
            let cursor = self.cursor;
            // It tells as long as the dispatcher lives, which is held here.
            let _ = newest.wait_for(|newest| *newest > cursor).await;
            if let Some(read_at) = self.read_at {
                tokio::time::sleep_until(read_at + PACE).await;
            }
        }
        self.read_at = Some(Instant::now());
        *newest.borrow()
    }

    /// The one agent that is wanted, if its events are rather looked for alone.
    fn sole_agent(&self, newest: EventId) -> Option<AgentId> {
        let name = self.filter.sole_name()?;
        if newest.0 - self.cursor.0 < FAR {
            return None;
        }
        self.feed.accounts.agent(name).map(|agent| AgentId(agent.account.0))
    }
}

/// What of a page is to be told, and the cursor behind it. `newest` was the newest event before it was read.
fn arrange(
    page: &Followed,
    newest: EventId,
    is_wanted: impl Fn(AgentId) -> Option<Arc<str>>,
) -> (Vec<Told>, EventId) {
    // An empty page means that nothing is left up to `newest`.
    let cursor = page.events.last().map_or(newest, |last| last.id);
    let gaps = page.dropped.iter().filter(|(_, last)| *last <= cursor);
    let gaps =
        gaps.filter_map(|(agent, last)| Some(Told::Gap { agent: is_wanted(*agent)?, last: *last }));
    let events = page.events.iter().filter_map(|event| {
        let agent = is_wanted(event.agent)?;
        Some(Told::Event { id: event.id, agent, at: event.at, body: event.body.clone() })
    });
    let mut told: Vec<Told> = gaps.chain(events).collect();
    // A gap stands before the first event that is newer than what is missing.
    told.sort_by_key(Told::id);
    (told, cursor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::tasks::store::Event;

    fn event(id: u64, agent: i64) -> Event {
        Event { id: EventId(id), agent: AgentId(agent), at: 5, body: Bytes::from_static(b"{}") }
    }

    /// What is told of events (`agent` and `id`) and drops, to one who wants agents below 9.
    #[track_caller]
    fn check(events: &[(i64, u64)], dropped: &[(i64, u64)], expected: &[&str], cursor: u64) {
        let page = Followed {
            events: events.iter().map(|(agent, id)| event(*id, *agent)).collect(),
            dropped: dropped.iter().map(|(agent, id)| (AgentId(*agent), EventId(*id))).collect(),
        };
        let is_wanted = |agent: AgentId| (agent.0 < 9).then(|| agent.0.to_string().into());
        let (told, found) = arrange(&page, EventId(50), is_wanted);
        let told: Vec<String> = told
            .iter()
            .map(|told| match told {
                Told::Event { id, agent, .. } => format!("{agent}:{}", id.0),
                Told::Gap { agent, last } => format!("{agent}-{}", last.0),
            })
            .collect();
        assert_eq!((told, found.0), (expected.iter().map(ToString::to_string).collect(), cursor));
    }

    #[test]
    fn events_come_in_order_and_the_cursor_is_behind_the_last() {
        check(&[(1, 11), (2, 12)], &[], &["1:11", "2:12"], 12);
        check(&[(1, 11), (9, 12)], &[], &["1:11"], 12);
        check(&[(9, 11)], &[], &[], 11);
    }

    #[test]
    fn behind_an_empty_page_one_goes_on_with_the_newest() {
        check(&[], &[], &[], 50);
        check(&[], &[(1, 49), (9, 40)], &["1-49"], 50);
    }

    #[test]
    fn a_gap_is_told_where_it_is_and_once() {
        check(&[(2, 11), (1, 14)], &[(1, 12)], &["2:11", "1-12", "1:14"], 14);
        check(&[(2, 11), (1, 14)], &[(1, 5), (2, 3)], &["2-3", "1-5", "2:11", "1:14"], 14);
        // Behind this page: the next one tells it.
        check(&[(2, 11)], &[(1, 12)], &["2:11"], 11);
        check(&[], &[(1, 51)], &[], 50);
    }
}
