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
const ROUND_MIN: usize = 20_000;
/// Rows of one transaction: a few milliseconds of the writer.
const SLICE: usize = 256;
/// Numbers can be stored in another order than they were given in, by less than this.
const DISORDER: u64 = 10_000;

/// A table and its index by agent.
#[derive(Debug)]
pub(super) struct Source {
    /// Rows after a number, of any agent.
    newer: &'static str,
    insert: &'static str,
    /// How far the index reaches.
    counter: &'static str,
}

pub(super) static EVENTS: Source = Source {
    newer: "SELECT agent, id FROM events WHERE id > ?1 ORDER BY id",
    insert: "INSERT OR IGNORE INTO agent_events(agent, id) VALUES (?1, ?2)",
    counter: "events_indexed",
};

pub(super) static TASKS: Source = Source {
    newer: "SELECT agent, id FROM tasks WHERE id > ?1 ORDER BY id",
    insert: "INSERT OR IGNORE INTO agent_tasks(agent, id) VALUES (?1, ?2)",
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

    /// The next rows to carry over, if there are enough. All rows of an agent go together.
    pub(super) fn slice(&self) -> Option<Slice> {
        let mut inner = self.inner();
        if inner.moving.is_empty() {
            if inner.fresh.len() < ROUND_MIN {
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
        let mut inner = self.inner();
        let left = inner.moving.len().saturating_sub(slice.rows.len());
        inner.moving.truncate(left);
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
