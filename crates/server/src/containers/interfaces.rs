//! What is known of containers, and the server's keys.
//!
//! Invariant: what is known of containers holds no secret; tokens are compared, never shown.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use machines::MachineId;
use ring::digest;
use wire::Secret;
use wire::container::{KeyError, KeyPair};

use super::handlers::Slot;
use crate::tcp::rsa_keys::{BITS_DEFAULT, KeyFileError, KeyFiles};

/// What is known of containers that are lent: kept in a folder, with hashes in the place of secrets.
#[derive(Debug, Clone, Default)]
pub struct DatabaseInterface {
    directory: Option<PathBuf>,
    machines: Slot,
}

/// One container that is lent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// SHA-256 of its UUID, in hexadecimal: names it without giving it away.
    pub id: String,
    /// Since when it is lent or being made.
    pub created_at: SystemTime,
    /// When it is taken back.
    pub expires_at: Option<SystemTime>,
}

impl DatabaseInterface {
    /// Keeps everything in `directory`, which no other server may use at the same time. What another has left there is
    /// taken over.
    #[must_use]
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: Some(directory.into()), machines: Slot::default() }
    }

    /// The folder, where one was named. Without it, each address and port has one of its own below `$XDG_STATE_HOME` or
    /// `~/.local/state`.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// Containers that are there, the oldest first; none while the server does not run.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let Some(machines) = self.machines() else { return Vec::new() };
        let entry = |it: machines::Summary| Entry {
            id: entry_id(it.id),
            created_at: it.created_at,
            expires_at: it.expires_at,
        };
        machines.list(None).into_iter().map(entry).collect()
    }

    /// The entry of a container, for who knows its UUID and its token.
    #[must_use]
    pub fn entry(&self, uuid: MachineId, client_token: &Secret) -> Option<Entry> {
        self.machines()?.check_token(uuid, client_token).ok()?;
        self.entries().into_iter().find(|entry| entry.id == entry_id(uuid))
    }

    pub(super) fn slot(&self) -> Slot {
        Arc::clone(&self.machines)
    }

    fn machines(&self) -> Option<machines::Machines> {
        self.machines.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn entry_id(uuid: MachineId) -> String {
    let hash = digest::digest(&digest::SHA256, uuid.to_string().as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The server's RSA keys. Copies are the same.
#[derive(Debug, Clone)]
pub struct RsaWrapper {
    pub(super) keys: Arc<KeyPair>,
}

impl RsaWrapper {
    /// New keys of 4096 bits, kept nowhere. Takes up to some seconds.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn new() -> Result<Self, KeyError> {
        Self::with_bits(BITS_DEFAULT)
    }

    /// New keys of 2048, 3072, 4096 or 8192 bits, kept nowhere.
    ///
    /// # Errors
    /// For another size.
    pub fn with_bits(bits: u32) -> Result<Self, KeyError> {
        Ok(Self { keys: Arc::new(KeyPair::generate(bits)?) })
    }

    /// The keys of two PEM files; made, with 4096 bits, where there are none.
    ///
    /// # Errors
    /// When a file cannot be read or written, or they do not belong together.
    pub fn from_files(public: PathBuf, private: PathBuf) -> Result<Self, KeyFileError> {
        Ok(Self { keys: Arc::new(KeyFiles { public, private }.load()?) })
    }

    /// The keys of an unencrypted private key in PEM.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_private_pem(pem: &Secret) -> Result<Self, KeyError> {
        Ok(Self { keys: Arc::new(KeyPair::from_private_pem(pem)?) })
    }

    /// The public key, PEM of SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_pem(&self) -> &str {
        self.keys.public_pem()
    }

    /// SHA-256 of it in hexadecimal, by which people compare it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.keys.fingerprint()
    }
}

/// Where programs keep what they need the next time: `$XDG_STATE_HOME`, else `/var/lib` for root and `~/.local/state`.
pub(super) fn state_home() -> PathBuf {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(named) = absolute("XDG_STATE_HOME") {
        return named;
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib");
    }
    absolute("HOME").map_or_else(std::env::temp_dir, |home| home.join(".local/state"))
}
