//! `events`: agents that report one thing after the other, each waiting for its answer.

use std::time::Instant;

use serde_json::Value;

use crate::accounts::Dispatch;
use crate::error::LoadError;
use crate::http::{Answer, request};
use crate::reactor::{Conversation, Reactor};
use crate::samples::Samples;

/// About 100 bytes, as a small event is.
pub(crate) const EVENT: &[u8] =
    br#"{"type":"service","unit":"backup.service","state":"failed","code":1,"message":"no space left"}"#;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    dispatch: Dispatch,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Agents that share the connections; one for each if not given.
    #[arg(long)]
    agents: Option<usize>,
    #[command(flatten)]
    window: crate::Window,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Value, LoadError> {
    let count = arguments.agents.unwrap_or(arguments.connections).max(1);
    let session = arguments.dispatch.sessions(1)?.remove(0);
    let agents = arguments.dispatch.agents(&session, count)?;
    let mut reactor = Reactor::new()?;
    let mut requests = Vec::with_capacity(arguments.connections);
    for number in 0..arguments.connections {
        let authorization = &agents[number % count].authorization;
        requests.push(request("POST", "/events", authorization, EVENT));
        reactor.connect(arguments.dispatch.server)?;
    }
    let began = vec![Instant::now(); requests.len()];
    let mut load = Reporting { requests, began, samples: arguments.window.samples() };
    for id in 0..arguments.connections {
        load.report(&mut reactor, id)?;
    }
    reactor.run("the load of events", load.samples.limit(), &mut load)?;
    Ok(load.samples.summary())
}

struct Reporting {
    /// What each connection sends, over and over.
    requests: Vec<Vec<u8>>,
    began: Vec<Instant>,
    samples: Samples,
}

impl Reporting {
    fn report(&mut self, reactor: &mut Reactor, id: usize) -> Result<(), LoadError> {
        self.began[id] = Instant::now();
        reactor.send(id, &self.requests[id])
    }
}

impl Conversation for Reporting {
    fn received(
        &mut self,
        reactor: &mut Reactor,
        id: usize,
        bytes: &[u8],
    ) -> Result<usize, LoadError> {
        let Some(answer) = Answer::read(bytes)? else { return Ok(0) };
        answer.ok("an event")?;
        self.samples.record(self.began[id], Instant::now());
        self.report(reactor, id)?;
        Ok(answer.used)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.samples.is_over(now)
    }
}
