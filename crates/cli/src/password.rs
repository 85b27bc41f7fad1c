//! Asks for a password.
//!
//! Invariant: a terminal does not show what is typed from before the prompt on, and shows again afterwards whatever
//! happened, also when a signal ends the program; a password is never an argument.
//! Not here: what the password is for.

use std::io::{self, BufRead, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::{Handle, Signals};
use signal_hook::low_level::emulate_default_handler;
use wire::Secret;

use crate::CliError;

/// Signals that end a program which does nothing about them.
const ENDING: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];
/// The longest password.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Writes `prompt` to standard output and takes the first line of standard input without its line end.
///
/// # Errors
/// When there is no line, it is no UTF-8, or longer than 1024 bytes.
pub fn ask(prompt: &str) -> Result<Secret, CliError> {
    let input = io::stdin();
    // First, so that a program that answers the prompt at once is not shown either.
    let quiet = input.is_terminal().then(Quiet::begin).transpose()?;
    let mut out = io::stdout().lock();
    write!(out, "{prompt}")?;
    out.flush()?;
    let line = first_line(input.lock());
    if let Some(quiet) = quiet {
        drop(quiet);
        // The line end that was typed was not shown either.
        writeln!(out)?;
    }
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
    /// Whether signals do again what they do by themselves.
    is_over: Arc<AtomicBool>,
    signals: Handle,
    watch: Option<JoinHandle<()>>,
}

impl Quiet {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin().as_fd())?;
        let is_over = Arc::new(AtomicBool::new(false));
        for signal in ENDING {
            flag::register_conditional_default(signal, Arc::clone(&is_over))?;
        }
        let mut signals = Signals::new(ENDING)?;
        let (handle, shown) = (signals.handle(), before.clone());
        let watch = std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                show(&shown);
                // Ends the program; where it does not, the next one may.
                let _ = emulate_default_handler(signal);
            }
        })?;
        let made = Self { before, is_over, signals: handle, watch: Some(watch) };
        let mut quiet = made.before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        // What was typed ahead was shown: it is not taken.
        tcsetattr(io::stdin().as_fd(), OptionalActions::Flush, &quiet)?;
        Ok(made)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        show(&self.before);
        self.is_over.store(true, SeqCst);
        self.signals.close();
        if let Some(watch) = self.watch.take() {
            // It does nothing that fails.
            let _ = watch.join();
        }
    }
}

fn show(before: &Termios) {
    // A terminal that has gone shows nothing.
    let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, before);
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
