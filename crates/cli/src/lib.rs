//! The operator's commands: they ask a server and print what it says.
//!
//! Invariant: nothing is decided here that the server decides, and a key is never an argument, since
//! arguments are seen by every user of the machine.
//! Not here: `serve`, and what the configuration file says about address and key (`gatehouse`).

pub mod agents;
pub mod audit;
pub mod connection;
pub mod dispatch;
mod duration;
pub mod events;
pub mod file;
pub mod login;
pub mod machine;
mod outcome;
pub mod password;
pub mod plugin;
pub mod programs;
mod screen;
pub mod session;
mod shown;
mod table;
pub mod task;
pub mod webhook;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

pub use outcome::Outcome;
pub use screen::Screen;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The server could not be asked, or said no.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// A file could not be read or written.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// What was asked for cannot be done; the text says why and what would do.
    #[error("{0}")]
    Refused(String),
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
}

/// Ends a command: an error goes to `err` (as JSON `{"error": …}` where JSON was asked for). The exit
/// code is the [`Outcome`]'s, 1 after an error; 2 is clap's, for arguments that make no sense.
pub fn end(
    result: Result<impl Into<Outcome>, CliError>,
    json: bool,
    err: &mut dyn Write,
) -> ExitCode {
    let error = match result {
        Ok(outcome) => return outcome.into().code(),
        // Whoever read our output has seen enough (`| head`).
        Err(CliError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        Err(error) => error,
    };
    let text = if json {
        serde_json::json!({ "error": error.to_string() }).to_string()
    } else {
        // A server's words may hold what an agent made up.
        format!("error: {}", shown::lines(&error.to_string()))
    };
    // With nowhere left to complain, the exit code must do.
    let _ = writeln!(err, "{text}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod scripted;

#[cfg(test)]
mod tests {
    use std::process::ExitCode;

    use super::{CliError, end};

    #[test]
    fn an_error_is_words_or_json_and_a_failing_exit_code() {
        let refused = || Err::<(), _>(CliError::Refused("no".to_owned()));
        let mut text = Vec::new();
        assert_eq!(end(refused(), false, &mut text), ExitCode::FAILURE);
        assert_eq!(end(refused(), true, &mut text), ExitCode::FAILURE);
        assert_eq!(String::from_utf8(text).unwrap(), "error: no\n{\"error\":\"no\"}\n");
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let closed = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let mut text = Vec::new();
        assert_eq!(end(Err::<(), _>(closed.into()), false, &mut text), ExitCode::SUCCESS);
        assert!(text.is_empty());
    }
}
