//! Inside a guest: its identity and its user, given by the agent of our images or, where there is none, by a shell.
//!
//! Invariant: nothing here waits without a deadline, reads without a bound, or says a password. No connection outlives
//! the value that stands for it.

pub mod agent;
pub mod leash;
pub mod password;
pub mod shell;
pub mod ssh;
pub mod ssh_key;

use std::time::Duration;

use tokio::time::Instant;
use wire::Secret;

use crate::error::MachineError;
use crate::hypervisor::Vm;
use shell::{Bounds, Shell};
use ssh::{Login, Proof};

/// The most characters of something a guest said that become part of an error.
const EXCERPT_CHARS_MAX: usize = 300;
/// How long the one command may take that proves that a user can work.
const WARM_UP_COMMAND_MAX: Duration = Duration::from_secs(20);

/// What went wrong inside a guest. The text is for people and names no secret.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
    /// No password hash could be made.
    #[error("the password cannot be hashed")]
    Password,
    /// No key pair, or one of another kind.
    #[error("not an unencrypted Ed25519 key")]
    Key,
    /// A public key that cannot be given to a user.
    #[error(
        "not a public key of SSH: one line of kind, base64 and comment, without options, is wanted"
    )]
    PublicKey,
    /// A name that no user can have.
    #[error(
        "a user's name is 1 to {max} letters, digits, '_' and '-', and does not begin with '-'"
    )]
    UserName {
        /// The most characters.
        max: usize,
    },
    /// The agent does not do what it should.
    #[error("the guest's agent, asked to {request}: {why}")]
    Agent {
        /// The first word of the request.
        request: &'static str,
        /// Why not.
        why: String,
    },
    /// The SSH server never answered.
    #[error("the guest's SSH server did not answer within {waited_ms} ms; last: {last}")]
    NotThere {
        /// How long was waited.
        waited_ms: u128,
        /// What was seen last.
        last: String,
    },
    /// Another SSH server answered.
    #[error("the guest's SSH host key is {found}, not {expected}")]
    HostKey {
        /// The fingerprint that was wanted.
        expected: String,
        /// The fingerprint that was seen.
        found: String,
    },
    /// The user was not let in.
    #[error("the guest refused to let {user} log in")]
    Refused {
        /// Who.
        user: String,
    },
    /// The connection failed in another way.
    #[error("SSH to the guest: {0}")]
    Ssh(#[from] russh::Error),
    /// A command did not end in time.
    #[error("the command in the guest did not end within {} ms", .0.as_millis())]
    TooSlow(Duration),
    /// The set-up script spoke, which means that it failed.
    #[error("the guest's set-up script says: {0}")]
    Noise(String),
    /// The machine ended meanwhile.
    #[error("the machine ended: {0}")]
    Ended(String),
}

impl From<GuestError> for MachineError {
    fn from(error: GuestError) -> Self {
        match error {
            GuestError::Ended(why) => Self::Ended(why),
            other => Self::SetUp(other.to_string()),
        }
    }
}

/// Logs in as the new user and runs `true`: proves that the machine works, and leaves an emulated guest with all that
/// a login needs translated. Returns the fingerprint of the SSH host key.
///
/// # Errors
/// When the login or the command fails.
pub async fn warm_up(
    vm: &dyn Vm,
    user: &str,
    password: &Secret,
    host_key: Option<&str>,
    deadline: Instant,
) -> Result<String, GuestError> {
    let login =
        Login { user: user.to_owned(), proof: Proof::Password(password.clone()), port: ssh::PORT };
    let shell = ssh::open(vm, &login, host_key, deadline).await?;
    let fingerprint = shell.host_key_fingerprint().to_owned();
    let output = shell.run("true", Bounds::within(WARM_UP_COMMAND_MAX)).await?;
    shell.close();
    if output.exit == Some(0) {
        return Ok(fingerprint);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(GuestError::Noise(format!("`true` failed: {}", excerpt(&said, Some(password)))))
}

/// Sets a guest without an agent up: logs in as its endpoint user and runs the set-up script.
///
/// # Errors
/// When the user's name cannot be said, the endpoint cannot be reached or the script says anything.
pub async fn set_up_by_shell(
    vm: &dyn Vm,
    endpoint: &Login,
    user: &agent::User<'_>,
    deadline: Instant,
) -> Result<(), GuestError> {
    let shell: Shell = ssh::open(vm, endpoint, None, deadline).await?;
    let done = shell.set_up(user, deadline).await;
    shell.close();
    done
}

/// Whether `name` can be said in a request and in a command line alike.
pub(crate) fn check_user(name: &str, max: usize) -> Result<(), GuestError> {
    let fits = (1..=max).contains(&name.len()) && !name.starts_with('-');
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if fits && is_plain { Ok(()) } else { Err(GuestError::UserName { max }) }
}

/// What a guest said, fit for an error: one line, bounded, without `secret`.
fn excerpt(text: &str, secret: Option<&Secret>) -> String {
    let scrubbed = match secret {
        Some(secret) if !secret.expose().is_empty() => text.replace(secret.expose(), "…"),
        _ => text.to_owned(),
    };
    let line: String = scrubbed
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(EXCERPT_CHARS_MAX)
        .collect();
    if line.len() < scrubbed.trim().len() { format!("{line}…") } else { line }
}

#[cfg(test)]
mod tests;
