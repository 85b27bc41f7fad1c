//! Who has logged in. Pure, but for the statements at its end.
//!
//! Invariant: a session is known by the digest of its token alone, ends when it was not used for a time,
//! and an account has at most [`PER_ACCOUNT_MAX`] of them. When it was used is written at most once an
//! hour, so that it may end up to an hour early.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use database::rusqlite::{self, Connection};

use super::AccountId;
use super::token::Digest;

/// An account that logs in more often loses its oldest sessions.
pub(super) const PER_ACCOUNT_MAX: usize = 1000;
const WRITTEN_EVERY_MS: i64 = 60 * 60 * 1000;

#[derive(Debug)]
struct Session {
    account: AccountId,
    used_at: AtomicI64,
}

/// All of them. Times are milliseconds since 1970.
#[derive(Debug)]
pub(super) struct Sessions {
    idle_ms: i64,
    known: HashMap<Digest, Session>,
}

/// A session that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) account: AccountId,
    /// Whether it is time to write down that it was used now.
    pub(super) is_to_be_written: bool,
}

impl Sessions {
    /// None yet; they end when they were not used for `idle_ms`.
    pub(super) fn new(idle_ms: i64) -> Self {
        Self { idle_ms, known: HashMap::new() }
    }

    pub(super) fn insert(&mut self, token: Digest, account: AccountId, used_at: i64) {
        self.known.insert(token, Session { account, used_at: used_at.into() });
    }

    /// Finds the session of `token` and counts as its use.
    pub(super) fn find(&self, token: &Digest, now: i64) -> Option<Found> {
        let session = self.known.get(token)?;
        let used_at = session.used_at.load(Relaxed);
        if used_at < self.ended_before(now) {
            return None;
        }
        let is_due = now.saturating_sub(used_at) >= WRITTEN_EVERY_MS;
        // Of two at once, one writes.
        let is_to_be_written =
            is_due && session.used_at.compare_exchange(used_at, now, Relaxed, Relaxed).is_ok();
        Some(Found { account: session.account, is_to_be_written })
    }

    pub(super) fn remove(&mut self, token: &Digest) {
        self.known.remove(token);
    }

    /// Keeps only those of accounts that `exists`.
    pub(super) fn retain(&mut self, exists: impl Fn(AccountId) -> bool) {
        self.known.retain(|_, session| exists(session.account));
    }

    /// Sessions last used before this have ended at `now`.
    pub(super) fn ended_before(&self, now: i64) -> i64 {
        now.saturating_sub(self.idle_ms)
    }
}

/// A new session, to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewSession {
    pub(super) token: Digest,
    pub(super) account: AccountId,
    pub(super) now: i64,
    /// Those last used before have ended.
    pub(super) ended_before: i64,
}

/// Writes `new` and gives back the tokens of those that had to go.
pub(super) fn write(
    connection: &Connection,
    new: &NewSession,
) -> Result<Vec<Digest>, rusqlite::Error> {
    connection
        .prepare_cached(
            "INSERT INTO sessions(token_hash, account, created_at, used_at) VALUES (?1, ?2, ?3, ?3)",
        )?
        .execute((new.token.bytes(), new.account.0, new.now))?;
    // The clock may have gone backwards: the new one stays, whatever it says.
    let mut delete = connection.prepare_cached(
        "DELETE FROM sessions WHERE token_hash <> ?1 AND (used_at < ?2 OR token_hash IN (
            SELECT token_hash FROM sessions WHERE account = ?3 AND token_hash <> ?1
            ORDER BY created_at DESC LIMIT -1 OFFSET ?4))
         RETURNING token_hash",
    )?;
    let others_max = PER_ACCOUNT_MAX - 1;
    let gone = delete.query_map(
        (new.token.bytes(), new.ended_before, new.account.0, others_max),
        stored_token,
    )?;
    Ok(gone.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Writes that the session was used at `now`.
pub(super) fn write_use(
    connection: &Connection,
    token: &Digest,
    now: i64,
) -> Result<(), rusqlite::Error> {
    let sql = "UPDATE sessions SET used_at = ?2 WHERE token_hash = ?1";
    connection.prepare_cached(sql)?.execute((token.bytes(), now)).map(drop)
}

/// Ends the session.
pub(super) fn delete(connection: &Connection, token: &Digest) -> Result<(), rusqlite::Error> {
    let sql = "DELETE FROM sessions WHERE token_hash = ?1";
    connection.prepare_cached(sql)?.execute([token.bytes()]).map(drop)
}

/// All sessions in the database.
pub(super) fn read(connection: &Connection, idle_ms: i64) -> Result<Sessions, rusqlite::Error> {
    let mut sessions = Sessions::new(idle_ms);
    let mut statement =
        connection.prepare_cached("SELECT token_hash, account, used_at FROM sessions")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(token) = stored_token(row)? {
            sessions.insert(token, AccountId(row.get(1)?), row.get(2)?);
        }
    }
    Ok(sessions)
}

fn stored_token(row: &rusqlite::Row<'_>) -> Result<Option<Digest>, rusqlite::Error> {
    Ok(Digest::stored(row.get_ref(0)?.as_blob()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * WRITTEN_EVERY_MS;

    #[test]
    fn a_session_ends_when_it_was_not_used_and_its_use_is_written_once_an_hour() {
        let mut sessions = Sessions::new(2 * DAY_MS);
        let token = Digest::of(b"token");
        sessions.insert(token, AccountId(1), 0);
        let check = |now, expected: Option<bool>| {
            let found = sessions.find(&token, now);
            assert_eq!(found.map(|it| it.is_to_be_written), expected, "at {now}");
        };
        check(0, Some(false));
        check(WRITTEN_EVERY_MS - 1, Some(false));
        check(WRITTEN_EVERY_MS, Some(true));
        check(WRITTEN_EVERY_MS, Some(false));
        check(WRITTEN_EVERY_MS + 2 * DAY_MS, Some(true));
        check(WRITTEN_EVERY_MS + 4 * DAY_MS + 1, None);
        // The clock went backwards.
        check(-DAY_MS, Some(false));
    }

    #[test]
    fn a_session_is_found_by_its_token_while_its_account_exists() {
        let mut sessions = Sessions::new(DAY_MS);
        for account in 1..=3 {
            sessions.insert(Digest::of(&[account]), AccountId(account.into()), 0);
        }
        sessions.retain(|account| account != AccountId(2));
        sessions.remove(&Digest::of(&[3]));
        let found: Vec<_> = (0..=4)
            .filter_map(|token| sessions.find(&Digest::of(&[token]), 0))
            .map(|it| it.account.0)
            .collect();
        assert_eq!(found, [1]);
    }
}
