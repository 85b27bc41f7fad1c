//! What is asked of the tables.

use bytes::Bytes;
use database::rusqlite::{Connection, Error, OptionalExtension as _, Row, params};

use super::schema;
use crate::store::{Event, EventQuery, Late, OutputEnd, Stored, TaskPage, TaskQuery};
use crate::task::{AgentId, Claim, Ending, EventId, Outcome, Task, TaskId};

/// The bytes that one page of the oldest events may hold, the last of them not counted.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// The rows that one page of tasks may look at, when few of them are wanted.
#[cfg(not(test))]
const LOOKED_AT_MAX: usize = 50_000;
#[cfg(test)]
const LOOKED_AT_MAX: usize = 1000;

/// The bytes of events that one answer with the newest may hold: where they are huge it is fewer events.
const NEWEST_BYTES_MAX: usize = 64 << 20;
/// A task of which all is asked for.
const TASK: &str = "SELECT t.id, t.agent, t.priority, t.attempts_max, t.enqueued_at, t.expires_at, t.sender, t.body,
    e.outcome, e.attempts, e.taken_at, e.ended_at, e.reason, e.result
    FROM tasks t LEFT JOIN endings e ON e.task = t.id";
/// A task among many: what is longer than 4 KiB is left out.
const BRIEF_TASK: &str =
    "SELECT t.id, t.agent, t.priority, t.attempts_max, t.enqueued_at, t.expires_at, t.sender,
    CASE WHEN length(t.body) <= 4096 THEN t.body ELSE x'' END,
    e.outcome, e.attempts, e.taken_at, e.ended_at, e.reason,
    CASE WHEN length(e.result) <= 4096 THEN e.result END
    FROM tasks t LEFT JOIN endings e ON e.task = t.id";
/// A task that waits: the ledger keeps no longer bodies in memory, and reads them when they are handed out.
const OPEN_TASK: &str =
    "SELECT t.id, t.agent, t.priority, t.attempts_max, t.enqueued_at, t.expires_at, t.sender,
    CASE WHEN length(t.body) <= 65536 THEN t.body ELSE x'' END,
    NULL, NULL, NULL, NULL, NULL, NULL
    FROM tasks t LEFT JOIN endings e ON e.task = t.id WHERE e.task IS NULL ORDER BY t.id";

