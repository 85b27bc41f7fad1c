//! All accounts, in memory. Pure, but for reading its rows.
//!
//! Invariant: every account is found by its number, its name and its hardware id, or by none of them.
//! What we change ourselves while the rows are being read again is kept beside, and done once more to what
//! was read: it may or may not have been in it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use database::rusqlite::{self, Connection, Row};

use super::AccountId;
use super::role::Role;
use super::token::Digest;
use super::verified::Proven;

/// One account.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) id: AccountId,
    pub(super) name: Arc<str>,
    pub(super) role: Role,
    /// How it is known.
    pub(super) proof: Proof,
    /// What it has shown so far.
    pub(super) proven: Arc<Proven>,
}

/// What an account is known by; one of them, as a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Proof {
    /// The Argon2 hash of its password.
    pub(super) password: Option<Box<str>>,
    /// The hash of its random key.
    pub(super) key: Option<Digest>,
    /// The keyed hash of its hardware id.
    pub(super) hardware: Option<Digest>,
    /// Whether the password alone names it.
    pub(super) is_passcode: bool,
}

/// Something that has happened to an account.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// It is new, or has changed.
    Put(Arc<Account>),
    /// It is gone.
    Gone(AccountId),
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Directory {
    by_id: BTreeMap<AccountId, Arc<Account>>,
    by_name: HashMap<Arc<str>, Arc<Account>>,
    by_hardware: HashMap<Digest, Arc<Account>>,
    passcodes: Vec<Arc<Account>>,
    /// What has changed since the reading of the rows began.
    meanwhile: Option<Vec<Change>>,
}

impl Directory {
    pub(super) fn by_id(&self, id: AccountId) -> Option<&Arc<Account>> {
        self.by_id.get(&id)
    }

    pub(super) fn by_name(&self, name: &str) -> Option<&Arc<Account>> {
        self.by_name.get(name)
    }

    pub(super) fn by_hardware(&self, hardware: &Digest) -> Option<&Arc<Account>> {
        self.by_hardware.get(hardware)
    }

    pub(super) fn has_hardware(&self) -> bool {
        !self.by_hardware.is_empty()
    }

    pub(super) fn passcodes(&self) -> &[Arc<Account>] {
        &self.passcodes
    }

    /// All accounts in order of creation.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.by_id.values()
    }

    /// Does `change`, and gives back the account that is gone by it.
    pub(super) fn apply(&mut self, change: Change) -> Option<Arc<Account>> {
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile.push(change.clone());
        }
        match change {
            Change::Put(account) => {
                self.forget(account.id);
                self.insert(account);
                None
            }
            Change::Gone(id) => self.forget(id),
        }
    }

    /// The rows are about to be read.
    pub(super) fn begin_reading(&mut self) {
        self.meanwhile = Some(Vec::new());
    }

    /// What `accounts` make. Those that are as they were are kept, with what they have shown.
    pub(super) fn next(&self, accounts: Vec<Account>) -> Self {
        let mut next = Self::default();
        next.by_name.reserve(accounts.len());
        for account in accounts {
            let kept = self.by_id.get(&account.id).filter(|known| known.is_same(&account));
            next.insert(kept.map_or_else(|| Arc::new(account), Arc::clone));
        }
        next
    }

    /// Puts `next` in the place of this one and gives back the accounts that are gone by it.
    pub(super) fn finish_reading(&mut self, mut next: Self) -> Vec<Arc<Account>> {
        for change in self.meanwhile.take().unwrap_or_default() {
            next.apply(change);
        }
        let old = std::mem::replace(self, next);
        old.by_id.into_values().filter(|account| !self.by_id.contains_key(&account.id)).collect()
    }

    fn insert(&mut self, account: Arc<Account>) {
        self.by_name.insert(Arc::clone(&account.name), Arc::clone(&account));
        if let Some(hardware) = account.proof.hardware {
            self.by_hardware.insert(hardware, Arc::clone(&account));
        }
        if account.proof.is_passcode {
            self.passcodes.push(Arc::clone(&account));
        }
        self.by_id.insert(account.id, account);
    }

    fn forget(&mut self, id: AccountId) -> Option<Arc<Account>> {
        let account = self.by_id.remove(&id)?;
        // Its name may be another's by now: that of one who came after another process had removed it.
        if self.by_name.get(&account.name).is_some_and(|named| named.id == id) {
            self.by_name.remove(&account.name);
        }
        if let Some(hardware) = account.proof.hardware
            && self.by_hardware.get(&hardware).is_some_and(|known| known.id == id)
        {
            self.by_hardware.remove(&hardware);
        }
        self.passcodes.retain(|passcode| passcode.id != id);
        Some(account)
    }
}

impl Account {
    /// The same account under another name; what it has shown still holds.
    pub(super) fn renamed(&self, name: Arc<str>) -> Self {
        let (proof, proven) = (self.proof.clone(), Arc::clone(&self.proven));
        Self { id: self.id, name, role: self.role, proof, proven }
    }

