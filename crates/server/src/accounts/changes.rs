//! Adds, renames and removes accounts while the server runs.
//!
//! Invariant: a change is on the disk and in memory when it is told.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use database::rusqlite::Connection;
use database::{DatabaseError, Rider};
use wire::Secret;

use super::attempts::Place;
use super::directory::{Account, Change, Proof};
use super::enrolment::{self, Enrolled, NewToken};
use super::rows::{self, NewAccount, Outcome};
use super::token::{self, Digest};
use super::{
    AccountId, AccountName, Accounts, Agent, ChangeError, Role, hardware_digest, milliseconds,
    passwords, proof_of_hardware,
};

impl Accounts {
    /// Adds an account.
    ///
    /// # Errors
    /// When the name is taken, the password cannot be one, or the accounts cannot be written.
    pub async fn add(
        &self,
        name: &AccountName,
        role: Role,
        password: &Secret,
    ) -> Result<AccountId, ChangeError> {
        self.refresh().await?;
        let password = Some(self.hash(Some(name), password).await?.into());
        let proof = Proof { password, ..Proof::default() };
        let new = NewAccount { name: Some(name.clone()), role, proof };
        Ok(self.insert(new, None).await?.id)
    }

    /// Adds an admin who is known by a pass-code alone.
    ///
    /// # Errors
    /// When there are too many of them, or as [`Self::add`].
    pub async fn add_passcode(&self, code: &Secret) -> Result<AccountId, ChangeError> {
        let password = Some(self.hash(None, code).await?.into());
        let proof = Proof { password, is_passcode: true, ..Proof::default() };
        let new = NewAccount { name: None, role: Role::Admin, proof };
        Ok(self.insert(new, None).await?.id)
    }

    /// Adds an agent that is known by its hardware id.
    ///
    /// # Errors
    /// When name or id are taken, the id cannot be one, or the accounts cannot be written.
    pub async fn add_hardware(
        &self,
        name: &AccountName,
        hwid: &Secret,
    ) -> Result<AccountId, ChangeError> {
        Ok(self.insert(self.new_hardware(name, hwid)?, None).await?.id)
    }

    fn new_hardware(&self, name: &AccountName, hwid: &Secret) -> Result<NewAccount, ChangeError> {
        let proof = proof_of_hardware(&self.inner.hardware_key, hwid)?;
        Ok(NewAccount { name: Some(name.clone()), role: Role::Agent, proof })
    }

    /// Whether agents may add themselves.
    #[must_use]
    pub fn self_registration(&self) -> bool {
        self.inner.self_registration.load(Relaxed)
    }

    /// Lets agents add themselves, or no longer. `rider` is written with that.
    ///
    /// # Errors
    /// When that cannot be written.
    pub async fn set_self_registration(
        &self,
        enabled: bool,
        rider: Rider,
    ) -> Result<(), DatabaseError> {
        let write = move |tx: &_| {
            rows::set_setting(tx, "self_registration", enabled)?;
            rider(tx)
        };
        self.commit(write, move |inner, ()| inner.self_registration.store(enabled, Relaxed)).await
    }

    /// An agent at the address `from` adds itself. `rider` is written with it.
    ///
    /// # Errors
    /// When it may not, or as [`Self::add`].
    pub async fn register(
        &self,
        name: &AccountName,
        password: &Secret,
        from: IpAddr,
        rider: Rider,
    ) -> Result<AccountId, ChangeError> {
        self.allow_registration().await?;
        self.check_room_for_agents()?;
        let stored = self.hash(Some(name), password).await?;
        let proof = Proof { password: Some(stored.as_str().into()), ..Proof::default() };
        let new = NewAccount { name: Some(name.clone()), role: Role::Agent, proof };
        let account = self.self_register(new, rider).await?;
        // It comes again at once; no need to hash what we have just hashed.
        let tag = self.inner.tags.of(account.id, &stored, password.expose());
        account.proven.remember(tag);
        account.proven.remember_place(Place::of(from));
        Ok(account.id)
    }

    /// An agent at the address `from` adds itself by its hardware id. One that is known already may always;
    /// where others may not, asking for one is guessing. `rider` is written with a new agent.
    ///
    /// # Errors
    /// When it may not, or as [`Self::add_hardware`].
    pub async fn register_hardware(
        &self,
        name: &AccountName,
        hwid: &Secret,
        from: IpAddr,
        rider: Rider,
    ) -> Result<AccountId, ChangeError> {
        self.refresh().await?;
        let digest = hardware_digest(&self.inner.hardware_key, hwid.expose());
        let known = self.inner.directory().by_hardware(&digest).map(|account| account.id);
        if let Some(known) = known {
            return Ok(known);
        }
        if !self.self_registration() {
            self.inner.count_guess(from)?;
            return Err(ChangeError::Disabled);
        }
        let new = self.new_hardware(name, hwid)?;
        Ok(self.self_register(new, rider).await?.id)
    }

    /// Gives the agent `old` the name `new`. `rider` is written with that.
    ///
    /// # Errors
    /// When there is no such agent, the name is taken, or the accounts cannot be written.
    pub async fn rename_agent(
        &self,
        old: &str,
        new: &AccountName,
        rider: Rider,
    ) -> Result<Agent, ChangeError> {
        let (old, name) = (old.to_owned(), new.clone());
        let id = self
            .commit(move |tx| riding(tx, rows::rename_agent(tx, &old, &name), Some(rider)), {
                let name = new.shared();
                move |inner, renamed| {
                    let Ok(id) = *renamed else { return };
                    let known = inner.directory().by_id(id).cloned();
                    if let Some(account) = known {
                        inner.apply(Change::Put(Arc::new(account.renamed(name))));
                    }
                }
            })
            .await??;
        Ok(Agent { account: id, name: new.shared() })
    }

