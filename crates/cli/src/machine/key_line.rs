//! One line with a public key of SSH: `ssh-ed25519 AAAA… comment`.
//!
//! Invariant: what was read holds nothing that a file of keys could take for something else: the
//! name and the key are letters and digits, and the key says the same name.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest as _, Sha256};

/// What a line may be long; that of an RSA key of 16384 bits has 2,800 characters.
pub(super) const LINE_BYTES_MAX: usize = 16 << 10;

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyLine {
    kind: String,
    blob: Vec<u8>,
}

impl KeyLine {
    /// Reads a line; what follows the key is a comment. `None` if it is no key.
    pub(super) fn parse(line: &str) -> Option<Self> {
        if line.len() > LINE_BYTES_MAX || line.chars().any(char::is_control) {
            return None;
        }
        let mut words = line.split_ascii_whitespace();
        let (kind, text) = (words.next()?, words.next()?);
        let blob = STANDARD.decode(text).ok()?;
        // The key itself begins with its name, the name with its length.
        let length = u32::try_from(kind.len()).ok()?.to_be_bytes();
        let says_so = blob.strip_prefix(&length)?.strip_prefix(kind.as_bytes()).is_some();
        let is_name = kind.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.@".contains(&b));
        (says_so && is_name && !kind.starts_with('@')).then(|| Self { kind: kind.to_owned(), blob })
    }

    /// The line without comment.
    pub(super) fn line(&self) -> String {
        format!("{} {}", self.kind, STANDARD.encode(&self.blob))
    }

    /// `SHA256:…`, as `ssh-keygen -l` shows it.
    pub(super) fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(&self.blob)))
    }
}

#[cfg(test)]
mod tests {
    use super::KeyLine;
    use crate::scripted::PUBLIC_KEY as LINE;

    /// What `ssh-keygen -l` says of it.
    const FINGERPRINT: &str = "SHA256:gRBgNPRKHGCD5VgJFFtTW8ffDEaEvdzHCHBpawnrY+4";

    #[test]
    fn a_key_has_the_fingerprint_that_others_show() {
        let key = KeyLine::parse(&format!("{LINE} jo@example")).unwrap();
        assert_eq!((key.line().as_str(), key.fingerprint().as_str()), (LINE, FINGERPRINT));
    }

    #[test]
    fn what_is_no_key_is_not_taken_for_one() {
        let text = LINE.split_once(' ').unwrap().1;
        for line in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            &format!("ssh-rsa {text}"),
            &format!("{LINE}\nssh-ed25519 {text}"),
            &format!("from=\"*\" {LINE}"),
            &format!("{LINE} {}", "x".repeat(20_000)),
        ] {
            assert_eq!(KeyLine::parse(line), None, "{line:?}");
        }
    }
}
