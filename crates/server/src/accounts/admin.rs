//! Accounts by the command line, on a file that a server may have open.
//!
//! Invariant: when a change is told, it is on the disk, and a server that has the file open has noticed.
//! These calls block, and are not for a thread of a runtime.

use std::time::SystemTime;

use database::rusqlite::Connection;
use database::{Database, DatabaseError, Rider};
use wire::Secret;

use super::audit::Entry;
use super::changes::riding;
use super::directory::Proof;
use super::name::AccountName;
use super::role::Role;
use super::rows::{self, NewAccount};
use super::{ChangeError, hardware_key, milliseconds, passwords, proof_of_hardware};

/// An account, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// When it was made, in milliseconds since 1970.
    pub created_at: i64,
}

/// Adds an account.
///
/// # Errors
/// When the name is taken by an account of any role, name or password cannot be one, or the database
/// cannot be written.
pub fn add(
    database: &Database,
    name: &str,
    role: Role,
    password: &Secret,
) -> Result<(), ChangeError> {
    let name = AccountName::parse(name)?;
    let proof = Proof { password: Some(passwords::hash(password)?.into()), ..Proof::default() };
    let what = format!("{} ({role})", name.as_str());
    insert(database, NewAccount { name: Some(name), role, proof }, &what)
}

/// Adds an agent that is known by a hardware id.
///
/// # Errors
/// As [`add`].
pub fn add_hardware(database: &Database, name: &str, hwid: &Secret) -> Result<(), ChangeError> {
    let name = AccountName::parse(name)?;
    let key = database.read_now(hardware_key)?;
    let proof = proof_of_hardware(&key, hwid)?;
    let what = format!("{} (agent)", name.as_str());
    insert(database, NewAccount { name: Some(name), role: Role::Agent, proof }, &what)
}

/// Adds an admin who is known by a pass-code alone.
///
/// # Errors
/// When there are too many of them, or as [`add`].
pub fn add_passcode(database: &Database, code: &Secret) -> Result<(), ChangeError> {
    let password = Some(passwords::hash(code)?.into());
    let proof = Proof { password, is_passcode: true, ..Proof::default() };
    insert(database, NewAccount { name: None, role: Role::Admin, proof }, "a pass-code")
}

/// Removes the account of that name with its sessions, tasks and events, and tells whether there was one.
///
/// # Errors
/// When the database cannot be written.
pub fn remove(database: &Database, name: &str) -> Result<bool, DatabaseError> {
    let rider = rider("remove account", name);
    let name = name.to_owned();
    let remove = move |tx: &Connection| {
        let was_there = rows::remove(tx, &name)?;
        if was_there {
            rider(tx)?;
        }
        Ok(was_there)
    };
    let was_there = database.write(remove).wait()?;
    await_notice();
    Ok(was_there)
}

/// Removes the admin with this pass-code, and tells whether there was one.
///
/// # Errors
/// When the database cannot be read or written.
pub fn remove_passcode(database: &Database, code: &Secret) -> Result<bool, DatabaseError> {
    let stored: Vec<(String, String)> = database.read_now(|tx| {
        let sql = "SELECT name, password FROM accounts WHERE passcode = 1 AND password NOT NULL";
        tx.prepare_cached(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    })?;
    let found = stored.into_iter().find(|(_, stored)| passwords::verify(code, stored));
    found.map_or(Ok(false), |(name, _)| remove(database, &name))
}

/// All accounts in order of creation.
///
/// # Errors
/// When the database cannot be read.
pub fn list(database: &Database) -> Result<Vec<Listed>, DatabaseError> {
    database.read_now(|tx| {
        let mut accounts =
            tx.prepare_cached("SELECT name, role, created_at FROM accounts ORDER BY id")?;
        let listed = accounts.query_map([], |row| {
            let role = Role::parse(row.get_ref(1)?.as_str()?);
            let role = role.ok_or(database::rusqlite::Error::InvalidQuery)?;
            Ok(Listed { name: row.get(0)?, role, created_at: row.get(2)? })
        })?;
        listed.collect()
    })
}

fn insert(database: &Database, new: NewAccount, what: &str) -> Result<(), ChangeError> {
    let now = milliseconds(SystemTime::now());
    let rider = Some(rider("add account", what));
    database.write(move |tx| riding(tx, rows::insert(tx, &new, now), rider)).wait()??;
    await_notice();
    Ok(())
}

/// The entry of the audit log for what a command does. Whoever may write the file has no account in it: who it was is
/// told by the number of the user, which no name of an account can look like.
fn rider(act: &str, what: &str) -> Rider {
    let who = format!("uid:{}", rustix::process::getuid().as_raw());
    Entry { who: &who, from: None, act, what, outcome: "ok" }.rider()
}

/// Waits until a server that has the file open knows that it was changed.
fn await_notice() {
    std::thread::sleep(database::FOREIGN_CHANGE_DELAY);
}
