//! Makes the process that serves: in the background, or of this one. The only place of this crate that makes one.
//!
//! Invariant: what runs in the background is in a session of its own and holds nothing of the terminal; whoever started
//! it has been told whether it is ready, or why not, before this process ends. One that is not ready in time is ended.
//!
//! A process cannot be copied without `unsafe`; so the program is started anew with the same meaning, and says when it
//! is ready by one line on its standard output, which is a pipe until then.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long a server may take until it is ready: keys may have to be made, machines to be taken over.
const READY_MAX: Duration = Duration::from_secs(120);
/// How long one may take to end that was not ready in time.
const END_MAX: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);
/// The longest line that it may say.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Where the process runs that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Place {
    /// In the session of whoever started it.
    Foreground,
    /// In one of its own.
    Background,
}

/// What is started.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) arguments: Vec<OsString>,
    /// Beside those of this process.
    pub(super) environment: Vec<(&'static str, PathBuf)>,
}

impl Launch {
    fn command(&self) -> io::Result<Command> {
        #[expect(clippy::disallowed_methods, reason = "this is where the server is started anew")]
        let mut command = Command::new(std::env::current_exe()?);
        // By this name it takes these arguments.
        command.arg0("anwdlserver").args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Becomes the server. Returns only when that fails, with the reason.
    pub(super) fn become_it(&self) -> String {
        match self.command() {
            Ok(mut command) => not_started(&command.exec()),
            Err(error) => not_started(&error),
        }
    }

    /// Starts the server in the background and waits until it is ready; its number. What it complains of goes to `log`.
    ///
    /// # Errors
    /// When it is not ready, with the reason.
    pub(super) fn in_background(&self, log: Option<&Path>) -> Result<u32, String> {
        let told = |error: io::Error| not_started(&error);
        let complaints = match log {
            Some(path) => open(path).map(Stdio::from),
            None => Ok(Stdio::null()),
        };
        let complaints =
            complaints.map_err(|error| format!("the log cannot be opened: {error}"))?;
        let mut command = self.command().map_err(told)?;
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(complaints);
        let mut child = command.spawn().map_err(told)?;
        let Some(output) = child.stdout.take() else { return Err("it has no output".to_owned()) };
        match first_line(output) {
            Ok(line) if !line.is_empty() => {
                answer(&line, child.id()).inspect_err(|_| end(&mut child))
            }
            // A closed pipe and no word: it has ended, or is about to.
            Ok(_) => {
                end(&mut child);
                let status =
                    child.wait().map_or_else(|error| error.to_string(), |it| it.to_string());
                let see = log.map_or(String::new(), |path| format!("; see {}", path.display()));
                Err(format!("the server ended before it was ready ({status}){see}"))
            }
            Err(_) => {
                end(&mut child);
                Err(format!("the server was not ready within {READY_MAX:?}, and was ended"))
            }
        }
    }
}

fn not_started(error: &io::Error) -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let hint = match error.kind() {
        // After the rights of root were given up.
        io::ErrorKind::PermissionDenied => " (may the user of the server reach that file?)",
        _ => "",
    };
    format!("the server cannot be started: {}: {error}{hint}", program.display())
}

/// From now on nothing of the terminal reaches this process.
///
/// # Errors
/// When the system refuses.
pub(super) fn leave_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    OpenOptions::new().create(true).append(true).open(path).map_err(named)
}

/// The first line, empty when there is none; an error when it does not come in time.
fn first_line(output: ChildStdout) -> Result<String, mpsc::RecvTimeoutError> {
    let (said, line) = mpsc::sync_channel(1);
    // It ends with the process that it reads from, or with this one, which is soon.
    std::thread::spawn(move || {
        let mut text = String::new();
        let mut output = io::BufReader::new(output).take(LINE_BYTES_MAX);
        // What is no text is no answer.
        let _ = io::BufRead::read_line(&mut output, &mut text);
        let _ = said.send(text);
    });
    line.recv_timeout(READY_MAX)
}

/// What the server said, in the documented shape.
fn answer(line: &str, pid: u32) -> Result<u32, String> {
    let said: Value = serde_json::from_str(line).unwrap_or_default();
    if said["status"] == "OK" {
        return Ok(pid);
    }
    Err(said["message"].as_str().unwrap_or("the server did not say what is wrong").to_owned())
}

/// Ends a server that did not become one.
fn end(child: &mut Child) {
    let begun = std::time::Instant::now();
    let mut signal = Some(Signal::TERM);
    while matches!(child.try_wait(), Ok(None)) {
        // Not reaped yet, so the number is still its own.
        if let Some(signal) = signal.take() {
            let _ = kill_process(Pid::from_child(child), signal);
        }
        if begun.elapsed() > END_MAX {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(PAUSE);
    }
}
