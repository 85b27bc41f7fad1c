//! `fill`: makes a full table, through the door that everybody uses.
//!
//! Invariant: each task was queued, taken and answered, so that history is what work leaves behind.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::accounts::{Agent, Dispatch};
use crate::error::LoadError;
use crate::http::{Answer, request};
use crate::reactor::{Conversation, Reactor};
use crate::roundtrip::{TASK, write_result};

const CONNECTIONS: usize = 64;
/// Agents that one request gives a task to.
const TARGETS: usize = 100;
/// Tasks that one poll takes.
const POLL_MAX: usize = 100;
const LIMIT: Duration = Duration::from_secs(1800);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    dispatch: Dispatch,
    #[arg(long, default_value_t = 10_000)]
    agents: usize,
    /// Rounded down to a multiple of the agents.
    #[arg(long, default_value_t = 1_000_000)]
    tasks: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Value, LoadError> {
    let began = Instant::now();
    let session = arguments.dispatch.sessions(1)?.remove(0);
    let agents = arguments.dispatch.agents(&session, arguments.agents.max(1))?;
    let each = arguments.tasks / agents.len();
    queue(&arguments.dispatch, &session, &agents, each)?;
    let answered = answer(&arguments.dispatch, &agents, each)?;
    let wanted = each * agents.len();
    if answered != wanted {
        let what = format!("{answered} tasks were delivered, {wanted} were queued");
        return Err(LoadError::Protocol(what));
    }
    let secs = began.elapsed().as_secs_f64();
    Ok(json!({"agents": agents.len(), "tasks": answered, "secs": secs}))
}

/// Gives `each` tasks to every agent.
fn queue(
    dispatch: &Dispatch,
    session: &str,
    agents: &[Agent],
    each: usize,
) -> Result<(), LoadError> {
    let requests = agents.chunks(TARGETS).map(|chunk| {
        let names: Vec<&str> = chunk.iter().map(|agent| agent.name.as_str()).collect();
        request("POST", &format!("/tasks?target={}&noWait=1", names.join(",")), session, TASK)
    });
    let requests: Vec<Vec<u8>> = requests.collect();
    let wanted = requests.len() * each;
    let mut reactor = Reactor::new()?;
    let mut queueing = Queueing { requests, next: 0, queued: 0, wanted };
    for _ in 0..CONNECTIONS {
        let id = reactor.connect(dispatch.server)?;
        queueing.send_next(&mut reactor, id)?;
    }
    reactor.run("queueing tasks", LIMIT, &mut queueing)
}

struct Queueing {
    requests: Vec<Vec<u8>>,
    next: usize,
    queued: usize,
    wanted: usize,
}

impl Queueing {
    fn send_next(&mut self, reactor: &mut Reactor, id: usize) -> Result<(), LoadError> {
        if self.next == self.wanted {
            return Ok(());
        }
        self.next += 1;
        reactor.send(id, &self.requests[self.next % self.requests.len()])
    }
}

impl Conversation for Queueing {
    fn received(
        &mut self,
        reactor: &mut Reactor,
        id: usize,
        bytes: &[u8],
    ) -> Result<usize, LoadError> {
        let Some(answer) = Answer::read(bytes)? else { return Ok(0) };
        answer.ok("tasks for many agents")?;
        self.queued += 1;
        self.send_next(reactor, id)?;
        Ok(answer.used)
    }

    fn is_over(&self, _: Instant) -> bool {
        self.queued == self.wanted
    }
}

/// Lets every agent take its tasks and answer them; returns how many there were.
fn answer(dispatch: &Dispatch, agents: &[Agent], each: usize) -> Result<usize, LoadError> {
    let mut reactor = Reactor::new()?;
    let turns = if each == 0 { 0 } else { agents.len() };
    let mut answering = Answering {
        agents: &agents[..turns],
        each,
        next: 0,
        seats: Vec::new(),
        finished: 0,
        answered: 0,
        request: Vec::new(),
    };
    for _ in 0..CONNECTIONS.min(turns) {
        let id = reactor.connect(dispatch.server)?;
        answering.seats.push(Seat::default());
        answering.next_agent(&mut reactor, id)?;
    }
    reactor.run("answering tasks", LIMIT, &mut answering)?;
    Ok(answering.answered)
}

/// What goes on at one connection: the tasks of one agent, then of the next.
#[derive(Default)]
struct Seat {
    agent: usize,
    /// Ids taken and not answered.
    taken: Vec<String>,
    /// Tasks of this agent that were answered.
    answered: usize,
}

struct Answering<'a> {
    agents: &'a [Agent],
    each: usize,
    next: usize,
    seats: Vec<Seat>,
    finished: usize,
    answered: usize,
    request: Vec<u8>,
}

impl Answering<'_> {
    fn next_agent(&mut self, reactor: &mut Reactor, id: usize) -> Result<(), LoadError> {
        if self.next == self.agents.len() {
            return Ok(());
        }
        self.seats[id] = Seat { agent: self.next, ..Seat::default() };
        self.next += 1;
        self.poll(reactor, id)
    }

    fn poll(&mut self, reactor: &mut Reactor, id: usize) -> Result<(), LoadError> {
        let agent = &self.agents[self.seats[id].agent];
        let target = format!("/tasks?max={POLL_MAX}&wait=0");
        reactor.send(id, &request("GET", &target, &agent.authorization, b""))
    }

    fn send_result(&mut self, reactor: &mut Reactor, id: usize) -> Result<(), LoadError> {
        let seat = &mut self.seats[id];
        let Some(task) = seat.taken.pop() else {
            if seat.answered < self.each {
                return self.poll(reactor, id);
            }
            self.finished += 1;
            return self.next_agent(reactor, id);
        };
        seat.answered += 1;
        let agent = &self.agents[seat.agent];
        write_result(&mut self.request, &task, None, &agent.authorization);
        self.answered += 1;
        reactor.send(id, &self.request)
    }
}

impl Conversation for Answering<'_> {
    fn received(
        &mut self,
        reactor: &mut Reactor,
        id: usize,
        bytes: &[u8],
    ) -> Result<usize, LoadError> {
        let Some(answer) = Answer::read(bytes)? else { return Ok(0) };
        let body = answer.ok("an agent's request")?;
        // The answer to a result is empty; one to a poll must have tasks, for some are left.
        if !body.is_empty() {
            self.seats[id].taken = task_ids(body);
            if self.seats[id].taken.is_empty() {
                return Err(LoadError::unexpected("a poll for tasks that wait", body));
            }
        }
        self.send_result(reactor, id)?;
        Ok(answer.used)
    }

    fn is_over(&self, _: Instant) -> bool {
        self.finished == self.agents.len()
    }
}

/// All ids in an answer to a poll.
fn task_ids(body: &[u8]) -> Vec<String> {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let tasks = answer["events"].as_object();
    tasks.map(|tasks| tasks.keys().cloned().collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tasks_of_a_poll_are_found() {
        assert_eq!(task_ids(br#"{"error":false,"events":{"7":{},"9":{"a":1}}}"#), ["7", "9"]);
        assert!(task_ids(br#"{"events":{}}"#).is_empty() && task_ids(b"").is_empty());
    }
}
