//! What is remembered of machines that were created here: how to reach them, and their credentials.
//!
//! Invariant: a file here is its owner's alone from the beginning; a record is given out only for the
//! server it came from; names of files come from ids that have been checked.

use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wire::Secret;

use crate::CliError;

/// How long after its end a machine is remembered, in case that it was extended from elsewhere.
const STALE_SECS: i64 = 7 * 24 * 3600;
/// Endings of the files of the way through the gateway.
const CERTIFICATE: &str = "cert.pub";
/// See [`CERTIFICATE`].
const GATEWAY: &str = "gateway_known_hosts";
/// What a record may be long.
const RECORD_BYTES_MAX: u64 = 64 << 10;
/// The most files that are looked at for stale ones.
const FILES_MAX: usize = 10_000;

/// A machine that was created here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The server's address.
    pub(crate) url: String,
    pub(crate) id: String,
    /// Where its SSH server is reached, when it was created.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) username: String,
    #[serde(with = "wire::secret::exposed")]
    pub(crate) token: Secret,
    /// Only if that was wanted.
    pub(crate) password: Option<Password>,
    pub(crate) host_key: Option<String>,
    pub(crate) host_key_fingerprint: Option<String>,
    /// The private key whose public one it was given.
    pub(crate) identity_file: Option<String>,
    pub(crate) expires_at: Option<String>,
}

/// A password in a record.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Password(#[serde(with = "wire::secret::exposed")] pub(crate) Secret);

/// What this user remembers of machines.
#[derive(Debug, Clone)]
pub struct Kept {
    directory: PathBuf,
}

impl Kept {
    /// What is kept below `state`, the directory for what programs remember.
    #[must_use]
    pub fn below(state: &Path) -> Self {
        Self { directory: state.join("gatehouse").join("machines") }
    }

    /// The record of the machine `id` of the server at `url`, if there is one.
    pub(super) fn load(&self, url: &str, id: &str) -> Result<Option<Record>, CliError> {
        let file = self.file(id, "json")?;
        let failed = |source| CliError::File { file: file.clone(), source };
        let text = match read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        let record: Record = serde_json::from_str(&text).map_err(|why| failed(why.into()))?;
        Ok(Some(record).filter(|record| record.url == url && record.id == id))
    }

    /// Keeps `record`; gives the file. It is there whole or not at all.
    pub(super) fn store(&self, record: &Record) -> Result<PathBuf, CliError> {
        let text = serde_json::to_string_pretty(record).map_err(io::Error::from)?;
        self.write(&record.id, "json", &text)
    }

    /// Writes the file of host keys that holds for the machine `id` alone; gives its name.
    pub(super) fn write_known_hosts(&self, id: &str, line: &str) -> Result<PathBuf, CliError> {
        self.write(id, "known_hosts", line)
    }

    /// Writes the certificate for the machine `id`, and the file with the gateway's host key; gives their names.
    pub(super) fn write_gateway(
        &self,
        id: &str,
        certificate: &str,
        host_key_line: &str,
    ) -> Result<(PathBuf, PathBuf), CliError> {
        let certificate = self.write(id, CERTIFICATE, certificate)?;
        Ok((certificate, self.write(id, GATEWAY, host_key_line)?))
    }

    /// The file of host keys of the machine `id`, whether or not it is there; its directory is.
    pub(super) fn known_hosts(&self, id: &str) -> Result<PathBuf, CliError> {
        let file = self.file(id, "known_hosts")?;
        self.make().map_err(|source| CliError::File { file: self.directory.clone(), source })?;
        Ok(file)
    }

