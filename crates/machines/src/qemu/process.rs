//! Makes, watches and ends processes. The only place of this room that makes one.
//!
//! Invariant: a process that is dropped before [`Process::keep`] is killed. A process that is kept outlives the server:
//! it has a process group of its own, so neither a terminal's signals nor the server's end reach it.
//!
//! Not here: what the processes are told, and what their end means.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, Interest};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// How much of what a process complained about last is kept.
const COMPLAINTS_BYTES_MAX: usize = 4096;
/// The most that is read of a short-lived program's output.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// Whom a process runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The group's number; the process is in no other.
    pub gid: u32,
}

/// What is started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Launch<'a> {
    /// The program, absolute.
    pub(super) program: &'a Path,
    pub(super) arguments: &'a [String],
    /// Where it works; also its place for temporary files.
    pub(super) directory: &'a Path,
    pub(super) user: Option<User>,
}

/// A process that may have been started by an earlier server.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    pid: u32,
    fd: Arc<AsyncFd<OwnedFd>>,
}

impl Handle {
    /// Takes hold of a process by its number; `None` when it is gone.
    pub(super) fn open(pid: u32) -> io::Result<Option<Self>> {
        let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let fd = match pidfd_open(raw, PidfdFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        #[expect(
            deprecated,
            reason = "its successor is unsafe; an owned descriptor stays open as long as it must"
        )]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        Ok(Some(Self { pid, fd: Arc::new(fd) }))
    }

    /// Its number, as long as it is not reaped.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills it; it is gone a moment later, see [`Self::gone`].
    pub(super) fn kill(&self) {
        // Gone already is as good.
        let _ = pidfd_send_signal(self.fd.get_ref().as_fd(), Signal::KILL);
    }

    /// Returns when the process is gone.
    pub(super) async fn gone(&self) {
        // Readable means ended, and stays so. An error leaves nothing to wait for.
        let _ = self.fd.readable().await;
    }
}

/// A process of ours.
#[derive(Debug)]
pub(super) struct Process {
    handle: Handle,
    /// Absent for one that an earlier server started.
    child: Option<Child>,
    complaints: Complaints,
    keep: bool,
}

impl Process {
    /// Starts a program without environment, with `stdin` as its only open file beside what it may print.
    pub(super) fn start(launch: Launch<'_>, stdin: Option<OwnedFd>) -> io::Result<Self> {
        let mut command = command(launch);
        command
            .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| named(launch.program, error))?;
        let stderr = child.stderr.take();
        let pid = child.id().unwrap_or_default();
        // Not reaped yet, so the number is still its own.
        let handle = Handle::open(pid)?
            .ok_or_else(|| named(launch.program, io::ErrorKind::NotFound.into()))?;
        Ok(Self { handle, child: Some(child), complaints: Complaints::read(stderr), keep: false })
    }

    /// One that an earlier server started.
    pub(super) fn adopted(handle: Handle) -> Self {
        Self { handle, child: None, complaints: Complaints::default(), keep: true }
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// From now on it lives on when this is dropped.
    pub(super) fn keep(&mut self) {
        self.keep = true;
    }

    /// Waits for its end. Returns how it ended in words, with the last that it printed.
    pub(super) async fn ended(&mut self) -> String {
        self.handle.gone().await;
        let status = match &mut self.child {
            Some(child) => {
                child.wait().await.map_or_else(|error| format!("ended ({error})"), in_words)
            }
            None => "ended".to_owned(),
        };
        match self.complaints.finish().await {
            said if said.is_empty() => status,
            said => format!("{status}: {said}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.keep {
            self.handle.kill();
        }
    }
}

/// Runs a program to its end, at most for `limit`, and returns what it printed.
///
/// # Errors
/// When it cannot be started, prints without end, is not done in time (it is killed), or says that it failed.
pub(super) async fn run(launch: Launch<'_>, limit: Duration) -> io::Result<String> {
    let (code, output, said) = exit_code(launch, limit).await?;
    if code == Some(0) {
        return Ok(output);
    }
    Err(named(launch.program, io::Error::other(format!("it failed: {}", said.trim()))))
}

/// As [`run`], but any exit code is good. Returns the code, and what was printed on both outputs.
pub(super) async fn exit_code(
    launch: Launch<'_>,
    limit: Duration,
) -> io::Result<(Option<i32>, String, String)> {
    let mut command = command(launch);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| named(launch.program, error))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (output, said) = tokio::join!(limited(stdout), limited(stderr));
        child.wait().await.map(|status| (status.code(), output, said))
    };
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done.map_err(|error| named(launch.program, error)),
        Err(_) => Err(named(
            launch.program,
            io::Error::other(format!("not done within {} s", limit.as_secs())),
        )),
    }
}

