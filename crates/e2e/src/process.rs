//! The one place that starts programs: the server, and its commands.
//!
//! Invariant: what was started here is ended here, with everything it started itself, by its own
//! process group; a signal goes through a pidfd, so it never meets a stranger.
//! Not here: what is written to it and read from it (`server`, `text`).

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, kill_process_group, pidfd_open, pidfd_send_signal};

use crate::{DEADLINE, Text};

pub use rustix::process::Signal;

/// The program under test: `GATEHOUSE_BIN`, else the `gatehouse` that was built beside this test.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn program() -> PathBuf {
    let path = match std::env::var_os("GATEHOUSE_BIN") {
        Some(path) => PathBuf::from(path),
        None => {
            let own = std::env::current_exe().expect("the test's own file");
            let beside = own.parent().and_then(Path::parent).expect("deps is in a directory");
            beside.join("gatehouse")
        }
    };
    assert!(path.exists(), "{} is missing: `cargo build -p gatehouse` first", path.display());
    path
}

/// How a process ended.
#[derive(Debug)]
pub struct Exit {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

/// A running program.
#[derive(Debug)]
pub struct Process {
    child: Child,
    reaped: bool,
    handle: OwnedFd,
    /// Its standard output.
    pub stdout: Text,
    /// Its standard error.
    pub stderr: Text,
}

impl Process {
    /// Starts `program` in `directory` with these variables added to the environment.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        arguments: &[A],
        directory: &Path,
        environment: &[(String, String)],
    ) -> Self {
        Self::start_reading(program, arguments, directory, environment, Stdio::null())
    }

    fn start_reading<A: AsRef<OsStr>>(
        program: &Path,
        arguments: &[A],
        directory: &Path,
        environment: &[(String, String)],
        input: Stdio,
    ) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the harness's own process module")]
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(directory)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        let handle = pidfd_open(pid_of(&child), PidfdFlags::empty()).expect("a pidfd");
        let stdout = Text::drain(child.stdout.take().expect("piped"));
        let stderr = Text::drain(child.stderr.take().expect("piped"));
        Self { child, reaped: false, handle, stdout, stderr }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal; nothing happens when it has ended.
    pub fn signal(&self, signal: Signal) {
        // ESRCH alone is possible here: it has ended, which every caller looks at by itself.
        let _ = pidfd_send_signal(&self.handle, signal);
    }

    /// Whether it ends within `patience`.
    #[must_use]
    pub fn ends_within(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).expect("a short time");
            match poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], Some(&left)) {
                Ok(count) => return count > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("poll: {error}"),
            }
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within the deadline.
    pub fn wait(&mut self) -> Exit {
        let ended = self.ends_within(DEADLINE);
        assert!(ended, "it does not end; its log:\n{}", self.stderr.so_far());
        // What it leaves running is ended with its group, while its number cannot be another's; a
        // test that wants to know of such processes looks before it waits.
        let _ = kill_process_group(pid_of(&self.child), Signal::KILL);
        let status = self.child.wait().expect("its status");
        self.reaped = true;
        let (stdout, stderr) = (self.stdout.to_end(), self.stderr.to_end());
        Exit { code: status.code(), stdout, stderr }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group first: its number is kept from reuse only until the child is reaped.
        if !self.reaped {
            let _ = kill_process_group(pid_of(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Runs a program to its end.
///
/// # Panics
/// When it does not end within the deadline.
pub fn run<A: AsRef<OsStr>>(program: &Path, arguments: &[A], directory: &Path) -> Exit {
    Process::start(program, arguments, directory, &[]).wait()
}

/// Runs a program to its end with `input` as its whole standard input.
///
/// # Panics
/// When it does not end within the deadline.
pub fn run_reading<A: AsRef<OsStr>>(
    program: &Path,
    arguments: &[A],
    directory: &Path,
    input: impl AsRef<[u8]>,
) -> Exit {
    let mut process = Process::start_reading(program, arguments, directory, &[], Stdio::piped());
    let mut pipe = process.child.stdin.take().expect("piped");
    // A program that ends without reading it all is no failure of the harness.
    let _ = pipe.write_all(input.as_ref());
    drop(pipe);
    process.wait()
}
