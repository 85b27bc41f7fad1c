//! Decides who somebody is.
//!
//! Invariant: every account is in memory, so that a request that shows what was shown before costs about
//! a microsecond and no wait; and what is in memory is on the disk. Memory follows the disk: our own
//! changes as soon as they are written, those of another process before the next answer.
//! Not here: which route asks for which right (`http`), and what an agent does (the rooms, which get an
//! [`AccountId`] and a name, never a password). `keys` is about the plugins' keys and knows no accounts.

pub mod admin;
pub mod attempts;
pub mod audit;
pub mod authorization;
mod changes;
mod directory;
pub mod enrolment;
mod error;
pub mod keys;
mod login;
pub mod name;
pub mod passwords;
mod recognition;
pub mod role;
mod rows;
mod schema;
mod sessions;
pub mod token;
mod verified;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime};

use database::rusqlite::{self, Connection};
use database::{Database, DatabaseError};
use ring::hmac;
use wire::Secret;

pub use audit::Entry;
pub use authorization::Credential;
pub use enrolment::Enrolled;
pub use error::{AuthError, ChangeError};
pub use login::{Login, Session};
pub use name::AccountName;
pub use role::{Act, Role};
pub use schema::MIGRATIONS;

use attempts::Attempts;
use directory::{Account, Change, Directory, Proof};
use passwords::Workshop;
use sessions::Sessions;
use token::Digest;
use verified::Tags;

/// How long is waited before another process's changes are read again after that has failed.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked for what is no longer kept.
const HOUSE_EVERY: Duration = Duration::from_secs(60);

/// The number of an account. It is never used again, also not for an account of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub i64);

/// Somebody who is known. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The account.
    pub account: AccountId,
    /// Its name.
    pub name: Arc<str>,
    /// What it is for.
    pub role: Role,
}

/// An agent, as others may know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its account.
    pub account: AccountId,
    /// Its name.
    pub name: Arc<str>,
}

/// What can be set.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// A session that was not used for so long has ended.
    pub session_idle: Duration,
    /// How long entries of the audit log are kept; `None` is for ever.
    pub audit: Option<Duration>,
    /// Self-registration adds no agent when there are so many.
    pub selfreg_agents_max: usize,
}

/// All accounts of one database. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    settings: Settings,
    departed: Box<dyn Fn(&Identity) + Send + Sync>,
    directory: RwLock<Directory>,
    sessions: RwLock<Sessions>,
    attempts: Mutex<Attempts>,
    tags: Tags,
    workshop: Workshop,
    hardware_key: hmac::Key,
    self_registration: AtomicBool,
    /// The foreign changes that are in memory.
    seen: AtomicU64,
    reading: Arc<tokio::sync::Mutex<()>>,
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Accounts")
    }
}

