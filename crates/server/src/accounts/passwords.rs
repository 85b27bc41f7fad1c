//! Hashes the passwords that people choose: slowly, and only a few at a time.
//!
//! Invariant: at most `AT_ONCE` hashes are computed at a time, at most `WAITING_MAX` callers wait for
//! their turn, and none longer than `WAIT_MAX`, so that a flood of logins costs neither all memory nor
//! all time. None is computed on a thread that serves requests.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::Secret;

/// Passwords longer than this are nobody's.
pub const BYTES_MAX: usize = 1024;
/// 19 MiB each.
const AT_ONCE: usize = 2;
const WAITING_MAX: usize = 4096;
const WAIT_MAX: Duration = Duration::from_secs(10);

// The least that OWASP recommends for Argon2id.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

// What a stored hash may ask for: a damaged or foreign row must not take all memory.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;

/// Stands for the hash of an account that does not exist, so that asking for one takes as long.
pub(super) const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Why a text cannot be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// It is empty: anybody who knows the name would be let in.
    #[error("A password must not be empty")]
    Empty,
    /// It is too long.
    #[error("A password has at most {BYTES_MAX} bytes")]
    TooLong,
    /// It could not be hashed.
    #[error("The password could not be hashed: not enough memory")]
    NoMemory,
}

/// Whether `password` may be one.
///
/// # Errors
/// When it is empty or too long.
pub fn check(password: &Secret) -> Result<(), PasswordError> {
    match password.expose().len() {
        0 => Err(PasswordError::Empty),
        bytes if bytes > BYTES_MAX => Err(PasswordError::TooLong),
        _ => Ok(()),
    }
}

/// The Argon2id hash of `password` with its parameters and salt, as text. Takes some 20 ms and 19 MiB.
///
/// # Errors
/// When it cannot be a password, or there is no memory for it.
pub fn hash(password: &Secret) -> Result<String, PasswordError> {
    check(password)?;
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None);
    let params = params.map_err(|_| PasswordError::NoMemory)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon2.hash_password(password.expose().as_bytes());
    Ok(hash.map_err(|_| PasswordError::NoMemory)?.to_string())
}

/// Whether `password` is the one that `stored` is the hash of. A hash that asks for more than we give is
/// nobody's, and the log says so.
#[must_use]
pub fn verify(password: &Secret, stored: &str) -> bool {
    let Ok(parsed) = PasswordHash::new(stored) else {
        tracing::error!("a stored password is not a hash that can be read; nobody is let in by it");
        return false;
    };
    let is_bounded = Params::try_from(&parsed).is_ok_and(|params| {
        params.m_cost() <= MEMORY_KIB_MAX
            && params.t_cost() <= PASSES_MAX
            && params.p_cost() <= LANES_MAX
    });
    if !is_bounded {
        tracing::error!("a stored password asks for too much work; nobody is let in by it");
        return false;
    }
    Argon2::default().verify_password(password.expose().as_bytes(), &parsed).is_ok()
}

/// Too many wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// Where hashes are computed.
#[derive(Debug)]
pub struct Workshop {
    /// Those who wait and those who work.
    present: Arc<Semaphore>,
    working: Arc<Semaphore>,
}

impl Workshop {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            present: Arc::new(Semaphore::new(AT_ONCE + WAITING_MAX)),
            working: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Does `work` when its turn comes, on a thread for it. Once begun it is finished, also when the
    /// caller no longer waits.
    ///
    /// # Errors
    /// When too many wait, or the turn does not come in time.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let present = Arc::clone(&self.present).try_acquire_owned().map_err(|_| Busy)?;
        let turn = tokio::time::timeout(WAIT_MAX, Arc::clone(&self.working).acquire_owned());
        let turn: OwnedSemaphorePermit = turn.await.map_err(|_| Busy)?.map_err(|_| Busy)?;
        let done = tokio::task::spawn_blocking(move || {
            let value = work();
            drop((turn, present));
            value
        });
        done.await.map_err(|_| Busy)
    }
}

