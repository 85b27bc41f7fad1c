//! Secrets of a machine: made here, told once, kept as hashes.
//!
//! Source of the forms: the answer to CREATE, which existing clients check (the containers' protocol, "CREATE data").

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use wire::Secret;

/// Random bytes in a token; in base64 they are 255 characters.
const TOKEN_BYTES: usize = 191;
/// Characters of a password.
const PASSWORD_CHARS: usize = 120;
/// What a password is made of. 62 characters: bytes of 248 and above are thrown away, so that none is likelier.
const LETTERS: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandomness;

/// Fills `bytes` with what nobody can guess.
///
/// # Errors
/// When the system has none; nothing may be started then.
pub fn randomize(bytes: &mut [u8]) -> Result<(), NoRandomness> {
    SystemRandom::new().fill(bytes).map_err(|_| NoRandomness)
}

/// By what the user of a machine logs in.
#[derive(Debug, Clone)]
pub struct Login {
    /// `user_` and a number from 10000 to 90000.
    pub username: String,
    /// 120 letters and digits.
    pub password: Secret,
}

impl Login {
    /// A new user with a new password.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn random() -> Result<Self, NoRandomness> {
        let mut number = [0; 8];
        randomize(&mut number)?;
        let number = 10_000 + u64::from_le_bytes(number) % 80_001;
        Ok(Self { username: format!("user_{number}"), password: password()? })
    }
}

fn password() -> Result<Secret, NoRandomness> {
    let mut password = String::with_capacity(PASSWORD_CHARS);
    let mut bytes = [0; 2 * PASSWORD_CHARS];
    while password.len() < PASSWORD_CHARS {
        randomize(&mut bytes)?;
        let fair = bytes.iter().filter(|byte| **byte < 248);
        let letters = fair.map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
        password.extend(letters.take(PASSWORD_CHARS - password.len()));
    }
    Ok(Secret::new(password))
}

/// A new token: 255 characters of URL-safe base64.
///
/// # Errors
/// When the system has no random bytes.
pub fn token() -> Result<Secret, NoRandomness> {
    let mut bytes = [0; TOKEN_BYTES];
    randomize(&mut bytes)?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
}

/// What is kept of a token: its SHA-256 in hexadecimal. The token is random and long, so that one round is enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenHash(String);

impl TokenHash {
    /// What is kept of `token`.
    #[must_use]
    pub fn of(token: &Secret) -> Self {
        Self(hex(&Sha256::digest(token.expose().as_bytes())))
    }

    /// Whether `token` is the one this was made of; takes the same time for every wrong one.
    #[must_use]
    pub fn matches(&self, token: &Secret) -> bool {
        self.0.as_bytes().ct_eq(Self::of(token).0.as_bytes()).into()
    }
}

/// `bytes` in lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_has_the_form_that_clients_check() {
        for _ in 0..50 {
            let login = Login::random().unwrap();
            let number: u32 = login.username.strip_prefix("user_").unwrap().parse().unwrap();
            assert!((10_000..=90_000).contains(&number), "{number}");
            let password = login.password.expose();
            assert_eq!(password.len(), 120);
            assert!(password.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{password}");
        }
    }

    #[test]
    fn a_token_has_the_form_that_clients_check_and_is_never_the_same() {
        let (one, other) = (token().unwrap(), token().unwrap());
        assert_eq!(one.expose().len(), 255);
        assert!(
            one.expose().bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-' || it == b'_')
        );
        assert!(!one.matches(other.expose()));
    }

    #[test]
    fn a_kept_token_matches_itself_alone_and_does_not_show_it() {
        let (one, other) = (token().unwrap(), token().unwrap());
        let kept = TokenHash::of(&one);
        assert!(kept.matches(&one) && !kept.matches(&other));
        assert!(!format!("{kept:?}").contains(one.expose()));
    }
}