impl Accounts {
    /// Reads all accounts of `database`, which has the tables of [`MIGRATIONS`]. Whenever an account was
    /// removed, by us or by another process, `departed` is called, once, on some thread that it must not
    /// keep; nobody is recognised as that account any more by then.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn open(
        database: Database,
        settings: Settings,
        departed: impl Fn(&Identity) + Send + Sync + 'static,
    ) -> Result<Self, DatabaseError> {
        let seen = database.foreign_changes().into();
        let idle_ms = i64::try_from(settings.session_idle.as_millis()).unwrap_or(i64::MAX);
        let (accounts, sessions, hardware_key, self_registration) = database.read_now(|tx| {
            let sessions = sessions::read(tx, idle_ms)?;
            Ok((directory::read(tx)?, sessions, hardware_key(tx)?, read_self_registration(tx)?))
        })?;
        let inner = Inner {
            database,
            settings,
            departed: Box::new(departed),
            directory: RwLock::new(Directory::default().next(accounts)),
            sessions: RwLock::new(sessions),
            attempts: Mutex::new(Attempts::new()),
            tags: Tags::new(),
            workshop: Workshop::new(),
            hardware_key,
            self_registration: self_registration.into(),
            seen,
            reading: Arc::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Follows what other processes do to the accounts while nobody asks: whoever is parked when an
    /// account is removed is told. Never ends by itself.
    pub async fn follow(&self) {
        let mut changes = self.inner.database.watch_foreign_changes();
        while changes.changed().await.is_ok() {
            while let Err(error) = self.refresh().await {
                tracing::error!(
                    "accounts that another program has changed cannot be read: {error}"
                );
                tokio::time::sleep(READ_AGAIN).await;
            }
        }
    }

    /// Drops entries of the audit log that are older than what is kept, as long as it is polled. Never ends by itself.
    pub async fn keep_house(&self) {
        let Some(audit) = self.inner.settings.audit else { return std::future::pending().await };
        let mut ticks = tokio::time::interval(HOUSE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let from = milliseconds(SystemTime::now())
                .saturating_sub_unsigned(u64::try_from(audit.as_millis()).unwrap_or(u64::MAX));
            if let Err(error) = self.shorten_audit(from).await {
                tracing::warn!("old entries of the audit log stay a little longer: {error}");
            }
        }
    }

    /// In slices, so that whatever else is to be written waits for one at most.
    async fn shorten_audit(&self, from: i64) -> Result<(), DatabaseError> {
        let database = &self.inner.database;
        while database.read(move |tx| audit::is_long(tx, from)).await? {
            database.write(move |tx| audit::shorten(tx, from)).await?;
        }
        Ok(())
    }

    /// Whether another process has changed something that is not in memory yet.
    fn is_stale(&self) -> bool {
        self.inner.database.foreign_changes() != self.inner.seen.load(Relaxed)
    }

    /// Reads the accounts again if another process has changed something.
    async fn refresh(&self) -> Result<(), DatabaseError> {
        if !self.is_stale() {
            return Ok(());
        }
        let turn = Arc::clone(&self.inner.reading).lock_owned().await;
        if !self.is_stale() {
            return Ok(());
        }
        let inner = Arc::clone(&self.inner);
        let read = move |tx: &Connection| {
            let changes = inner.database.foreign_changes();
            inner.directory_mut().begin_reading();
            let accounts = directory::read(tx)?;
            inner.self_registration.store(read_self_registration(tx)?, Relaxed);
            let next = inner.directory().next(accounts);
            let gone = inner.directory_mut().finish_reading(next);
            inner.seen.store(changes, Relaxed);
            inner.take_leave(&gone);
            // Held until here also when nobody waits for it any more.
            drop(turn);
            Ok(())
        };
        self.inner.database.read(read).await
    }

    /// Writes by `job`. As soon as that is on the disk `then` does the same to memory, also when the
    /// caller no longer waits.
    async fn commit<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
        then: impl FnOnce(&Inner, &T) + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let inner = Arc::clone(&self.inner);
        self.inner.database.write_then(job, move |outcome| {
            if let Ok(value) = &outcome {
                then(&inner, value);
            }
            // Whoever is told may close the database: it must not be held here by then.
            drop(inner);
            // Nobody may wait any more.
            let _ = tell.send(outcome);
        });
        told.await.unwrap_or(Err(DatabaseError::Ended))
    }

    /// All agents in order of creation.
    #[must_use]
    pub fn agents(&self) -> Vec<Agent> {
        self.agents_beginning("")
    }

    /// All agents whose names begin with `prefix`, in order of creation.
    #[must_use]
    pub fn agents_beginning(&self, prefix: &str) -> Vec<Agent> {
        let directory = self.inner.directory();
        let agents = directory.all().filter(|it| it.is_agent() && it.name.starts_with(prefix));
        agents.map(|it| it.agent()).collect()
    }

    /// The agent of that name.
    #[must_use]
    pub fn agent(&self, name: &str) -> Option<Agent> {
        let directory = self.inner.directory();
        directory.by_name(name).filter(|it| it.is_agent()).map(|it| it.agent())
    }

    /// The agent with that number.
    #[must_use]
    pub fn agent_by_id(&self, id: AccountId) -> Option<Agent> {
        let directory = self.inner.directory();
        directory.by_id(id).filter(|it| it.is_agent()).map(|it| it.agent())
    }

    /// Adds an entry to the audit log that tells of nothing that was changed: what was refused. What is done takes its
    /// entry with it ([`Entry::rider`]).
    pub async fn note(&self, entry: &Entry<'_>) {
        if let Err(error) = self.inner.database.write(entry.rider()).await {
            tracing::error!("the audit log lacks an entry: {error}");
        }
    }

    /// At most `limit` entries of the audit log (and at most [`audit::PAGE_MAX`]) before the one with the
    /// number `before`, the newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn audit_page(
        &self,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<audit::Stored>, DatabaseError> {
        self.inner.database.read(move |tx| audit::page(tx, before, limit)).await
    }
}

impl Inner {
    fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory_mut(&self) -> RwLockWriteGuard<'_, Directory> {
        self.directory.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> RwLockReadGuard<'_, Sessions> {
        self.sessions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions_mut(&self) -> RwLockWriteGuard<'_, Sessions> {
        self.sessions.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a change that is on the disk.
    fn apply(&self, change: Change) {
        let gone = self.directory_mut().apply(change);
        self.take_leave(gone.as_slice());
    }

    /// These are no longer in the directory.
    fn take_leave(&self, gone: &[Arc<Account>]) {
        if gone.is_empty() {
            return;
        }
        self.sessions_mut().retain(|account| gone.iter().all(|it| it.id != account));
        for account in gone {
            (self.departed)(&account.identity());
        }
    }
}

impl Account {
    fn is_agent(&self) -> bool {
        self.role == Role::Agent
    }

    fn agent(&self) -> Agent {
        Agent { account: self.id, name: Arc::clone(&self.name) }
    }

    fn identity(&self) -> Identity {
        Identity { account: self.id, name: Arc::clone(&self.name), role: self.role }
    }
}

/// The time by which attempts are counted; tests can stop it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Milliseconds since 1970; negative before.
fn milliseconds(time: SystemTime) -> i64 {
    let whole = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => whole(since),
        Err(before) => -whole(before.duration()),
    }
}

fn read_self_registration(connection: &Connection) -> Result<bool, rusqlite::Error> {
    rows::setting(connection, "self_registration")
}

/// The key under which hardware ids are hashed: an id can be guessed, and must not be found by a table
/// that was made beforehand.
fn hardware_key(connection: &Connection) -> Result<hmac::Key, rusqlite::Error> {
    let salt: Vec<u8> = rows::setting(connection, "hwid_salt")?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &salt))
}

fn hardware_digest(key: &hmac::Key, hwid: &str) -> Digest {
    Digest::keyed(key, &[hwid.as_bytes()])
}

/// The proof of an agent that is known by `hwid`.
fn proof_of_hardware(key: &hmac::Key, hwid: &Secret) -> Result<Proof, ChangeError> {
    if hwid.expose().is_empty() || hwid.expose().len() > passwords::BYTES_MAX {
        return Err(ChangeError::Hardware);
    }
    Ok(Proof { hardware: Some(hardware_digest(key, hwid.expose())), ..Proof::default() })
}
