//! `execute_cmd`, and custom types by executables.
//!
//! Invariant: when the result is made, the command and all that it started have ended, and nobody
//! waits for what they printed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::Workshop;
use crate::output::Output;
use crate::process::{End, Order, Supervised};
use crate::running::Job;
use crate::stop::Stop;
use crate::task::{Failure, Fields, Outcome, failed, nothing};

/// How long the last of the output is waited for when the command has ended.
const PIPE_MAX: Duration = Duration::from_secs(2);
/// How long the server may take for the last of the output; the result has it as well.
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// How much of what a failed executable printed goes into the result, in bytes from its end.
const ERRORS_BYTES_MAX: usize = 4096;
/// How long the answer of an executable may be.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// How a command ended and what it printed.
struct Ran {
    end: End,
    /// Standard output and errors; of an executable, errors alone.
    output: Arc<Output>,
    /// Standard output of an executable.
    answer: Arc<Output>,
    limit: Duration,
}

/// Runs `cmd` in a shell.
pub(super) fn execute(shop: &Arc<Workshop>, job: &Arc<Job>, fields: Fields<'_>) -> Outcome {
    let cmd = fields.text("cmd")?;
    let directory = directory(fields)?;
    let order = Order {
        program: "/bin/sh".into(),
        arguments: vec!["-c".to_owned(), cmd.to_owned()],
        input: None,
        directory,
    };
    let ran = attend(shop, job, &order, limit(shop, fields)?, true)?;
    let (output, truncated) = ran.output.take();
    let output = String::from_utf8_lossy(&output);
    let failure = match ran.end {
        End::Status(code) => {
            let mut result = json!({ "status_code": code, "output": output });
            if truncated {
                result["truncated"] = true.into();
            }
            return Ok(result);
        }
        End::OverTime => over_time(ran.limit),
        End::Cancelled(reason) => Failure::new(reason),
    };
    let failure = failure.with("output", output);
    Err(if truncated { failure.with("truncated", true) } else { failure })
}

/// Runs an executable of the tasks directory: the task on its standard input, the result on its
/// standard output, whatever else it has to say on its standard errors.
pub(super) fn custom(
    shop: &Arc<Workshop>,
    job: &Arc<Job>,
    name: &str,
    program: PathBuf,
    fields: Fields<'_>,
) -> Outcome {
    check_owned(&program)?;
    let order = Order {
        program,
        arguments: Vec::new(),
        input: Some(fields.0.to_string()),
        directory: PathBuf::from("/"),
    };
    let ran = attend(shop, job, &order, limit(shop, fields)?, false)?;
    let (errors, _) = ran.output.take();
    let errors = &errors[errors.len().saturating_sub(ERRORS_BYTES_MAX)..];
    let errors = String::from_utf8_lossy(errors);
    let (answer, too_long) = ran.answer.take();
    let answer: Option<Value> = match answer.trim_ascii() {
        [] => Some(nothing()),
        text => serde_json::from_slice(text).ok(),
    };
    let failure = match (ran.end, answer) {
        (End::OverTime, _) => over_time(ran.limit),
        (End::Cancelled(reason), _) => Failure::new(reason),
        (End::Status(_), _) if too_long => {
            Failure::new(format!("'{name}' answered more than {ANSWER_BYTES_MAX} bytes"))
        }
        (End::Status(0), Some(answer)) => return Ok(answer),
        (End::Status(0), None) => Failure::new(format!("what '{name}' answered is not JSON")),
        // It failed, and says itself why.
        (End::Status(_), Some(answer)) if answer.get("error") == Some(&Value::Bool(true)) => {
            return Ok(answer);
        }
        (End::Status(code), _) => {
            Failure::new(format!("'{name}' exited with status {code}")).with("status_code", code)
        }
    };
    Err(failure.with("output", errors))
}

fn over_time(limit: Duration) -> Failure {
    Failure::new(format!("the command was ended after {} s", limit.as_secs_f64()))
}