    /// Forgets the machine `id`.
    pub(super) fn forget(&self, id: &str) -> Result<(), CliError> {
        for kind in ["known_hosts", CERTIFICATE, GATEWAY, "json"] {
            let file = self.file(id, kind)?;
            match fs::remove_file(&file) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(CliError::File { file, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Forgets machines that ended long before `now` (seconds since 1970). What cannot be read is left
    /// alone.
    pub(super) fn forget_stale(&self, now: i64) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for entry in entries.take(FILES_MAX).flatten() {
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            let record = read(&entry.path())
                .ok()
                .and_then(|text| serde_json::from_str::<Record>(&text).ok());
            let end = record.and_then(|record| record.expires_at?.parse::<jiff::Timestamp>().ok());
            if end.is_some_and(|end| end.as_second().saturating_add(STALE_SECS) < now) {
                // Another time, then.
                let _ = self.forget(id);
            }
        }
    }

    /// Where the key is that is made for those who have none; its directory is there.
    pub(super) fn own_key(&self) -> Result<PathBuf, CliError> {
        self.make().map_err(|source| CliError::File { file: self.directory.clone(), source })?;
        Ok(self.directory.join("id_ed25519"))
    }

    fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)
    }

    fn file(&self, id: &str, kind: &str) -> Result<PathBuf, CliError> {
        if is_id(id) {
            Ok(self.directory.join(format!("{id}.{kind}")))
        } else {
            Err(CliError::Refused(format!("the server calls a machine `{id}`, which is no id")))
        }
    }

    fn write(&self, id: &str, kind: &str, text: &str) -> Result<PathBuf, CliError> {
        let file = self.file(id, kind)?;
        let write = || {
            self.make()?;
            let mut new = tempfile::NamedTempFile::new_in(&self.directory)?;
            writeln!(new, "{text}")?;
            new.as_file().sync_all()?;
            new.persist(&file).map_err(|error| error.error)
        };
        match write() {
            Ok(_) => Ok(file),
            Err(source) => Err(CliError::File { file, source }),
        }
    }
}

/// What is in a file of ours, if it is no longer than one.
fn read(file: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(file)?.take(RECORD_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether `text` is a machine's whole id: 36 characters, lower-case hexadecimal with hyphens.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use wire::Secret;

    use super::{Kept, Password, Record, is_id};

    const ID: &str = "0123abcd-0000-4000-8000-000000000001";

    fn record(id: &str) -> Record {
        Record {
            url: "http://a".into(),
            id: id.into(),
            host: "a".into(),
            port: 1,
            username: "u".into(),
            token: Secret::new("t0ken"),
            password: Some(Password(Secret::new("hunter2"))),
            host_key: None,
            host_key_fingerprint: None,
            identity_file: None,
            expires_at: Some("2026-01-01T00:00:00Z".into()),
        }
    }

    #[test]
    fn a_record_is_for_its_owner_and_its_server_alone() {
        let state = tempfile::tempdir().unwrap();
        let kept = Kept::below(state.path());
        let file = kept.store(&record(ID)).unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(file.as_path()), mode(file.parent().unwrap())), (0o600, 0o700));
        let found = kept.load("http://a", ID).unwrap().unwrap();
        assert_eq!(
            (found.token.expose(), found.password.unwrap().0.expose()),
            ("t0ken", "hunter2")
        );
        assert!(kept.load("http://b", ID).unwrap().is_none());
        kept.forget(ID).unwrap();
        kept.forget(ID).unwrap();
        assert!(kept.load("http://a", ID).unwrap().is_none());
    }

    #[test]
    fn what_a_server_calls_an_id_names_no_other_file() {
        let state = tempfile::tempdir().unwrap();
        let kept = Kept::below(state.path());
        for id in ["", "../../../../../../etc/passwd-0000000000", "x", &ID.to_uppercase()] {
            assert!(!is_id(id) && kept.store(&record(id)).is_err(), "{id}");
        }
        assert!(is_id(ID));
    }

    #[track_caller]
    fn check_stale(now: &str, is_kept: bool) {
        let state = tempfile::tempdir().unwrap();
        let kept = Kept::below(state.path());
        kept.store(&record(ID)).unwrap();
        kept.forget_stale(now.parse::<jiff::Timestamp>().unwrap().as_second());
        assert_eq!(kept.load("http://a", ID).unwrap().is_some(), is_kept, "{now}");
    }

    #[test]
    fn a_machine_that_ended_long_ago_is_forgotten() {
        check_stale("2026-01-07T00:00:00Z", true);
        check_stale("2026-01-09T00:00:00Z", false);
    }
}
