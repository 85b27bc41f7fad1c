//! Ed25519 keys of SSH: host keys that guests are given, and keys that this server logs in with.
//!
//! Invariant: a private key is made here, is wiped when dropped, and leaves only as a [`Secret`].

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::ssh_key::{HashAlg, LineEnding, PublicKey};
use russh::keys::{Algorithm, PrivateKey};
use wire::Secret;

use super::GuestError;
use crate::image::HostKeyForm;

/// The longest `authorized_keys` line that is taken, in bytes: four times that of an RSA key of 16384 bits.
const LINE_BYTES_MAX: usize = 8192;
/// What dropbear's file of an Ed25519 key begins with: the name and the length of the 64 bytes that follow.
const DROPBEAR_HEAD: &[u8] = b"\0\0\0\x0bssh-ed25519\0\0\0\x40";

/// A pair of keys.
#[derive(Clone)]
pub struct SshKey(Arc<PrivateKey>);

impl SshKey {
    /// One that nobody has had before.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn random() -> Result<Self, GuestError> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| GuestError::NoRandomness)?;
        let key = Self::from_seed(&seed);
        zeroize::Zeroize::zeroize(&mut seed);
        key
    }

    fn from_seed(seed: &[u8; 32]) -> Result<Self, GuestError> {
        let pair = KeypairData::from(Ed25519Keypair::from_seed(seed));
        Ok(Self(Arc::new(PrivateKey::new(pair, "").map_err(|_| GuestError::Key)?)))
    }

    /// Reads what [`SshKey::openssh`] wrote.
    ///
    /// # Errors
    /// When it is no unencrypted Ed25519 key.
    pub fn from_openssh(text: &Secret) -> Result<Self, GuestError> {
        let key = PrivateKey::from_openssh(text.expose()).map_err(|_| GuestError::Key)?;
        if key.is_encrypted() || key.algorithm() != Algorithm::Ed25519 {
            return Err(GuestError::Key);
        }
        Ok(Self(Arc::new(key)))
    }

    /// OpenSSH's private key file: PEM, not encrypted.
    ///
    /// # Errors
    /// Never for keys of this kind.
    pub fn openssh(&self) -> Result<Secret, GuestError> {
        let text = self.0.to_openssh(LineEnding::LF).map_err(|_| GuestError::Key)?;
        Ok(Secret::new(text.as_str()))
    }

    /// The file in the form that a guest's SSH server reads, base64.
    ///
    /// # Errors
    /// Never for keys of this kind.
    pub fn encoded(&self, form: HostKeyForm) -> Result<Secret, GuestError> {
        match form {
            HostKeyForm::OpenSsh => Ok(Secret::new(STANDARD.encode(self.openssh()?.expose()))),
            HostKeyForm::Dropbear => {
                let pair = self.0.key_data().ed25519().ok_or(GuestError::Key)?;
                let bytes = zeroize::Zeroizing::new([DROPBEAR_HEAD, &pair.to_bytes()].concat());
                Ok(Secret::new(STANDARD.encode(&*bytes)))
            }
        }
    }

    /// `SHA256:…` of the public key, as `ssh-keygen -l` shows it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(self.0.public_key())
    }

    /// The public key as a line for `authorized_keys`, with this comment and without a line end.
    #[must_use]
    pub fn public_line(&self, comment: &str) -> String {
        let bare = self.0.public_key().to_openssh().unwrap_or_default();
        format!("{} {comment}", bare.trim_end())
    }

    /// The pair, for who signs with it.
    #[must_use]
    pub fn pair(&self) -> Arc<PrivateKey> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SshKey({})", self.fingerprint())
    }
}

/// `SHA256:…` of a public key, as `ssh-keygen -l` shows it.
#[must_use]
pub fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// A public key that somebody wants to log in with, as the line for `authorized_keys`: kind, key and comment, without a
/// line end.
///
/// # Errors
/// When it is longer than 8192 bytes, not one line, or not a public key without options.
pub fn authorized_line(text: &str) -> Result<String, GuestError> {
    let text = text.trim();
    let is_line = text.len() <= LINE_BYTES_MAX && !text.chars().any(char::is_control);
    let key = is_line.then(|| PublicKey::from_openssh(text).ok()).flatten();
    let key = key.ok_or(GuestError::PublicKey)?;
    key.to_openssh().map_err(|_| GuestError::PublicKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `ssh-keygen -t ed25519`, used nowhere.
    const OPENSSH: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACDszGY9Fi9X5QHMR3a/XymZ5o7sAUYXIX33PdZ0NACXcgAAAIiHVGhfh1Ro
XwAAAAtzc2gtZWQyNTUxOQAAACDszGY9Fi9X5QHMR3a/XymZ5o7sAUYXIX33PdZ0NACXcg
AAAEB8cjQJ/0PWYQwY8TN/teNuSGgQAaa4/yz1uoDFJ49i+uzMZj0WL1flAcxHdr9fKZnm
juwBRhchffc91nQ0AJdyAAAAAAECAwQF
-----END OPENSSH PRIVATE KEY-----
";

    fn known() -> SshKey {
        SshKey::from_openssh(&Secret::new(OPENSSH)).unwrap()
    }

    #[test]
    fn a_fingerprint_is_the_one_that_ssh_keygen_prints() {
        assert_eq!(known().fingerprint(), "SHA256:LZ5I1nigrJbmzuGvCc+cItV8g/sHZI20Cn9XTPiksYU");
    }

    #[test]
    fn the_form_for_dropbear_is_what_dropbearconvert_writes() {
        let theirs = "AAAAC3NzaC1lZDI1NTE5AAAAQHxyNAn/Q9ZhDBjxM3+1425IaBABprj/LPW6gMUnj2L67MxmPRYvV+UBzEd2v18pmeaO7AFG\
                      FyF99z3WdDQAl3I=";
        assert_eq!(known().encoded(HostKeyForm::Dropbear).unwrap().expose(), theirs);
    }

    #[test]
    fn a_key_that_was_written_for_openssh_is_read_as_the_same() {
        let key = SshKey::random().unwrap();
        assert_eq!(
            SshKey::from_openssh(&key.openssh().unwrap()).unwrap().fingerprint(),
            key.fingerprint()
        );
        assert_ne!(SshKey::random().unwrap().fingerprint(), key.fingerprint());
        let encoded = key.encoded(HostKeyForm::OpenSsh).unwrap();
        let decoded = String::from_utf8(STANDARD.decode(encoded.expose()).unwrap()).unwrap();
        assert_eq!(decoded, key.openssh().unwrap().expose());
    }

    #[test]
    fn a_key_does_not_show_its_private_half() {
        assert_eq!(
            format!("{:?}", known()),
            "SshKey(SHA256:LZ5I1nigrJbmzuGvCc+cItV8g/sHZI20Cn9XTPiksYU)"
        );
    }

    #[test]
    fn a_public_key_is_one_plain_line() {
        let line = known().public_line("me@here");
        assert_eq!(authorized_line(&format!("  {line}\n")).unwrap(), line);
        let check = |text: &str| assert!(authorized_line(text).is_err(), "{text}");
        check("");
        check("ssh-ed25519");
        check(&format!("command=\"reboot\" {line}"));
        check(&format!("{line}\n{line}"));
        check(&format!("{line} {}", "x".repeat(9000)));
        check(OPENSSH);
    }
}
