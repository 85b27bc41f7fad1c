//! What is ordered by agent, behind what is ordered by time.
//!
//! A row at the end of a table dirties one page, whoever it is of; a row of an index by agent dirties a page per agent.
//! So new rows are remembered here first and carried into the index in bulk, many of one agent at once.
//!
//! Invariant: each row is in the index, or remembered; after a new start what the index lacks is read again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use database::rusqlite::{Connection, Error};
use database::{Database, DatabaseError};

use super::schema;
use crate::task::AgentId;

/// So many rows are worth carrying over.
pub(super) const ROUND_MIN: usize = 20_000;
/// Rows of one transaction: a few milliseconds of the writer.
const SLICE: usize = 256;
/// Numbers can be stored in another order than they were given in, by less than this.
const DISORDER: u64 = 10_000;

/// A table and its index by agent.
#[derive(Debug)]
pub(super) struct Source {
    /// Rows after a number, of any agent.
    newer: &'static str,
    /// Rows of an agent that the index may lack, and rows that it has.
    newer_of: &'static str,
    indexed: &'static str,
    /// Nothing, where the row has been dropped meanwhile.
    insert: &'static str,
    /// How far the index reaches.
    counter: &'static str,
}

pub(super) static EVENTS: Source = Source {
    newer: "SELECT agent, id FROM events WHERE id > ?1 ORDER BY id",
    newer_of: "SELECT id FROM events WHERE id > ?1 AND agent = ?2 LIMIT ?3",
    indexed: "SELECT id FROM agent_events WHERE agent = ?1 LIMIT ?2",
    insert: "INSERT OR IGNORE INTO agent_events(agent, id) SELECT agent, id FROM events WHERE agent = ?1 AND id = ?2",
    counter: "events_indexed",
};

pub(super) static TASKS: Source = Source {
    newer: "SELECT agent, id FROM tasks WHERE id > ?1 ORDER BY id",
    newer_of: "SELECT id FROM tasks WHERE id > ?1 AND agent = ?2 LIMIT ?3",
    indexed: "SELECT id FROM agent_tasks WHERE agent = ?1 LIMIT ?2",
    insert: "INSERT OR IGNORE INTO agent_tasks(agent, id) SELECT agent, id FROM tasks WHERE agent = ?1 AND id = ?2",
    counter: "tasks_indexed",
};

/// One index.
#[derive(Debug)]
pub(super) struct Lazy {
    source: &'static Source,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    fresh: Vec<(AgentId, u64)>,
    /// What is being carried over, by falling agent and number: slices are taken from the end.
    moving: Vec<(AgentId, u64)>,
    /// How far the index reaches once `moving` is empty.
    reaches: u64,
}

/// Rows of a few agents, in order, to be carried over together.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    pub(super) rows: Vec<(AgentId, u64)>,
    /// How far the index reaches with these rows, when they are the last of a round.
    reaches: Option<u64>,
}

impl Slice {
    /// Whether no other slice of its round follows.
    pub(super) fn ends_round(&self) -> bool {
        self.reaches.is_some()
    }
}

