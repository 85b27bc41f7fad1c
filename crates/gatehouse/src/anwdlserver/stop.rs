//! Ends servers by their pid files.
//!
//! Invariant: a signal goes to a process only while it holds its pid file and runs this program; it is held by a pidfd,
//! which cannot come to mean another.
//! Not here: what a server does when it ends.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::json;
use server::config::{Config, Role};
use server::pid_file::{self, Found};

use super::{Failure, General, Outcome};
use crate::container_commands::Done;

/// How long a server may take to end beside what requests in flight are given.
const END_MAX: Duration = Duration::from_secs(30);

/// What became of one server.
enum Ended {
    /// It ran, and has ended.
    Now(u32),
    /// None ran; in words.
    NoneRan(String),
}

/// Ends the server, and that of `start --web`; or the latter alone.
pub(super) fn stop(general: &General, web_alone: bool) -> Outcome {
    let mut configs = Vec::new();
    if !web_alone {
        configs.push(general.read(Role::Classic)?);
    }
    match general.read(Role::Web) {
        Ok(config) => configs.push(config),
        Err(problems) if web_alone => return Err(problems.into()),
        // Where it cannot run there is nothing of it to end.
        Err(_) => {}
    }
    let mut pids = Vec::new();
    let mut reasons = Vec::new();
    for config in &configs {
        match end_one(config)? {
            Ended::Now(pid) => pids.push(pid),
            Ended::NoneRan(why) => reasons.push(why),
        }
    }
    if pids.is_empty() {
        reasons.dedup();
        return Err(reasons.join("; ").into());
    }
    let shown: Vec<String> =
        pids.iter().map(|pid| format!("the server with pid {pid} has ended")).collect();
    Ok(Done { text: shown.join("\n"), data: json!({ "pids": pids }) })
}

/// Ends the server that the same `start` would find running.
pub(super) fn end_if_running(general: &General, role: Role) -> Result<(), Failure> {
    end_one(&general.read(role)?)?;
    Ok(())
}

/// The server that runs with this configuration, if one does. A file of one that has ended is no server.
///
/// # Errors
/// When its pid file cannot be read.
pub(super) fn running(config: &Config) -> Result<Option<u32>, String> {
    let Some(path) = &config.paths.pidfile else { return Ok(None) };
    match pid_file::look(path).map_err(|error| named(path, &error))? {
        Found::Running(pid) => Ok(Some(pid)),
        Found::Nothing | Found::Stale(_) => Ok(None),
    }
}

fn named(path: &Path, error: &io::Error) -> String {
    format!("pid_file_path {}: {error}", path.display())
}

fn end_one(config: &Config) -> Result<Ended, String> {
    let Some(path) = &config.paths.pidfile else {
        return Err(super::WITHOUT.to_owned());
    };
    match pid_file::look(path).map_err(|error| named(path, &error))? {
        Found::Nothing => {
            Ok(Ended::NoneRan(format!("the server does not run: there is no {}", path.display())))
        }
        Found::Stale(pid) => forget(path, pid).map(Ended::NoneRan),
        Found::Running(pid) => {
            end(pid, path, config.limits.drain_timeout + END_MAX)?;
            Ok(Ended::Now(pid))
        }
    }
}

/// Removes a pid file that nobody holds, unless the older program wrote it and runs: that one holds nothing.
fn forget(path: &Path, pid: Option<u32>) -> Result<String, String> {
    let shown = path.display();
    let runs = pid.filter(|pid| words_of(*pid).iter().any(|word| is_called(word, "anwdlserver")));
    if let Some(pid) = runs {
        return Err(format!(
            "process {pid} of {shown} is another program called anwdlserver: end it by its own `stop`, or by `kill {pid}`"
        ));
    }
    fs::remove_file(path).map_err(|error| named(path, &error))?;
    let whose = pid.map_or("no pid in it".to_owned(), |pid| format!("pid {pid}"));
    Ok(format!(
        "the server does not run: {shown} was left by one that has ended ({whose}), and is removed"
    ))
}

/// The command line of a process.
fn words_of(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).split('\0').map(str::to_owned).collect()
}

fn is_called(word: &str, name: &str) -> bool {
    Path::new(word).file_name().is_some_and(|found| found == name)
}

/// Sends SIGTERM and waits for the end.
fn end(pid: u32, path: &Path, limit: Duration) -> Result<(), String> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let raw = raw.ok_or_else(|| format!("{}: {pid} is no process", path.display()))?;
    let told = |error: rustix::io::Errno| format!("process {pid} of {}: {error}", path.display());
    let process = match pidfd_open(raw, PidfdFlags::empty()) {
        // It has ended in between.
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        opened => opened.map_err(told)?,
    };
    is_ours(pid)
        .map_err(|why| format!("process {pid} of {}: {why}; nothing was ended", path.display()))?;
    match pidfd_send_signal(&process, Signal::TERM) {
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        sent => sent.map_err(told)?,
    }
    let limit_left = Timespec::try_from(limit).map_err(|error| error.to_string())?;
    // Readable means ended.
    match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit_left)) {
        Ok(0) => Err(format!("the server with pid {pid} has not ended within {limit:?}")),
        Ok(_) => Ok(()),
        Err(error) => Err(told(error)),
    }
}

/// Whether the process runs this program, of whatever version.
fn is_ours(pid: u32) -> Result<(), String> {
    let program = |of: String| fs::read_link(format!("/proc/{of}/exe"));
    let theirs = program(pid.to_string()).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "it is another user's: call this as that user, or as root".to_owned()
        }
        _ => error.to_string(),
    })?;
    let ours = program("self".to_owned()).map_err(|error| error.to_string())?;
    if bare_name(&theirs) == bare_name(&ours) {
        return Ok(());
    }
    Err(format!("it is not this program but {}", theirs.display()))
}

/// The name of a program's file, also when that has been replaced by another version since.
fn bare_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.strip_suffix(" (deleted)").unwrap_or(&name).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{bare_name, is_ours};

    #[test]
    fn a_program_that_was_replaced_is_still_the_same() {
        assert_eq!(bare_name(Path::new("/usr/bin/gatehouse (deleted)")), Path::new("gatehouse"));
        assert_eq!(bare_name(Path::new("/opt/gatehouse")), Path::new("gatehouse"));
    }

    #[test]
    fn this_process_is_ours() {
        is_ours(std::process::id()).unwrap();
    }
}
