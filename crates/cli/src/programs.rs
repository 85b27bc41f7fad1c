//! Other programs that the operator's machine has: `ssh` and `ssh-keygen`. The only place of this room that makes
//! a process.
//!
//! Invariant: arguments go to the program as they are; no shell reads them.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// Other programs of this machine, found by `PATH`.
pub trait Programs {
    /// Runs `program` to its end, without input and output; tells whether it succeeded.
    ///
    /// # Errors
    /// When it cannot be started; [`io::ErrorKind::NotFound`] when there is none.
    fn run(&self, program: &str, arguments: &[String]) -> io::Result<bool>;

    /// Puts `program` in the place of this one, with its terminal and its signals. Comes back only
    /// when that fails, or was only written down.
    ///
    /// # Errors
    /// As [`Programs::run`].
    fn replace(&self, program: &str, arguments: &[String]) -> io::Result<()>;
}

/// The programs that are really there.
#[derive(Debug, Clone, Copy)]
pub struct System;

impl Programs for System {
    fn run(&self, program: &str, arguments: &[String]) -> io::Result<bool> {
        let mut command = command(program, arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command.status()?.success())
    }

    fn replace(&self, program: &str, arguments: &[String]) -> io::Result<()> {
        Err(command(program, arguments).exec())
    }
}

fn command(program: &str, arguments: &[String]) -> Command {
    #[expect(clippy::disallowed_methods, reason = "this is where other programs are started")]
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::{Programs as _, System};

    #[test]
    fn a_program_succeeds_fails_or_is_not_there() {
        assert!(System.run("true", &[]).unwrap());
        assert!(!System.run("false", &[]).unwrap());
        let gone = System.run("gatehouse-no-such-program", &[]).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
        let gone = System.replace("gatehouse-no-such-program", &[]).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    }
}
