//! One server for one folder of machines: a second would take the machines of the first for what a dead one left.
//!
//! Invariant: the system itself gives the lock back, however the server ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an earlier server is waited for that is about to be gone.
const WAIT_MAX: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);

/// Locks `directory`, which is made when it is not there. Blocks.
pub(super) fn lock(directory: &Path) -> io::Result<File> {
    super::private_folder(directory)?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600);
    let file = file.open(directory.join("lock"))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < WAIT_MAX => {
                std::thread::sleep(PAUSE);
            }
            Err(TryLockError::WouldBlock) => {
                let why = "another server lends machines from this folder; end it, or set another `state`";
                return Err(io::Error::other(why));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::lock;

    #[test]
    fn a_folder_is_one_server_s_until_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("machines");
        let first = lock(&folder).unwrap();
        let error = lock(&folder).unwrap_err();
        assert!(error.to_string().contains("another server"), "{error}");
        drop(first);
        drop(lock(&folder).unwrap());
    }
}
