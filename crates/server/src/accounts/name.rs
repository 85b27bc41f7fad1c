//! Names of accounts.
//!
//! Invariant: a name has 1 to 255 bytes, no `:` (which ends it in `NAME:PASSWORD`) and no control
//! character. Everything else may be in it, `/`, `,` and emoji too.

use std::fmt;
use std::sync::Arc;

const BYTES_MAX: usize = 255;

/// A name that an account may have. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountName(Arc<str>);

/// Why a text is no name of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty.
    #[error("A name must not be empty")]
    Empty,
    /// It is too long.
    #[error("A name has at most {BYTES_MAX} bytes")]
    TooLong,
    /// It holds something that a name cannot hold.
    #[error("A name must not contain ':' or control characters")]
    Forbidden,
}

impl AccountName {
    /// Takes `text` as a name.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > BYTES_MAX {
            return Err(NameError::TooLong);
        }
        if text.chars().any(|c| c == ':' || c.is_control()) {
            return Err(NameError::Forbidden);
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as shared text.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(), NameError>) {
        let found = AccountName::parse(text);
        assert_eq!(found.as_ref().map(AccountName::as_str), expected.as_ref().map(|()| text));
    }

    #[test]
    fn a_name_is_short_and_has_no_colon_or_control_character() {
        for good in ["a", "web-1", "a/b", "a,b", "a b", "🦀", "*", "..", &"é".repeat(127)] {
            check(good, Ok(()));
        }
        check(&"a".repeat(255), Ok(()));
        check(&"a".repeat(256), Err(NameError::TooLong));
        check("", Err(NameError::Empty));
        for bad in ["a:b", ":", "a\0", "a\nb", "\u{7f}", "\u{85}"] {
            check(bad, Err(NameError::Forbidden));
        }
    }
}