    /// Removes the agent of that name with everything that is its own. `rider` is written with that.
    ///
    /// # Errors
    /// When there is none, or the accounts cannot be written.
    pub async fn remove_agent(&self, name: &str, rider: Rider) -> Result<(), ChangeError> {
        let name = name.to_owned();
        self.commit(
            move |tx| riding(tx, rows::remove_agent(tx, &name), Some(rider)),
            |inner, removed| {
                if let Ok(change) = removed {
                    inner.apply(change.clone());
                }
            },
        )
        .await??;
        Ok(())
    }

    /// Makes a token by which `uses` machines can become agents within `ttl`. It dies with the account
    /// `by` that asked for it. `rider` is written with it.
    ///
    /// # Errors
    /// When a number is out of bounds, there are too many tokens, or they cannot be written.
    pub async fn enrol_token(
        &self,
        by: AccountId,
        ttl: Duration,
        uses: u32,
        rider: Rider,
    ) -> Result<Secret, ChangeError> {
        let ttl_bounds = Duration::from_secs(1)..=enrolment::TTL_MAX;
        if !ttl_bounds.contains(&ttl) || !(1..=enrolment::USES_MAX).contains(&uses) {
            return Err(ChangeError::TokenBounds);
        }
        let token = token::new();
        let time = SystemTime::now();
        let new = NewToken {
            token: Digest::of(token.expose().as_bytes()),
            by,
            now: milliseconds(time),
            expires_at: milliseconds(time + ttl),
            uses,
        };
        let job = move |tx: &_| riding(tx, enrolment::write(tx, &new), Some(rider));
        self.commit(job, |_, _| ()).await??;
        Ok(token)
    }

    /// Makes the machine at the address `from` that shows `token` the agent `name`, with a secret of its own. `rider` is
    /// written with that.
    ///
    /// # Errors
    /// When the token is no good, the name is taken, or the accounts cannot be written.
    pub async fn enrol(
        &self,
        token: &str,
        name: &AccountName,
        from: IpAddr,
        rider: Rider,
    ) -> Result<Enrolled, ChangeError> {
        let token = Digest::of(token.as_bytes());
        let now = milliseconds(SystemTime::now());
        // Strangers do not keep the writer busy.
        if !self.inner.database.read_now(|tx| enrolment::is_good(tx, &token, now))? {
            self.inner.count_guess(from)?;
            return Err(ChangeError::BadToken);
        }
        let secret = token::new();
        let key = Digest::of(secret.expose().as_bytes());
        let name = name.clone();
        let account = self
            .change(move |tx| {
                riding(tx, enrolment::redeem(tx, &token, &name, key, now), Some(rider))
            })
            .await?;
        Ok(Enrolled { account: account.id, name: Arc::clone(&account.name), secret })
    }

    async fn allow_registration(&self) -> Result<(), ChangeError> {
        self.refresh().await?;
        if self.self_registration() { Ok(()) } else { Err(ChangeError::Disabled) }
    }

    /// The hash of the password of an account to be called `name`.
    async fn hash(
        &self,
        name: Option<&AccountName>,
        password: &Secret,
    ) -> Result<String, ChangeError> {
        passwords::check(password)?;
        // The write decides; this saves the work where it is clear already.
        if name.is_some_and(|name| self.inner.directory().by_name(name.as_str()).is_some()) {
            return Err(ChangeError::NameTaken);
        }
        let password = password.clone();
        Ok(self.inner.workshop.run(move || passwords::hash(&password)).await??)
    }

    /// The write decides; this saves the work where it is clear already.
    fn check_room_for_agents(&self) -> Result<(), ChangeError> {
        let directory = self.inner.directory();
        let agents = directory.all().filter(|it| it.is_agent()).count();
        let is_full = agents >= self.inner.settings.selfreg_agents_max;
        if is_full { Err(ChangeError::Full) } else { Ok(()) }
    }

    async fn self_register(
        &self,
        new: NewAccount,
        rider: Rider,
    ) -> Result<Arc<Account>, ChangeError> {
        let now = milliseconds(SystemTime::now());
        let agents_max = self.inner.settings.selfreg_agents_max;
        let job =
            move |tx: &_| riding(tx, rows::self_register(tx, &new, now, agents_max), Some(rider));
        self.change(job).await
    }

    async fn insert(
        &self,
        new: NewAccount,
        rider: Option<Rider>,
    ) -> Result<Arc<Account>, ChangeError> {
        let now = milliseconds(SystemTime::now());
        self.change(move |tx| riding(tx, rows::insert(tx, &new, now), rider)).await
    }

    /// Writes an account by `job` and puts it into memory.
    async fn change(
        &self,
        job: impl FnOnce(&Connection) -> Outcome<Arc<Account>> + Send + 'static,
    ) -> Result<Arc<Account>, ChangeError> {
        let written = self.commit(job, |inner, written| {
            if let Ok(account) = written {
                inner.apply(Change::Put(Arc::clone(account)));
            }
        });
        Ok(written.await??)
    }
}

/// Writes what rides with a change that is made, not with one that is refused.
pub(super) fn riding<T>(tx: &Connection, change: Outcome<T>, rider: Option<Rider>) -> Outcome<T> {
    let change = change?;
    if let (Ok(_), Some(rider)) = (&change, rider) {
        rider(tx)?;
    }
    Ok(change)
}
