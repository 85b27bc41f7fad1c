//! Files in transfer: left by one, fetched by others, gone after a time or a number of uses.
//!
//! Invariant: a file that somebody was told of is whole and on the disk. Its row is written after it and removed
//! before it; what a crash leaves of the one without the other is removed at the next start. All files together take
//! no more than the space there is for them.
//! Not here: who may leave or fetch one, and how that is asked for (`http`).

mod draft;
pub mod name;
mod place;
mod rows;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use database::{Database, DatabaseError, Migrations, Rider};
use tasks::task::now_ms;

pub use draft::{Draft, NewFile, Stored};
pub use name::{FileId, FileName};

use place::{Gone, Place};

/// The tables of files.
pub const MIGRATIONS: Migrations = Migrations { name: "files", steps: rows::STEPS };

/// How often what has expired is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// All files together may take as much as so many of the longest.
const LONGEST_FILES: u64 = 64;
/// But no less than this, in bytes.
const SPACE_LEAST: u64 = 64 << 20;

/// What can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the files lie. It is made when the first one comes.
    pub directory: PathBuf,
    /// The longest file, in bytes.
    pub bytes_max: u64,
}

/// Why a file was not taken, or not given.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is too long.
    #[error("the file is longer than {limit_bytes} bytes ([tasks] file_bytes_max)")]
    TooLong {
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// All files together take as much as they may, or as the disk has.
    #[error("there is no room for another file; wait until some have expired, or remove some")]
    NoSpace,
    /// The file system failed.
    #[error("the files' directory failed: {0}")]
    Io(std::io::Error),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<std::io::Error> for FileError {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Self::NoSpace,
            _ => Self::Io(error),
        }
    }
}

/// A file that somebody asks for, open: it can be read to its end though it goes meanwhile.
#[derive(Debug)]
pub struct Found {
    /// Its bytes.
    pub file: std::fs::File,
    /// How many they are.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: [u8; 32],
}

/// All files of one server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Files {
    database: Database,
    place: Arc<Place>,
}

impl Files {
    /// Takes up the files that `database`, which has the tables of [`MIGRATIONS`], knows. Blocks. One at a time may
    /// use the directory.
    ///
    /// # Errors
    /// When database or directory cannot be used.
    pub fn open(database: Database, settings: Settings) -> Result<Self, FileError> {
        let space = SPACE_LEAST.max(settings.bytes_max.saturating_mul(LONGEST_FILES));
        let known = database.read_now(rows::all)?;
        let (place, missing) = Place::open(settings, space, &known)?;
        if !missing.is_empty() {
            tracing::warn!("{} files in transfer are gone from their directory", missing.len());
            database.write(move |tx| rows::forget(tx, &missing)).wait()?;
        }
        Ok(Self { database, place: Arc::new(place) })
    }

    /// The longest file there may be, in bytes.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.place.bytes_max()
    }

    /// Begins a new file.
    ///
    /// # Errors
    /// When there is no room for one, or the directory cannot be written.
    pub async fn begin(&self) -> Result<Draft, FileError> {
        Draft::begin(&self.place, &self.database).await
    }

    /// The file `id`, if it is called `name` and has not gone.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn find(&self, id: FileId, name: FileName) -> Result<Option<Found>, FileError> {
        let (database, place) = (self.database.clone(), Arc::clone(&self.place));
        blocking(move || {
            let row = database.read_now(|c| rows::find(c, id, &name, now_ms()))?;
            let Some((bytes, sha256)) = row else { return Ok(None) };
            let file = place.read(id)?;
            Ok(file.map(|file| Found { file, bytes, sha256 }))
        })
        .await
    }

    /// Spends one use of a file: `false` when it has none, or its time is over. With the last one it goes.
    ///
    /// # Errors
    /// When that cannot be written.
    pub async fn spend(&self, id: FileId) -> Result<bool, DatabaseError> {
        let spent = self.change(
            move |tx| rows::spend(tx, id, now_ms()),
            move |place, spent| {
                if let Some(rows::Spent { bytes, uses_left: 0 }) = spent {
                    place.send_away(Gone { id, bytes: *bytes });
                }
            },
        );
        Ok(spent.await?.is_some())
    }

    /// Removes the file `id`, if it is called `name`, and writes `rider` with that. Says whether there was one.
    ///
    /// # Errors
    /// When that cannot be written.
    pub async fn remove(
        &self,
        id: FileId,
        name: FileName,
        rider: Rider,
    ) -> Result<bool, DatabaseError> {
        let removed = self.change(
            move |tx| {
                let removed = rows::remove(tx, id, &name, now_ms())?;
                if removed.is_some() {
                    rider(tx)?;
                }
                Ok(removed)
            },
            move |place, removed| {
                if let Some(bytes) = *removed {
                    place.send_away(Gone { id, bytes });
                }
            },
        );
        Ok(removed.await?.is_some())
    }

    /// Does `then` once `job` is on the disk, also when nobody waits for it any more.
    async fn change<T: Send + 'static>(
        &self,
        job: impl FnOnce(&database::rusqlite::Connection) -> Result<T, database::rusqlite::Error>
        + Send
        + 'static,
        then: impl FnOnce(&Place, &T) + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let place = Arc::clone(&self.place);
        self.database.write_then(job, move |outcome| {
            if let Ok(value) = &outcome {
                then(&place, value);
            }
            // Nobody may wait any more.
            let _ = tell.send(outcome);
        });
        told.await.unwrap_or(Err(DatabaseError::Ended))
    }

    /// Removes what has gone, as long as it is polled.
    pub async fn run(&self) {
        let mut minutes = tokio::time::interval(SWEEP_EVERY);
        minutes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                gone = self.place.next_gone() => self.discard(gone).await,
                _ = minutes.tick() => {
                    if let Err(error) = self.sweep().await {
                        tracing::warn!("files that have expired stay a little longer: {error}");
                    }
                }
            }
        }
    }

    /// Lets go of what has expired.
    async fn sweep(&self) -> Result<(), DatabaseError> {
        while self.sweep_some().await? == rows::SWEPT_MAX {}
        Ok(())
    }

    async fn sweep_some(&self) -> Result<usize, DatabaseError> {
        let swept = self.change(
            |tx| rows::sweep(tx, now_ms()),
            |place, swept| {
                for (id, bytes) in swept {
                    place.send_away(Gone { id: *id, bytes: *bytes });
                }
            },
        );
        Ok(swept.await?.len())
    }

    async fn discard(&self, gone: Gone) {
        let place = Arc::clone(&self.place);
        let discarded = blocking(move || Ok(place.discard(&gone)?)).await;
        if let Err(error) = discarded {
            tracing::warn!("a file in transfer that is gone keeps its space: {error}");
        }
    }
}

/// Does `work` on a thread that may wait for a disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    let ended = |_| Err(FileError::Database(DatabaseError::Ended));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(ended)
}
