//! Keeps the tables in order: indexes behind the rows, no more events than are kept, no older tasks.
//!
//! Invariant: the work comes in slices of a few milliseconds, and the next is submitted when one is done; so whatever
//! else is to be written waits for one slice at most.

mod events;

use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
};
use std::sync::{Arc, Mutex};

use database::Database;
use database::rusqlite::{Connection, Error};

use super::lazy::{Lazy, ROUND_MIN, Slice};
use super::{SqliteStore, schema};
use crate::settings::Settings;
use crate::store::Then;
use crate::task::{AgentId, now_ms};

/// Tasks of one slice.
const OLD_MAX: u64 = 100;
/// Events of one slice, of an agent that is forgotten.
const EVENTS_MAX: u64 = 500;

/// One round of work.
#[derive(Debug, Clone)]
struct Round {
    database: Database,
    events: Arc<Lazy>,
    tasks: Arc<Lazy>,
    dropped_to: Arc<AtomicU64>,
    is_under_way: Arc<AtomicBool>,
    settings: Settings,
    /// Events that are too many, as far as this round has found them.
    surplus: Arc<Mutex<events::Surplus>>,
}

/// Begins a round, unless one is under way.
pub(super) fn keep(store: &SqliteStore, settings: &Settings) {
    if store.is_keeping_house.swap(true, AcqRel) {
        return;
    }
    let round = Round {
        database: store.database.clone(),
        events: Arc::clone(&store.events_by_agent),
        tasks: Arc::clone(&store.tasks_by_agent),
        dropped_to: Arc::clone(&store.dropped_to),
        is_under_way: Arc::clone(&store.is_keeping_house),
        settings: *settings,
        surplus: Arc::default(),
    };
    round.step();
}

impl Round {
    fn step(self) {
        debug_assert!(self.is_under_way.load(Acquire), "rounds do not overlap");
        // Where few are kept, few may be too many.
        let enough = ROUND_MIN.min(self.settings.events_max.saturating_mul(40)).max(1);
        if let Some(slice) = self.events.slice(enough) {
            self.file_events(slice);
        } else if let Some(slice) = self.tasks.slice(ROUND_MIN) {
            self.file_tasks(slice);
        } else {
            self.drop_old_tasks();
        }
    }

    /// Goes on after a slice that succeeded; another round tries again after one that did not.
    fn next<T>(self, outcome: &Result<T, database::DatabaseError>, goes_on: bool) {
        match outcome {
            Ok(_) if goes_on => self.step(),
            Ok(_) => self.is_under_way.store(false, Relaxed),
            Err(error) => {
                tracing::warn!("the tables were not put in order: {error}");
                self.is_under_way.store(false, Relaxed);
            }
        }
    }

    fn file_tasks(self, slice: Slice) {
        let (lazy, rows) = (Arc::clone(&self.tasks), slice.clone());
        let job = move |tx: &Connection| {
            for rows in rows.rows.chunk_by(|one, other| one.0 == other.0) {
                let ids: Vec<u64> = rows.iter().map(|row| row.1).collect();
                let Some((agent, _)) = rows.first() else { continue };
                lazy.insert(tx, *agent, &ids)?;
            }
            lazy.note(tx, &rows)
        };
        let database = self.database.clone();
        database.write_then(job, move |outcome| {
            if outcome.is_ok() {
                self.tasks.moved(&slice);
            }
            self.next(&outcome, true);
        });
    }

    fn drop_old_tasks(self) {
        let Some(history) = self.settings.history else {
            self.is_under_way.store(false, Relaxed);
            return;
        };
        let age = u64::try_from(history.as_millis()).unwrap_or(u64::MAX);
        let before = now_ms().saturating_sub(age);
        let database = self.database.clone();
        // Looked for on this thread first: most of the time there is nothing to write.
        let old = database.read_now(|c| old_tasks(c, before)).unwrap_or_default();
        if old.is_empty() {
            self.is_under_way.store(false, Relaxed);
            return;
        }
        let goes_on = old.len() as u64 == OLD_MAX;
        let job = move |tx: &Connection| {
            old.iter().try_for_each(|(id, agent)| drop_task(tx, *id, *agent))
        };
        database.write_then(job, move |outcome| self.next(&outcome, goes_on));
    }
}

