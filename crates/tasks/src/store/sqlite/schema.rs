//! The tables.

use database::rusqlite::{Connection, Error, OptionalExtension as _};

/// From nothing to now; steps that were released never change.
pub(super) const STEPS: &[&str] = &["
CREATE TABLE tasks(
    id INTEGER PRIMARY KEY, agent INTEGER NOT NULL, priority INTEGER NOT NULL, attempts_max INTEGER NOT NULL,
    enqueued_at INTEGER NOT NULL, expires_at INTEGER, sender TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE endings(
    task INTEGER PRIMARY KEY, outcome TEXT NOT NULL, attempts INTEGER NOT NULL, taken_at INTEGER,
    ended_at INTEGER NOT NULL, reason TEXT, result BLOB);
CREATE TABLE late_results(
    id INTEGER PRIMARY KEY, task INTEGER NOT NULL, claim INTEGER, at INTEGER NOT NULL, result BLOB NOT NULL);
CREATE INDEX late_results_of ON late_results(task);
CREATE TABLE outputs(
    task INTEGER NOT NULL, start INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY(task, start));
CREATE TABLE events(
    id INTEGER PRIMARY KEY, agent INTEGER NOT NULL, at INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE agent_tasks(agent INTEGER, id INTEGER, PRIMARY KEY(agent, id)) WITHOUT ROWID;
CREATE TABLE agent_events(agent INTEGER, id INTEGER, PRIMARY KEY(agent, id)) WITHOUT ROWID;
-- The newest event of an agent that was dropped.
CREATE TABLE event_cuts(agent INTEGER PRIMARY KEY, cut INTEGER NOT NULL);
CREATE TABLE counters(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"];

/// A number that only rises; 0 before the first time.
pub(super) fn counter(connection: &Connection, name: &str) -> Result<u64, Error> {
    let value = connection
        .prepare_cached("SELECT value FROM counters WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    Ok(value.unwrap_or(0))
}

/// Raises it.
pub(super) fn raise(connection: &Connection, name: &str, value: u64) -> Result<(), Error> {
    connection
        .prepare_cached(
            "INSERT INTO counters(name, value) VALUES (?1, ?2)
             ON CONFLICT(name) DO UPDATE SET value = max(value, excluded.value)",
        )?
        .execute((name, value))?;
    Ok(())
}
