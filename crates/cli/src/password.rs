//! Asks for a password.
//!
//! Invariant: a terminal does not show what is typed, and shows again afterwards whatever happened; a
//! password is never an argument.
//! Not here: what the password is for.

use std::io::{self, BufRead, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use wire::Secret;

use crate::CliError;

/// The longest password.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Writes `prompt` to standard output and takes the first line of standard input without its line end.
///
/// # Errors
/// When there is no line, it is no UTF-8, or longer than 1024 bytes.
pub fn ask(prompt: &str) -> Result<Secret, CliError> {
    let mut out = io::stdout().lock();
    write!(out, "{prompt}")?;
    out.flush()?;
    let input = io::stdin();
    if !input.is_terminal() {
        return first_line(input.lock());
    }
    let quiet = Quiet::begin()?;
    let line = first_line(input.lock());
    drop(quiet);
    // The line end that was typed was not shown either.
    writeln!(out)?;
    line
}

fn first_line(input: impl BufRead) -> Result<Secret, CliError> {
    let refused = |why: &str| CliError::Refused(why.to_owned());
    let read_max = PASSWORD_BYTES_MAX + "\r\n".len();
    // As large as it gets from the start: a vector that moves leaves a copy behind.
    let mut line = Vec::with_capacity(read_max);
    input.take(read_max as u64).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(refused("the input ended before there was a password"));
    }
    if line.ends_with(b"\n") {
        line.pop();
        if line.ends_with(b"\r") {
            line.pop();
        }
    }
    if line.len() > PASSWORD_BYTES_MAX {
        return Err(refused("a password has at most 1024 bytes"));
    }
    String::from_utf8(line).map(Secret::new).map_err(|_| refused("a password is UTF-8 text"))
}

/// As long as it lives, the terminal of standard input does not show what is typed.
struct Quiet {
    before: Termios,
}

impl Quiet {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin().as_fd())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        // What was typed ahead was shown: it is not taken.
        tcsetattr(io::stdin().as_fd(), OptionalActions::Flush, &quiet)?;
        Ok(Self { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that has gone shows nothing.
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::{PASSWORD_BYTES_MAX, first_line};

    #[track_caller]
    fn check(input: &[u8], expected: Result<&str, &str>) {
        let found = first_line(input);
        let found = found.as_ref().map(|secret| secret.expose()).map_err(ToString::to_string);
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn the_password_is_the_first_line_without_its_end() {
        check(b"secret\n", Ok("secret"));
        check(b"secret\r\n", Ok("secret"));
        check(b"secret", Ok("secret"));
        check(b"a b\r\r\nmore\n", Ok("a b\r"));
        check(b"\nsecret\n", Ok(""));
    }

    #[test]
    fn no_line_is_no_empty_password() {
        check(b"", Err("the input ended before there was a password"));
    }

    #[test]
    fn a_password_is_bounded_text() {
        let longest = "x".repeat(PASSWORD_BYTES_MAX);
        check(format!("{longest}\r\n").as_bytes(), Ok(&longest));
        check(format!("{longest}x\n").as_bytes(), Err("a password has at most 1024 bytes"));
        check("y".repeat(1 << 20).as_bytes(), Err("a password has at most 1024 bytes"));
        check(b"\xff\n", Err("a password is UTF-8 text"));
    }
}
