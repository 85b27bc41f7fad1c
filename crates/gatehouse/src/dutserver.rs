//! The command line of the program `dutserver`: through a link of that name its calls go on to work.
//!
//! Invariant: each outcome has the exit code it had there, and complaints begin with the same words.
//! Not here: what a command does (`commands`, `database_commands`).

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::arguments::{DatabaseCommand, ServerArgs, Task};

const USAGE: &str = "\
Usage: dutserver SUBCOMMAND ...

  server PORT DB           Serve on PORT with the database in the file DB
  addaccount DB NAME TYPE  Add an account (agent or admin); the password is asked for
  remove DB NAME           Remove an account and what belongs to it
";

/// What the command line says instead of naming something to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// For standard error.
    pub(crate) text: String,
    /// Whether that is what was asked for.
    pub(crate) is_wanted: bool,
}

impl Complaint {
    fn wrong(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_wanted: false }
    }

    /// Prints it; the exit code that belongs to it.
    pub(crate) fn end(&self) -> ExitCode {
        use std::io::Write as _;
        // With nowhere left to complain, the exit code must do.
        let _ = writeln!(std::io::stderr(), "{}", self.text.trim_end());
        if self.is_wanted { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Reads the arguments behind the program's name.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Task, Complaint> {
    let Some((command, arguments)) = arguments.split_first() else {
        return Err(Complaint { text: USAGE.to_owned(), is_wanted: true });
    };
    let usage = |rest: &str| Complaint::wrong(format!("Usage: dutserver {rest}"));
    match (command.to_str(), arguments) {
        (Some("-h" | "--help" | "help"), _) => {
            Err(Complaint { text: USAGE.to_owned(), is_wanted: true })
        }
        (Some("server"), [port, database]) => {
            let text = port.to_string_lossy();
            let port = text.parse().map_err(|_| {
                Complaint::wrong(format!("Invalid port `{text}`: expected a number, 0 to 65535"))
            })?;
            Ok(Task::Server(ServerArgs { port, database: database.into(), bind: None }))
        }
        (Some("server"), _) => Err(usage("server PORT DB")),
        (Some("addaccount"), [database, name, role]) => {
            Ok(Task::Database(DatabaseCommand::AddAccount {
                database: PathBuf::from(database),
                name: name.to_string_lossy().into_owned(),
                role: role.to_string_lossy().into_owned(),
            }))
        }
        (Some("addaccount"), _) => Err(usage("addaccount DB NAME TYPE")),
        (Some("remove"), [database, name]) => Ok(Task::Database(DatabaseCommand::Remove {
            database: PathBuf::from(database),
            name: name.to_string_lossy().into_owned(),
        })),
        (Some("remove"), _) => Err(usage("remove DB NAME")),
        _ => Err(Complaint::wrong("Unknown subcommand.")),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::{Complaint, USAGE, parse};

    #[track_caller]
    fn check(line: &str, expected: Result<&str, &str>) {
        let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let found = parse(&arguments).map(|task| format!("{task:?}"));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{line}"),
            (Err(Complaint { text, is_wanted: false }), Err(expected)) => {
                assert_eq!(text, expected, "{line}");
            }
            (found, _) => panic!("{line}: {found:?}"),
        }
    }

    #[test]
    fn the_three_commands_are_taken() {
        check(
            "server 8000 t.db",
            Ok("Server(ServerArgs { port: 8000, database: \"t.db\", bind: None })"),
        );
        check(
            "addaccount t.db a agent",
            Ok("Database(AddAccount { database: \"t.db\", name: \"a\", role: \"agent\" })"),
        );
        check("remove t.db -a", Ok("Database(Remove { database: \"t.db\", name: \"-a\" })"));
    }

    #[test]
    fn what_cannot_be_meant_is_complained_of_in_the_same_words() {
        check("serve", Err("Unknown subcommand."));
        check("server 8000", Err("Usage: dutserver server PORT DB"));
        check("addaccount t.db a", Err("Usage: dutserver addaccount DB NAME TYPE"));
        check("addaccount t.db a agent x", Err("Usage: dutserver addaccount DB NAME TYPE"));
        check("remove t.db", Err("Usage: dutserver remove DB NAME"));
        check("server x t.db", Err("Invalid port `x`: expected a number, 0 to 65535"));
    }

    #[test]
    fn no_arguments_ask_for_the_usage() {
        let expected = Complaint { text: USAGE.to_owned(), is_wanted: true };
        assert_eq!(parse(&[]).unwrap_err(), expected);
    }
}