/// The oldest tasks that ended before `before`. Tasks end about in the order of their numbers, so only the first are
/// looked at: one that ended late among them holds up those behind it.
fn old_tasks(connection: &Connection, before: u64) -> Result<Vec<(u64, i64)>, Error> {
    connection
        .prepare_cached(
            "SELECT task, agent FROM (SELECT task, ended_at FROM endings ORDER BY task LIMIT ?2)
             JOIN tasks ON tasks.id = task WHERE ended_at < ?1",
        )?
        .query_map((before, OLD_MAX), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

fn drop_task(tx: &Connection, id: u64, agent: i64) -> Result<(), Error> {
    schema::raise(tx, "task_high", id)?;
    for sql in [
        "DELETE FROM tasks WHERE id = ?1",
        "DELETE FROM endings WHERE task = ?1",
        "DELETE FROM late_results WHERE task = ?1",
        "DELETE FROM outputs WHERE task = ?1",
    ] {
        tx.prepare_cached(sql)?.execute([id])?;
    }
    tx.prepare_cached("DELETE FROM agent_tasks WHERE agent = ?1 AND id = ?2")?
        .execute((agent, id))?;
    Ok(())
}

/// Removes all of an agent.
pub(super) fn forget(store: &SqliteStore, agent: AgentId, then: Then<()>) {
    let forgetting = Forgetting {
        database: store.database.clone(),
        events: Arc::clone(&store.events_by_agent),
        tasks: Arc::clone(&store.tasks_by_agent),
        agent,
        then,
    };
    forgetting.step();
}

/// An agent that is being forgotten, in slices. What a crash leaves of one is found at the next start.
struct Forgetting {
    database: Database,
    events: Arc<Lazy>,
    tasks: Arc<Lazy>,
    agent: AgentId,
    then: Then<()>,
}

impl Forgetting {
    fn step(self) {
        let (events, tasks) = (Arc::clone(&self.events), Arc::clone(&self.tasks));
        let agent = self.agent;
        let database = self.database.clone();
        let job = move |tx: &Connection| forget_some(tx, agent, &tasks, &events);
        database.write_then(job, move |outcome| match outcome {
            Ok(Left::Some) => self.step(),
            Ok(Left::Nothing) => {
                self.tasks.forget(agent);
                self.events.forget(agent);
                (self.then)(Ok(()));
            }
            Err(error) => (self.then)(Err(error)),
        });
    }
}

/// What is left of an agent.
enum Left {
    Some,
    Nothing,
}

/// Removes the next of what is left.
fn forget_some(
    tx: &Connection,
    agent: AgentId,
    tasks: &Lazy,
    events: &Lazy,
) -> Result<Left, Error> {
    let some = tasks.some_of(tx, agent, OLD_MAX)?;
    for id in &some {
        drop_task(tx, *id, agent.0)?;
    }
    if !some.is_empty() {
        return Ok(Left::Some);
    }
    let some = events.some_of(tx, agent, EVENTS_MAX)?;
    for id in &some {
        schema::raise(tx, "event_high", *id)?;
        tx.prepare_cached("DELETE FROM events WHERE id = ?1")?.execute([id])?;
        tx.prepare_cached("DELETE FROM agent_events WHERE agent = ?1 AND id = ?2")?
            .execute((agent.0, id))?;
    }
    if !some.is_empty() {
        return Ok(Left::Some);
    }
    tx.prepare_cached("DELETE FROM event_cuts WHERE agent = ?1")?.execute([agent.0])?;
    Ok(Left::Nothing)
}
