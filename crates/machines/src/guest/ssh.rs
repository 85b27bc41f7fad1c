//! Reaches the SSH server of a guest, however long it takes to be there, and logs in.
//!
//! Invariant: refused, reset and closed connections are what a starting server looks like and are tried again until the
//! deadline; a server that speaks and says no is believed at once.

use std::borrow::Cow;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use russh::client::{AuthResult, Config, Handle, Handler};
use russh::keys::{Algorithm, EcdsaCurve, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Preferred, SshId, cipher, compression, kex, mac};
use tokio::time::{Instant, timeout_at};
use wire::Secret;

use super::GuestError;
use super::leash::{Leash, leash};
use super::shell::Shell;
use super::ssh_key::{SshKey, fingerprint};
use crate::hypervisor::{Ending, GuestStream, Vm};

/// Where SSH servers of guests listen.
pub const PORT: u16 = 22;
/// The first pause between two attempts, doubled each time …
const STEP_MIN: Duration = Duration::from_millis(5);
/// … up to this.
const STEP_MAX: Duration = Duration::from_millis(100);
/// How long one attempt may take, from connecting to being logged in. An emulated guest at its first boot needs seconds.
const ATTEMPT_MAX: Duration = Duration::from_secs(15);

/// Who logs in.
#[derive(Debug, Clone)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The proof.
    pub proof: Proof,
    /// Where the guest's SSH server listens.
    pub port: u16,
}

/// What proves who somebody is.
#[derive(Debug, Clone)]
pub enum Proof {
    /// A password.
    Password(Secret),
    /// The private half of a key that the user's `authorized_keys` holds.
    Key(SshKey),
}

/// Logs in to a guest. `host_key` is the fingerprint that its host key must have; any is taken where there is
/// none, and [`Shell::host_key_fingerprint`] tells it.
///
/// # Errors
/// When no SSH server answers until `deadline`, it has another host key, it refuses the login, or the machine ends.
pub async fn open(
    vm: &dyn Vm,
    login: &Login,
    host_key: Option<&str>,
    deadline: Instant,
) -> Result<Shell, GuestError> {
    let mut ended = vm.ended();
    tokio::select! {
        shell = try_until(vm, login, host_key, deadline) => shell,
        end = ended.wait_for(Option::is_some) => {
            let why = end.ok().and_then(|why| why.clone());
            Err(GuestError::Ended(why.map_or_else(|| "nobody knows why".to_owned(), |why| describe(&why))))
        }
    }
}

fn describe(ending: &Ending) -> String {
    match ending {
        Ending::Killed => "it was taken back".to_owned(),
        Ending::PoweredOff => "the guest powered off".to_owned(),
        Ending::Reset => "the guest asked for a reset".to_owned(),
        Ending::Panicked => "the guest's kernel gave up".to_owned(),
        Ending::Died(why) => why.clone(),
    }
}

async fn try_until(
    vm: &dyn Vm,
    login: &Login,
    host_key: Option<&str>,
    deadline: Instant,
) -> Result<Shell, GuestError> {
    let begun = Instant::now();
    let mut step = STEP_MIN;
    let mut last = "nothing".to_owned();
    loop {
        let until = deadline.min(Instant::now() + ATTEMPT_MAX);
        match timeout_at(until, attempt(vm, login, host_key)).await {
            Ok(Ok(shell)) => return Ok(shell),
            Ok(Err(Failed::ForGood(error))) => return Err(error),
            Ok(Err(Failed::ForNow(why))) => last = why,
            Err(_) => "it accepts connections and says nothing".clone_into(&mut last),
        }
        if Instant::now() + step >= deadline {
            let last = super::excerpt(&last, None);
            return Err(GuestError::NotThere { waited_ms: begun.elapsed().as_millis(), last });
        }
        tokio::time::sleep(step).await;
        step = (step * 2).min(STEP_MAX);
    }
}

/// Whether another attempt may end otherwise.
enum Failed {
    ForNow(String),
    ForGood(GuestError),
}