impl Default for Workshop {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc;

    use super::*;

    #[track_caller]
    fn check_stored(stored: &str, password: &str, expected: bool) {
        assert_eq!(verify(&Secret::new(password), stored), expected, "{stored}");
    }

    #[test]
    fn a_password_is_verified_and_never_stored() {
        let stored = hash(&Secret::new("pä:ss")).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(!stored.contains("pä:ss"));
        check_stored(&stored, "pä:ss", true);
        check_stored(&stored, "pä:sS", false);
        assert_ne!(stored, hash(&Secret::new("pä:ss")).unwrap(), "the salt is not random");
    }

    #[test]
    fn the_parameters_of_the_stored_hash_hold_within_bounds() {
        let stored_with = |memory, passes, lanes| {
            let params = Params::new(memory, passes, lanes, None).unwrap();
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            argon2.hash_password(b"x").unwrap().to_string()
        };
        let cheap = stored_with(64, 1, 1);
        check_stored(&cheap, "x", true);
        check_stored(&stored_with(128, 3, 2), "x", true);
        // These would be right if they were computed.
        check_stored(&stored_with(256, 17, 1), "x", false);
        check_stored(&stored_with(256, 1, 17), "x", false);
        check_stored(&cheap.replace("m=64", "m=262145"), "x", false);
        check_stored(&cheap.replace("m=64", "m=4294967295"), "x", false);
        for strange in ["", "x", "$argon2id$", "$scrypt$ln=15,r=8,p=1$AAAA$AAAA"] {
            check_stored(strange, "x", false);
        }
    }

    #[test]
    fn an_empty_or_endless_password_is_none() {
        let check = |text: &str| super::check(&Secret::new(text));
        assert_eq!(check(""), Err(PasswordError::Empty));
        assert_eq!(check(&"x".repeat(1024)), Ok(()));
        assert_eq!(check(&"x".repeat(1025)), Err(PasswordError::TooLong));
        assert_eq!(hash(&Secret::new("")), Err(PasswordError::Empty));
    }

    #[test]
    fn nobodys_hash_takes_as_long_as_anybodys() {
        let parsed = PasswordHash::new(NOBODYS).unwrap();
        let params = Params::try_from(&parsed).unwrap();
        let found = (params.m_cost(), params.t_cost(), params.p_cost());
        assert_eq!(found, (MEMORY_KIB, PASSES, LANES));
        assert_eq!(parsed.hash.unwrap().len(), 32);
    }

    #[tokio::test]
    async fn only_two_work_at_once_and_a_bounded_number_waits() {
        let workshop = Arc::new(Workshop::new());
        let working = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let (open, gate) = mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE + WAITING_MAX {
            let (workshop, working) = (Arc::clone(&workshop), Arc::clone(&working));
            let (most, gate) = (Arc::clone(&most), Arc::clone(&gate));
            callers.spawn(async move {
                let work = move || {
                    most.fetch_max(working.fetch_add(1, SeqCst) + 1, SeqCst);
                    let _ = gate.lock().unwrap().recv();
                    working.fetch_sub(1, SeqCst);
                };
                workshop.run(work).await
            });
        }
        while workshop.present.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(workshop.run(|| ()).await, Err(Busy));
        drop(open);
        while let Some(outcome) = callers.join_next().await {
            assert_eq!(outcome.unwrap(), Ok(()));
        }
        assert!((1..=AT_ONCE).contains(&most.load(SeqCst)));
        assert_eq!(workshop.run(|| 7).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let workshop = Workshop::new();
        let all = u32::try_from(AT_ONCE).unwrap();
        let _held = Arc::clone(&workshop.working).acquire_many_owned(all).await.unwrap();
        assert_eq!(workshop.run(|| ()).await, Err(Busy));
    }
}
