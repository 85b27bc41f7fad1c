//! `gatehouse task …`: send tasks, wait for them, look at them, cancel them.
//!
//! Not here: how a body is put together (`body`), waiting for many at once (`watch`), what is
//! printed of an answer (`report`).

mod body;
mod report;
mod result;
mod send;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use client::{Client, HistoryFilter};
use serde_json::json;
use wire::dispatch::{Task, TaskState};

use crate::audit::tell_of_more;
use crate::screen::Screen;
use crate::session::{ServerOptions, Surroundings};
use crate::table::Table;
use crate::{CliError, Outcome, shown};

/// How long a task's output is waited for in one call.
const OUTPUT_WAIT: Duration = Duration::from_secs(25);

/// For those who call it from scripts; see [`Outcome`].
const EXIT_CODES: &str = "Exit codes: 0 all is well, 1 an error, 2 wrong usage, 3 some task ended with an \
    error (its result says so, its command's exit code was not 0, or it has no result), 4 some task \
    had not ended in time, 130 interrupted.";

/// Arguments of `gatehouse task`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Exit codes: 0 all is well, 1 an error, 2 wrong usage, 3 some task ended with \
    an error (its result says so, its command's exit code was not 0, or it has no result), 4 some \
    task had not ended in time, 130 interrupted."
)]
pub struct TaskArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TaskCommand,
    /// Which server is meant.
    #[command(flatten)]
    pub server: ServerOptions,
}

/// What can be done with tasks.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum TaskCommand {
    /// Send a task to agents and wait for what they answer
    #[command(after_help = EXIT_CODES)]
    Send(SendArgs),
    /// Wait for tasks that were sent
    #[command(after_help = EXIT_CODES)]
    Wait {
        /// Their numbers
        #[arg(required = true, value_name = "ID")]
        ids: Vec<u64>,
        /// Seconds to wait at most [default: no limit]
        #[arg(long, value_name = "SECS", value_parser = seconds())]
        timeout: Option<u64>,
        /// Print what they print while they run
        #[arg(short, long)]
        follow: bool,
    },
    /// Show all that is known of a task
    Show {
        /// Its number
        id: u64,
    },
    /// List tasks, newest first
    List {
        /// Only those of this agent
        #[arg(long, value_name = "AGENT")]
        agent: Option<String>,
        /// Only those that stand here: queued, taken, done, cancelled, expired or dead
        #[arg(long, value_name = "STATE", value_parser = state)]
        state: Option<TaskState>,
        /// Only those older than this one
        #[arg(long, value_name = "ID")]
        before: Option<u64>,
        /// At most so many [default: 100]
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=1000))]
        limit: Option<u64>,
    },
    /// Take tasks back
    Cancel {
        /// Their numbers
        #[arg(required = true, value_name = "ID")]
        ids: Vec<u64>,
    },
    /// Print what a task's command printed so far
    Output {
        /// Its number
        id: u64,
        /// Go on until it has ended
        #[arg(short, long)]
        follow: bool,
        /// Begin at this byte
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        offset: u64,
    },
}

/// Arguments of `gatehouse task send`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct SendArgs {
    /// Names of agents; `web-*` is every agent whose name begins so
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,
    /// What kind of task it is: proclist, systeminfo, … [default with --cmd: execute_cmd]
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// A command to run there
    #[arg(long, value_name = "COMMAND", group = "body", allow_hyphen_values = true)]
    pub cmd: Option<String>,
    /// The task itself
    #[arg(long, value_name = "JSON", group = "body")]
    pub json_body: Option<String>,
    /// A file that holds the task itself, - for standard input
    #[arg(long, value_name = "FILE", group = "body")]
    pub body_file: Option<PathBuf>,
    /// Print the tasks' numbers and do not wait
    #[arg(long, conflicts_with_all = ["timeout", "follow"])]
    pub no_wait: bool,
    /// Seconds to wait at most [default: 26, or no limit with --follow]
    #[arg(long, value_name = "SECS", value_parser = seconds())]
    pub timeout: Option<u64>,
    /// Higher goes first, -100 to 100 [default: 0]
    #[arg(
        long, value_name = "NUMBER", allow_negative_numbers = true,
        value_parser = clap::value_parser!(i64).range(-100..=100)
    )]
    pub priority: Option<i64>,
    /// Seconds after which it is void if no agent has taken it [default: no limit]
    #[arg(long, value_name = "SECS")]
    pub ttl: Option<u64>,
    /// How often it may be offered again [default: the server's]
    #[arg(long, value_name = "COUNT")]
    pub retries: Option<u32>,
    /// Print what it prints while it runs
    #[arg(short, long)]
    pub follow: bool,
}

/// A month is as good as no limit.
fn seconds() -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(..=31 * 24 * 3600)
}

