//! The table of files in transfer.
//!
//! Invariant: a step that was released never changes; a change is a step of its own.

use database::rusqlite::{Connection, Error, OptionalExtension as _, Row as Columns, params};

use super::draft::{NewFile, Stored};
use super::name::{FileId, FileName};

/// From nothing to now.
pub(super) const STEPS: &[&str] = &[FIRST];

// Times are milliseconds since 1970.
const FIRST: &str = "
CREATE TABLE files(
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    put_by INTEGER NOT NULL,                    -- the number of an account, which may be gone
    put_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    uses_left INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX files_by_end ON files(expires_at);
";

/// The most that are swept at once.
pub(super) const SWEPT_MAX: usize = 1000;

/// A file to be written down.
pub(super) struct Row {
    pub(super) stored: Stored,
    pub(super) new: NewFile,
    pub(super) now: u64,
    pub(super) expires_at: u64,
}

/// What was left when a use was spent.
pub(super) struct Spent {
    pub(super) bytes: u64,
    pub(super) uses_left: u32,
}

type Outcome<T> = Result<T, Error>;

fn entry(row: &Columns<'_>) -> Outcome<(FileId, u64)> {
    Ok((FileId::stored(row.get(0)?), row.get(1)?))
}

/// Every file with its length.
pub(super) fn all(connection: &Connection) -> Outcome<Vec<(FileId, u64)>> {
    connection.prepare("SELECT id, bytes FROM files")?.query_map([], entry)?.collect()
}

pub(super) fn insert(connection: &Connection, row: &Row) -> Outcome<()> {
    let sql = "INSERT INTO files(id, name, bytes, sha256, put_by, put_at, expires_at, uses_left)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let Row { stored, new, now, expires_at } = row;
    // SQLite counts to 2^63 - 1.
    let expires_at = i64::try_from(*expires_at).unwrap_or(i64::MAX);
    connection
        .prepare_cached(sql)?
        .execute(params![
            stored.id.bytes(),
            new.name.as_str(),
            stored.bytes,
            stored.sha256,
            new.by,
            now,
            expires_at,
            new.uses,
        ])
        .map(drop)
}

/// Length and SHA-256 of a file that may be fetched.
pub(super) fn find(
    connection: &Connection,
    id: FileId,
    name: &FileName,
    now: u64,
) -> Outcome<Option<(u64, [u8; 32])>> {
    let sql = "SELECT bytes, sha256 FROM files
               WHERE id = ?1 AND name = ?2 AND expires_at > ?3 AND uses_left > 0";
    connection
        .prepare_cached(sql)?
        .query_row(params![id.bytes(), name.as_str(), now], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// Spends one use, and removes the row with the last.
pub(super) fn spend(connection: &Connection, id: FileId, now: u64) -> Outcome<Option<Spent>> {
    let sql = "UPDATE files SET uses_left = uses_left - 1
               WHERE id = ?1 AND expires_at > ?2 AND uses_left > 0 RETURNING bytes, uses_left";
    let spent = connection
        .prepare_cached(sql)?
        .query_row(params![id.bytes(), now], |row| {
            Ok(Spent { bytes: row.get(0)?, uses_left: row.get(1)? })
        })
        .optional()?;
    if let Some(Spent { uses_left: 0, .. }) = spent {
        forget(connection, &[id])?;
    }
    Ok(spent)
}

/// Removes a row, and says how long its file is; `None` when there is none, or its time is over.
pub(super) fn remove(
    connection: &Connection,
    id: FileId,
    name: &FileName,
    now: u64,
) -> Outcome<Option<u64>> {
    let sql = "DELETE FROM files WHERE id = ?1 AND name = ?2 AND expires_at > ?3 RETURNING bytes";
    connection
        .prepare_cached(sql)?
        .query_row(params![id.bytes(), name.as_str(), now], |row| row.get(0))
        .optional()
}

/// Removes rows whose time is over, [`SWEPT_MAX`] at most.
pub(super) fn sweep(connection: &Connection, now: u64) -> Outcome<Vec<(FileId, u64)>> {
    let sql = "DELETE FROM files WHERE id IN
                   (SELECT id FROM files WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)
               RETURNING id, bytes";
    connection.prepare_cached(sql)?.query_map(params![now, SWEPT_MAX], entry)?.collect()
}

/// Removes rows.
pub(super) fn forget(connection: &Connection, ids: &[FileId]) -> Outcome<()> {
    let mut statement = connection.prepare_cached("DELETE FROM files WHERE id = ?1")?;
    ids.iter().try_for_each(|id| statement.execute([id.bytes()]).map(drop))
}
