//! Copies of a whole database: made while it is in use, brought back while it is not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::error::DatabaseError;

/// Writes a copy of the database at `path` to the new file `to`. The database may be in use; the copy is what was
/// committed when it began.
///
/// # Errors
/// When `path` cannot be read, or `to` exists or cannot be written.
pub fn back_up(path: &Path, to: &Path) -> Result<(), DatabaseError> {
    let open = |why: String| DatabaseError::Open { path: to.to_owned(), why };
    if to.exists() {
        return Err(open("it exists already".into()));
    }
    let source = open_existing(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let name = to.to_str().ok_or_else(|| open("its name is not UTF-8".into()))?;
    source.execute("VACUUM INTO ?1", [name]).map_err(|error| open(error.to_string()))?;
    let copied = std::fs::File::open(to).and_then(|file| {
        use std::os::unix::fs::PermissionsExt as _;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.sync_all()
    });
    copied.and_then(|()| sync_directory(to)).map_err(|error| open(error.to_string()))
}

/// Has the name of the file at `path` on the disk.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Puts the copy `from` in the place of the database at `path`, which no program may have open. What lies beside that
/// database (`-wal`, `-shm`, `-claims`) is removed.
///
/// # Errors
/// When `from` is no sound database of this program, or `path` is in use or cannot be written; `path` is then as it
/// was.
pub fn restore(from: &Path, path: &Path) -> Result<(), DatabaseError> {
    check(from)?;
    if path.exists() {
        check_unused(path)?;
    }
    let failed = |error: std::io::Error| DatabaseError::Open {
        path: path.to_owned(),
        why: error.to_string(),
    };
    let new = beside(path, ".restoring");
    std::fs::copy(from, &new).map_err(failed)?;
    std::fs::File::open(&new).and_then(|file| file.sync_all()).map_err(failed)?;
    // None of them says anything about the copy, whose tasks may even bear numbers that they speak of.
    for left in ["-wal", "-shm", "-claims"] {
        match std::fs::remove_file(beside(path, left)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
    }
    std::fs::rename(&new, path).and_then(|()| sync_directory(path)).map_err(failed)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn open_existing(path: &Path, flags: OpenFlags) -> Result<Connection, DatabaseError> {
    Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| DatabaseError::of_opening(path, &error))
}

fn check(path: &Path) -> Result<(), DatabaseError> {
    let broken = |why: String| DatabaseError::Corrupt { path: path.to_owned(), why };
    let copy = open_existing(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let ask = |sql| copy.query_row(sql, [], |row| row.get::<_, rusqlite::types::Value>(0));
    let text = |error: rusqlite::Error| broken(error.to_string());
    ask("SELECT version FROM schema LIMIT 1").map_err(text)?;
    match ask("PRAGMA quick_check").map_err(text)? {
        rusqlite::types::Value::Text(found) if found == "ok" => Ok(()),
        found => Err(broken(format!("{found:?}"))),
    }
}

/// Whoever has a database in WAL mode open holds a lock that this one asks for.
fn check_unused(path: &Path) -> Result<(), DatabaseError> {
    let database = open_existing(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let locked = database
        .busy_timeout(Duration::ZERO)
        .and_then(|()| {
            database.execute_batch("PRAGMA locking_mode = exclusive; BEGIN EXCLUSIVE; COMMIT;")
        })
        .map_err(DatabaseError::from);
    match locked {
        Err(DatabaseError::Locked) => Err(DatabaseError::Open {
            path: path.to_owned(),
            why: "a program has it open (end the server first)".into(),
        }),
        // A damaged file is what backups are for.
        _ => Ok(()),
    }
}
