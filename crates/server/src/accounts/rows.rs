//! The statements that change accounts.
//!
//! Invariant: whether something is possible is decided by the statement that does it, never by what was
//! read before: another process may write in between. What changed is told as a [`Change`], to be done to
//! the directory once it is on the disk.

use std::sync::Arc;

use database::rusqlite::{self, Connection, OptionalExtension};

use super::AccountId;
use super::directory::{Account, Change, Proof};
use super::name::AccountName;
use super::role::Role;
use super::token::{self, Digest};

/// Admins by pass-code alone. A login tries the code on each of them, slowly.
pub(super) const PASSCODES_MAX: i64 = 16;

/// An account to be made.
#[derive(Debug, Clone)]
pub(super) struct NewAccount {
    /// `None`: it is never named, and gets a name that nobody can guess.
    pub(super) name: Option<AccountName>,
    pub(super) role: Role,
    pub(super) proof: Proof,
}

/// Why a change was not made; nothing was written then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The name, or what the account is known by, belongs to another.
    Taken,
    /// There is no such account.
    Unknown,
    /// There are as many as there may be.
    TooMany,
    /// There are as many agents as may add themselves.
    Full,
    /// The enrolment token is wrong, used up or too old.
    BadToken,
}

/// What a change comes to.
pub(super) type Outcome<T> = Result<Result<T, Refusal>, rusqlite::Error>;

/// Makes the account.
pub(super) fn insert(connection: &Connection, new: &NewAccount, now: i64) -> Outcome<Arc<Account>> {
    if new.proof.is_passcode {
        let count: i64 = connection
            .prepare_cached("SELECT count(*) FROM accounts WHERE passcode = 1")?
            .query_row([], |row| row.get(0))?;
        if count >= PASSCODES_MAX {
            return Ok(Err(Refusal::TooMany));
        }
    }
    let name: Arc<str> = match &new.name {
        Some(name) => name.shared(),
        None => format!("passcode-{}", &token::new().expose()[..16]).into(),
    };
    let Proof { password, key, hardware, is_passcode } = &new.proof;
    let id: Option<i64> = connection
        .prepare_cached(
            "INSERT INTO accounts(name, role, password, key_hash, hwid_hash, passcode, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING RETURNING id",
        )?
        .query_row(
            (
                &name,
                new.role.name(),
                password,
                key.as_ref().map(Digest::bytes),
                hardware.as_ref().map(Digest::bytes),
                is_passcode,
                now,
            ),
            |row| row.get(0),
        )
        .optional()?;
    let Some(id) = id else { return Ok(Err(Refusal::Taken)) };
    let (role, proof) = (new.role, new.proof.clone());
    Ok(Ok(Arc::new(Account { id: AccountId(id), name, role, proof, proven: Arc::default() })))
}

/// Makes the account of an agent that adds itself, unless there are `agents_max` of them.
pub(super) fn self_register(
    connection: &Connection,
    new: &NewAccount,
    now: i64,
    agents_max: usize,
) -> Outcome<Arc<Account>> {
    let sql = "SELECT count(*) FROM accounts WHERE role = 'agent'";
    let count: usize = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    if count >= agents_max { Ok(Err(Refusal::Full)) } else { insert(connection, new, now) }
}

/// Gives the agent `old` the name `new`.
pub(super) fn rename_agent(
    connection: &Connection,
    old: &str,
    new: &AccountName,
) -> Outcome<AccountId> {
    let Some(id) = agent(connection, old)? else { return Ok(Err(Refusal::Unknown)) };
    let sql = "UPDATE OR IGNORE accounts SET name = ?2 WHERE id = ?1";
    let renamed = connection.prepare_cached(sql)?.execute((id.0, new.as_str()))?;
    Ok(if renamed == 0 { Err(Refusal::Taken) } else { Ok(id) })
}

/// Removes the agent, and everything that is its own.
pub(super) fn remove_agent(connection: &Connection, name: &str) -> Outcome<Change> {
    let Some(id) = agent(connection, name)? else { return Ok(Err(Refusal::Unknown)) };
    connection.prepare_cached("DELETE FROM accounts WHERE id = ?1")?.execute([id.0])?;
    Ok(Ok(Change::Gone(id)))
}

/// Removes whoever has this name, and everything that is theirs. Tells whether there was somebody.
pub(super) fn remove(connection: &Connection, name: &str) -> Result<bool, rusqlite::Error> {
    let sql = "DELETE FROM accounts WHERE name = ?1";
    Ok(connection.prepare_cached(sql)?.execute([name])? > 0)
}

fn agent(connection: &Connection, name: &str) -> Result<Option<AccountId>, rusqlite::Error> {
    let sql = "SELECT id FROM accounts WHERE name = ?1 AND role = 'agent'";
    connection.prepare_cached(sql)?.query_row([name], |row| row.get(0).map(AccountId)).optional()
}

/// A switch or a value of the whole installation.
pub(super) fn setting<T: rusqlite::types::FromSql>(
    connection: &Connection,
    name: &str,
) -> Result<T, rusqlite::Error> {
    let sql = "SELECT value FROM settings WHERE name = ?1";
    connection.prepare_cached(sql)?.query_row([name], |row| row.get(0))
}

/// Changes one.
pub(super) fn set_setting(
    connection: &Connection,
    name: &str,
    value: bool,
) -> Result<(), rusqlite::Error> {
    let sql = "UPDATE settings SET value = ?2 WHERE name = ?1";
    connection.prepare_cached(sql)?.execute((name, value)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::schema::MIGRATIONS;

    #[test]
    fn there_is_a_bounded_number_of_pass_codes() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(MIGRATIONS.steps[0]).unwrap();
        let proof = Proof { is_passcode: true, ..Proof::default() };
        let passcode = NewAccount { name: None, role: Role::Admin, proof };
        for _ in 0..PASSCODES_MAX {
            assert!(insert(&connection, &passcode, 0).unwrap().is_ok());
        }
        let refused = insert(&connection, &passcode, 0).unwrap();
        assert_eq!(refused.map(drop), Err(Refusal::TooMany));
        let name = Some(AccountName::parse("a").unwrap());
        let named = NewAccount { name, proof: Proof::default(), ..passcode };
        assert!(insert(&connection, &named, 0).unwrap().is_ok());
        assert_eq!(insert(&connection, &named, 0).unwrap().map(drop), Err(Refusal::Taken));
    }
}
