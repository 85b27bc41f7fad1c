//! JSON of the routes below `/machines`: temporary machines with SSH.
//!
//! Invariant: secrets are told in one message alone, the answer to the creation. Unknown fields are
//! passed over, so that a newer server can say more.
//! Not here: the encrypted protocol of the classic door, and what a machine is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Secret;
use crate::secret::exposed;

/// Body of `POST /machines`; what is absent is as the server has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMachine {
    /// Which image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u32>,
    /// Processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Seconds until it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// A line of `authorized_keys` that lets its owner in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_public_key: Option<String>,
    /// What the asker wants to remember of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A machine as everybody sees it who may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name: a UUID, 36 characters.
    pub id: String,
    /// What it does: `starting`, `setting_up`, `ready` or `ending`.
    pub state: String,
    /// What it was started from.
    #[serde(default)]
    pub image: String,
    /// Memory in MiB.
    #[serde(default)]
    pub memory: u32,
    /// Processors.
    #[serde(default)]
    pub vcpus: u32,
    /// The server's port that leads to its SSH server, once there is one.
    pub port: Option<u16>,
    /// Its user, once there is one.
    pub username: Option<String>,
    /// Its SSH host key, as a line of `known_hosts` has it (`ssh-ed25519 AAAA…`), where it is known.
    pub host_key: Option<String>,
    /// `SHA256:…` of that key.
    pub host_key_fingerprint: Option<String>,
    /// Who asked for it.
    pub owner: Option<String>,
    /// What the asker wanted to remember of it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When it was asked for (RFC 3339, UTC).
    #[serde(default)]
    pub created_at: String,
    /// When it is taken back (RFC 3339, UTC).
    pub expires_at: Option<String>,
}

/// Answer of `GET /machines`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machines {
    /// Those that the asker may see.
    pub machines: Vec<Machine>,
    /// How many more there could be.
    pub available: Option<u64>,
    /// For how many seconds the server has been running.
    pub uptime: Option<u64>,
}

/// Answer of `POST /machines`, with what is told this once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreatedMachine {
    /// The machine.
    pub machine: Machine,
    /// Proves that the machine is one's own.
    #[serde(with = "exposed")]
    pub token: Secret,
    /// The machine's user.
    pub username: String,
    /// That user's password.
    #[serde(with = "exposed")]
    pub password: Secret,
    /// The server as it was reached, without a port.
    #[serde(default)]
    pub host: String,
    /// The server's port that leads to the machine's SSH server.
    pub port: u16,
    /// Of what it was started from: 64 hexadecimal digits.
    #[serde(default)]
    pub image_sha256: String,
    /// The server's port that leads to all machines, where it has one.
    pub gateway_port: Option<u16>,
}

/// How far a creation is, before the machine is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Others are being started first.
    Queued,
    /// The machine boots or is woken.
    Starting,
    /// Its user is being made.
    SettingUp,
}

/// Data of the event `step`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepEvent {
    /// What is being done now.
    pub step: Step,
}

/// Body of `PATCH /machines/ID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Seconds until it is taken back, from now on.
    pub ttl: u64,
}

/// Body of `POST /machines/ID/certificate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateOrder {
    /// A line of `authorized_keys`: the key that the certificate is for.
    pub public_key: String,
}

/// Its answer: the way to a machine through the SSH gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// A line as in OpenSSH's files that end in `-cert.pub`.
    pub certificate: String,
    /// Until when it is good (RFC 3339, UTC).
    pub valid_until: String,
    /// The gateway's port.
    pub gateway_port: u16,
    /// `SHA256:…` of the gateway's host key.
    pub gateway_fingerprint: String,
    /// That key, as a line of `known_hosts` has it (`ssh-ed25519 AAAA…`).
    pub gateway_host_key: String,
}

#[cfg(test)]
mod tests {
    use super::{CreatedMachine, Machine, NewMachine, Step, StepEvent};

    const CREATED: &str = r#"{"machine":{"id":"x","state":"ready","port":1,"new":[]},"token":"t0ken",
        "username":"u","password":"hunter2","host":"h","port":1,"gateway_port":null}"#;

    #[test]
    fn an_empty_order_says_nothing() {
        assert_eq!(serde_json::to_string(&NewMachine::default()).unwrap(), "{}");
    }

    #[test]
    fn what_a_server_does_not_say_is_absent() {
        let machine: Machine = serde_json::from_str(r#"{"id":"x","state":"starting"}"#).unwrap();
        assert_eq!((machine.port, machine.host_key, machine.labels.len()), (None, None, 0));
    }

    #[test]
    fn secrets_are_carried_and_not_shown() {
        let created: CreatedMachine = serde_json::from_str(CREATED).unwrap();
        assert_eq!((created.token.expose(), created.password.expose()), ("t0ken", "hunter2"));
        let shown = format!("{created:?}");
        assert!(!shown.contains("t0ken") && !shown.contains("hunter2"), "{shown}");
        let sent = serde_json::to_string(&created).unwrap();
        assert!(sent.contains(r#""token":"t0ken""#) && sent.contains("hunter2"), "{sent}");
    }

    #[test]
    fn every_step_has_its_word() {
        for (step, word) in [
            (Step::Queued, "queued"),
            (Step::Starting, "starting"),
            (Step::SettingUp, "setting_up"),
        ] {
            let text = format!(r#"{{"step":"{word}"}}"#);
            assert_eq!(serde_json::to_string(&StepEvent { step }).unwrap(), text);
        }
    }
}
