//! The store in a SQLite file.
//!
//! Invariant: a change costs rows at the end of a table and nothing elsewhere; what is ordered by agent (`lazy`) is
//! brought up to date in bulk behind it. So a write dirties few pages, however many agents and however full the tables.
//! Handings-out are noted in a file beside it (`claims`).

mod claims;
mod house;
mod lazy;
mod read;
mod schema;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use database::rusqlite::{self, Connection, OptionalExtension as _, params};
use database::{Database, DatabaseError, Migrations};

use self::claims::ClaimFile;
use self::lazy::Lazy;
use super::{
    ClaimNote, Event, EventQuery, LATE_MAX, Late, Loaded, OutputEnd, Rider, StoreError, Stored,
    TaskPage, TaskQuery, TaskStore, Then,
};
use crate::settings::Settings;
use crate::task::{AgentId, Ending, EventId, Task, TaskId};

/// The tables of this room.
pub const MIGRATIONS: Migrations = Migrations { name: "tasks", steps: schema::STEPS };

/// The store.
#[derive(Debug)]
pub struct SqliteStore {
    database: Database,
    claims: ClaimFile,
    next_event: Arc<AtomicU64>,
    events_by_agent: Arc<Lazy>,
    tasks_by_agent: Arc<Lazy>,
    /// The newest event that was ever dropped: who has read up to it has missed nothing.
    dropped_to: Arc<AtomicU64>,
    is_keeping_house: Arc<AtomicBool>,
}

impl SqliteStore {
    /// Uses `database`, which was opened with [`MIGRATIONS`]. One store at a time: the file of claims beside the
    /// database is locked.
    ///
    /// # Errors
    /// When another server serves from the same file, or it cannot be read.
    pub fn open(database: Database) -> Result<Self, StoreError> {
        let claims = ClaimFile::open(&database)?;
        let next = database.read_now(|c| {
            let highest =
                c.query_row("SELECT max(id) FROM events", [], |r| r.get::<_, Option<u64>>(0))?;
            Ok(highest.unwrap_or(0).max(schema::counter(c, "event_high")?) + 1)
        })?;
        let dropped = database.read_now(|c| {
            c.query_row("SELECT coalesce(max(cut), 0) FROM event_cuts", [], |r| r.get::<_, u64>(0))
        })?;
        Ok(Self {
            claims,
            next_event: Arc::new(AtomicU64::new(next)),
            events_by_agent: Arc::new(Lazy::load(&database, &lazy::EVENTS)?),
            tasks_by_agent: Arc::new(Lazy::load(&database, &lazy::TASKS)?),
            dropped_to: Arc::new(AtomicU64::new(dropped)),
            is_keeping_house: Arc::default(),
            database,
        })
    }
}