impl Lazy {
    pub(super) fn load(
        database: &Database,
        source: &'static Source,
    ) -> Result<Self, DatabaseError> {
        let fresh = database.read_now(|c| {
            let from = schema::counter(c, source.counter)?;
            c.prepare(source.newer)?
                .query_map([from], |row| Ok((AgentId(row.get(0)?), row.get(1)?)))?
                .collect::<Result<_, _>>()
        })?;
        Ok(Self { source, inner: Mutex::new(Inner { fresh, ..Inner::default() }) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a row.
    pub(super) fn add(&self, agent: AgentId, id: u64) {
        self.inner().fresh.push((agent, id));
    }

    /// Rows of an agent that the index may lack.
    pub(super) fn recent(&self, agent: AgentId) -> Vec<u64> {
        let inner = self.inner();
        let rows = inner.moving.iter().chain(&inner.fresh);
        rows.filter(|(whose, _)| *whose == agent).map(|(_, id)| *id).collect()
    }

    /// Agents with rows that the index may lack.
    pub(super) fn agents(&self) -> Vec<AgentId> {
        let inner = self.inner();
        let mut agents: Vec<_> = inner.moving.iter().chain(&inner.fresh).map(|row| row.0).collect();
        agents.sort_unstable();
        agents.dedup();
        agents
    }

    /// Forgets the rows of an agent.
    pub(super) fn forget(&self, agent: AgentId) {
        let mut inner = self.inner();
        inner.fresh.retain(|(whose, _)| *whose != agent);
        inner.moving.retain(|(whose, _)| *whose != agent);
    }

    /// The next rows to carry over, if there are `enough`. All rows of an agent go together.
    pub(super) fn slice(&self, enough: usize) -> Option<Slice> {
        let mut inner = self.inner();
        if inner.moving.is_empty() {
            if inner.fresh.len() < enough {
                return None;
            }
            let mut rows = std::mem::take(&mut inner.fresh);
            inner.reaches =
                rows.iter().map(|row| row.1).max().unwrap_or(0).saturating_sub(DISORDER);
            rows.sort_unstable_by(|one, other| other.cmp(one));
            inner.moving = rows;
        }
        let mut from = inner.moving.len().saturating_sub(SLICE);
        while from > 0 && inner.moving[from - 1].0 == inner.moving[from].0 {
            from -= 1;
        }
        let mut rows = inner.moving[from..].to_vec();
        rows.reverse();
        Some(Slice { rows, reaches: (from == 0).then_some(inner.reaches) })
    }

    /// The rows of a slice are in the index.
    pub(super) fn moved(&self, slice: &Slice) {
        let Some(last) = slice.rows.last() else { return };
        let mut inner = self.inner();
        // Not by their count: some of them may have been forgotten meanwhile.
        while inner.moving.last().is_some_and(|row| row <= last) {
            inner.moving.pop();
        }
    }

    /// Up to `max` rows of an agent that are in the table, whether the index has them or not (and rows of the index
    /// that are in the table no more); within the transaction, so that those are found too that were written in the
    /// same one.
    pub(super) fn some_of(
        &self,
        tx: &Connection,
        agent: AgentId,
        max: u64,
    ) -> Result<Vec<u64>, Error> {
        let indexed = tx
            .prepare_cached(self.source.indexed)?
            .query_map((agent.0, max), |row| row.get(0))?
            .collect::<Result<Vec<u64>, _>>()?;
        if !indexed.is_empty() {
            return Ok(indexed);
        }
        let from = schema::counter(tx, self.source.counter)?;
        tx.prepare_cached(self.source.newer_of)?
            .query_map((from, agent.0, max), |row| row.get(0))?
            .collect()
    }

    /// Puts rows of one agent into the index.
    pub(super) fn insert(&self, tx: &Connection, agent: AgentId, ids: &[u64]) -> Result<(), Error> {
        let mut insert = tx.prepare_cached(self.source.insert)?;
        for id in ids {
            insert.execute((agent.0, id))?;
        }
        Ok(())
    }

    /// Notes how far the index reaches, if `slice` ends a round.
    pub(super) fn note(&self, tx: &Connection, slice: &Slice) -> Result<(), Error> {
        match slice.reaches {
            Some(reaches) => schema::raise(tx, self.source.counter, reaches),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_others_stay_remembered_when_an_agent_is_forgotten_within_a_round() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.db");
        let database = Database::open(&path, &[super::super::MIGRATIONS]).unwrap();
        let lazy = Lazy::load(&database, &EVENTS).unwrap();
        for id in 0..u64::try_from(ROUND_MIN).unwrap() {
            lazy.add(AgentId(i64::try_from(id % 1000).unwrap()), id);
        }
        let slice = lazy.slice(ROUND_MIN).unwrap();
        let (first, last) = (slice.rows[0].0, slice.rows.last().unwrap().0);
        assert!(first < last, "the slice is of several agents");
        lazy.forget(first);
        lazy.moved(&slice);
        assert!(lazy.recent(last).is_empty(), "all rows of an agent go together");
        for agent in last.0 + 1..1000 {
            assert_eq!(lazy.recent(AgentId(agent)).len(), 20, "{agent}");
        }
    }

    #[test]
    fn a_round_brings_each_row_once_and_ends_with_how_far_it_reaches() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.db");
        let database = Database::open(&path, &[super::super::MIGRATIONS]).unwrap();
        let lazy = Lazy::load(&database, &TASKS).unwrap();
        let count = u64::try_from(ROUND_MIN).unwrap();
        assert!(lazy.slice(ROUND_MIN).is_none());
        for id in 1..=count {
            lazy.add(AgentId(i64::try_from(id % 7).unwrap()), id);
        }
        let mut brought = Vec::new();
        let mut reached = None;
        while let Some(slice) = lazy.slice(ROUND_MIN) {
            assert_eq!(reached, None, "only the last slice says so");
            assert!(slice.rows.is_sorted());
            brought.extend(slice.rows.iter().map(|row| row.1));
            lazy.add(AgentId(1), count + brought.len() as u64);
            lazy.moved(&slice);
            reached = slice.reaches;
        }
        brought.sort_unstable();
        assert_eq!(brought, (1..=count).collect::<Vec<_>>());
        assert_eq!(reached, Some(count - DISORDER));
        assert_eq!(
            lazy.recent(AgentId(1)).len(),
            7,
            "what came meanwhile waits for the next round"
        );
    }
}
