//! `gatehouse task send`: hand tasks over, then wait for them.
//!
//! Invariant: every task is handed over before the first is waited for, so that one slow agent does
//! not keep the others from theirs.

use std::time::Duration;

use client::{Client, ClientError, SendOptions};
use serde_json::json;

use super::watch::{Job, Plan};
use super::{SendArgs, body, watch};
use crate::screen::Screen;
use crate::session::Surroundings;
use crate::{CliError, Outcome};

/// How long an answer is waited for when nothing else is said.
const WAIT: Duration = Duration::from_secs(26);
/// How many targets go into one request.
const TARGETS_MAX: usize = 100;

/// Sends what `args` say, and waits unless told not to.
pub(super) fn run(
    args: &SendArgs,
    client: &Client,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let body = body::of(args)?;
    let options =
        SendOptions { priority: args.priority, ttl_secs: args.ttl, retries: args.retries };
    let mut sent = Sent::default();
    for targets in requests(&args.targets) {
        let handed_over = client.enqueue(&targets, &options, &body);
        if let Err(error) = sent.add(&targets, handed_over) {
            // What was handed over before must not be lost sight of.
            if !sent.jobs.is_empty() {
                let ids: Vec<String> = sent.jobs.iter().map(|job| job.id.to_string()).collect();
                screen.note(&format!("sent before this failed: {}", ids.join(" ")));
            }
            return Err(error);
        }
    }
    if sent.jobs.is_empty() {
        return Err(sent.nothing());
    }
    for (target, why) in &sent.failed {
        if screen.json {
            screen.value(&json!({ "target": target, "error": true, "msg": why }))?;
        } else {
            screen.note(&format!("{target}: {why}"));
        }
    }
    let outcome = if sent.failed.is_empty() { Outcome::Fine } else { Outcome::Failed };
    if args.no_wait {
        tell(&sent.jobs, screen)?;
        return Ok(outcome);
    }
    let timeout = args.timeout.map(Duration::from_secs);
    let timeout = timeout.or((!args.follow).then_some(WAIT));
    let plan = Plan { timeout, follow: args.follow };
    Ok(watch::run(sent.jobs, plan, client, around, screen)?.max(outcome))
}

/// The tasks' numbers: the number alone where there is one task.
fn tell(jobs: &[Job], screen: &mut Screen<'_>) -> Result<(), CliError> {
    for job in jobs {
        let id = job.id.to_string();
        let value = json!({ "target": job.target, "id": id, "error": false });
        screen.say(&value, || match &job.target {
            Some(target) if jobs.len() > 1 => format!("{target}\t{id}"),
            _ => id.clone(),
        })?;
    }
    Ok(())
}

/// Targets by request. One with a comma goes alone: it may be the name of one agent.
fn requests(targets: &[String]) -> Vec<String> {
    let (alone, plain): (Vec<&String>, Vec<&String>) =
        targets.iter().partition(|target| target.contains(','));
    let together = plain
        .chunks(TARGETS_MAX)
        .map(|chunk| chunk.iter().map(|target| target.as_str()).collect::<Vec<_>>().join(","));
    together.chain(alone.into_iter().cloned()).collect()
}

/// What came of the requests.
#[derive(Debug, Default)]
struct Sent {
    jobs: Vec<Job>,
    /// Targets that got no task, and why.
    failed: Vec<(String, String)>,
}

impl Sent {
    /// The error when no agent got a task.
    fn nothing(&self) -> CliError {
        let each: Vec<String> =
            self.failed.iter().map(|(target, why)| format!("{target}: {why}")).collect();
        CliError::Refused(match each.as_slice() {
            [] => "no agent has such a name".to_owned(),
            each => each.join("\n"),
        })
    }

    fn add(
        &mut self,
        targets: &str,
        handed_over: Result<wire::dispatch::Enqueued, ClientError>,
    ) -> Result<(), CliError> {
        let handed_over = match handed_over {
            Ok(handed_over) => handed_over,
            // One agent among several that is unknown: the others get theirs.
            Err(ClientError::Refused { status: 404, error }) => {
                self.failed.push((targets.to_owned(), error));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.failed.extend(handed_over.failed);
        let one = handed_over.id.map(|id| (targets.to_owned(), id));
        for (target, id) in one.into_iter().chain(handed_over.ids) {
            let id = id.parse().map_err(|_| {
                CliError::Refused(format!("the server gave `{id}` as the number of a task"))
            })?;
            self.jobs.push(Job::new(Some(target), id));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::requests;

    #[test]
    fn a_name_with_a_comma_is_asked_for_alone() {
        let targets = ["a", "b,c", "d*"].map(str::to_owned);
        assert_eq!(requests(&targets), ["a,d*", "b,c"]);
    }

    #[test]
    fn many_targets_are_several_requests() {
        let targets: Vec<String> = (0..250).map(|n| n.to_string()).collect();
        let lengths: Vec<usize> =
            requests(&targets).iter().map(|request| request.split(',').count()).collect();
        assert_eq!(lengths, [100, 100, 50]);
    }
}
