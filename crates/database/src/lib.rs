//! One SQLite file that many ask at once.
//!
//! Invariant: what [`Database::write`] acknowledges is on the disk: it was committed with a sync. Writes that arrive
//! while one is being synced share the next one (group commit), so that thousands a second are possible.
//! Not here: what is stored. Each room brings its tables ([`Migrations`]) and its own statements.

mod ack;
mod backup;
mod checkpoint;
mod error;
mod open;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::watch;

pub use ack::Ack;
pub use backup::{back_up, restore};
pub use error::DatabaseError;
pub use open::Migrations;
pub use rusqlite;

use writer::{Typed, Writer};

/// What one room has another write together with a change, in the same transaction.
pub type Rider = Box<dyn FnOnce(&Connection) -> Result<(), rusqlite::Error> + Send>;

/// Connections that are kept for reading; more are opened and closed when as many read at once.
const IDLE_READERS_MAX: usize = 4;

/// An open database. Cheap to clone; the last clone ends the writer, after what was asked of it.
#[derive(Debug, Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    writer: Writer,
    readers: Mutex<Vec<Connection>>,
}

impl Database {
    /// Opens the file at `path`, which is made if there is none (readable by its owner alone), and brings the tables
    /// of all `migrations` up to date.
    ///
    /// # Errors
    /// When it cannot be opened or written, is no database of this program, is damaged, or was written by a newer
    /// version.
    pub fn open(path: &Path, migrations: &[Migrations]) -> Result<Self, DatabaseError> {
        let connection = open::for_writing(path, migrations)?;
        let writer = Writer::start(path, connection)?;
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                writer,
                readers: Mutex::new(Vec::new()),
            }),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Asks the writer to run `job`. An error of the job undoes what it did, and nothing else.
    pub fn write<T, J>(&self, job: J) -> Ack<T>
    where
        T: Send + 'static,
        J: FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        let (ack, tell) = ack::pair();
        self.inner.writer.submit(Box::new(Typed::new(true, job, tell)));
        ack
    }

    /// Like [`Database::write`], and calls `then` like [`Database::append`].
    pub fn write_then<T, J, A>(&self, job: J, then: A)
    where
        T: Send + 'static,
        J: FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
        A: FnOnce(Result<T, DatabaseError>) + Send + 'static,
    {
        self.inner.writer.submit(Box::new(Typed::new(true, job, then)));
    }

    /// Like [`Database::write`] for a job of one statement, which SQLite undoes by itself when it fails: cheaper.
    /// `then` is called on the writer's thread once the outcome is known, and must be quick.
    pub fn append<T, J, A>(&self, job: J, then: A)
    where
        T: Send + 'static,
        J: FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
        A: FnOnce(Result<T, DatabaseError>) + Send + 'static,
    {
        self.inner.writer.submit(Box::new(Typed::new(false, job, then)));
    }

    /// Like [`Database::append`]; where there is a `rider`, both are kept or neither is.
    pub fn append_with<T, J, A>(&self, job: J, rider: Option<Rider>, then: A)
    where
        T: Send + 'static,
        J: FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
        A: FnOnce(Result<T, DatabaseError>) + Send + 'static,
    {
        let Some(rider) = rider else { return self.append(job, then) };
        let both = move |tx: &Connection| {
            let value = job(tx)?;
            rider(tx)?;
            Ok(value)
        };
        self.write_then(both, then);
    }

    /// Reads on a thread for blocking work.
    ///
    /// # Errors
    /// When the file cannot be read, or as `read` says.
    pub async fn read<T, R>(&self, read: R) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        R: FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        let database = self.clone();
        match tokio::task::spawn_blocking(move || database.read_now(read)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DatabaseError::Ended),
        }
    }

    /// Reads on this thread: for a few rows, or where there is no runtime.
    ///
    /// # Errors
    /// As [`Database::read`].
    pub fn read_now<T, R>(&self, read: R) -> Result<T, DatabaseError>
    where
        R: FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    {
        let idle = self.readers().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open::for_reading(&self.inner.path)?,
        };
        let outcome = read(&connection);
        let mut readers = self.readers();
        if outcome.is_ok() && readers.len() < IDLE_READERS_MAX {
            readers.push(connection);
        }
        Ok(outcome?)
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that changes when another process has written to the file, within [`FOREIGN_CHANGE_DELAY`] of it.
    #[must_use]
    pub fn foreign_changes(&self) -> u64 {
        *self.inner.writer.foreign.borrow()
    }

    /// Tells of the same.
    #[must_use]
    pub fn watch_foreign_changes(&self) -> watch::Receiver<u64> {
        self.inner.writer.foreign.subscribe()
    }
}

/// How long a change by another process may stay unnoticed. A program that changes the file of a running server waits
/// as long before it says that it has.
pub const FOREIGN_CHANGE_DELAY: std::time::Duration = std::time::Duration::from_millis(25);

#[cfg(test)]
mod tests;
