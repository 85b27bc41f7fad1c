//! Runs one program within a time limit.
//!
//! Invariant: when [`run`] returns, the program's whole process group has ended or was told to; a
//! step that hangs, or that the person at the terminal breaks off, leaves nothing running behind.
//! Not here: which programs, and what their end means.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How often a running program is looked at. Steps take seconds; nobody sees this.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What a program gets between being asked to end and being ended.
const GRACE: Duration = Duration::from_secs(5);
/// What readers get to copy the last lines after the program ended.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A program to run, as a value that a test can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    /// The program and its arguments.
    pub(crate) argv: Vec<String>,
    /// Variables added to the environment.
    pub(crate) env: Vec<(&'static str, String)>,
    /// When its process group is ended.
    pub(crate) limit: Duration,
}

impl Job {
    pub(crate) fn new(limit_secs: u64, argv: &[&str]) -> Self {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        Self { argv, env: Vec::new(), limit: Duration::from_secs(limit_secs) }
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }
}

/// How a program ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With success.
    Passed,
    /// With this exit status, as text.
    Failed(String),
    /// It was still running at its limit.
    TimedOut(Duration),
    /// The person at the terminal, or the system, asked us to end.
    Interrupted,
    /// It could not be started.
    NotStarted(String),
}

/// Set by SIGINT and SIGTERM. The program runs in a group of its own, so that Ctrl-C reaches it
/// through us alone.
static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        if signal_hook::flag::register(signal, Arc::clone(&flag)).is_err() {
            eprintln!("xtask: signal {signal} cannot be watched");
        }
    }
    flag
});

/// The command of a job: no input, and none of the variables that `cargo run` set for us, since
/// build scripts that watch them would run again for nothing.
#[expect(clippy::disallowed_methods, reason = "this is the module that owns processes here")]
pub(crate) fn command(root: &Path, argv: &[String]) -> Command {
    let (program, arguments) =
        argv.split_first().map_or(("", argv), |(p, rest)| (p.as_str(), rest));
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|p| name.starts_with(p)) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a program to its end and copies what it writes; also gives the lines that `wanted` picks.
pub(crate) fn run(root: &Path, job: &Job, wanted: fn(&str) -> bool) -> (End, Vec<String>) {
    let interrupted = Arc::clone(&INTERRUPTED);
    let mut command = command(root, &job.argv);
    command.envs(job.env.iter().map(|(name, value)| (name, value))).process_group(0);
    let mut child = match command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => return (End::NotStarted(error.to_string()), Vec::new()),
    };
    let picked = Arc::new(Mutex::new(Vec::new()));
    let readers = [
        child.stdout.take().map(|from| copy(from, std::io::stdout(), wanted, &picked)),
        child.stderr.take().map(|from| copy(from, std::io::stderr(), wanted, &picked)),
    ];
    let end = wait(&mut child, job.limit, &interrupted);
    // A process that left the group may hold a pipe open for ever; its lines are not waited for.
    let until = Instant::now() + LAST_LINES;
    while readers.iter().flatten().any(|reader| !reader.is_finished()) && Instant::now() < until {
        sleep(LOOK_EVERY);
    }
    let picked = picked.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (end, picked)
}

/// Copies lines as they come and keeps those that `wanted` picks.
fn copy(
    from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    wanted: fn(&str) -> bool,
    picked: &Arc<Mutex<Vec<String>>>,
) -> std::thread::JoinHandle<()> {
    let picked = Arc::clone(picked);
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            // Our own output may be gone; the program must not be held up by that.
            let _ = to.write_all(&line).and_then(|()| to.flush());
            let text = without_colours(String::from_utf8_lossy(&line).trim());
            if wanted(&text) {
                picked.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
            line.clear();
        }
    })
}

fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}

fn wait(child: &mut Child, limit: Duration, interrupted: &AtomicBool) -> End {
    let until = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return End::Passed,
            Ok(Some(status)) => return End::Failed(status.to_string()),
            Ok(None) => {}
            Err(error) => return End::Failed(error.to_string()),
        }
        let end = match (interrupted.load(Ordering::Relaxed), Instant::now() >= until) {
            (true, _) => End::Interrupted,
            (false, true) => End::TimedOut(limit),
            (false, false) => {
                sleep(LOOK_EVERY);
                continue;
            }
        };
        end_group(child);
        return end;
    }
}

/// Asks the group to end, then ends it.
fn end_group(child: &mut Child) {
    let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return };
    // "No such process" is what we want to hear: all of it is gone.
    let _ = kill_process_group(group, Signal::TERM);
    let until = Instant::now() + GRACE;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
        sleep(LOOK_EVERY);
    }
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::{End, Job, run, without_colours};

    fn shell(script: &str, limit_secs: u64) -> (End, Vec<String>) {
        run(Path::new("/"), &Job::new(limit_secs, &["sh", "-c", script]), |line| {
            line.contains("keep")
        })
    }

    #[test]
    fn the_end_and_the_wanted_lines_come_back() {
        let lines = vec!["keep this".to_owned()];
        assert_eq!(shell("echo drop; echo '  keep this'", 20), (End::Passed, lines));
        assert!(matches!(shell("exit 3", 20).0, End::Failed(status) if status.contains('3')));
    }

    #[test]
    fn a_program_over_its_limit_is_ended_with_its_children() {
        let begun = Instant::now();
        let (end, lines) = shell("sleep 300 & echo keep $!; wait", 1);
        assert_eq!(end, End::TimedOut(Duration::from_secs(1)));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        let child = lines[0].trim_start_matches("keep ");
        // Gone, or dead and waiting for the system to take note.
        let status = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        assert!(status.is_empty() || status.contains(") Z "), "{status}");
    }

    #[test]
    fn a_missing_program_is_told_apart_from_a_failing_one() {
        let (end, _) = run(Path::new("/"), &Job::new(1, &["no-such-program"]), |_| false);
        assert!(matches!(end, End::NotStarted(_)));
    }

    #[test]
    fn colours_are_taken_out_of_kept_lines() {
        assert_eq!(without_colours("\u{1b}[32;1mSummary\u{1b}[0m 3 passed"), "Summary 3 passed");
    }
}