fn limit(shop: &Workshop, fields: Fields<'_>) -> Result<Duration, Failure> {
    let secs = fields.secs("timeout", shop.config.command_max.as_secs_f64())?;
    Ok(Duration::from_secs_f64(secs))
}

fn directory(fields: Fields<'_>) -> Result<PathBuf, Failure> {
    match fields.text_if_any("dir")? {
        Some(_) => fields.path("dir"),
        None => Ok("/".into()),
    }
}

/// An executable that others may write is not run: they could make the agent do anything.
fn check_owned(program: &Path) -> Result<(), Failure> {
    let mode = fs::metadata(program).map_err(failed("the executable"))?.permissions().mode();
    if mode & 0o022 != 0 {
        let program = program.display();
        return Err(Failure::new(format!("{program}: others may write it; it is not run")));
    }
    Ok(())
}

/// Runs `order` within `limit`, sends what it prints as it comes, and waits for its end.
fn attend(
    shop: &Arc<Workshop>,
    job: &Arc<Job>,
    order: &Order,
    limit: Duration,
    merged: bool,
) -> Result<Ran, Failure> {
    let no_pipe = || failed("no pipe for the output");
    let output = Arc::new(Output::new(shop.config.output_bytes_max));
    let answer = Arc::new(Output::new(ANSWER_BYTES_MAX));
    let (output_end, errors) = std::io::pipe().map_err(no_pipe())?;
    let supervised = if merged {
        let stdout = errors.try_clone().map_err(no_pipe())?;
        start(shop, order, stdout.into(), errors.into())?
    } else {
        let (answer_end, stdout) = std::io::pipe().map_err(no_pipe())?;
        let supervised = start(shop, order, stdout.into(), errors.into())?;
        let answer = Arc::clone(&answer);
        thread::spawn(move || answer.fill(answer_end));
        supervised
    };
    let filled = Arc::clone(&output);
    thread::spawn(move || filled.fill(output_end));
    let give_up = Arc::new(Stop::default());
    let streamed = {
        let (shop, job) = (Arc::clone(shop), Arc::clone(job));
        let (output, give_up) = (Arc::clone(&output), Arc::clone(&give_up));
        let (done, streamed) = mpsc::channel::<()>();
        thread::spawn(move || {
            output.stream(&shop.connection, &job, &give_up);
            drop(done);
        });
        streamed
    };
    let end = supervised.wait(limit, &job.cancel);
    // Whoever could not be ended may hold the pipes open; that is no reason to wait.
    output.wait_end(PIPE_MAX);
    output.end();
    if !merged {
        answer.wait_end(PIPE_MAX);
    }
    // Nothing is ever sent: an end to waiting is either its end or ours.
    let _ = streamed.recv_timeout(FLUSH_MAX);
    give_up.request();
    let end = end.map_err(failed("the command"))?;
    Ok(Ran { end, output, answer, limit })
}

fn start(
    shop: &Workshop,
    order: &Order,
    output: Stdio,
    errors: Stdio,
) -> Result<Supervised, Failure> {
    Supervised::start(&shop.supervisor, order, output, errors)
        .map_err(failed("the command cannot be started"))
}

/// What `program` prints when it is called with `arguments`, and its status.
pub(super) fn ask(
    shop: &Workshop,
    job: &Job,
    program: &Path,
    arguments: &[&str],
    limit: Duration,
) -> Result<(End, String), Failure> {
    let order = Order {
        program: program.to_owned(),
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        input: None,
        directory: "/".into(),
    };
    let no_pipe = failed("no pipe for the output");
    let output = Arc::new(Output::new(ERRORS_BYTES_MAX));
    let (reader, writer) = std::io::pipe().map_err(no_pipe)?;
    let supervised = start(shop, &order, writer.into(), Stdio::null())?;
    let filled = Arc::clone(&output);
    thread::spawn(move || filled.fill(reader));
    let end = supervised.wait(limit, &job.cancel).map_err(failed("the command"))?;
    output.wait_end(PIPE_MAX);
    Ok((end, String::from_utf8_lossy(&output.take().0).into_owned()))
}