/// SQLite counts to 2^63 - 1.
fn number(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

/// The first free number, and all tasks that have not ended.
pub(super) fn open_tasks(c: &Connection) -> Result<(u64, Vec<Task>), Error> {
    let highest: Option<u64> = c.query_row("SELECT max(id) FROM tasks", [], |row| row.get(0))?;
    let next = highest.unwrap_or(0).max(schema::counter(c, "task_high")?) + 1;
    let open = c
        .prepare(OPEN_TASK)?
        .query_map([], |row| Ok(stored(row)?.task))?
        .collect::<Result<_, _>>()?;
    Ok((next, open))
}

fn stored(row: &Row<'_>) -> Result<Stored, Error> {
    let bytes = |at| Ok::<_, Error>(Bytes::copy_from_slice(row.get_ref(at)?.as_blob()?));
    let task = Task {
        id: TaskId(row.get(0)?),
        agent: AgentId(row.get(1)?),
        priority: row.get(2)?,
        attempts_max: row.get(3)?,
        enqueued_at: row.get(4)?,
        expires_at: row.get(5)?,
        by: row.get_ref(6)?.as_str()?.into(),
        body: bytes(7)?,
    };
    let outcome: Option<String> = row.get(8)?;
    let Some(outcome) = outcome.as_deref().and_then(Outcome::parse) else {
        return Ok(Stored { task, ending: None });
    };
    let ending = Ending {
        task: task.id,
        outcome,
        attempts: row.get(9)?,
        taken_at: row.get(10)?,
        ended_at: row.get(11)?,
        reason: row.get::<_, Option<String>>(12)?.map(Into::into),
        result: row.get_ref(13)?.as_blob_or_null()?.map(Bytes::copy_from_slice),
    };
    Ok(Stored { task, ending: Some(ending) })
}

/// One task.
pub(super) fn task(c: &Connection, id: TaskId) -> Result<Option<Stored>, Error> {
    c.prepare_cached(&format!("{TASK} WHERE t.id = ?1"))?
        .query_row([number(id.0)], stored)
        .optional()
}

/// Late results of a task.
pub(super) fn late(c: &Connection, id: TaskId) -> Result<Vec<Late>, Error> {
    c.prepare_cached("SELECT claim, at, result FROM late_results WHERE task = ?1 ORDER BY id")?
        .query_map([number(id.0)], |row| {
            Ok(Late {
                task: id,
                claim: row.get::<_, Option<u64>>(0)?.map(Claim),
                at: row.get(1)?,
                result: Bytes::copy_from_slice(row.get_ref(2)?.as_blob()?),
            })
        })?
        .collect()
}

/// A page of tasks of all agents.
pub(super) fn tasks(c: &Connection, query: &TaskQuery) -> Result<TaskPage, Error> {
    let mut page = TaskPage::default();
    let mut statement =
        c.prepare_cached(&format!("{BRIEF_TASK} WHERE t.id < ?1 ORDER BY t.id DESC"))?;
    let mut rows = statement.query([number(query.before.0)])?;
    let mut looked_at = 0;
    while let Some(row) = rows.next()? {
        let stored = stored(row)?;
        looked_at += 1;
        let id = stored.task.id;
        if query.wants(stored.ending.as_ref()) {
            page.tasks.push(stored);
        }
        if page.tasks.len() >= query.limit || looked_at >= LOOKED_AT_MAX {
            page.next = Some(id);
            break;
        }
    }
    Ok(page)
}

/// A page of tasks of one agent; `recent` are some of its tasks that the index may lack.
pub(super) fn tasks_of(
    c: &Connection,
    query: &TaskQuery,
    agent: AgentId,
    recent: &[u64],
) -> Result<TaskPage, Error> {
    let before = query.before.0;
    let mut ids: Vec<u64> = c
        .prepare_cached(
            "SELECT id FROM agent_tasks WHERE agent = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3",
        )?
        .query_map(params![agent.0, number(before), LOOKED_AT_MAX], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    // Below it there may be more that have not been looked at.
    let floor = ids.last().copied().filter(|_| ids.len() >= LOOKED_AT_MAX);
    ids.extend(recent.iter().filter(|id| **id < before && Some(**id) >= floor));
    ids.sort_unstable_by(|one, other| other.cmp(one));
    ids.dedup();
    let mut page = TaskPage { tasks: Vec::new(), next: floor.map(TaskId) };
    let mut read = c.prepare_cached(&format!("{BRIEF_TASK} WHERE t.id = ?1"))?;
    for id in ids {
        let Some(stored) = read.query_row([number(id)], stored).optional()? else { continue };
        if query.wants(stored.ending.as_ref()) {
            page.tasks.push(stored);
        }
        if page.tasks.len() >= query.limit {
            page.next = Some(TaskId(id));
            break;
        }
    }
    Ok(page)
}

fn event(row: &Row<'_>) -> Result<Event, Error> {
    Ok(Event {
        id: EventId(row.get(0)?),
        agent: AgentId(row.get(1)?),
        at: row.get(2)?,
        body: Bytes::copy_from_slice(row.get_ref(3)?.as_blob()?),
    })
}

/// What a page of events may still hold.
struct PageRoom(usize);

impl PageRoom {
    fn of(query: &EventQuery) -> Self {
        Self(if query.newest { NEWEST_BYTES_MAX } else { PAGE_BYTES_MAX })
    }

    fn is_full_with(&mut self, event: Option<&Event>) -> bool {
        self.0 = self.0.saturating_sub(event.map_or(0, |event| event.body.len()));
        self.0 == 0
    }
}

/// Events of all agents.
pub(super) fn events(c: &Connection, query: &EventQuery) -> Result<Vec<Event>, Error> {
    let sql = if query.newest {
        "SELECT id, agent, at, body FROM events WHERE id > ?1 ORDER BY id DESC LIMIT ?2"
    } else {
        "SELECT id, agent, at, body FROM events WHERE id > ?1 ORDER BY id LIMIT ?2"
    };
    let mut events = Vec::new();
    let mut room = PageRoom::of(query);
    let mut statement = c.prepare_cached(sql)?;
    for event in statement.query_map(params![number(query.after.0), query.limit], event)? {
        events.push(event?);
        if room.is_full_with(events.last()) {
            break;
        }
    }
    if query.newest {
        events.reverse();
    }
    Ok(events)
}

/// Events of one agent; `recent` are some of its events that the index may lack.
pub(super) fn events_of(
    c: &Connection,
    query: &EventQuery,
    agent: AgentId,
    recent: &[u64],
) -> Result<Vec<Event>, Error> {
    let sql = if query.newest {
        "SELECT id FROM agent_events WHERE agent = ?1 AND id > ?2 ORDER BY id DESC LIMIT ?3"
    } else {
        "SELECT id FROM agent_events WHERE agent = ?1 AND id > ?2 ORDER BY id LIMIT ?3"
    };
    let mut ids: Vec<u64> = c
        .prepare_cached(sql)?
        .query_map(params![agent.0, number(query.after.0), query.limit], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    ids.extend(recent.iter().filter(|id| **id > query.after.0));
    ids.sort_unstable();
    ids.dedup();
    if query.newest {
        ids.reverse();
    }
    let mut read = c.prepare_cached("SELECT id, agent, at, body FROM events WHERE id = ?1")?;
    let mut events = Vec::with_capacity(query.limit.min(ids.len()));
    let mut room = PageRoom::of(query);
    for id in ids.iter().take(query.limit) {
        // One that was dropped meanwhile is too old to be missed.
        let Some(event) = read.query_row([id], event).optional()? else { continue };
        events.push(event);
        if room.is_full_with(events.last()) {
            break;
        }
    }
    if query.newest {
        events.reverse();
    }
    Ok(events)
}

/// Agents that the indexes know.
pub(super) fn agents(c: &Connection) -> Result<Vec<AgentId>, Error> {
    // From one agent to the next without looking at what is between.
    c.prepare_cached(
        "WITH RECURSIVE t(agent) AS (
             SELECT min(agent) FROM agent_tasks
             UNION ALL SELECT (SELECT min(agent) FROM agent_tasks WHERE agent > t.agent) FROM t WHERE agent NOT NULL),
         e(agent) AS (
             SELECT min(agent) FROM agent_events
             UNION ALL SELECT (SELECT min(agent) FROM agent_events WHERE agent > e.agent) FROM e WHERE agent NOT NULL)
         SELECT agent FROM t WHERE agent NOT NULL UNION SELECT agent FROM e WHERE agent NOT NULL",
    )?
    .query_map([], |row| row.get(0).map(AgentId))?
    .collect()
}

/// A piece of output, and where the output ends.
pub(super) fn output(
    c: &Connection,
    id: TaskId,
    offset: u64,
    max: usize,
) -> Result<(Bytes, OutputEnd), Error> {
    let mut statement = c.prepare_cached(
        "SELECT start, bytes FROM outputs WHERE task = ?1 AND start + length(bytes) > ?2 ORDER BY start",
    )?;
    let mut rows = statement.query([number(id.0), number(offset)])?;
    let mut output = Vec::new();
    while let Some(row) = rows.next()? {
        let (start, bytes) = (row.get::<_, u64>(0)?, row.get_ref(1)?.as_blob()?);
        let skipped = usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
        let bytes = bytes.get(skipped..).unwrap_or_default();
        let room = max.saturating_sub(output.len());
        output.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if output.len() >= max {
            break;
        }
    }
    let next = c
        .prepare_cached(
            "SELECT start + length(bytes) FROM outputs WHERE task = ?1 ORDER BY start DESC LIMIT 1",
        )?
        .query_row([number(id.0)], |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    Ok((output.into(), OutputEnd { next, is_capped: false }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: EventQuery, expected: &[u64]) {
        let c = Connection::open_in_memory().unwrap();
        c.execute_batch(schema::STEPS[0]).unwrap();
        for (id, length) in [(1, 10), (2, PAGE_BYTES_MAX + 5), (3, PAGE_BYTES_MAX / 2), (4, 10)] {
            let sql = "INSERT INTO events(id, agent, at, body) VALUES (?1, 7, 0, zeroblob(?2))";
            c.execute(sql, params![id, length]).unwrap();
        }
        let ids = |events: Vec<Event>| events.iter().map(|it| it.id.0).collect::<Vec<_>>();
        assert_eq!(ids(events(&c, &query).unwrap()), expected);
        let of = events_of(&c, &query, AgentId(7), &[1, 2, 3, 4]);
        assert_eq!(ids(of.unwrap()), expected);
    }

    #[test]
    fn a_page_of_large_events_is_short_but_not_empty() {
        let query = EventQuery { agent: None, after: EventId(0), limit: 9, newest: false };
        check(query, &[1, 2]);
        check(EventQuery { after: EventId(1), ..query }, &[2]);
        check(EventQuery { after: EventId(2), ..query }, &[3, 4]);
        check(EventQuery { newest: true, ..query }, &[1, 2, 3, 4]);
    }
}
