//! What is said to the agent of a guest: one line, one answer.
//!
//! Invariant: no word of a request can hold a space or a line end, whatever it was made of.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::timeout;
use wire::Secret;
use zeroize::Zeroizing;

use super::ssh_key::SshKey;
use super::{GuestError, password};
use crate::hypervisor::Vm;
use crate::image::HostKeyForm;
use crate::machine::MachineId;

/// What an agent of the protocol's first version calls itself.
const GREETING: &str = "gatehouse-agent 1";
/// Fresh entropy for one clone.
const SEED_BYTES: usize = 64;
/// The longest request, in bytes: the agent reads no more.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// How long the agent may take over a request; an emulated guest on a busy host needs a tenth of a second.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// The longest name of a user.
const USER_CHARS_MAX: usize = 32;

/// What makes a clone another machine than its siblings, beside entropy and clock.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name in its own eyes.
    pub hostname: String,
    /// For `/etc/machine-id`: 32 hexadecimal digits. Not made from the machine's UUID, which others see.
    pub machine_id: String,
    /// Its network card's address, locally administered.
    pub mac: String,
    /// The key by which its SSH server is known.
    pub host_key: SshKey,
}

impl Identity {
    /// A fresh one for the machine `id`.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn random(id: MachineId) -> Result<Self, GuestError> {
        let [a, b, c] = random()?;
        let mut machine_id = String::with_capacity(32);
        for byte in random::<16>()? {
            // Writing to a string cannot fail.
            let _ = write!(machine_id, "{byte:02x}");
        }
        Ok(Self {
            hostname: format!("m-{}", id.short()),
            machine_id,
            mac: format!("52:54:00:{a:02x}:{b:02x}:{c:02x}"),
            host_key: SshKey::random()?,
        })
    }
}

/// A user that is to be made.
#[derive(Debug, Clone)]
pub struct User<'a> {
    /// The user's name: letters, digits, `_` and `-`, at most 32.
    pub name: &'a str,
    /// The user's password.
    pub password: &'a Secret,
    /// The port that the guest's SSH server listens on, beside 22.
    pub port: u16,
    /// The user's `authorized_keys`, lines with their ends.
    pub authorized_keys: Option<&'a str>,
}

/// Asks whether an agent is there and its SSH server listens.
///
/// # Errors
/// When it does not answer, or is of another version.
pub async fn hello(vm: &dyn Vm) -> Result<(), GuestError> {
    let answer = ask(vm, "hello", Secret::new("hello")).await?;
    if answer == GREETING {
        return Ok(());
    }
    let why = format!("it is {:?}, not {GREETING:?}", super::excerpt(&answer, None));
    Err(GuestError::Agent { request: "hello", why })
}

/// Gives a guest entropy and the time; and an identity, unless it keeps the one it has.
///
/// # Errors
/// When the agent does not answer or refuses.
pub async fn refresh(
    vm: &dyn Vm,
    identity: Option<(&Identity, HostKeyForm)>,
) -> Result<(), GuestError> {
    let rest = match identity {
        None => Secret::new("- - - -"),
        Some((identity, form)) => {
            let key = identity.host_key.encoded(form)?;
            let Identity { hostname, machine_id, mac, .. } = identity;
            let text = Zeroizing::new(format!("{hostname} {machine_id} {mac} {}", key.expose()));
            Secret::new(text.as_str())
        }
    };
    let seed = Zeroizing::new(STANDARD.encode(Zeroizing::new(random::<SEED_BYTES>()?)));
    // Last of all, since it is old as soon as it is known.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let line = Zeroizing::new(format!("refresh {} {now} {}", *seed, rest.expose()));
    nothing_more("refresh", ask(vm, "refresh", Secret::new(line.as_str())).await?)
}

/// Makes the user. Works once.
///
/// # Errors
/// When the user's name or keys cannot be said, and when the agent does not answer or refuses.
pub async fn set_up(vm: &dyn Vm, user: &User<'_>) -> Result<(), GuestError> {
    super::check_user(user.name, USER_CHARS_MAX)?;
    let hash = password::crypt(user.password)?;
    let keys = user.authorized_keys.map_or_else(|| "-".to_owned(), |keys| STANDARD.encode(keys));
    let line =
        Zeroizing::new(format!("setup {} {} {} {keys}", user.name, hash.expose(), user.port));
    nothing_more("setup", ask(vm, "setup", Secret::new(line.as_str())).await?)
}

/// Replaces the `authorized_keys` of the user that was set up.
///
/// # Errors
/// When the agent does not answer or refuses.
pub async fn replace_keys(vm: &dyn Vm, authorized_keys: &str) -> Result<(), GuestError> {
    let line = Secret::new(format!("keys {}", STANDARD.encode(authorized_keys)));
    nothing_more("keys", ask(vm, "keys", line).await?)
}

async fn ask(vm: &dyn Vm, request: &'static str, line: Secret) -> Result<String, GuestError> {
    let failed = |why: String| GuestError::Agent { request, why };
    if line.expose().len() >= LINE_BYTES_MAX {
        return Err(failed(format!("the request is longer than {LINE_BYTES_MAX} bytes")));
    }
    match timeout(ANSWER_MAX, vm.ask_agent(line)).await {
        Ok(answer) => answer.map_err(|error| failed(super::excerpt(&error.to_string(), None))),
        Err(_) => Err(failed(format!("no answer within {} seconds", ANSWER_MAX.as_secs()))),
    }
}

fn nothing_more(request: &'static str, answer: String) -> Result<(), GuestError> {
    if answer.is_empty() {
        return Ok(());
    }
    let why = format!("it answered more than ok: {:?}", super::excerpt(&answer, None));
    Err(GuestError::Agent { request, why })
}

fn random<const N: usize>() -> Result<[u8; N], GuestError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| GuestError::NoRandomness)?;
    Ok(bytes)
}
