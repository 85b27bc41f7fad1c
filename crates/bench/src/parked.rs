//! `parked`: very many agents that wait for a task, and what they cost a server that does nothing.
//!
//! Invariant: memory and idle time are read while every agent is parked; agents are asked to wait so
//! long that none of them polls again meanwhile.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::accounts::{Agent, Dispatch};
use crate::error::LoadError;
use crate::http::{Answer, contains, request, task_id, write_request};
use crate::process::{Process, allow_files};
use crate::reactor::{Conversation, Reactor, connect_from};
use crate::roundtrip::{RESULT_MARK, TASK, write_result};
use crate::samples::{latencies, nanos_of};

/// Connections from one address of loopback; it has some 28,000 ports.
const PER_ADDRESS: usize = 10_000;
/// Files that a server, or this program, needs for itself.
const SPARE_FILES: u64 = 200;
/// What the server gets to have parked the last agents.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    dispatch: Dispatch,
    /// The process of the server, whose memory is read.
    #[arg(long)]
    pid: u32,
    /// Fewer where the server, or this program, may not have that many files open.
    #[arg(long, default_value_t = 100_000)]
    agents: usize,
    /// How long the server is watched while nothing happens.
    #[arg(long, default_value_t = 10.0)]
    idle_secs: f64,
    /// Tasks sent to random agents, one after the other.
    #[arg(long, default_value_t = 200)]
    tasks: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Value, LoadError> {
    let server = Process(arguments.pid);
    let count = agents_possible(arguments.agents, server)?;
    let session = arguments.dispatch.sessions(1)?.remove(0);
    let before_bytes = server.rss_bytes()?;
    let agents = arguments.dispatch.agents(&session, count)?;
    let enrolled_bytes = server.rss_bytes()?;
    let began = Instant::now();
    let mut reactor = Reactor::new()?;
    let mut load = park(&mut reactor, &arguments.dispatch, session, agents)?;
    load.run_for(&mut reactor, SETTLE)?;
    let parking_secs = began.elapsed().as_secs_f64();
    let parked_bytes = server.rss_bytes()?;
    load.polled_again = 0;
    let (idle, cpu) = (Instant::now(), server.cpu()?);
    load.run_for(&mut reactor, Duration::from_secs_f64(arguments.idle_secs))?;
    let idle_cpu = (server.cpu()? - cpu).as_secs_f64() / idle.elapsed().as_secs_f64();
    let polled_again = load.polled_again;
    load.deliver(&mut reactor, arguments.tasks)?;
    let per_agent = parked_bytes.saturating_sub(before_bytes) as f64 / count.max(1) as f64;
    Ok(json!({
        "agents": count,
        "agents_wanted": arguments.agents,
        "rss_before_bytes": before_bytes,
        "rss_enrolled_bytes": enrolled_bytes,
        "rss_parked_bytes": parked_bytes,
        "rss_after_bytes": server.rss_bytes()?,
        "per_agent_bytes": per_agent,
        "parking_secs": parking_secs,
        "idle_cpu_percent": idle_cpu * 100.0,
        "polled_again_while_idle": polled_again,
        "delivery": latencies(&mut load.deliveries),
        "round_trip": latencies(&mut load.round_trips),
    }))
}

/// How many of `wanted` connections both sides may have open.
fn agents_possible(wanted: usize, server: Process) -> Result<usize, LoadError> {
    let needed = wanted as u64 + SPARE_FILES;
    let files = allow_files(needed)?.min(server.files_max()?);
    let possible = usize::try_from(files.saturating_sub(SPARE_FILES)).unwrap_or(usize::MAX);
    Ok(wanted.min(possible))
}

/// Connects every agent from one of many addresses and lets it poll.
fn park(
    reactor: &mut Reactor,
    dispatch: &Dispatch,
    session: String,
    agents: Vec<Agent>,
) -> Result<Parked, LoadError> {
    for (number, agent) in agents.iter().enumerate() {
        // 127.0.0.2, 127.0.0.3, …: the first one is everybody's.
        let block = u8::try_from(number / PER_ADDRESS + 2).unwrap_or(u8::MAX);
        let stream = connect_from(Ipv4Addr::new(127, 0, 0, block), dispatch.server)?;
        let id = reactor.adopt(stream)?;
        reactor.send(id, &poll_of(agent))?;
    }
    Ok(Parked {
        polling: vec![true; agents.len()],
        agents,
        server: dispatch.server,
        admin: None,
        session,
        until: Instant::now(),
        request: Vec::new(),
        polled_again: 0,
        tasks: 0,
        random: Random(0x9E37_79B9_7F4A_7C15),
        began: Instant::now(),
        deliveries: Vec::new(),
        round_trips: Vec::new(),
    })
}

