//! Random secrets that the server itself hands out: session tokens, enrolment tokens, agents' keys.
//!
//! Invariant: a token has 256 random bits, is shown once to whom it is for, and only its [`Digest`] is
//! kept. Such a secret cannot be guessed however fast one tries, so a plain hash protects it at rest; the
//! slow one of `passwords` is for secrets that people choose.

use ring::digest::{SHA256, digest};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use wire::Secret;

const BYTES: usize = 32;

/// What is kept of a secret: 32 bytes that identify it and do not give it away.
///
/// Looking one up in a map tells by its time nothing about the secret, since nobody can choose a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; BYTES]);

impl Digest {
    /// The SHA-256 of `secret`; only for secrets that cannot be guessed.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        Self::copied(digest(&SHA256, secret).as_ref())
    }

    /// The HMAC-SHA256 of `parts`, each with its length before it, so that none runs into the next.
    #[must_use]
    pub fn keyed(key: &hmac::Key, parts: &[&[u8]]) -> Self {
        let mut context = hmac::Context::with_key(key);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        Self::copied(context.sign().as_ref())
    }

    /// The digest that was stored as `bytes`, or `None` if they are none.
    #[must_use]
    pub fn stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes to store.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; BYTES] {
        &self.0
    }

    /// Whether both are the same, in a time that does not depend on where they differ.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        subtle::ConstantTimeEq::ct_eq(&self.0[..], &other.0[..]).into()
    }

    fn copied(bytes: &[u8]) -> Self {
        let mut copy = [0; BYTES];
        copy.copy_from_slice(bytes);
        Self(copy)
    }
}

/// A new random secret of 64 hexadecimal digits.
#[must_use]
pub fn new() -> Secret {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = random().into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    Secret::new(digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect::<String>())
}

/// Whether `text` has the length of a token.
#[must_use]
pub const fn is_one(text: &str) -> bool {
    text.len() == 2 * BYTES
}

/// 32 bytes that nobody can foresee.
#[must_use]
pub fn random() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    #[expect(
        clippy::expect_used,
        reason = "a system without randomness cannot keep a secret at all"
    )]
    SystemRandom::new().fill(&mut bytes).expect("the system gives no random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_token_is_64_hexadecimal_digits_and_never_the_same() {
        let tokens: HashSet<String> = (0..100).map(|_| new().expose().to_owned()).collect();
        assert_eq!(tokens.len(), 100);
        for token in tokens {
            assert_eq!(token.len(), 64);
            assert!(
                token.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')),
                "{token}"
            );
        }
    }

    #[test]
    fn a_digest_is_that_of_its_standard() {
        let abc = [0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea];
        assert_eq!(Digest::of(b"abc").bytes()[..8], abc);
        assert_eq!(Digest::stored(Digest::of(b"abc").bytes()), Some(Digest::of(b"abc")));
        assert_eq!(Digest::stored(b"abc"), None);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let digest = |parts: &[&[u8]]| Digest::keyed(&key, parts);
        assert!(digest(&[b"ab", b"c"]).matches(&digest(&[b"ab", b"c"])));
        assert!(!digest(&[b"ab", b"c"]).matches(&digest(&[b"a", b"bc"])));
        let other = hmac::Key::new(hmac::HMAC_SHA256, &[8; 32]);
        assert!(!digest(&[b"a"]).matches(&Digest::keyed(&other, &[b"a"])));
    }
}