fn state(text: &str) -> Result<TaskState, String> {
    TaskState::ALL.into_iter().find(|state| state.name() == text).ok_or_else(|| {
        let names = TaskState::ALL.map(TaskState::name);
        format!("expected one of {}", names.join(", "))
    })
}

/// Does what `gatehouse task` is asked for.
pub(crate) fn run(
    args: &TaskArgs,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let client = around.client(&args.server)?;
    match &args.command {
        TaskCommand::Send(args) => send::run(args, &client, around, screen),
        TaskCommand::Wait { ids, timeout, follow } => {
            let jobs = ids.iter().map(|id| watch::Job::new(None, *id)).collect();
            let plan = watch::Plan { timeout: timeout.map(Duration::from_secs), follow: *follow };
            watch::run(jobs, plan, &client, around, screen)
        }
        TaskCommand::Show { id } => show(&client.task(*id, Duration::ZERO)?, screen),
        TaskCommand::List { agent, state, before, limit } => {
            let before = before.map(|id| id.to_string());
            let filter =
                HistoryFilter { agent: agent.clone(), state: *state, before, limit: *limit };
            list(&client, &filter, screen)
        }
        TaskCommand::Cancel { ids } => cancel(&client, ids, screen),
        TaskCommand::Output { id, follow, offset } => {
            output(&client, *id, *offset, *follow, screen)
        }
    }
}

fn show(task: &Task, screen: &mut Screen<'_>) -> Result<Outcome, CliError> {
    if screen.json {
        screen.value(task)?;
        return Ok(Outcome::Fine);
    }
    let time = |at: Option<i64>| at.map(shown::time);
    let fields = [
        ("task", Some(task.id.clone())),
        ("agent", Some(task.agent.clone())),
        ("state", Some(task.state.name().to_owned())),
        ("reason", task.reason.clone()),
        ("priority", Some(task.priority.to_string())),
        ("attempts", Some(task.attempts.to_string())),
        ("sent by", task.by.clone()),
        ("sent", time(task.enqueued_at)),
        ("taken", time(task.taken_at)),
        ("ended", time(task.ended_at)),
        ("expires", time(task.expires_at)),
        ("body", task.body.as_ref().map(|body| shown::json(body.get()))),
        ("result", task.result.as_ref().map(|result| shown::json(result.get()))),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            screen.line(&format!("{:<10}{value}", format!("{name}:")))?;
        }
    }
    Ok(Outcome::Fine)
}

fn list(
    client: &Client,
    filter: &HistoryFilter,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let page = client.history(filter)?;
    let mut table = Table::new(["ID", "AGENT", "STATE", "SENT", "BY", "TASK"]);
    for task in &page.tasks {
        let sent = task.enqueued_at.map(shown::time).unwrap_or_default();
        let by = task.by.clone().unwrap_or_default();
        let what = task.body.as_ref().map(|body| body::summary(body.get())).unwrap_or_default();
        table.row([&task.id, &task.agent, task.state.name(), &sent, &by, &what]);
    }
    screen.list(&page, &table)?;
    tell_of_more(screen, page.next.as_deref());
    Ok(Outcome::Fine)
}

/// Cancels all that can be; one that cannot does not keep the others.
fn cancel(client: &Client, ids: &[u64], screen: &mut Screen<'_>) -> Result<Outcome, CliError> {
    let mut outcome = Outcome::Fine;
    for id in ids {
        match client.cancel_task(*id) {
            Ok(state) => {
                let value = json!({ "id": id.to_string(), "error": false, "state": state });
                screen.say(&value, || format!("task {id}: {}", state.name()))?;
            }
            Err(client::ClientError::Refused { status: 404 | 409, error }) => {
                outcome = Outcome::Failed;
                if screen.json {
                    screen.value(&json!({ "id": id.to_string(), "error": true, "msg": error }))?;
                } else {
                    screen.note(&format!("task {id}: {error}"));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(outcome)
}

fn output(
    client: &Client,
    id: u64,
    mut offset: u64,
    follow: bool,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let wait = if follow { OUTPUT_WAIT } else { Duration::ZERO };
    let mut text = report::Text::default();
    loop {
        let part = client.task_output(id, offset, wait)?;
        if screen.json && !part.bytes.is_empty() {
            let output = String::from_utf8_lossy(&part.bytes);
            screen.value(&json!({ "id": id.to_string(), "offset": offset, "output": output }))?;
        } else if !screen.json {
            screen.foreign(&text.push(&part.bytes))?;
        }
        // Without --follow, what is there now is all that is wanted.
        if part.ended || (!follow && part.next <= offset) {
            screen.foreign(&text.rest())?;
            return Ok(Outcome::Fine);
        }
        offset = part.next.max(offset);
    }
}

#[cfg(test)]
mod tests;
