//! Becoming known to a server, and writing the configuration that says so.
//!
//! Invariant: a one-use token is given up only when there is a place to write the secret to; that
//! file is its owner's alone from the first moment.

use std::fs::{self, DirBuilder, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use ring::rand::SystemRandom;
use tempfile::NamedTempFile;
use wire::Secret;

use crate::arguments::Identity;
use crate::config::check_name;
use crate::connection::{Connection, Place};
use crate::digest::hex;

/// Enrols with a one-use token.
///
/// # Errors
/// In words.
pub(crate) fn enroll(identity: &Identity, token: &str) -> Result<(), String> {
    let token = Secret::new(token);
    become_known(identity, |connection| {
        connection.enroll(&token, &identity.name).map_err(|error| error.to_string())
    })
}

/// Makes an account with a secret of our own making.
///
/// # Errors
/// In words.
pub(crate) fn register(identity: &Identity) -> Result<(), String> {
    let random = ring::rand::generate::<[u8; 32]>(&SystemRandom::new());
    let random = random.map_err(|_| "the system gives no random numbers".to_owned())?;
    let secret = Secret::new(hex(&random.expose()));
    become_known(identity, |connection| {
        connection.register(&identity.name, &secret).map_err(|error| error.to_string())?;
        Ok(secret)
    })
}

fn become_known(
    identity: &Identity,
    ask: impl FnOnce(&Connection) -> Result<Secret, String>,
) -> Result<(), String> {
    let file = &identity.file.config;
    let at = |why: &dyn std::fmt::Display| format!("{}: {why}", file.display());
    check_name(&identity.name).map_err(|why| format!("--name: {why}"))?;
    let connection = Connection::new(&identity.url, None, identity.ca_file.as_deref())?;
    if Place::parse(&identity.url)?.is_open() {
        tracing::warn!("{}: no TLS: the secret can be read on the way", identity.url);
    }
    let existing = existing(file, identity.force).map_err(|why| at(&why))?;
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o750).create(dir).map_err(|error| at(&error))?;
    let mut new = tempfile::Builder::new()
        .prefix(".agent-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(dir)
        .map_err(|error| at(&error))?;
    let secret = ask(&connection)?;
    let text = text(existing, identity, &secret);
    let written = write(&mut new, &text).and_then(|()| new.persist(file).map_err(|e| e.error));
    written.map(drop).map_err(|error| at(&error))
}

fn write(new: &mut NamedTempFile, text: &str) -> std::io::Result<()> {
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()
}

/// The settings that are there already; none where there is no file.
fn existing(file: &Path, force: bool) -> Result<Option<toml::Table>, String> {
    if !file.exists() {
        return Ok(None);
    }
    if !force {
        return Err("there is a configuration already; --force gives it a new identity".to_owned());
    }
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    text.parse().map(Some).map_err(|error: toml::de::Error| error.message().to_owned())
}

fn text(existing: Option<toml::Table>, identity: &Identity, secret: &Secret) -> String {
    let fresh = existing.is_none();
    let mut table = existing.unwrap_or_default();
    table.remove("secret_file");
    let mut set = |key: &str, value: &str| table.insert(key.to_owned(), value.into());
    set("url", &identity.url);
    set("name", &identity.name);
    set("secret", secret.expose());
    if let Some(ca_file) = &identity.ca_file {
        let full = std::path::absolute(ca_file).unwrap_or_else(|_| ca_file.clone());
        set("ca_file", &full.to_string_lossy());
    }
    let comment = if fresh { FRESH } else { "" };
    format!("{table}{comment}")
}

/// What a new configuration says besides.
const FRESH: &str = "
# Task types that may run here. These only look; the others are execute_cmd, downloadfile, uploadfile,
# deletefile, movefile, update, and custom (all executables in tasks_dir) or each by its name.
allow = [\"proclist\", \"dircontents\", \"systeminfo\"]
# tasks_dir = \"/etc/gatehouse-agent/tasks\"
# state_dir = \"/var/lib/gatehouse-agent\"
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::ConfigFile;

    fn identity(file: &Path, force: bool) -> Identity {
        Identity {
            url: "http://127.0.0.1:1".to_owned(),
            name: "a\"b".to_owned(),
            ca_file: None,
            file: ConfigFile { config: file.to_owned() },
            force,
        }
    }

    #[test]
    fn a_new_configuration_is_private_and_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("etc/agent.toml");
        become_known(&identity(&file, false), |_| Ok(Secret::new("s\\\"3"))).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let (config, warnings) = crate::config::Config::read(&file).unwrap();
        assert!(config.secret.matches("s\\\"3") && config.name == "a\"b" && warnings.is_empty());
        assert_eq!(config.allow.len(), 3);
    }

    #[test]
    fn a_configuration_that_is_there_is_kept_unless_forced_and_then_its_settings_are() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        fs::write(&file, "name='old'\nsecret_file='x'\nconcurrency=7\n").unwrap();
        let refused = become_known(&identity(&file, false), |_| panic!("the token must be kept"));
        assert!(refused.unwrap_err().contains("--force"));
        become_known(&identity(&file, true), |_| Ok(Secret::new("s"))).unwrap();
        let config = crate::config::Config::read(&file).unwrap().0;
        assert_eq!((config.concurrency, config.name.as_str()), (7, "a\"b"));
    }

    #[test]
    fn a_token_is_not_given_up_where_the_secret_could_not_be_kept() {
        let file = Path::new("/proc/no-such-place/agent.toml");
        let refused = become_known(&identity(file, false), |_| panic!("asked"));
        assert!(refused.unwrap_err().starts_with("/proc/no-such-place"));
    }
}
