//! Starts and ends one worker process. The only place of this room that makes a process.
//!
//! Invariant: a process that is started here has ended, with all its children in its process group,
//! when its [`WorkerProcess`] is gone.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::PythonSettings;
use super::output::log_lines;
use super::package::Package;

/// A running worker.
#[derive(Debug)]
pub struct WorkerProcess {
    child: Child,
    pid: u32,
    /// Its output goes to the log until this is dropped.
    output: JoinSet<()>,
}

impl WorkerProcess {
    /// Starts the interpreter with the worker's program; the socket to it comes along.
    ///
    /// # Errors
    /// When the interpreter cannot be started; the message names it.
    pub fn start(
        settings: &PythonSettings,
        package: &Package,
        label: &str,
    ) -> io::Result<(Self, UnixStream)> {
        package.restore()?;
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        #[expect(clippy::disallowed_methods, reason = "this is where worker processes are made")]
        let mut command = Command::new(&settings.interpreter);
        let mut child = command
            .arg(package.program())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Signals that a terminal sends to the server's group are not for the workers.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                let interpreter = settings.interpreter.display();
                io::Error::new(error.kind(), format!("starting {interpreter}: {error}"))
            })?;
        // The command keeps its copy of the worker's end; without this we would never see it hang up.
        drop(command);
        let mut output = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            output.spawn(log_lines(stdout, label.to_owned()));
        }
        if let Some(stderr) = child.stderr.take() {
            output.spawn(log_lines(stderr, label.to_owned()));
        }
        let pid = child.id().unwrap_or_default();
        Ok((Self { child, pid, output }, UnixStream::from_std(ours)?))
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns a moment after the process has ended, when what it sent last has been read.
    pub async fn ended(&mut self) {
        // It was started by us, so there is a status to wait for; an error means that it is gone.
        let _ = self.child.wait().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    /// Waits until the process has ended by itself, at most for `limit`, then ends it. Returns how it
    /// ended, in words.
    pub async fn end(mut self, limit: Duration) -> String {
        let status = tokio::time::timeout(limit, self.child.wait()).await;
        self.kill_group();
        let status = match status {
            Ok(status) => status,
            Err(_) => self.child.wait().await,
        };
        // What it printed last is still in the pipes; a child that holds them open does not hold us.
        let _ = tokio::time::timeout(Duration::from_millis(200), async {
            while self.output.join_next().await.is_some() {}
        })
        .await;
        status.map_or_else(|error| format!("ended ({error})"), in_words)
    }

    fn kill_group(&self) {
        use rustix::process::{Pid, Signal, kill_process_group};
        if let Some(group) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // Gone already is as good.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        if self.child.id().is_some() {
            self.kill_group();
        }
    }
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(11)) => "crashed (segmentation fault)".into(),
        (None, Some(9)) => "was killed".into(),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".into(),
    }
}