impl From<russh::Error> for Failed {
    fn from(error: russh::Error) -> Self {
        use russh::Error::{Disconnect, HUP, IO, RecvError, SendError, Version};
        match error {
            // Whatever is read of a greeting before the connection ends is not a greeting.
            Disconnect | HUP | IO(_) | RecvError | SendError | Version => {
                Self::ForNow(error.to_string())
            }
            _ => Self::ForGood(GuestError::Ssh(error)),
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::ForNow(error.to_string())
    }
}

/// Logs in over a connection to a guest's SSH server that is there. See [`open`] for `host_key`. Has no deadline.
///
/// # Errors
/// When the server has another host key, refuses the login or ends the connection.
pub async fn log_in(
    stream: Box<dyn GuestStream>,
    login: &Login,
    host_key: Option<&str>,
) -> Result<Shell, GuestError> {
    once(stream, login, host_key).await.map_err(|failed| match failed {
        Failed::ForGood(error) => error,
        Failed::ForNow(last) => GuestError::NotThere { waited_ms: 0, last },
    })
}

async fn attempt(vm: &dyn Vm, login: &Login, host_key: Option<&str>) -> Result<Shell, Failed> {
    once(vm.connect(login.port).await?, login, host_key).await
}

async fn once(
    stream: Box<dyn GuestStream>,
    login: &Login,
    host_key: Option<&str>,
) -> Result<Shell, Failed> {
    let (leash, mut handle, found) = greet(stream, host_key).await?;
    let answer = prove(&mut handle, login).await?;
    if matches!(answer, AuthResult::Success) {
        return Ok(Shell::new(leash, handle, found));
    }
    // A connection that ended is told as a refusal, too.
    if handle.is_closed() {
        return Err(Failed::ForNow("it closed the connection during the login".to_owned()));
    }
    Err(Failed::ForGood(GuestError::Refused { user: login.user.clone() }))
}

async fn greet(
    stream: Box<dyn GuestStream>,
    host_key: Option<&str>,
) -> Result<(Leash, Handle<Acquaintance>, String), Failed> {
    let (leash, stream) = leash(stream);
    let seen = Arc::new(OnceLock::new());
    let expected = host_key.map(str::to_owned);
    let acquaintance = Acquaintance { expected: expected.clone(), seen: Arc::clone(&seen) };
    let outcome = russh::client::connect_stream(config(), stream, acquaintance).await;
    let found = seen.get().cloned().unwrap_or_default();
    match (outcome, expected) {
        (Ok(handle), _) => Ok((leash, handle, found)),
        (Err(russh::Error::UnknownKey), Some(expected)) => {
            Err(Failed::ForGood(GuestError::HostKey { expected, found }))
        }
        (Err(error), _) => Err(error.into()),
    }
}

async fn prove(
    handle: &mut Handle<Acquaintance>,
    login: &Login,
) -> Result<AuthResult, russh::Error> {
    match &login.proof {
        Proof::Password(password) => {
            handle.authenticate_password(&login.user, password.expose()).await
        }
        Proof::Key(key) => {
            let key = PrivateKeyWithHashAlg::new(key.pair(), None);
            handle.authenticate_publickey(&login.user, key).await
        }
    }
}

/// Knows whose key a guest should have.
#[derive(Debug)]
pub(crate) struct Acquaintance {
    expected: Option<String>,
    seen: Arc<OnceLock<String>>,
}

impl Handler for Acquaintance {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        server: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = server else { return Ok(false) };
        let found = fingerprint(key);
        let is_expected = self.expected.as_ref().is_none_or(|expected| *expected == found);
        // Keys are exchanged again now and then; the first answer stays.
        let _ = self.seen.set(found);
        Ok(is_expected)
    }
}

/// How we speak to guests: what an emulated processor does quickest comes first, and nothing that costs a round trip.
pub(crate) fn config() -> Arc<Config> {
    static CONFIG: OnceLock<Arc<Config>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        Arc::new(Config {
            client_id: SshId::Standard(Cow::Borrowed("SSH-2.0-Gatehouse")),
            preferred: Preferred {
                kex: Cow::Borrowed(KEX),
                key: Cow::Borrowed(HOST_KEYS),
                cipher: Cow::Borrowed(CIPHERS),
                mac: Cow::Borrowed(MACS),
                compression: Cow::Borrowed(&[compression::NONE]),
                ..Preferred::DEFAULT
            },
            ..Config::default()
        })
    });
    Arc::clone(config)
}

/// No post-quantum exchange: the guest is on this host, and nobody listens between.
const KEX: &[kex::Name] = &[
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::DH_G14_SHA256,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
];
const HOST_KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
];
const CIPHERS: &[cipher::Name] =
    &[cipher::CHACHA20_POLY1305, cipher::AES_128_CTR, cipher::AES_256_CTR, cipher::AES_256_GCM];
const MACS: &[mac::Name] =
    &[mac::HMAC_SHA256, mac::HMAC_SHA256_ETM, mac::HMAC_SHA512, mac::HMAC_SHA512_ETM];
