//! Tokens by which machines become agents.
//!
//! Invariant: a token is good for a number of agents and a time, and is stored hashed. A use is spent only
//! together with an agent that was made by it.
//! The agent gets a random secret of 256 bits. Only its SHA-256 is stored, without Argon2: that is slow to
//! make guessing slow, and nobody guesses 256 bits at any speed; so every request of such an agent costs
//! about a microsecond, also the first one after a start of the server.

use std::sync::Arc;
use std::time::Duration;

use database::rusqlite::{Connection, OptionalExtension};
use wire::Secret;

use super::AccountId;
use super::directory::{Account, Proof};
use super::name::AccountName;
use super::role::Role;
use super::rows::{self, NewAccount, Outcome, Refusal};
use super::token::Digest;

/// The longest time that a token may be good for.
pub const TTL_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// The most agents that a token may be good for.
pub const USES_MAX: u32 = 100_000;
/// Tokens that are good at one time.
pub(super) const TOKENS_MAX: i64 = 10_000;

/// A machine that has become an agent.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// Its account.
    pub account: AccountId,
    /// Its name.
    pub name: Arc<str>,
    /// What it shows from now on, as the password after its name. It is told once and stored nowhere.
    pub secret: Secret,
}

/// A token to be stored. Times are milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewToken {
    pub(super) token: Digest,
    pub(super) by: AccountId,
    pub(super) now: i64,
    pub(super) expires_at: i64,
    pub(super) uses: u32,
}

/// Stores it, and forgets those that are too old.
pub(super) fn write(connection: &Connection, new: &NewToken) -> Outcome<()> {
    connection
        .prepare_cached("DELETE FROM enrolments WHERE expires_at <= ?1")?
        .execute([new.now])?;
    let count: i64 = connection
        .prepare_cached("SELECT count(*) FROM enrolments")?
        .query_row([], |row| row.get(0))?;
    if count >= TOKENS_MAX {
        return Ok(Err(Refusal::TooMany));
    }
    // Whoever asks may have been removed since.
    let sql = "INSERT INTO enrolments(token_hash, created_by, expires_at, uses_left)
               SELECT ?1, id, ?3, ?4 FROM accounts WHERE id = ?2";
    let values = (new.token.bytes(), new.by.0, new.expires_at, new.uses);
    let written = connection.prepare_cached(sql)?.execute(values)?;
    Ok(if written == 0 { Err(Refusal::Unknown) } else { Ok(()) })
}

/// Whether the token is good at `now`.
pub(super) fn is_good(
    connection: &Connection,
    token: &Digest,
    now: i64,
) -> Result<bool, database::rusqlite::Error> {
    let sql =
        "SELECT 1 FROM enrolments WHERE token_hash = ?1 AND expires_at > ?2 AND uses_left > 0";
    connection.prepare_cached(sql)?.exists((token.bytes(), now))
}

/// Makes the agent `name` that is known by `key`, and spends one use of the token.
pub(super) fn redeem(
    connection: &Connection,
    token: &Digest,
    name: &AccountName,
    key: Digest,
    now: i64,
) -> Outcome<Arc<Account>> {
    if !is_good(connection, token, now)? {
        return Ok(Err(Refusal::BadToken));
    }
    let proof = Proof { key: Some(key), ..Proof::default() };
    let new = NewAccount { name: Some(name.clone()), role: Role::Agent, proof };
    let account = match rows::insert(connection, &new, now)? {
        Ok(account) => account,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let sql = "UPDATE enrolments SET uses_left = uses_left - 1 WHERE token_hash = ?1
               RETURNING uses_left";
    let left: Option<i64> =
        connection.prepare_cached(sql)?.query_row([token.bytes()], |row| row.get(0)).optional()?;
    if left == Some(0) {
        let sql = "DELETE FROM enrolments WHERE token_hash = ?1";
        connection.prepare_cached(sql)?.execute([token.bytes()])?;
    }
    Ok(Ok(account))
}
