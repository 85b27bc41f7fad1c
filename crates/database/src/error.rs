//! Why a database could not do something.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::ErrorCode;

/// Why a database could not be opened, read or written. Cheap to clone: all writes of a batch fail for one reason.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DatabaseError {
    /// Another process holds the write lock for too long.
    #[error("the database is locked by another program")]
    Locked,
    /// No room is left where it lies.
    #[error("the disk with the database is full")]
    Full,
    /// It may be read only.
    #[error("the database cannot be written: it, or its directory, is read-only")]
    ReadOnly,
    /// It is damaged, or no database at all.
    #[error("{} is damaged or no database of gatehouse (restore a backup: gatehouse restore): {why}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// It was written by a newer version.
    #[error("{} was written by a newer version of gatehouse (its tables of `{set}` are version {found}, this program \
        knows {known})", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Whose tables.
        set: &'static str,
        /// Their version.
        found: usize,
        /// The newest one that is known.
        known: usize,
    },
    /// It cannot be opened.
    #[error("{} cannot be opened: {why}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// More writes wait than may.
    #[error("too many writes wait for the disk")]
    Busy,
    /// A row breaks a rule of its table.
    #[error("{0}")]
    Constraint(Arc<str>),
    /// Something else went wrong.
    #[error("the database failed: {0}")]
    Other(Arc<str>),
    /// It has been closed.
    #[error("the database is closed")]
    Ended,
}

impl From<rusqlite::Error> for DatabaseError {
    fn from(error: rusqlite::Error) -> Self {
        let text = || Arc::from(error.to_string());
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly,
            Some(ErrorCode::ConstraintViolation) => Self::Constraint(text()),
            _ => Self::Other(text()),
        }
    }
}

impl DatabaseError {
    /// What `error`, met while opening the file at `path`, means.
    pub(crate) fn of_opening(path: &std::path::Path, error: &rusqlite::Error) -> Self {
        let path = path.to_owned();
        let why = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Self::Corrupt { path, why }
            }
            _ => Self::Open { path, why },
        }
    }
}
