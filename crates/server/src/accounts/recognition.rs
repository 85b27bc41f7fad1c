//! Recognises whoever shows a credential: at once where it was shown before, slowly where it was not.
//!
//! Invariant: a password is hashed only if the limits on guessing allow it, on a thread for that; every
//! refusal of something that could be guessed counts. Random secrets (keys, session tokens) are told at
//! once, and being right with one is never limited.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use wire::Secret;

use super::attempts::{Attempt, Place, Target, TooMany};
use super::authorization::Credential;
use super::directory::Account;
use super::token::{self, Digest};
use super::verified::Recall;
use super::{
    Accounts, AuthError, Identity, Inner, hardware_digest, milliseconds, now, passwords, sessions,
};

/// What can be said at once.
pub(super) enum Answer {
    /// This.
    Known(Result<Identity, AuthError>),
    /// Nothing before the password has been hashed.
    Ask(Box<Question>),
}

/// A password to be verified.
pub(super) struct Question {
    /// Whose it is said to be; `None` if there is no such account, which must take as long.
    account: Option<Arc<Account>>,
    password: Secret,
    tag: Digest,
    attempt: Attempt,
}

impl Accounts {
    /// Who shows `credential` from the address `from`, if that can be said at once: in a microsecond or
    /// two for whoever was recognised before. `None`: only [`Self::authenticate`] can tell.
    #[must_use]
    pub fn authenticate_now(
        &self,
        credential: &Credential<'_>,
        from: IpAddr,
    ) -> Option<Result<Identity, AuthError>> {
        if self.is_stale() {
            return None;
        }
        match self.inner.recognise(credential, from) {
            Answer::Known(outcome) => Some(outcome),
            Answer::Ask(_) => None,
        }
    }

    /// Who shows `credential` from the address `from`.
    ///
    /// # Errors
    /// Why nobody is recognised.
    pub async fn authenticate(
        &self,
        credential: &Credential<'_>,
        from: IpAddr,
    ) -> Result<Identity, AuthError> {
        self.refresh().await?;
        let answer = self.inner.recognise(credential, from);
        self.settle(answer).await
    }

    /// Comes to an answer, however long it takes.
    pub(super) async fn settle(&self, answer: Answer) -> Result<Identity, AuthError> {
        let question = match answer {
            Answer::Known(outcome) => return outcome,
            Answer::Ask(question) => question,
        };
        let inner = Arc::clone(&self.inner);
        self.inner.workshop.run(move || inner.verify(*question)).await?
    }
}

impl Inner {
    fn recognise(&self, credential: &Credential<'_>, from: IpAddr) -> Answer {
        let pair = credential.pair();
        if let Some((name, password)) = pair {
            let agent = self.directory().by_name(name).filter(|it| it.is_agent()).cloned();
            if agent.is_some() {
                return self.weigh(agent, name, password, from);
            }
        } else if let Some(identity) = self.session(credential.whole()) {
            return Answer::Known(Ok(identity));
        }
        // Hardware ids may hold colons.
        if let Some(account) = self.by_hardware(credential.whole()) {
            return Answer::Known(self.right_by_hardware(&account, from));
        }
        match pair {
            Some((name, password)) => self.weigh(None, name, password, from),
            None => Answer::Known(Err(self.unnamed(from))),
        }
    }

    /// Weighs a password that is said to be that of `account`, which was called `name`.
    pub(super) fn weigh(
        &self,
        account: Option<Arc<Account>>,
        name: &str,
        password: &str,
        from: IpAddr,
    ) -> Answer {
        let proof = account.as_ref().map(|account| (account, &account.proof));
        if let Some((account, key)) = proof.and_then(|(it, proof)| Some((it, proof.key?)))
            && key.matches(&Digest::of(password.as_bytes()))
        {
            return Answer::Known(Ok(account.identity()));
        }
        let stored = proof.and_then(|(it, proof)| Some((it, proof.password.as_deref()?)));
        let tag = match stored {
            Some((account, stored)) => self.tags.of(account.id, stored, password),
            None => self.tags.of_nobody(name, password),
        };
        if let Some((account, _)) = stored
            && let Some(outcome) = self.recall(account, &tag, Target::Named(name), from)
        {
            return Answer::Known(outcome);
        }
        let attempt = self.attempts().attempt(from, Target::Named(name));
        let has_none = account.is_some() && stored.is_none();
        let is_possible = (1..=passwords::BYTES_MAX).contains(&password.len());
        if has_none || !is_possible || self.tags.is_wrong(&tag) {
            return Answer::Known(Err(self.count(attempt)));
        }
        if let Err(too_many) = self.attempts().check(attempt, now()) {
            return Answer::Known(Err(too_many.into()));
        }
        Answer::Ask(Box::new(Question { account, password: Secret::new(password), tag, attempt }))
    }

