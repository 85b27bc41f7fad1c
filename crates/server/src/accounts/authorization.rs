//! Reads what a request shows to say who it is from. Pure.
//!
//! Invariant: a credential is not printed, and reading a plain one allocates nothing.
//! Forms: `NAME:PASSWORD`, a bare token, either after `Bearer`, and either in base64 after `Basic`. A
//! name has no colon, so everything after the first one is the password.
//! Not here: whether it is right. That is [`super::Accounts::authenticate`].

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use zeroize::Zeroize;

/// Longer ones are nobody's: a name of 255 bytes, a colon and a password of 1024.
const BYTES_MAX: usize = 1280;

/// Clients differ on whether they pad.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What somebody shows to be known by.
pub struct Credential<'a> {
    text: Cow<'a, str>,
    colon: Option<usize>,
}

impl<'a> Credential<'a> {
    /// Reads the value of an `Authorization` header; `None` if nobody can be known by it.
    #[must_use]
    pub fn parse(header: &'a [u8]) -> Option<Self> {
        if let Some(encoded) = after_scheme(header, b"basic") {
            if encoded.len() > BYTES_MAX.div_ceil(3) * 4 {
                return None;
            }
            let text = String::from_utf8(BASE64.decode(encoded).ok()?).ok()?;
            return Self::from_text(Cow::Owned(text));
        }
        let plain = after_scheme(header, b"bearer").unwrap_or(header);
        Self::from_text(Cow::Borrowed(std::str::from_utf8(plain).ok()?))
    }

    /// Takes `token` as it is, for those who send it elsewhere.
    #[must_use]
    pub fn token(token: &'a str) -> Option<Self> {
        Self::from_text(Cow::Borrowed(token))
    }

    fn from_text(text: Cow<'a, str>) -> Option<Self> {
        let colon = text.find(':');
        (!text.is_empty() && text.len() <= BYTES_MAX).then_some(Self { text, colon })
    }

    /// Name and password, if it has a colon.
    #[must_use]
    pub fn pair(&self) -> Option<(&str, &str)> {
        self.colon.map(|colon| (&self.text[..colon], &self.text[colon + 1..]))
    }

    /// All of it.
    #[must_use]
    pub fn whole(&self) -> &str {
        &self.text
    }
}

impl Drop for Credential<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(text) = &mut self.text {
            text.zeroize();
        }
    }
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// What follows `scheme` and the spaces after it.
fn after_scheme<'a>(header: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = header.split_at_checked(scheme.len())?;
    let follows = start.eq_ignore_ascii_case(scheme) && rest.first() == Some(&b' ');
    follows.then(|| rest.trim_ascii_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Read<'a> {
        Pair(&'a str, &'a str),
        Token(&'a str),
        Nothing,
    }

    #[track_caller]
    fn check(header: impl AsRef<[u8]>, expected: Read<'_>) {
        let credential = Credential::parse(header.as_ref());
        let found = match &credential {
            None => Read::Nothing,
            Some(credential) => match credential.pair() {
                Some((name, password)) => Read::Pair(name, password),
                None => Read::Token(credential.whole()),
            },
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_name_ends_at_the_first_colon() {
        use Read::Pair;
        check("a1:secret", Pair("a1", "secret"));
        check("a1:se:cr:et", Pair("a1", "se:cr:et"));
        check("a1:", Pair("a1", ""));
        check(":x", Pair("", "x"));
        check("🦀 bob:pä ss", Pair("🦀 bob", "pä ss"));
        check("Basics:x", Pair("Basics", "x"));
        check("Bearer:x", Pair("Bearer", "x"));
    }

    #[test]
    fn every_scheme_may_carry_either_form() {
        use Read::{Pair, Token};
        check("0123abcd", Token("0123abcd"));
        check("Bearer 0123abcd", Token("0123abcd"));
        check("bEARER   0123abcd", Token("0123abcd"));
        check("Bearer a1:se:cret", Pair("a1", "se:cret"));
        check("Basic YTE6c2U6Y3JldA==", Pair("a1", "se:cret"));
        check("basic YTE6c2U6Y3JldA", Pair("a1", "se:cret"));
        check("Basic MDEyM2FiY2Q=", Token("0123abcd"));
    }

    #[test]
    fn what_cannot_be_anybody_is_nothing() {
        check("", Read::Nothing);
        check("Bearer ", Read::Nothing);
        check("Basic !!", Read::Nothing);
        check("Basic /////w==", Read::Nothing);
        check(b"a:\xff\xfe", Read::Nothing);
        check("a".repeat(BYTES_MAX + 1), Read::Nothing);
        check(format!("Basic {}", "YWFh".repeat(BYTES_MAX)), Read::Nothing);
    }

    #[test]
    fn a_credential_is_not_shown_by_debug() {
        assert!(!format!("{:?}", Credential::parse(b"a:hunter2")).contains("hunter2"));
    }
}
