//! Logging in and out.
//!
//! Invariant: a session begins with a verified password, is on the disk before its token is told, and is
//! never an agent's: those show their own password or key each time.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use database::DatabaseError;
use wire::Secret;

use super::attempts::Target;
use super::audit::Entry;
use super::authorization::Credential;
use super::directory::Account;
use super::role::Role;
use super::sessions::{self, NewSession};
use super::token::{self, Digest};
use super::{Accounts, AuthError, Identity, Inner, milliseconds, now, passwords};

/// What somebody logs in with.
#[derive(Clone, Copy)]
pub enum Login<'a> {
    /// A name and its password.
    Named {
        /// The name.
        name: &'a str,
        /// The password.
        password: &'a str,
    },
    /// A pass-code alone.
    Passcode(&'a str),
}

/// A session that has begun.
#[derive(Debug, Clone)]
pub struct Session {
    /// Shows who it is from now on. It is told once and stored nowhere.
    pub token: Secret,
    /// Whose session it is.
    pub identity: Identity,
    /// The session ends when it is not used for so long.
    pub expires_in: Duration,
}

impl Accounts {
    /// Begins a session for somebody who logs in from the address `from`.
    ///
    /// # Errors
    /// Why not.
    pub async fn login(&self, login: Login<'_>, from: IpAddr) -> Result<Session, AuthError> {
        self.refresh().await?;
        let identity = match login {
            Login::Named { name, password } => {
                let account = self.inner.directory().by_name(name).cloned();
                // To a login, an agent is nobody.
                let account = account.filter(|it| !it.is_agent() && !it.proof.is_passcode);
                let answer = self.inner.weigh(account, name, password, from);
                self.settle(answer).await?
            }
            Login::Passcode(code) => self.passcode(code, from).await?,
        };
        self.begin(identity, from).await
    }

    /// Ends the session of `credential`, if it is that of one.
    ///
    /// # Errors
    /// When that cannot be written: the session would come back with the next start of the server.
    pub async fn logout(&self, credential: &Credential<'_>) -> Result<(), DatabaseError> {
        if !token::is_one(credential.whole()) {
            return Ok(());
        }
        let digest = Digest::of(credential.whole().as_bytes());
        self.inner.sessions_mut().remove(&digest);
        self.commit(move |tx| sessions::delete(tx, &digest), |_, ()| ()).await
    }

    async fn begin(&self, identity: Identity, from: IpAddr) -> Result<Session, AuthError> {
        if identity.role == Role::Agent {
            return Err(AuthError::Refused);
        }
        let token = token::new();
        let now = milliseconds(SystemTime::now());
        let new = NewSession {
            token: Digest::of(token.expose().as_bytes()),
            account: identity.account,
            now,
            ended_before: self.inner.sessions().ended_before(now),
        };
        let who = &*identity.name;
        let rider = Entry { who, from: Some(from), act: "login", what: "", outcome: "ok" }.rider();
        let written = self.commit(
            move |tx| {
                let gone = sessions::write(tx, &new)?;
                rider(tx)?;
                Ok(gone)
            },
            move |inner, gone| {
                let mut sessions = inner.sessions_mut();
                sessions.insert(new.token, new.account, now);
                for token in gone {
                    sessions.remove(token);
                }
            },
        );
        match written.await {
            Ok(_) => {}
            // The account was removed since.
            Err(DatabaseError::Constraint(_)) => return Err(AuthError::Refused),
            Err(error) => return Err(error.into()),
        }
        Ok(Session { token, identity, expires_in: self.inner.settings.session_idle })
    }

    /// Who has this pass-code. It is tried on every account that has one.
    async fn passcode(&self, code: &str, from: IpAddr) -> Result<Identity, AuthError> {
        let accounts = self.inner.directory().passcodes().to_vec();
        for account in &accounts {
            let tag = self.inner.tag(account, code);
            if let Some(outcome) = self.inner.recall(account, &tag, Target::Passcodes, from) {
                return outcome;
            }
        }
        let attempt = self.inner.attempts().attempt(from, Target::Passcodes);
        if !(1..=passwords::BYTES_MAX).contains(&code.len())
            || accounts.iter().all(|it| self.inner.tags.is_wrong(&self.inner.tag(it, code)))
        {
            return Err(self.inner.count(attempt));
        }
        self.inner.attempts().check(attempt, now())?;
        let inner = Arc::clone(&self.inner);
        let code = Secret::new(code);
        let work = move || {
            inner.attempts().take(attempt, now())?;
            let account = accounts.iter().find(|account| inner.is_passcode_of(account, &code));
            let account = account.ok_or(AuthError::Refused)?;
            inner.welcome(account, inner.tag(account, code.expose()), attempt)
        };
        self.inner.workshop.run(work).await?
    }
}

impl Inner {
    fn tag(&self, account: &Account, password: &str) -> Digest {
        let stored = account.proof.password.as_deref().unwrap_or_default();
        self.tags.of(account.id, stored, password)
    }

    /// Whether `code` is that of `account`. Slow unless it is known to be wrong.
    fn is_passcode_of(&self, account: &Account, code: &Secret) -> bool {
        let tag = self.tag(account, code.expose());
        if self.tags.is_wrong(&tag) {
            return false;
        }
        let stored = account.proof.password.as_deref();
        let is_right = stored.is_some_and(|stored| passwords::verify(code, stored));
        if !is_right {
            self.tags.remember_wrong(tag);
        }
        is_right
    }
}
