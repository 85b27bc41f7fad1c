//! Commands on a database, which a server may have open: accounts, copies.
//!
//! Invariant: a command says that something is done when it is on the disk and a running server knows of
//! it; it ends with 1 for what it refuses and with 2 when the database cannot be used.
//! Not here: what accounts are (`server::accounts`) and how the file is kept (`database`).

use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use database::{Database, DatabaseError};
use server::accounts::admin::{self, Listed};
use server::accounts::{AccountName, ChangeError, MIGRATIONS, Role};

use crate::arguments::DatabaseCommand;

/// Why a command did not do what it should.
#[derive(Debug)]
enum Failure {
    /// It makes no sense, or not now.
    Refused(String),
    /// The database cannot be used.
    Database(DatabaseError),
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

impl From<cli::CliError> for Failure {
    fn from(error: cli::CliError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl Failure {
    fn of_adding(error: ChangeError) -> Self {
        match error {
            ChangeError::Unavailable(error) => Self::Database(error),
            // In the words of the program `dutserver`, which scripts may look for.
            ChangeError::NameTaken => Self::Refused(
                "Failed to add account: UNIQUE constraint failed: the name is taken".to_owned(),
            ),
            error => Self::Refused(format!("Failed to add account: {error}")),
        }
    }
}

impl DatabaseCommand {
    /// Does it.
    pub(crate) fn run(self) -> ExitCode {
        let (text, code) = match self.outcome() {
            Ok(()) => return ExitCode::SUCCESS,
            Err(Failure::Refused(text)) => (text, 1),
            Err(Failure::Database(error)) => (error.to_string(), 2),
        };
        tell(&text);
        ExitCode::from(code)
    }

    fn outcome(self) -> Result<(), Failure> {
        match self {
            Self::AddAccount { database, name, role } => add(&database, &name, &role)?,
            Self::AddAgent { database, name } => {
                let hwid = cli::password::ask("Enter hardware id of agent: ")?;
                admin::add_hardware(&open(&database)?, &name, &hwid).map_err(Failure::of_adding)?;
            }
            Self::AddPasscode { database } => {
                let code = cli::password::ask("Enter pass-code: ")?;
                admin::add_passcode(&open(&database)?, &code).map_err(Failure::of_adding)?;
            }
            Self::RemovePasscode { database } => {
                let code = cli::password::ask("Enter pass-code: ")?;
                admin::remove_passcode(&open(&database)?, &code)?;
            }
            // That there was none of that name is as good.
            Self::Remove { database, name } => drop(admin::remove(&open(&database)?, &name)?),
            Self::Accounts { database, json } => return list(&database, json),
            Self::Backup { database, file } => database::back_up(&database, &file)?,
            Self::Restore { file, database } => database::restore(&file, &database)?,
        }
        tell("OK.");
        Ok(())
    }
}

/// A line for whoever called. That nobody reads it is no reason to fail.
fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn open(path: &Path) -> Result<Database, DatabaseError> {
    Database::open(path, &[MIGRATIONS])
}

fn add(database: &Path, name: &str, role: &str) -> Result<(), Failure> {
    let Some(role) = Role::parse(role) else {
        let text = "Invalid type. Expected agent, admin, operator or viewer.";
        return Err(Failure::Refused(text.to_owned()));
    };
    // Nobody types a password for a name that cannot be one.
    AccountName::parse(name).map_err(|error| Failure::of_adding(error.into()))?;
    let password = cli::password::ask("Enter password for account: ")?;
    admin::add(&open(database)?, name, role, &password).map_err(Failure::of_adding)
}

fn list(path: &Path, json: bool) -> Result<(), Failure> {
    if !path.exists() {
        let why = "there is no such file".to_owned();
        return Err(DatabaseError::Open { path: PathBuf::from(path), why }.into());
    }
    let accounts = admin::list(&open(path)?)?;
    let mut out = io::stdout().lock();
    let text = if json { as_json(&accounts) } else { as_lines(&accounts, out.is_terminal()) };
    out.write_all(text.as_bytes()).map_err(|error| Failure::from(cli::CliError::Output(error)))
}

fn as_json(accounts: &[Listed]) -> String {
    let accounts: Vec<serde_json::Value> = accounts
        .iter()
        .map(|account| {
            serde_json::json!({
                "name": account.name,
                "role": account.role.name(),
                "created_at": account.created_at,
            })
        })
        .collect();
    format!("{}\n", serde_json::Value::from(accounts))
}

/// Columns under a header for people, tabs alone for programs. A name holds no control character.
fn as_lines(accounts: &[Listed], for_people: bool) -> String {
    let separated = |account: &Listed| format!("{}\t{}\n", account.name, account.role);
    if !for_people {
        return accounts.iter().map(separated).collect();
    }
    let width = |account: &Listed| account.name.chars().count();
    let width = accounts.iter().map(width).max().unwrap_or(0).max("NAME".len());
    let aligned = |account: &Listed| format!("{:width$}  {}\n", account.name, account.role);
    format!("{:width$}  TYPE\n", "NAME") + &accounts.iter().map(aligned).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Vec<Listed> {
        vec![
            Listed { name: "web-1".to_owned(), role: Role::Agent, created_at: 5 },
            Listed { name: "é".to_owned(), role: Role::Admin, created_at: 6 },
        ]
    }

    #[test]
    fn accounts_are_columns_for_people_and_tabs_for_programs() {
        assert_eq!(as_lines(&accounts(), true), "NAME   TYPE\nweb-1  agent\né      admin\n");
        assert_eq!(as_lines(&accounts(), false), "web-1\tagent\né\tadmin\n");
        assert_eq!(as_lines(&[], true), "NAME  TYPE\n");
    }

    #[test]
    fn accounts_are_one_json_value() {
        let expected = "[{\"created_at\":5,\"name\":\"web-1\",\"role\":\"agent\"},\
                        {\"created_at\":6,\"name\":\"é\",\"role\":\"admin\"}]\n";
        assert_eq!(as_json(&accounts()), expected);
    }

    #[test]
    fn what_the_database_is_to_blame_for_ends_with_two() {
        let folder = tempfile::tempdir().unwrap();
        let none = folder.path().join("none/t.db");
        let listed = DatabaseCommand::Accounts { database: none.clone(), json: false }.outcome();
        assert!(matches!(listed, Err(Failure::Database(DatabaseError::Open { .. }))), "{listed:?}");
        let removed = DatabaseCommand::Remove { database: none, name: "a".to_owned() }.outcome();
        assert!(matches!(removed, Err(Failure::Database(_))), "{removed:?}");
    }

    #[track_caller]
    fn check_refused(name: &str, role: &str, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("t.db");
        match add(&database, name, role) {
            Err(Failure::Refused(text)) => assert!(text.starts_with(expected), "{text}"),
            other => panic!("{other:?}"),
        }
        assert!(!database.exists());
    }

    #[test]
    fn a_type_or_name_that_is_none_is_refused_before_anything_else() {
        check_refused("a", "Agent", "Invalid type. ");
        check_refused("a:b", "boss", "Invalid type. ");
        check_refused("a:b", "agent", "Failed to add account: A name ");
    }
}
