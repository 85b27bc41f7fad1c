//! The file with the process id, as long as the server runs.
//!
//! Invariant: a server holds a lock on its file, which the system takes back however the server ends. So a number in a
//! file that nobody holds is never taken for a server, whoever has that number now.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The most that is read of one.
const BYTES_MAX: u64 = 32;
/// How long a file is waited for that another looks at or gives up.
const WAIT_MAX: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(20);

/// What a pid file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// There is none.
    Nothing,
    /// The server that wrote this number runs.
    Running(u32),
    /// Who wrote it has ended; the number, where it is one.
    Stale(Option<u32>),
}

/// Whoever can read a file can lock it: others could keep a server from starting.
const MODE: u32 = 0o600;

/// The file of this process; it goes with it.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

impl PidFile {
    /// Writes this process's number to `path` and holds the file.
    ///
    /// # Errors
    /// When the file cannot be written, or another server holds it.
    pub fn write(path: &Path) -> io::Result<Self> {
        let begun = Instant::now();
        loop {
            let mut options = OpenOptions::new();
            let mut file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(MODE)
                .open(path)?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) if begun.elapsed() >= WAIT_MAX => {
                    let pid = number(&mut file).map_or("unknown".to_owned(), |pid| pid.to_string());
                    let why =
                        format!("a server with this file runs already, pid {pid}; end it first");
                    return Err(io::Error::other(why));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
                // Who held it until now may have removed it in between; then there is another, or none.
                Ok(()) if !is_at(&file, path) && begun.elapsed() < WAIT_MAX => {}
                // On a file system without locks the file is there all the same.
                Ok(()) | Err(TryLockError::Error(_)) => {
                    file.set_permissions(fs::Permissions::from_mode(MODE))?;
                    file.set_len(0)?;
                    file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
                    return Ok(Self { path: path.to_owned(), _file: file });
                }
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = fs::remove_file(&self.path);
    }
}

/// What the file at `path` says.
///
/// # Errors
/// When it cannot be read.
pub fn look(path: &Path) -> io::Result<Found> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        opened => opened?,
    };
    let pid = number(&mut file);
    match (file.try_lock_shared(), pid) {
        (Err(TryLockError::WouldBlock), Some(pid)) => Ok(Found::Running(pid)),
        (Err(TryLockError::WouldBlock), None) => {
            Err(io::Error::other("a server holds it and has not written its number yet"))
        }
        (Err(TryLockError::Error(error)), _) => Err(error),
        (Ok(()), pid) => Ok(Found::Stale(pid)),
    }
}

fn number(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn is_at(file: &File, path: &Path) -> bool {
    let place = |found: fs::Metadata| (found.dev(), found.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => place(ours) == place(there),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, PidFile, look};

    #[test]
    fn a_file_says_who_runs_as_long_as_it_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.pid");
        assert_eq!(look(&path).unwrap(), Found::Nothing);
        let held = PidFile::write(&path).unwrap();
        assert_eq!(look(&path).unwrap(), Found::Running(std::process::id()));
        let error = PidFile::write(&path).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(held);
        assert_eq!(look(&path).unwrap(), Found::Nothing);
    }

    #[test]
    fn a_number_that_nobody_holds_is_stale_also_when_it_is_a_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.pid");
        std::fs::write(&path, "1\n").unwrap();
        assert_eq!(look(&path).unwrap(), Found::Stale(Some(1)));
        std::fs::write(&path, "no number").unwrap();
        assert_eq!(look(&path).unwrap(), Found::Stale(None));
        let _held = PidFile::write(&path).unwrap();
        assert_eq!(look(&path).unwrap(), Found::Running(std::process::id()));
    }
}
