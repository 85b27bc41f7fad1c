//! Why somebody is not let in, and why an account is not changed.

use database::DatabaseError;

use super::attempts::TooMany;
use super::enrolment;
use super::name::NameError;
use super::passwords::{self, Busy, PasswordError};
use super::rows::{PASSCODES_MAX, Refusal};

/// Why somebody was not recognised.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuthError {
    /// What was shown is wrong, or nothing. One answer for all: a stranger must not learn which names
    /// exist.
    #[error("Authorization failure")]
    Refused,
    /// There were too many failures.
    #[error("Too many attempts; try again in {retry_secs} s")]
    TooMany {
        /// Whole seconds until the next attempt is allowed; at least 1.
        retry_secs: u64,
    },
    /// Too many passwords wait to be verified; it is worth trying again in a second.
    #[error("Too many logins at once; try again")]
    Busy,
    /// The accounts cannot be read or written.
    #[error("The accounts are not available")]
    Unavailable(#[from] DatabaseError),
}

impl From<TooMany> for AuthError {
    fn from(TooMany { retry_secs }: TooMany) -> Self {
        Self::TooMany { retry_secs }
    }
}

impl From<Busy> for AuthError {
    fn from(Busy: Busy) -> Self {
        Self::Busy
    }
}

/// Why an account was not added or changed. Nothing has changed then.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChangeError {
    /// The name belongs to another account.
    #[error("The name is taken by another account")]
    NameTaken,
    /// There is no such account.
    #[error("There is no such account")]
    Unknown,
    /// Self-registration is off.
    #[error("Agents self-registration is disabled")]
    Disabled,
    /// The text cannot be a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The text cannot be a password.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The text cannot be a hardware id.
    #[error("A hardware id has 1 to {} bytes", passwords::BYTES_MAX)]
    Hardware,
    /// The time or the number of uses of an enrolment token is out of bounds.
    #[error("A token is good for 1 second to {} days and for 1 to {} agents",
        enrolment::TTL_MAX.as_secs() / 86_400, enrolment::USES_MAX)]
    TokenBounds,
    /// The enrolment token is wrong, used up or too old.
    #[error("The token is wrong, used up or expired")]
    BadToken,
    /// There were too many tries to guess a token or a hardware id.
    #[error("Too many attempts; try again in {retry_secs} s")]
    TooManyAttempts {
        /// Whole seconds until the next attempt is allowed; at least 1.
        retry_secs: u64,
    },
    /// There are as many as there may be.
    #[error(
        "There are too many already (at most {PASSCODES_MAX} pass-codes and {} good tokens)",
        enrolment::TOKENS_MAX
    )]
    TooMany,
    /// There are as many agents as self-registration may make.
    #[error("There are too many agents; self-registration adds no more")]
    Full,
    /// Too many passwords wait to be hashed; it is worth trying again in a second.
    #[error("Too many passwords at once; try again")]
    Busy,
    /// The accounts cannot be read or written.
    #[error("The accounts are not available: {0}")]
    Unavailable(#[from] DatabaseError),
}

impl From<Refusal> for ChangeError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Taken => Self::NameTaken,
            Refusal::Unknown => Self::Unknown,
            Refusal::TooMany => Self::TooMany,
            Refusal::Full => Self::Full,
            Refusal::BadToken => Self::BadToken,
        }
    }
}

impl From<TooMany> for ChangeError {
    fn from(TooMany { retry_secs }: TooMany) -> Self {
        Self::TooManyAttempts { retry_secs }
    }
}

impl From<Busy> for ChangeError {
    fn from(Busy: Busy) -> Self {
        Self::Busy
    }
}