    /// What is remembered of the password with this tag: `account`, or that it must wait for a try.
    pub(super) fn recall(
        &self,
        account: &Account,
        tag: &Digest,
        target: Target<'_>,
        from: IpAddr,
    ) -> Option<Result<Identity, AuthError>> {
        match account.proven.recall(tag, Place::of(from)) {
            Recall::Right => Some(Ok(account.identity())),
            Recall::RightElsewhere => Some(self.right_elsewhere(account, target, from)),
            Recall::Unknown => None,
        }
    }

    /// `account` is right at a place where it was never before: so might a guess be.
    fn right_elsewhere(
        &self,
        account: &Account,
        target: Target<'_>,
        from: IpAddr,
    ) -> Result<Identity, AuthError> {
        let attempts = self.attempts();
        attempts.check(attempts.attempt(from, target), now())?;
        account.proven.remember_place(Place::of(from));
        Ok(account.identity())
    }

    /// Counts a failure, and says what it is answered with.
    pub(super) fn count(&self, attempt: Attempt) -> AuthError {
        match self.attempts().take(attempt, now()) {
            Ok(()) => AuthError::Refused,
            Err(too_many) => too_many.into(),
        }
    }

    /// Counts a failure of somebody at `from` who named nobody.
    pub(super) fn count_guess(&self, from: IpAddr) -> Result<(), TooMany> {
        let mut attempts = self.attempts();
        let attempt = attempts.attempt(from, Target::Unnamed);
        attempts.take(attempt, now())
    }

    /// Hashes the password and compares. Slow.
    fn verify(&self, question: Question) -> Result<Identity, AuthError> {
        let Question { account, password, tag, attempt } = question;
        self.attempts().take(attempt, now())?;
        // Another request may have asked the same while this one waited for its turn.
        let recall = account.as_ref().map(|it| it.proven.recall(&tag, attempt.place()));
        let is_right = match recall {
            Some(Recall::Right | Recall::RightElsewhere) => true,
            _ if self.tags.is_wrong(&tag) => false,
            _ => {
                let stored = account.as_ref().and_then(|it| it.proof.password.as_deref());
                passwords::verify(&password, stored.unwrap_or(passwords::NOBODYS))
            }
        };
        let Some(account) = account.filter(|_| is_right) else {
            self.tags.remember_wrong(tag);
            return Err(AuthError::Refused);
        };
        self.welcome(&account, tag, attempt)
    }

    /// The password with this tag is right.
    pub(super) fn welcome(
        &self,
        account: &Account,
        tag: Digest,
        attempt: Attempt,
    ) -> Result<Identity, AuthError> {
        self.attempts().forgive(attempt);
        account.proven.remember(tag);
        account.proven.remember_place(attempt.place());
        // It may have been removed while its password was hashed.
        let known = self.directory().by_id(account.id).map(|it| it.identity());
        known.ok_or(AuthError::Refused)
    }

    /// Whose session has this token.
    fn session(&self, token: &str) -> Option<Identity> {
        let digest = token::is_one(token).then(|| Digest::of(token.as_bytes()))?;
        let now = milliseconds(SystemTime::now());
        let found = self.sessions().find(&digest, now)?;
        if found.is_to_be_written {
            // Lost, the session would end an hour too early.
            self.database.append(move |tx| sessions::write_use(tx, &digest, now), |_| ());
        }
        self.directory().by_id(found.account).map(|it| it.identity())
    }

    fn by_hardware(&self, hwid: &str) -> Option<Arc<Account>> {
        let directory = self.directory();
        // Most installations have none.
        let digest = directory.has_hardware().then(|| hardware_digest(&self.hardware_key, hwid))?;
        directory.by_hardware(&digest).cloned()
    }

    fn right_by_hardware(&self, account: &Account, from: IpAddr) -> Result<Identity, AuthError> {
        if account.proven.knows(Place::of(from)) {
            return Ok(account.identity());
        }
        self.right_elsewhere(account, Target::Unnamed, from)
    }

    /// The refusal of a token that is nobody's. It counts where it may have been a guess: a hardware id
    /// can be guessed, the random token of a session cannot.
    fn unnamed(&self, from: IpAddr) -> AuthError {
        if !self.directory().has_hardware() {
            return AuthError::Refused;
        }
        let attempt = self.attempts().attempt(from, Target::Unnamed);
        self.count(attempt)
    }
}