fn poll_of(agent: &Agent) -> Vec<u8> {
    request("GET", "/tasks?wait=60", &agent.authorization, b"")
}

struct Parked {
    agents: Vec<Agent>,
    /// Whether the agent waits for a task; otherwise for the answer to its result.
    polling: Vec<bool>,
    server: SocketAddrV4,
    /// The connection that sends tasks: opened when it is needed, since a server closes idle ones.
    admin: Option<usize>,
    session: String,
    until: Instant,
    request: Vec<u8>,
    /// Polls that ended without a task.
    polled_again: usize,
    /// Tasks still to be sent.
    tasks: usize,
    random: Random,
    began: Instant,
    deliveries: Vec<u64>,
    round_trips: Vec<u64>,
}

impl Parked {
    fn run_for(&mut self, reactor: &mut Reactor, time: Duration) -> Result<(), LoadError> {
        self.until = Instant::now() + time;
        reactor.run("waiting with parked agents", time + Duration::from_secs(60), self)
    }

    /// Sends `tasks` tasks, each when the last one was answered.
    fn deliver(&mut self, reactor: &mut Reactor, tasks: usize) -> Result<(), LoadError> {
        if tasks == 0 || self.agents.is_empty() {
            return Ok(());
        }
        // Far away: the last result ends it.
        let limit = Duration::from_secs(120);
        self.until = Instant::now() + 2 * limit;
        self.tasks = tasks;
        self.admin = Some(reactor.connect(self.server)?);
        self.send_task(reactor)?;
        reactor.run("delivering to parked agents", limit, self)
    }

    fn send_task(&mut self, reactor: &mut Reactor) -> Result<(), LoadError> {
        self.tasks -= 1;
        let name = &self.agents[self.random.below(self.agents.len())].name;
        let target = format_args!("/tasks?target={name}");
        write_request(&mut self.request, "POST", target, &self.session, TASK);
        self.began = Instant::now();
        match self.admin {
            Some(admin) => reactor.send(admin, &self.request),
            None => Ok(()),
        }
    }

    fn answered_admin(&mut self, reactor: &mut Reactor, body: &[u8]) -> Result<(), LoadError> {
        if !contains(body, RESULT_MARK) {
            return Err(LoadError::unexpected("a task", body));
        }
        self.round_trips.push(nanos_of(self.began.elapsed()));
        if self.tasks == 0 {
            self.until = Instant::now();
            return Ok(());
        }
        self.send_task(reactor)
    }

    fn answered_agent(
        &mut self,
        reactor: &mut Reactor,
        id: usize,
        body: &[u8],
    ) -> Result<(), LoadError> {
        let task = if self.polling[id] { task_id(body) } else { None };
        let was_polling = std::mem::replace(&mut self.polling[id], task.is_none());
        let Some(task) = task else {
            self.polled_again += usize::from(was_polling);
            return reactor.send(id, &poll_of(&self.agents[id]));
        };
        self.deliveries.push(nanos_of(self.began.elapsed()));
        write_result(&mut self.request, task, None, &self.agents[id].authorization);
        reactor.send(id, &self.request)
    }
}

impl Conversation for Parked {
    fn received(
        &mut self,
        reactor: &mut Reactor,
        id: usize,
        bytes: &[u8],
    ) -> Result<usize, LoadError> {
        let Some(answer) = Answer::read(bytes)? else { return Ok(0) };
        let body = answer.ok("a request with parked agents")?;
        if Some(id) == self.admin {
            self.answered_admin(reactor, body)?;
        } else {
            self.answered_agent(reactor, id, body)?;
        }
        Ok(answer.used)
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }
}

/// Numbers that are the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_agents_are_all_over_the_place() {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let seen: std::collections::BTreeSet<usize> = (0..1000).map(|_| random.below(10)).collect();
        assert_eq!(seen, (0..10).collect());
    }
}
