//! Keys of the server that last: the gateway's host key, and the authority that signs short-lived certificates.
//!
//! Invariant: a certificate is good for one machine and for minutes; one without a principal, which OpenSSH would take
//! for good everywhere, is good for nothing.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use machines::MachineId;
use machines::guest::ssh_key::SshKey;
use ring::rand::{SecureRandom, SystemRandom};
use russh::keys::Certificate;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::{HashAlg, PublicKey};
use wire::Secret;

/// How long before its issue a certificate is good: clocks differ.
const SKEW: Duration = Duration::from_secs(60);
/// The longest that a certificate may be good.
pub const VALIDITY_MAX: Duration = Duration::from_secs(3600);
/// The longest key file that is read.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// Signs certificates for machines, and knows its own again.
#[derive(Debug, Clone)]
pub struct Authority(SshKey);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Not a public key.
    #[error("not a public key of SSH: one line of kind, base64 and comment")]
    PublicKey,
    /// Signing failed, or there was no randomness.
    #[error("the certificate cannot be signed")]
    Signing,
}

impl Authority {
    /// Signs with `key`.
    #[must_use]
    pub fn new(key: SshKey) -> Self {
        Self(key)
    }

    /// A certificate, as a line for OpenSSH, by which the holder of `public_key` may log in to `machine` for this long (at
    /// most an hour). `holder` is for the log.
    ///
    /// # Errors
    /// When `public_key` is none.
    pub fn issue(
        &self,
        public_key: &str,
        machine: MachineId,
        holder: &str,
        validity: Duration,
    ) -> Result<String, IssueError> {
        let key = PublicKey::from_openssh(public_key).map_err(|_| IssueError::PublicKey)?;
        self.sign(&key, machine, holder, validity).map_err(|_| IssueError::Signing)
    }

    fn sign(
        &self,
        key: &PublicKey,
        machine: MachineId,
        holder: &str,
        validity: Duration,
    ) -> Result<String, russh::keys::ssh_key::Error> {
        use russh::keys::ssh_key::Error::Crypto;
        let mut nonce = [0; Builder::RECOMMENDED_NONCE_SIZE];
        SystemRandom::new().fill(&mut nonce).map_err(|_| Crypto)?;
        let now = SystemTime::now();
        let until = now + validity.min(VALIDITY_MAX);
        let mut builder =
            Builder::new_with_validity_times(nonce, key.key_data().clone(), now - SKEW, until)?;
        builder.cert_type(CertType::User)?;
        builder.key_id(holder)?;
        builder.valid_principal(machine.to_string())?;
        builder.extension("permit-pty", "")?;
        builder.extension("permit-port-forwarding", "")?;
        builder.sign(&*self.0.pair())?.to_openssh()
    }

    /// Whether `certificate` lets its holder log in to `machine` now.
    #[must_use]
    pub fn admits(&self, certificate: &Certificate, machine: MachineId) -> bool {
        self.admits_at(certificate, machine, SystemTime::now())
    }

    fn admits_at(&self, certificate: &Certificate, machine: MachineId, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let ours = self.0.pair().fingerprint(HashAlg::Sha256);
        let name = machine.to_string();
        certificate.cert_type() == CertType::User
            && certificate.valid_principals().contains(&name)
            // A condition that is not understood is not met; ours have none.
            && certificate.critical_options().iter().next().is_none()
            && certificate.validate_at(now, [&ours]).is_ok()
    }
}

/// Reads a key from a PEM file; makes key and file, for our eyes only, where there is none.
///
/// # Errors
/// When the file cannot be read or made, or is no Ed25519 key.
pub fn key_file(path: &Path) -> io::Result<SshKey> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let key = SshKey::random().map_err(io::Error::other)?;
            let text = key.openssh().map_err(io::Error::other)?;
            file.write_all(text.expose().as_bytes())?;
            file.sync_all()?;
            Ok(key)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_key(path),
        Err(error) => Err(error),
    }
}

fn read_key(path: &Path) -> io::Result<SshKey> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    SshKey::from_openssh(&Secret::new(text)).map_err(|error| {
        io::Error::other(format!("{}: {error}; remove it to have a new one made", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_good_from_its_skew_to_its_end_for_its_machine() {
        let authority = Authority::new(SshKey::random().unwrap());
        let (key, machine) = (SshKey::random().unwrap().public_line("x"), MachineId::random());
        let minutes = Duration::from_secs(120);
        let before = SystemTime::now();
        let line = authority.issue(&key, machine, "alice", minutes).unwrap();
        let after = SystemTime::now();
        let certificate = Certificate::from_openssh(&line).unwrap();
        let second = Duration::from_secs(1);
        let check = |machine, now, expected| {
            assert_eq!(authority.admits_at(&certificate, machine, now), expected, "{now:?}");
        };
        check(machine, before - SKEW - second, false);
        check(machine, after - SKEW + second, true);
        check(machine, before + minutes - second, true);
        check(machine, after + minutes + second, false);
        check(MachineId::random(), after, false);
        let foreign = Authority::new(SshKey::random().unwrap());
        assert!(!foreign.admits_at(&certificate, machine, after));
    }
}