    fn is_same(&self, other: &Self) -> bool {
        (self.id, &self.name, self.role, &self.proof)
            == (other.id, &other.name, other.role, &other.proof)
    }
}

/// All accounts in the database.
pub(super) fn read(connection: &Connection) -> Result<Vec<Account>, rusqlite::Error> {
    let columns = "SELECT id, name, role, password, key_hash, hwid_hash, passcode FROM accounts";
    let mut statement = connection.prepare_cached(columns)?;
    statement.query_map([], account)?.collect()
}

fn account(row: &Row<'_>) -> Result<Account, rusqlite::Error> {
    let digest = |column: usize| -> Result<Option<Digest>, rusqlite::Error> {
        let bytes = row.get_ref(column)?.as_blob_or_null()?;
        Ok(bytes.and_then(Digest::stored))
    };
    let role = row.get_ref(2)?.as_str()?;
    Ok(Account {
        id: AccountId(row.get(0)?),
        name: row.get(1)?,
        role: Role::parse(role).ok_or_else(|| {
            let strange = format!("there is no role `{role}`").into();
            rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, strange)
        })?,
        proof: Proof {
            password: row.get(3)?,
            key: digest(4)?,
            hardware: digest(5)?,
            is_passcode: row.get(6)?,
        },
        proven: Arc::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64, name: &str) -> Account {
        Account {
            id: AccountId(id),
            name: name.into(),
            role: Role::Agent,
            proof: Proof {
                hardware: Some(Digest::of(name.as_bytes())),
                is_passcode: true,
                ..Proof::default()
            },
            proven: Arc::default(),
        }
    }

    fn put(id: i64, name: &str) -> Change {
        Change::Put(Arc::new(row(id, name)))
    }

    /// Checks that exactly `expected` are found, in this order and by everything they may be found by.
    #[track_caller]
    fn check(directory: &Directory, expected: &[(i64, &str)]) {
        let found: Vec<_> = directory.all().map(|it| (it.id.0, &*it.name)).collect();
        assert_eq!(found, expected);
        let sizes =
            (directory.by_name.len(), directory.by_hardware.len(), directory.passcodes.len());
        assert_eq!(sizes, (expected.len(), expected.len(), expected.len()));
        for (id, name) in expected {
            let hardware = Digest::of(name.as_bytes());
            let found = [directory.by_name(name), directory.by_hardware(&hardware)];
            assert_eq!(found.map(|it| it.unwrap().id.0), [*id, *id]);
        }
    }

    #[test]
    fn an_account_is_found_by_everything_or_by_nothing() {
        let mut directory = Directory::default();
        directory.apply(put(2, "b"));
        directory.apply(put(1, "a"));
        check(&directory, &[(1, "a"), (2, "b")]);
        directory.apply(put(1, "renamed"));
        check(&directory, &[(1, "renamed"), (2, "b")]);
        let gone = directory.apply(Change::Gone(AccountId(2))).map(|it| it.id);
        assert_eq!(gone, Some(AccountId(2)));
        assert!(directory.apply(Change::Gone(AccountId(2))).is_none());
        check(&directory, &[(1, "renamed")]);
        directory.apply(put(3, "renamed"));
        directory.apply(Change::Gone(AccountId(1)));
        check(&directory, &[(3, "renamed")]);
    }

    #[test]
    fn rows_read_again_replace_all_but_what_has_changed_meanwhile() {
        let mut directory = Directory::default();
        for (id, name) in [(1, "kept"), (2, "removed there"), (3, "removed here"), (4, "old name")]
        {
            directory.apply(put(id, name));
        }
        let kept = Arc::clone(directory.by_name("kept").unwrap());
        directory.begin_reading();
        directory.apply(put(5, "added here"));
        let rows = [(1, "kept"), (3, "removed here"), (4, "old name"), (6, "added there")];
        let next = directory.next(rows.map(|(id, name)| row(id, name)).into());
        directory.apply(Change::Gone(AccountId(3)));
        directory.apply(put(4, "new name"));
        let gone = directory.finish_reading(next);
        check(&directory, &[(1, "kept"), (4, "new name"), (5, "added here"), (6, "added there")]);
        assert_eq!(gone.iter().map(|it| it.id.0).collect::<Vec<_>>(), [2]);
        assert!(
            Arc::ptr_eq(&kept, directory.by_name("kept").unwrap()),
            "what it has shown is lost"
        );
        assert!(directory.meanwhile.is_none());
    }

    #[test]
    fn an_account_with_another_proof_is_another() {
        let mut directory = Directory::default();
        directory.apply(put(1, "a"));
        let known = Arc::clone(directory.by_name("a").unwrap());
        let changed = Account {
            proof: Proof { key: Some(Digest::of(b"k")), ..known.proof.clone() },
            ..row(1, "a")
        };
        let next = directory.next(vec![changed]);
        assert!(!Arc::ptr_eq(&known, next.by_name("a").unwrap()));
    }
}
