//! A value that must not be printed, logged or compared byte by byte.
//!
//! Invariant: neither `{:?}` nor `{}` shows what is inside; memory is wiped on drop.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret text (a key, a password, a token). It comes from the door and stays typed from there on.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps `text`; its memory is wiped when the last owner drops it.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Whether `other` is the same text, in a time that does not depend on where they differ.
    /// (That the *lengths* differ may be learnt from the time.)
    #[must_use]
    pub fn matches(&self, other: &str) -> bool {
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }

    /// The text itself, for the one place that must hand it on. Never for a log.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// For `#[serde(with = "wire::secret::exposed")]`: the field of a message or a file whose very purpose is
/// to carry the secret.
pub mod exposed {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Secret;

    /// Writes the text itself.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    /// Reads a text, which is a secret from here on.
    ///
    /// # Errors
    /// When it is no text.
    pub fn deserialize<'de, D: Deserializer<'de>>(field: D) -> Result<Secret, D::Error> {
        String::deserialize(field).map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn a_secret_is_not_shown_by_debug() {
        assert!(!format!("{:?}", Secret::new("hunter2")).contains("hunter2"));
    }

    #[test]
    fn a_secret_matches_itself_alone() {
        let key = Secret::new("abc");
        assert!(key.matches("abc"));
        assert!(!key.matches("abd") && !key.matches("ab") && !key.matches("abcd"));
    }
}
