//! What is asked for, what is lent and what can be seen of it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use wire::Secret;

/// The most labels of a machine, and the most characters of a label's name and value.
pub const LABELS_MAX: usize = 32;
/// See [`LABELS_MAX`].
pub const LABEL_CHARS_MAX: usize = 255;

/// A machine's name: a UUID of version 4 in lower case, also that of the virtual machine itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MachineId(uuid::Uuid);

impl MachineId {
    /// One that nobody has had before.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }

    /// The first eight digits: short enough for a host name.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(8);
        text
    }

    /// Its 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// A text that is no machine's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a machine's id: 36 characters, lower-case hexadecimal, 8-4-4-4-12")]
pub struct NotAnId;

impl FromStr for MachineId {
    type Err = NotAnId;

    /// Takes the one spelling that is shown: lower case with hyphens.
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let id = uuid::Uuid::try_parse(text).map_err(|_| NotAnId)?;
        let id = Self(id);
        if id.to_string() == text { Ok(id) } else { Err(NotAnId) }
    }
}

/// What is asked for; what is absent is as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    /// Which image; the default one where absent.
    pub image: Option<String>,
    /// Memory in MiB.
    pub memory_mb: Option<u32>,
    /// Processors.
    pub vcpus: Option<u32>,
    /// Lifetime, counted from when the machine is lent.
    pub ttl: Option<Duration>,
    /// An `authorized_keys` line for the user, beside the password.
    pub ssh_public_key: Option<String>,
    /// What the asker wants to remember of it.
    pub labels: BTreeMap<String, String>,
    /// Who asks, for quotas: an account or an access token. Nobody is counted together with nobody else.
    pub owner: Option<String>,
}

/// How a machine's SSH server is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKey {
    /// The public key as in a `known_hosts` file, `ssh-ed25519 AAAA…`, where the server gave it the key.
    pub public: Option<String>,
    /// `SHA256:…`
    pub fingerprint: String,
}

/// A machine that has just been lent, with the secrets that are told once. Who tells them says so to `handover`; dropped
/// before, the machine is taken back.
#[derive(Debug)]
pub struct Lent {
    /// Its name.
    pub id: MachineId,
    /// Proves that a machine is one's own: 255 characters, URL-safe base64.
    pub token: Secret,
    /// Of what the machine was started from: 64 hexadecimal digits.
    pub image_sha256: String,
    /// The user of the machine.
    pub username: String,
    /// That user's password: 120 letters and digits.
    pub password: Secret,
    /// The server's port that leads to the machine's SSH server.
    pub port: u16,
    /// How its SSH server is known.
    pub host_key: Option<HostKey>,
    /// When it is taken back.
    pub expires_at: Option<SystemTime>,
    /// Whether its owner knows of it.
    pub handover: crate::manager::Handover,
}

/// What can be seen of a machine; no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its name.
    pub id: MachineId,
    /// What it does.
    pub state: crate::lifecycle::State,
    /// What it was started from.
    pub image: String,
    /// Memory in MiB.
    pub memory_mb: u32,
    /// Processors.
    pub vcpus: u32,
    /// The server's port that leads to its SSH server, once there is one.
    pub port: Option<u16>,
    /// The user of the machine, once there is one.
    pub username: Option<String>,
    /// How its SSH server is known.
    pub host_key: Option<HostKey>,
    /// Who asked for it.
    pub owner: Option<String>,
    /// The public key that was ordered with it.
    pub ssh_public_key: Option<String>,
    /// What the asker wanted to remember of it.
    pub labels: BTreeMap<String, String>,
    /// When it was asked for.
    pub created_at: SystemTime,
    /// When it is taken back.
    pub expires_at: Option<SystemTime>,
}
