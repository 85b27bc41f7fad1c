//! The accounts as a whole, on a database.

mod changes;
mod recognition;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use database::Database;
use wire::Secret;

use super::{
    AccountName, Accounts, AuthError, Credential, Identity, Login, MIGRATIONS, Role, Session,
    Settings, admin,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A database in a directory of its own.
struct Setup {
    directory: tempfile::TempDir,
    departed: Arc<Mutex<Vec<String>>>,
}

impl Setup {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), departed: Arc::default() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("test.db")
    }

    /// The database, as another process has it.
    fn database(&self) -> Database {
        Database::open(&self.path(), &[MIGRATIONS]).unwrap()
    }

    fn open(&self) -> Accounts {
        let departed = Arc::clone(&self.departed);
        let settings = Settings { session_idle: DAY, audit: Some(DAY), selfreg_agents_max: 3 };
        let told = move |who: &Identity| departed.lock().unwrap().push(who.name.to_string());
        Accounts::open(self.database(), settings, told).unwrap()
    }

    fn departed(&self) -> Vec<String> {
        self.departed.lock().unwrap().clone()
    }
}

fn here() -> IpAddr {
    "127.0.0.1".parse().unwrap()
}

fn name(text: &str) -> AccountName {
    AccountName::parse(text).unwrap()
}

async fn add(accounts: &Accounts, text: &str, role: Role) {
    accounts.add(&name(text), role, &Secret::new(format!("{text}'s"))).await.unwrap();
}

/// What came of an authentication, in short.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Is(String),
    Refused,
    TooMany,
    /// It cannot be said at once.
    Slow,
}

fn seen(outcome: Result<Identity, AuthError>) -> Seen {
    match outcome {
        Ok(identity) => Seen::Is(identity.name.to_string()),
        Err(AuthError::Refused) => Seen::Refused,
        Err(AuthError::TooMany { retry_secs: 1..=3 }) => Seen::TooMany,
        Err(other) => panic!("{other:?}"),
    }
}

fn is(name: &str) -> Seen {
    Seen::Is(name.to_owned())
}

/// Shows `header` at `from` and says what came of it.
async fn show_at(accounts: &Accounts, header: &str, from: &str) -> Seen {
    let credential = Credential::parse(header.as_bytes()).unwrap();
    seen(accounts.authenticate(&credential, from.parse().unwrap()).await)
}

async fn show(accounts: &Accounts, header: &str) -> Seen {
    show_at(accounts, header, "127.0.0.1").await
}

/// The same, at once or not at all.
fn show_now(accounts: &Accounts, header: &str) -> Seen {
    let credential = Credential::parse(header.as_bytes()).unwrap();
    accounts.authenticate_now(&credential, here()).map_or(Seen::Slow, seen)
}

async fn log_in(accounts: &Accounts, user: &str) -> Result<Session, AuthError> {
    let password = format!("{user}'s");
    accounts.login(Login::Named { name: user, password: &password }, here()).await
}

/// Does something as another process would, and waits until that has been noticed.
async fn elsewhere(
    setup: &Setup,
    accounts: &Accounts,
    act: impl FnOnce(&Database) + Send + 'static,
) {
    let mut changes = accounts.inner.database.watch_foreign_changes();
    changes.mark_unchanged();
    let other = setup.database();
    tokio::task::spawn_blocking(move || act(&other)).await.unwrap();
    changes.changed().await.unwrap();
}

fn add_elsewhere(database: &Database, text: &str, role: Role) {
    admin::add(database, text, role, &Secret::new(format!("{text}'s"))).unwrap();
}

fn remove_elsewhere(database: &Database, text: &str) {
    assert!(admin::remove(database, text).unwrap(), "there is no {text}");
}

/// What rides with a change that no test asks about.
fn unnoted() -> database::Rider {
    Box::new(|_| Ok(()))
}
