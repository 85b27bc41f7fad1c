//! `gatehouse events`: what agents report, so far and as it comes.
//!
//! Invariant: nothing is skipped silently: a stream goes on where the last one broke off, and what
//! the server had dropped by then is said.

use std::time::Duration;

use client::{Client, ClientError, EventStream, Streamed};
use serde_json::json;

use crate::screen::Screen;
use crate::session::{ServerOptions, Surroundings};
use crate::{CliError, Outcome, shown};

/// How many of the past are shown before those to come.
const LAST: usize = 10;
/// The longest pause before a broken stream is begun again.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Arguments of `gatehouse events`.
#[derive(Debug, Clone, clap::Args)]
pub struct EventsArgs {
    /// Whose events; with --follow everybody's may be meant
    #[arg(required_unless_present = "follow")]
    pub agent: Option<String>,
    /// Go on with events as they come
    #[arg(short, long)]
    pub follow: bool,
    /// Only events after this one
    #[arg(long, value_name = "ID")]
    pub after: Option<u64>,
    /// Only the newest so many [default: all, or 10 with --follow and without --after]
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub last: Option<usize>,
    /// Which server is meant.
    #[command(flatten)]
    pub server: ServerOptions,
}

/// Shows events.
pub(crate) fn run(
    args: &EventsArgs,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let client = around.client(&args.server)?;
    let after = args.after.map(|id| id.to_string());
    let Some(agent) = &args.agent else {
        return follow(&client, None, after, around, screen);
    };
    if args.follow && after.is_some() && args.last.is_none() {
        return follow(&client, Some(agent), after, around, screen);
    }
    let found = client.events(agent, after.as_deref(), None)?;
    let last = args.last.unwrap_or(if args.follow { LAST } else { usize::MAX });
    let skipped = found.details.len().saturating_sub(last);
    for record in &found.details[skipped..] {
        show(screen, agent, &record.id, record.at, &record.event)?;
    }
    if !args.follow {
        return Ok(Outcome::Fine);
    }
    // Without any event so far, the first one to come is after the beginning.
    let newest = found.details.last().map(|record| record.id.clone()).or(after);
    let from = newest.unwrap_or_else(|| "0".to_owned());
    follow(&client, Some(agent), Some(from), around, screen)
}

/// Shows events as they come, until an error that will not pass by itself.
fn follow(
    client: &Client,
    agent: Option<&str>,
    mut cursor: Option<String>,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let mut failures = 0_u32;
    let mut stream = client.event_stream(agent, cursor.as_deref())?;
    loop {
        let why = match show_all(&mut stream, screen, &mut failures)? {
            None => "the server ended the stream".to_owned(),
            Some(error) if error.is_passing() => error.to_string(),
            Some(error) => return Err(error.into()),
        };
        cursor = stream.cursor().map(str::to_owned).or(cursor);
        screen.note(&match &cursor {
            Some(id) => format!("{why}; going on after event {id}"),
            None => format!("{why}; going on, but events in between may be missing"),
        });
        stream = loop {
            if failures > 0 {
                let seconds = 1 << (failures - 1).min(5);
                (around.pause)(Duration::from_secs(seconds).min(PAUSE_MAX));
            }
            failures = failures.saturating_add(1);
            match client.event_stream(agent, cursor.as_deref()) {
                Err(error) if error.is_passing() => screen.note(&error.to_string()),
                begun => break begun?,
            }
        };
    }
}

/// Shows what `stream` brings until it ends or breaks, which is what is given. What came ends the row
/// of failures.
fn show_all(
    stream: &mut EventStream,
    screen: &mut Screen<'_>,
    failures: &mut u32,
) -> Result<Option<ClientError>, CliError> {
    loop {
        match stream.wait() {
            Ok(Some(Streamed::Event { id, event })) => {
                show(screen, &event.agent, &id, event.at, &event.event)?;
            }
            Ok(Some(Streamed::Gap(gap))) if screen.json => {
                screen.value(&json!({ "gap": gap }))?;
            }
            Ok(Some(Streamed::Gap(gap))) => {
                let (agent, before) = (&gap.agent, &gap.before);
                screen.note(&format!(
                    "gap: events of {agent} before {before} were dropped and are not shown"
                ));
            }
            Ok(None) => return Ok(None),
            Err(error) => return Ok(Some(error)),
        }
        *failures = 0;
    }
}

fn show(
    screen: &mut Screen<'_>,
    agent: &str,
    id: &str,
    at: i64,
    event: &wire::dispatch::Json,
) -> Result<(), CliError> {
    if screen.json {
        #[derive(serde::Serialize)]
        struct Line<'a> {
            agent: &'a str,
            id: &'a str,
            at: i64,
            event: &'a wire::dispatch::Json,
        }
        return screen.value(&Line { agent, id, at, event });
    }
    let cells = [id.to_owned(), shown::time(at), shown::line(agent), shown::line(event.get())];
    screen.line(&cells.join(if screen.out_is_terminal { "  " } else { "\t" }))
}