#[expect(clippy::disallowed_methods, reason = "this is where processes are made")]
fn command(launch: Launch<'_>) -> Command {
    let mut command = Command::new(launch.program);
    command
        .args(launch.arguments)
        .env_clear()
        .env("TMPDIR", launch.directory)
        .env("LC_ALL", "C")
        .current_dir(launch.directory)
        // What a terminal or a service manager sends to the server's group is not for machines.
        .process_group(0);
    if let Some(user) = launch.user {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

fn named(program: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", program.display()))
}

async fn limited(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // What was read before an error is what there is to tell.
        let _ = pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(9)) => "was killed".into(),
        // Memory that is a file cannot grow.
        (None, Some(7)) => {
            "was ended by signal 7, as when the disk that its files are on is full".into()
        }
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// The last that a process printed on its error output. A pipe, not a file: it cannot grow.
#[derive(Debug, Default)]
struct Complaints {
    last: Arc<Mutex<Vec<u8>>>,
    reader: JoinSet<()>,
}

impl Complaints {
    fn read(pipe: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        let mut complaints = Self::default();
        if let Some(mut pipe) = pipe {
            let last = Arc::clone(&complaints.last);
            complaints.reader.spawn(async move {
                let mut part = [0; 512];
                while let Ok(count @ 1..) = pipe.read(&mut part).await {
                    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                    last.extend_from_slice(&part[..count]);
                    let surplus = last.len().saturating_sub(COMPLAINTS_BYTES_MAX);
                    last.drain(..surplus);
                }
            });
        }
        complaints
    }

    /// What there is to read after the process' end; a child that holds the pipe open does not hold us.
    async fn finish(&mut self) -> String {
        let _ = tokio::time::timeout(Duration::from_millis(100), self.reader.join_next()).await;
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&last).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch<'a>(arguments: &'a [String]) -> Launch<'a> {
        Launch { program: Path::new("/bin/sh"), arguments, directory: Path::new("/"), user: None }
    }

    fn shell(script: &str) -> Vec<String> {
        vec!["-c".into(), script.into()]
    }

    async fn check_end(script: &str, expected: &str) {
        let mut process = Process::start(launch(&shell(script)), None).unwrap();
        assert_eq!(process.ended().await, expected);
    }

    #[tokio::test]
    async fn an_end_is_told_with_the_last_words() {
        check_end("echo no such disk >&2; exit 3", "exited with code 3: no such disk").await;
        check_end("kill -9 $$", "was killed").await;
        let full = "was ended by signal 7, as when the disk that its files are on is full";
        check_end("kill -7 $$", full).await;
        check_end(
            "env | grep -v -e PWD -e SHLVL -e _= >&2",
            "exited with code 0: TMPDIR=/\nLC_ALL=C",
        )
        .await;
    }

    #[tokio::test]
    async fn of_many_complaints_the_last_are_kept() {
        let mut process =
            Process::start(launch(&shell("yes | head -c 100000 >&2; echo end >&2")), None).unwrap();
        let told = process.ended().await;
        assert!(
            told.ends_with("y\nend") && told.len() <= COMPLAINTS_BYTES_MAX + 64,
            "{} bytes",
            told.len()
        );
    }

    #[tokio::test]
    async fn a_dropped_process_is_killed_and_a_kept_one_is_not() {
        for keep in [false, true] {
            let mut process = Process::start(launch(&shell("exec sleep 60")), None).unwrap();
            let handle = process.handle().clone();
            if keep {
                process.keep();
            }
            drop(process);
            let gone = tokio::time::timeout(
                Duration::from_millis(if keep { 200 } else { 5000 }),
                handle.gone(),
            )
            .await;
            assert_eq!(gone.is_ok(), !keep);
            handle.kill();
            handle.gone().await;
        }
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_not_waited_for() {
        let error =
            run(launch(&shell("exec sleep 60")), Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh: not done within 0 s");
        assert_eq!(run(launch(&shell("echo hi")), Duration::from_secs(20)).await.unwrap(), "hi\n");
        let error =
            run(launch(&shell("echo why >&2; exit 1")), Duration::from_secs(20)).await.unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh: it failed: why");
    }
}
