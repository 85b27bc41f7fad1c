//! What files in transfer are called.
//!
//! Invariant: on the disk a file is called by its [`FileId`] alone, which is ours; a [`FileName`] is never part of a
//! path there.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::accounts::token;

const ID_BYTES: usize = 16;
const NAME_BYTES_MAX: usize = 255;

/// The random number of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId([u8; ID_BYTES]);

impl FileId {
    /// One that nobody can foresee.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; ID_BYTES];
        bytes.copy_from_slice(&token::random()[..ID_BYTES]);
        Self(bytes)
    }

    /// The id that [`fmt::Display`] gives as `text`: 32 digits, letters small.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != 2 * ID_BYTES || !digits.iter().all(is_digit) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|number| Self(number.to_be_bytes()))
    }

    /// As it is stored.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; ID_BYTES] {
        &self.0
    }

    /// The id that is stored as `bytes`.
    #[must_use]
    pub const fn stored(bytes: [u8; ID_BYTES]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", hex(&self.0))
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `bytes` in hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to memory does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The name that whoever left a file gave it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName(Arc<str>);

impl FileName {
    /// Takes `text` as a name: 1 to 255 bytes without slashes of either kind and control characters, and neither `.`
    /// nor `..`, so that it leads nowhere for whoever uses it as a path.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_short = (1..=NAME_BYTES_MAX).contains(&text.len());
        let is_plain = !text.chars().any(|c| matches!(c, '/' | '\\') || c.is_control());
        (is_short && is_plain && !matches!(text, "." | "..")).then(|| Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_32_small_hexadecimal_digits_and_never_the_same() {
        let id = FileId::random();
        assert_eq!(FileId::parse(&id.to_string()), Some(id));
        assert_ne!(id, FileId::random());
        let digits = "00112233445566778899aabbccddeeff";
        assert_eq!(FileId::parse(digits).unwrap().to_string(), digits);
        let upper = digits.to_uppercase();
        let signed = format!("+{}", &digits[1..]);
        for wrong in ["", "0", &digits[1..], &upper, &signed, &format!("{digits}0")] {
            assert_eq!(FileId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_name_leads_nowhere() {
        for good in ["a", "report.txt", "...", ".hidden", "a b", "🦀", "a%2Fb", &"x".repeat(255)]
        {
            assert_eq!(FileName::parse(good).as_ref().map(FileName::as_str), Some(good));
        }
        let long = "x".repeat(256);
        for bad in ["", ".", "..", "/", "a/b", "..\\a", "a\0", "a\r\nb", "\u{85}", &long] {
            assert_eq!(FileName::parse(bad), None, "{bad:?}");
        }
    }
}