impl TaskStore for SqliteStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        let run = self
            .database
            .write(|tx| {
                schema::raise(tx, "runs", schema::counter(tx, "runs")? + 1)?;
                schema::counter(tx, "runs")
            })
            .wait()?;
        let (next_task, open) = self.database.read_now(read::open_tasks)?;
        let notes = self.claims.notes();
        let open = open
            .into_iter()
            .map(|task| {
                let note = notes.get(&task.id).copied();
                (task, note)
            })
            .collect::<Vec<_>>();
        let still_open = open.iter().filter_map(|(_, note)| *note).collect::<Vec<_>>();
        self.claims.rewrite(&still_open)?;
        Ok(Loaded {
            next_task,
            run: u32::try_from(run).unwrap_or(u32::MAX),
            last_event: EventId(self.next_event.load(Relaxed) - 1),
            open,
        })
    }

    fn add_task(&self, task: Task, rider: Option<Rider>, then: Then<()>) {
        let by_agent = Arc::clone(&self.tasks_by_agent);
        let (agent, id) = (task.agent, task.id);
        let insert = move |tx: &Connection| {
            tx.prepare_cached(
                "INSERT INTO tasks(id, agent, priority, attempts_max, enqueued_at, expires_at, sender, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                task.id.0,
                task.agent.0,
                task.priority,
                task.attempts_max,
                task.enqueued_at,
                task.expires_at,
                &*task.by,
                &*task.body,
            ])?;
            Ok(())
        };
        self.database.append_with(insert, rider, move |outcome| {
            if outcome.is_ok() {
                by_agent.add(agent, id.0);
            }
            then(outcome);
        });
    }

    fn end_task(&self, ending: Ending, rider: Option<Rider>, then: Then<()>) {
        let claims = self.claims.clone();
        let task = ending.task;
        let insert = move |tx: &Connection| {
            tx.prepare_cached(
                "INSERT INTO endings(task, outcome, attempts, taken_at, ended_at, reason, result)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE EXISTS (SELECT 1 FROM tasks WHERE id = ?1)",
            )?
            .execute(params![
                ending.task.0,
                ending.outcome.name(),
                ending.attempts,
                ending.taken_at,
                ending.ended_at,
                ending.reason.as_deref(),
                ending.result.as_deref(),
            ])?;
            Ok(())
        };
        self.database.append_with(insert, rider, move |outcome| {
            if outcome.is_ok() {
                claims.forget(task);
            }
            then(outcome);
        });
    }

    fn add_late(&self, late: Late, then: Then<()>) {
        let insert = move |tx: &Connection| {
            tx.prepare_cached(
                "INSERT INTO late_results(task, claim, at, result) SELECT ?1, ?2, ?3, ?4
                 WHERE EXISTS (SELECT 1 FROM tasks WHERE id = ?1)
                 AND (SELECT count(*) FROM late_results WHERE task = ?1) < ?5",
            )?
            .execute(params![
                late.task.0,
                late.claim.map(|claim| claim.0),
                late.at,
                &*late.result,
                LATE_MAX
            ])?;
            Ok(())
        };
        self.database.append(insert, then);
    }

    fn add_event(&self, agent: AgentId, at: u64, body: Bytes, then: Then<EventId>) {
        let next = Arc::clone(&self.next_event);
        let by_agent = Arc::clone(&self.events_by_agent);
        let insert = move |tx: &Connection| {
            // Numbered by the one thread that writes: a reader who has seen one has been able to see all before it.
            let id = next.fetch_add(1, Relaxed);
            tx.prepare_cached("INSERT INTO events(id, agent, at, body) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![id, agent.0, at, &*body])?;
            Ok(EventId(id))
        };
        self.database.append(insert, move |outcome: Result<EventId, DatabaseError>| {
            if let Ok(id) = &outcome {
                by_agent.add(agent, id.0);
            }
            then(outcome);
        });
    }

    fn note_claim(&self, note: ClaimNote) {
        self.claims.note(note);
    }

    fn add_output(
        &self,
        task: TaskId,
        offset: u64,
        bytes: Bytes,
        bytes_max: u64,
        then: Then<OutputEnd>,
    ) {
        let insert = move |tx: &Connection| add_output(tx, task, offset, &bytes, bytes_max);
        self.database.append(insert, then);
    }

    fn forget(&self, agent: AgentId, then: Then<()>) {
        house::forget(self, agent, then);
    }

    fn agents(&self) -> Result<Vec<AgentId>, StoreError> {
        let mut agents = self.database.read_now(read::agents)?;
        agents.extend(self.events_by_agent.agents());
        agents.extend(self.tasks_by_agent.agents());
        agents.sort_unstable();
        agents.dedup();
        Ok(agents)
    }

    fn keep_house(&self, settings: &Settings) {
        house::keep(self, settings);
    }

    fn task(&self, id: TaskId) -> Result<Option<Stored>, StoreError> {
        self.database.read_now(|c| read::task(c, id))
    }

    fn late(&self, id: TaskId) -> Result<Vec<Late>, StoreError> {
        self.database.read_now(|c| read::late(c, id))
    }

    fn tasks(&self, query: &TaskQuery) -> Result<TaskPage, StoreError> {
        match query.agent {
            Some(agent) => {
                let recent = self.tasks_by_agent.recent(agent);
                self.database.read_now(|c| read::tasks_of(c, query, agent, &recent))
            }
            None => self.database.read_now(|c| read::tasks(c, query)),
        }
    }

    fn events(&self, query: &EventQuery) -> Result<Vec<Event>, StoreError> {
        match query.agent {
            Some(agent) => {
                let recent = self.events_by_agent.recent(agent);
                self.database.read_now(|c| read::events_of(c, query, agent, &recent))
            }
            None => self.database.read_now(|c| read::events(c, query)),
        }
    }

    fn dropped(
        &self,
        agent: Option<AgentId>,
        after: EventId,
    ) -> Result<Vec<(AgentId, EventId)>, StoreError> {
        if self.dropped_to.load(Relaxed) <= after.0 {
            return Ok(Vec::new());
        }
        self.database.read_now(|c| {
            c.prepare_cached(
                "SELECT agent, cut FROM event_cuts WHERE cut > ?1 AND ?2 IN (agent, 0)",
            )?
            .query_map([i64::try_from(after.0).unwrap_or(0), agent.map_or(0, |a| a.0)], |row| {
                Ok((AgentId(row.get(0)?), EventId(row.get(1)?)))
            })?
            .collect()
        })
    }

    fn output(
        &self,
        id: TaskId,
        offset: u64,
        max: usize,
    ) -> Result<(Bytes, OutputEnd), StoreError> {
        self.database.read_now(|c| read::output(c, id, offset, max))
    }
}

/// What is there and where the piece begins decide how much of it is new.
fn add_output(
    tx: &Connection,
    task: TaskId,
    offset: u64,
    bytes: &[u8],
    bytes_max: u64,
) -> Result<OutputEnd, rusqlite::Error> {
    let end = tx
        .prepare_cached(
            "SELECT start + length(bytes) FROM outputs WHERE task = ?1 ORDER BY start DESC LIMIT 1",
        )?
        .query_row([task.0], |row| row.get::<_, u64>(0))
        .optional()?
        .unwrap_or(0);
    let known = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
    let room = usize::try_from(bytes_max.saturating_sub(end)).unwrap_or(usize::MAX);
    let new = bytes.get(known..).filter(|_| offset <= end).unwrap_or_default();
    let kept = &new[..new.len().min(room)];
    if !kept.is_empty() {
        tx.prepare_cached(
            "INSERT INTO outputs(task, start, bytes)
             SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM tasks WHERE id = ?1)",
        )?
        .execute(params![task.0, end, kept])?;
    }
    Ok(OutputEnd { next: end + kept.len() as u64, is_capped: kept.len() < new.len() })
}

#[cfg(test)]
mod tests;
