//! What is kept on disk of a machine that is lent, so that a new server finds it again.
//!
//! Invariant: a record is there whole or not at all, and holds no secret. A folder without one is of a machine that
//! nobody was told of: it is cleaned away.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::credentials::TokenHash;
use crate::machine::{HostKey, MachineId};

/// The longest record that is read, in bytes.
const RECORD_BYTES_MAX: u64 = 256 << 10;
/// Of which form records are; others are not understood.
const VERSION: u32 = 1;

/// A machine as it was when it was lent, or its lifetime extended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The form of this record.
    pub version: u32,
    /// Its name.
    pub id: MachineId,
    /// What proves that it is one's own.
    pub token: TokenHash,
    /// What it was started from.
    pub image: String,
    /// Whether its guest has our agent.
    pub has_agent: bool,
    /// Memory in MiB.
    pub memory_mb: u32,
    /// Processors.
    pub vcpus: u32,
    /// The server's port that leads to its SSH server.
    pub port: u16,
    /// Its user.
    pub username: String,
    /// How its SSH server is known.
    pub host_key: Option<HostKey>,
    /// Who asked for it.
    pub owner: Option<String>,
    /// The public key that was ordered with it.
    #[serde(default)]
    pub ssh_public_key: Option<String>,
    /// What the asker wanted to remember of it.
    pub labels: BTreeMap<String, String>,
    /// When it was asked for.
    pub created_at: SystemTime,
    /// When it is taken back.
    pub expires_at: Option<SystemTime>,
    /// Whether its owner certainly knows of it.
    #[serde(default = "yes")]
    pub is_told: bool,
}

/// What is meant where an older server wrote nothing of it.
fn yes() -> bool {
    true
}

impl Record {
    /// The form that is written now.
    pub const VERSION: u32 = VERSION;

    /// Beside the machine's folder, not in it: that may be another user's, whom QEMU runs as.
    fn path(directory: &Path) -> PathBuf {
        directory.with_extension("json")
    }

    /// Removes that of the machine in `directory`, if there is one. Blocks.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(directory: &Path) -> io::Result<()> {
        Self::remove_unfinished(directory)?;
        remove_file(&Self::path(directory))
    }

    /// Removes what a server left that was killed while it wrote. Blocks.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove_unfinished(directory: &Path) -> io::Result<()> {
        remove_file(&Self::unfinished(directory))
    }

    fn unfinished(directory: &Path) -> PathBuf {
        directory.with_extension("json.new")
    }

    /// Writes that of the machine in `directory` and waits for the disk. Blocks.
    ///
    /// # Errors
    /// What the file system says; the record before is still there then.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let new = Self::unfinished(directory);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(&new, Self::path(directory))?;
        let parent = directory.parent().unwrap_or(directory);
        File::open(parent)?.sync_all()
    }

    /// Reads that of `directory`; `None` where there is none. Blocks.
    ///
    /// # Errors
    /// When it cannot be read or is not a record of a form that is known.
    pub fn read(directory: &Path) -> io::Result<Option<Self>> {
        let path = Self::path(directory);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let limited = io::Read::take(file, RECORD_BYTES_MAX);
        let record: Self = serde_json::from_reader(limited)?;
        if record.version != VERSION {
            let what = format!("{}: form {} is not known", path.display(), record.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Some(record))
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials;

    fn record() -> (Record, wire::Secret) {
        let token = credentials::token().unwrap();
        let record = Record {
            version: VERSION,
            id: MachineId::random(),
            token: TokenHash::of(&token),
            image: "small".into(),
            has_agent: true,
            memory_mb: 512,
            vcpus: 1,
            port: 10_022,
            username: "user_10000".into(),
            host_key: None,
            owner: Some("ops".into()),
            ssh_public_key: None,
            labels: BTreeMap::from([("class".into(), "7b".into())]),
            created_at: SystemTime::UNIX_EPOCH,
            expires_at: None,
            is_told: false,
        };
        (record, token)
    }

    #[test]
    fn what_was_written_is_read_and_holds_no_secret() {
        let running = tempfile::tempdir().unwrap();
        let directory = running.path().join("m");
        assert_eq!(Record::read(&directory).unwrap(), None);
        let (record, token) = record();
        record.write(&directory).unwrap();
        assert_eq!(Record::read(&directory).unwrap(), Some(record));
        let text = fs::read_to_string(running.path().join("m.json")).unwrap();
        assert!(!text.contains(token.expose()));
        fs::write(running.path().join("m.json.new"), "{").unwrap();
        Record::remove(&directory).unwrap();
        assert_eq!(fs::read_dir(running.path()).unwrap().count(), 0);
        assert_eq!(Record::read(&directory).unwrap(), None);
    }

    #[test]
    fn a_record_that_is_torn_or_of_another_form_is_an_error() {
        let running = tempfile::tempdir().unwrap();
        let directory = running.path().join("m");
        let (mut record, _) = record();
        record.version = 2;
        record.write(&directory).unwrap();
        assert!(Record::read(&directory).unwrap_err().to_string().contains("form 2"));
        fs::write(running.path().join("m.json"), "{\"version\": 1").unwrap();
        assert!(Record::read(&directory).is_err());
    }
}
