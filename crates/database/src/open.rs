//! Opens the file and brings its tables up to date.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior};

use crate::error::DatabaseError;

/// How long the write lock of another process is waited for.
#[cfg(not(test))]
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
#[cfg(test)]
const LOCK_TIMEOUT: Duration = Duration::from_millis(200);
/// Marks a file as one of ours ("gate"), so that another program's is not changed by mistake.
const APPLICATION_ID: i32 = 0x6761_7465;
/// Statements that are kept ready.
const STATEMENTS: usize = 64;

/// The tables of one room: each step of SQL leads to the next version. Steps that were released never change.
#[derive(Debug, Clone, Copy)]
pub struct Migrations {
    /// The room.
    pub name: &'static str,
    /// SQL, from nothing to now.
    pub steps: &'static [&'static str],
}

/// Opens for the one writer.
pub(crate) fn for_writing(
    path: &Path,
    migrations: &[Migrations],
) -> Result<Connection, DatabaseError> {
    make_private(path)?;
    let broken = |error: rusqlite::Error| DatabaseError::of_opening(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(broken)?;
    connection.busy_timeout(LOCK_TIMEOUT).map_err(broken)?;
    check_owner(path, &connection)?;
    connection
        .execute_batch(
            "PRAGMA journal_mode = wal; PRAGMA synchronous = full; PRAGMA foreign_keys = on;
             PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -16384;",
        )
        .map_err(broken)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    migrate(path, &mut connection, migrations)?;
    Ok(connection)
}

/// Opens for one of many readers.
pub(crate) fn for_reading(path: &Path) -> Result<Connection, DatabaseError> {
    let broken = |error: rusqlite::Error| DatabaseError::of_opening(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(broken)?;
    connection.busy_timeout(LOCK_TIMEOUT).map_err(broken)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// Opens for carrying the write-ahead log over.
pub(crate) fn for_checkpoints(path: &Path) -> Result<Connection, DatabaseError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
        .and_then(|connection| {
            connection
                .execute_batch("PRAGMA synchronous = full; PRAGMA wal_autocheckpoint = 0;")?;
            Ok(connection)
        })
        .map_err(|error| DatabaseError::of_opening(path, &error))
}

/// Makes the file where there is none. It holds what agents were told to do: nobody else's affair.
fn make_private(path: &Path) -> Result<(), DatabaseError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(DatabaseError::Open { path: path.to_owned(), why: error.to_string() }),
    }
}

/// Refuses the database of another program.
fn check_owner(path: &Path, connection: &Connection) -> Result<(), DatabaseError> {
    let broken = |error: rusqlite::Error| DatabaseError::of_opening(path, &error);
    let id: i32 =
        connection.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(broken)?;
    if id == APPLICATION_ID {
        return Ok(());
    }
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(broken)?;
    if id == 0 && tables == 0 {
        return Ok(());
    }
    let why = "it is the database of another program".to_owned();
    Err(DatabaseError::Corrupt { path: path.to_owned(), why })
}

/// Runs the steps that the file does not have yet; all of them or none.
fn migrate(
    path: &Path,
    connection: &mut Connection,
    migrations: &[Migrations],
) -> Result<(), DatabaseError> {
    if is_current(connection, migrations) {
        return Ok(());
    }
    let broken = |error: rusqlite::Error| DatabaseError::of_opening(path, &error);
    let read_only = |error: rusqlite::Error| match DatabaseError::from(error) {
        DatabaseError::Other(why) => {
            DatabaseError::Open { path: path.to_owned(), why: why.to_string() }
        }
        known => known,
    };
    let tx =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(read_only)?;
    tx.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID};
         CREATE TABLE IF NOT EXISTS schema(name TEXT PRIMARY KEY, version INTEGER NOT NULL);"
    ))
    .map_err(read_only)?;
    for set in migrations {
        let found = version(&tx, set).map_err(broken)?;
        let known = set.steps.len();
        let Some(missing) = set.steps.get(found..) else {
            return Err(DatabaseError::TooNew {
                path: path.to_owned(),
                set: set.name,
                found,
                known,
            });
        };
        for step in missing {
            tx.execute_batch(step).map_err(broken)?;
        }
        tx.execute(
            "INSERT INTO schema(name, version) VALUES (?1, ?2)
             ON CONFLICT(name) DO UPDATE SET version = excluded.version",
            (set.name, known),
        )
        .map_err(broken)?;
    }
    tx.commit().map_err(read_only)
}

fn is_current(connection: &Connection, migrations: &[Migrations]) -> bool {
    migrations.iter().all(|set| version(connection, set).is_ok_and(|it| it == set.steps.len()))
}

fn version(connection: &Connection, set: &Migrations) -> Result<usize, rusqlite::Error> {
    let version = connection
        .query_row("SELECT version FROM schema WHERE name = ?1", [set.name], |row| row.get(0))
        .optional()?;
    Ok(version.unwrap_or(0))
}
