//! The process between the agent and a command.
//!
//! Invariant: when it exits, nothing that the command started is left, however it detached itself:
//! on Linux whoever loses its parent becomes the supervisor's child, so that all are found below it.
//! It reads its order from the leash, reports on it, and ends everything when the leash hangs up.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{WaitOptions, WaitStatus};

use crate::process::{Order, Report, start_command};
use crate::tree;

/// Between two rounds of ending.
const ROUND: Duration = Duration::from_millis(5);
/// How long ending may take: what waits for a dead disk cannot be ended by anyone.
const ENDING_MAX: Duration = Duration::from_secs(5);

/// Runs as a supervisor, its leash being the standard input.
pub(crate) fn run() -> ExitCode {
    match supervise() {
        Ok(()) => ExitCode::SUCCESS,
        // The agent sees that the leash is gone.
        Err(_) => ExitCode::FAILURE,
    }
}

fn supervise() -> io::Result<()> {
    let mut leash = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut lines = BufReader::new(leash.try_clone()?);
    let mut order = String::new();
    lines.read_line(&mut order)?;
    let mut order: Order = serde_json::from_str(&order)?;
    tree::adopt_orphans()?;
    let mut child = match start_command(&order) {
        Ok(child) => child,
        Err(error) => return report(&mut leash, &Report::Failed(error.to_string())),
    };
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    report(&mut leash, &Report::Started(pid))?;
    give_input(&mut child, order.input.take());
    thread::spawn(move || {
        // Only the end is expected.
        while lines.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
        // Again and again: the main thread reaps, and leaves when nobody is left.
        loop {
            tree::end_all(pid);
            thread::sleep(ROUND);
        }
    });
    let end = wait_for(pid);
    end_the_rest(pid);
    report(&mut leash, &end)
}

fn report(leash: &mut UnixStream, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    leash.write_all(&line)
}

/// Feeds the command from a thread of its own: it may read late, or never.
fn give_input(child: &mut Child, input: Option<String>) {
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        thread::spawn(move || {
            // A command that does not want its input need not read it.
            let _ = pipe.write_all(input.as_bytes());
        });
    }
}

/// Waits for the command, and meanwhile for orphans that became ours.
fn wait_for(pid: i32) -> Report {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if ended.as_raw_nonzero().get() == pid => return end(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Report::Failed(format!("waiting for the command: {error}")),
        }
    }
}

fn end(status: WaitStatus) -> Report {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Report::Exited(code),
        (None, Some(signal)) => Report::Signaled(signal),
        (None, None) => Report::Failed("the command ended in an unknown way".to_owned()),
    }
}

/// Ends what the command left behind.
fn end_the_rest(pid: i32) {
    let began = Instant::now();
    while began.elapsed() < ENDING_MAX {
        match rustix::process::wait(WaitOptions::NOHANG) {
            // One is gone; the next may be as well.
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => {
                tree::end_all(pid);
                thread::sleep(ROUND);
            }
            Err(_) => return,
        }
    }
}
