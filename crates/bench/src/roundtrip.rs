//! `roundtrip`: an admin sends a task, the parked agent takes it and answers, the admin has the
//! result and sends the next.
//!
//! Invariant: an admin is served by its agent alone, so that a task that is late is seen as late.

use std::time::Instant;

use serde_json::Value;

use crate::accounts::{Agent, Dispatch};
use crate::error::LoadError;
use crate::http::{Answer, contains, request, task_id, write_request};
use crate::reactor::{Conversation, Reactor};
use crate::samples::Samples;

pub(crate) const TASK: &[u8] = br#"{"type":"execute_cmd","cmd":"uptime","reason":"routine check"}"#;
pub(crate) const RESULT: &[u8] =
    br#"{"status_code":0,"output":" 10:15:00 up 12 days,  3:02,  load average: 0.10\n"}"#;
/// A part of [`RESULT`] that survives being written anew.
pub(crate) const RESULT_MARK: &[u8] = b"up 12 days";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    dispatch: Dispatch,
    /// Admins, each with a session of its own.
    #[arg(long, default_value_t = 64)]
    admins: usize,
    #[arg(long, default_value_t = 64)]
    agents: usize,
    /// Agents take tasks with a lease of that many seconds and send its claim with the result.
    #[arg(long)]
    lease: Option<u32>,
    #[command(flatten)]
    window: crate::Window,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Value, LoadError> {
    let sessions = arguments.dispatch.sessions(arguments.admins.max(1))?;
    let agents = arguments.dispatch.agents(&sessions[0], arguments.agents)?;
    let mut reactor = Reactor::new()?;
    for _ in 0..agents.len() + sessions.len() {
        reactor.connect(arguments.dispatch.server)?;
    }
    let poll = arguments.lease.map_or("/tasks".to_owned(), |lease| format!("/tasks?lease={lease}"));
    let tasks = sessions.iter().enumerate().map(|(number, session)| {
        let target = format!("/tasks?target={}", agents[number % agents.len()].name);
        request("POST", &target, session, TASK)
    });
    let mut load = RoundTrips {
        tasks: tasks.collect(),
        began: vec![Instant::now(); sessions.len()],
        polls: agents.iter().map(|a| request("GET", &poll, &a.authorization, b"")).collect(),
        polling: vec![true; agents.len()],
        agents,
        request: Vec::new(),
        samples: arguments.window.samples(),
    };
    for id in 0..load.agents.len() {
        reactor.send(id, &load.polls[id])?;
    }
    for admin in 0..load.tasks.len() {
        load.send_task(&mut reactor, admin)?;
    }
    reactor.run("the load of round trips", load.samples.limit(), &mut load)?;
    Ok(load.samples.summary())
}

/// Connections of agents come first, those of admins after them.
struct RoundTrips {
    agents: Vec<Agent>,
    polls: Vec<Vec<u8>>,
    /// Whether the agent waits for a task; otherwise for the answer to its result.
    polling: Vec<bool>,
    tasks: Vec<Vec<u8>>,
    began: Vec<Instant>,
    /// Memory for requests that differ each time.
    request: Vec<u8>,
    samples: Samples,
}

impl RoundTrips {
    fn send_task(&mut self, reactor: &mut Reactor, admin: usize) -> Result<(), LoadError> {
        self.began[admin] = Instant::now();
        reactor.send(self.agents.len() + admin, &self.tasks[admin])
    }

    fn answered_agent(
        &mut self,
        reactor: &mut Reactor,
        id: usize,
        answer: &Answer<'_>,
    ) -> Result<(), LoadError> {
        let body = answer.ok("an agent's request")?;
        let task = if self.polling[id] { task_id(body) } else { None };
        self.polling[id] = task.is_none();
        let Some(task) = task else { return reactor.send(id, &self.polls[id]) };
        write_result(&mut self.request, task, claim(body), &self.agents[id].authorization);
        reactor.send(id, &self.request)
    }
}

impl Conversation for RoundTrips {
    fn received(
        &mut self,
        reactor: &mut Reactor,
        id: usize,
        bytes: &[u8],
    ) -> Result<usize, LoadError> {
        let Some(answer) = Answer::read(bytes)? else { return Ok(0) };
        if let Some(admin) = id.checked_sub(self.agents.len()) {
            let body = answer.ok("a task")?;
            if !contains(body, RESULT_MARK) {
                return Err(LoadError::unexpected("a task", body));
            }
            self.samples.record(self.began[admin], Instant::now());
            self.send_task(reactor, admin)?;
        } else {
            self.answered_agent(reactor, id, &answer)?;
        }
        Ok(answer.used)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.samples.is_over(now)
    }
}

/// Replaces what is in `to` by the request that reports [`RESULT`].
pub(crate) fn write_result(to: &mut Vec<u8>, task: &str, claim: Option<&str>, authorization: &str) {
    match claim {
        Some(claim) => {
            let target = format_args!("/tasks_result?id={task}&claim={claim}");
            write_request(to, "POST", target, authorization, RESULT);
        }
        None => {
            let target = format_args!("/tasks_result?id={task}");
            write_request(to, "POST", target, authorization, RESULT);
        }
    }
}

/// The claim of the one task in an answer to a poll with a lease.
fn claim(body: &[u8]) -> Option<&str> {
    const BEFORE: &[u8] = b"\"claims\":{\"";
    let start = body.windows(BEFORE.len()).position(|part| part == BEFORE)? + BEFORE.len();
    let text = std::str::from_utf8(&body[start..]).ok()?;
    // What is left begins with `17":"CLAIM"`; a claim may be a number as well.
    let value = text.split_once("\":")?.1.trim_start_matches('"');
    value.split(['"', '}', ',']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claim_of_a_poll_is_found() {
        let leased = br#"{"error":false,"events":{"17":{}},"claims":{"17":"a1"},"lease":60}"#;
        assert_eq!(claim(leased), Some("a1"));
        assert_eq!(claim(br#"{"events":{"17":{}},"claims":{"17":3}}"#), Some("3"));
        assert_eq!(claim(br#"{"error":false,"events":{"17":{}}}"#), None);
    }

    #[test]
    fn the_result_is_recognised_in_an_answer() {
        assert!(contains(RESULT, RESULT_MARK));
    }
}
