//! Makes processes: supervisors of commands, the commands under them, and this program anew.
//!
//! Invariant: a command runs under a supervisor that is on a leash (a socket, its standard input).
//! When our end of the leash hangs up, for whatever reason, the supervisor ends the command with all
//! that it started.
//! Not here: what the supervisor does (`supervisor`).

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::courier::left;
use crate::stop::Cancel;

/// How long a supervisor may take to end everything once it was told.
const ENDING_MAX: Duration = Duration::from_secs(10);

/// What a supervisor is to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// What the command reads from its standard input.
    pub(crate) input: Option<String>,
    /// Where it runs.
    pub(crate) directory: PathBuf,
}

/// What a supervisor says, a line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The command runs, in the process group of this number.
    Started(i32),
    /// It could not be started.
    Failed(String),
    /// It exited with this status, and nothing of it is left.
    Exited(i32),
    /// It was ended by this signal, and nothing of it is left.
    Signaled(i32),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself or by a signal, with the status that a shell would show.
    Status(i32),
    /// It was ended when its time was over.
    OverTime,
    /// It was ended because the task was given up.
    Cancelled(&'static str),
}

/// A command and its supervisor.
#[derive(Debug)]
pub(crate) struct Supervised {
    supervisor: Child,
    leash: UnixStream,
    reports: BufReader<UnixStream>,
    group: Option<i32>,
    /// It has said that nothing is left.
    settled: bool,
}

impl Supervised {
    /// Starts `order` under a supervisor, which is the program `supervisor` called with `supervise`.
    ///
    /// # Errors
    /// When one of the two cannot be started.
    pub(crate) fn start(
        supervisor: &Path,
        order: &Order,
        output: Stdio,
        errors: Stdio,
    ) -> io::Result<Self> {
        let (leash, theirs) = UnixStream::pair()?;
        #[expect(clippy::disallowed_methods, reason = "this is where supervisors are made")]
        let mut command = Command::new(supervisor);
        let supervisor = command
            .arg("supervise")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(output)
            .stderr(errors)
            // What a terminal sends to the agent is not for its commands.
            .process_group(0)
            .spawn()?;
        // The command keeps its copies of the other ends; without this we would never see them closed.
        drop(command);
        let reports = BufReader::new(leash.try_clone()?);
        let mut supervised = Self { supervisor, leash, reports, group: None, settled: false };
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        supervised.leash.write_all(&line)?;
        match supervised.report()? {
            Report::Started(group) => supervised.group = Some(group),
            Report::Failed(why) => return Err(io::Error::other(why)),
            other => return Err(io::Error::other(format!("the supervisor said {other:?}"))),
        }
        Ok(supervised)
    }

    /// Waits until the command has ended, by itself, after `limit`, or because it was given up.
    ///
    /// # Errors
    /// When the supervisor was ended by someone else, or does not come to an end.
    pub(crate) fn wait(mut self, limit: Duration, cancel: &Cancel) -> io::Result<End> {
        cancel.hold(self.leash.try_clone()?);
        let began = Instant::now();
        let mut over_time = false;
        let report = loop {
            let limit = if over_time { limit + ENDING_MAX } else { limit };
            let left = left(limit, began).max(Duration::from_millis(1));
            self.leash.set_read_timeout(Some(left))?;
            match self.report() {
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if over_time {
                        return Err(io::Error::other("the command does not let itself be ended"));
                    }
                    over_time = true;
                    // Hung up already is as good.
                    let _ = self.leash.shutdown(Shutdown::Write);
                }
                report => break report?,
            }
        };
        match (report, cancel.reason()) {
            (_, Some(reason)) => Ok(End::Cancelled(reason)),
            (Report::Exited(_) | Report::Signaled(_), None) if over_time => Ok(End::OverTime),
            (Report::Exited(code), None) => Ok(End::Status(code)),
            (Report::Signaled(signal), None) => Ok(End::Status(128 + signal)),
            (other, None) => Err(io::Error::other(format!("the supervisor said {other:?}"))),
        }
    }

    fn report(&mut self) -> io::Result<Report> {
        let mut line = String::new();
        if self.reports.read_line(&mut line)? == 0 {
            let why = "the supervisor of the command has gone, and the command was ended";
            return Err(io::Error::other(why));
        }
        let report = serde_json::from_str(&line)?;
        self.settled = matches!(report, Report::Exited(_) | Report::Signaled(_));
        Ok(report)
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = self.leash.shutdown(Shutdown::Write);
        if !self.settled {
            // It ends everything, then itself; that closes its end.
            let _ = self.leash.set_read_timeout(Some(ENDING_MAX));
            while self.report().is_ok() {}
            // Had it been killed by someone, this group would be what is left to end.
            if let Some(group) = self.group {
                end_group(group);
            }
        }
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}

/// Ends all processes of a group.
pub(crate) fn end_group(group: i32) {
    use rustix::process::{Pid, Signal, kill_process_group};
    if let Some(group) = Pid::from_raw(group) {
        // Gone already is as good.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Starts the command of `order` (in a supervisor). What the environment says to the agent alone does
/// not reach it.
pub(crate) fn start_command(order: &Order) -> io::Result<Child> {
    #[expect(clippy::disallowed_methods, reason = "this is where commands are made")]
    let mut command = Command::new(&order.program);
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        let systemd = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "STATE_DIRECTORY"];
        if name.starts_with("GATEHOUSE_") || systemd.contains(&name.as_ref()) {
            command.env_remove(&key);
        }
    }
    command
        .args(&order.arguments)
        .current_dir(&order.directory)
        .stdin(if order.input.is_some() { Stdio::piped() } else { Stdio::null() })
        .process_group(0)
        .spawn()
        .map_err(|error| {
            let program = order.program.display();
            io::Error::new(error.kind(), format!("starting {program}: {error}"))
        })
}

/// Becomes `program`, called as this process was. Returns only when that fails.
pub(crate) fn become_anew(program: &Path, arguments: &[OsString]) -> io::Error {
    #[expect(clippy::disallowed_methods, reason = "an updated agent starts itself anew")]
    let mut command = Command::new(program);
    command.args(arguments).exec()
}
