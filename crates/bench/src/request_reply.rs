//! `nats`: requests that are answered at once, through a server that stores nothing.

use std::time::Instant;

use serde_json::Value;

use crate::Pairs;
use crate::error::LoadError;
use crate::nats::{self, Message, Messages, Spoken, publish};
use crate::reactor::Reactor;
use crate::roundtrip::{RESULT, TASK};
use crate::samples::Samples;

pub(crate) fn run(arguments: &Pairs) -> Result<Value, LoadError> {
    let mut reactor = Reactor::new()?;
    let mut requests = Vec::with_capacity(arguments.pairs);
    for pair in 0..arguments.pairs {
        reactor.adopt(nats::connect(arguments.server, &[&format!("ask.{pair}")])?)?;
    }
    for pair in 0..arguments.pairs {
        let inbox = format!("_INBOX.{pair}");
        reactor.adopt(nats::connect(arguments.server, &[&inbox])?)?;
        let mut request = Vec::new();
        publish(&mut request, &format!("ask.{pair}"), &inbox, TASK);
        requests.push(request);
    }
    let began = vec![Instant::now(); arguments.pairs];
    let samples = arguments.window.samples();
    let mut load = RequestReply { requests, began, scratch: Vec::new(), samples };
    for pair in 0..arguments.pairs {
        load.request(&mut reactor, pair)?;
    }
    let limit = load.samples.limit();
    let mut load = Spoken(load);
    reactor.run("the load of NATS", limit, &mut load)?;
    Ok(load.0.samples.summary())
}

/// Who answer come first, who ask after them.
struct RequestReply {
    requests: Vec<Vec<u8>>,
    began: Vec<Instant>,
    scratch: Vec<u8>,
    samples: Samples,
}

impl RequestReply {
    fn request(&mut self, reactor: &mut Reactor, pair: usize) -> Result<(), LoadError> {
        self.began[pair] = Instant::now();
        reactor.send(self.requests.len() + pair, &self.requests[pair])
    }
}

impl Messages for RequestReply {
    fn message(
        &mut self,
        reactor: &mut Reactor,
        id: usize,
        message: &Message<'_>,
    ) -> Result<(), LoadError> {
        if let Some(pair) = id.checked_sub(self.requests.len()) {
            if message.payload != RESULT {
                let said = [message.headers, message.payload].concat();
                return Err(LoadError::unexpected("a request to NATS", &said));
            }
            self.samples.record(self.began[pair], Instant::now());
            return self.request(reactor, pair);
        }
        self.scratch.clear();
        publish(&mut self.scratch, message.reply, "", RESULT);
        reactor.send(id, &self.scratch)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.samples.is_over(now)
    }
}
