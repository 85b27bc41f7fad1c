//! `jetstream`: tasks through a work-queue stream, results through a second stream, both stored in
//! files; `jetstream-events`: events, each acknowledged.
//!
//! Invariant: nobody goes on before the server has stored what it depends on. A worker acknowledges
//! its task when its result is stored; the requester reads the result from the stream.
//! Not here: how often the server syncs its files, which is its configuration.

use std::time::Instant;

use serde_json::{Value, json};

use crate::Pairs;
use crate::error::LoadError;
use crate::events::EVENT;
use crate::http::contains;
use crate::nats::{self, Asker, Message, Messages, Spoken, publish};
use crate::reactor::Reactor;
use crate::roundtrip::{RESULT, TASK};
use crate::samples::Samples;

/// Old messages give way, so that a long run needs no more disk than a short one.
const MESSAGES_MAX: u32 = 200_000;
const PULL: &str = r#"{"batch":1,"expires":60000000000}"#;
const PULL_NEXT: &str = r#"+NXT {"batch":1,"expires":60000000000}"#;
/// Subscriptions of a worker.
const TASKS: &str = "1";

/// Round trips.
pub(crate) fn run(arguments: &Pairs) -> Result<Value, LoadError> {
    let mut asker = Asker::new(arguments.server)?;
    make_stream(&mut asker, "TASKS", "task.*", "workqueue")?;
    make_stream(&mut asker, "RESULTS", "result.*", "limits")?;
    let mut reactor = Reactor::new()?;
    let pairs = arguments.pairs;
    for pair in 0..pairs {
        make_worker_queue(&mut asker, pair)?;
        let inboxes = [format!("_TASK.{pair}"), format!("_ACK.{pair}")];
        reactor.adopt(nats::connect(arguments.server, &[&inboxes[0], &inboxes[1]])?)?;
    }
    let mut tasks = Vec::with_capacity(pairs);
    for pair in 0..pairs {
        // Somebody must listen when the push consumer is made.
        let inbox = format!("_RESULT.{pair}");
        reactor.adopt(nats::connect(arguments.server, &[&inbox])?)?;
        make_result_feed(&mut asker, pair, &inbox)?;
        let mut task = Vec::new();
        publish(&mut task, &format!("task.{pair}"), "", TASK);
        tasks.push(task);
    }
    let mut load = RoundTrips {
        began: vec![Instant::now(); pairs],
        unacknowledged: vec![String::new(); pairs],
        tasks,
        scratch: Vec::new(),
        samples: arguments.window.samples(),
    };
    for pair in 0..pairs {
        load.pull(&mut reactor, pair)?;
        load.send_task(&mut reactor, pair)?;
    }
    let limit = load.samples.limit();
    let mut load = Spoken(load);
    reactor.run("the load of JetStream", limit, &mut load)?;
    Ok(load.0.samples.summary())
}

/// Makes a stream anew.
fn make_stream(
    asker: &mut Asker,
    name: &str,
    subjects: &str,
    retention: &str,
) -> Result<(), LoadError> {
    // It may be left from an earlier load, or not be there.
    let _ = asker.ask(&format!("$JS.API.STREAM.DELETE.{name}"), &json!({}));
    let stream = json!({
        "name": name, "subjects": [subjects], "retention": retention, "storage": "file",
        "discard": "old", "max_msgs": MESSAGES_MAX, "num_replicas": 1,
    });
    asker.ask(&format!("$JS.API.STREAM.CREATE.{name}"), &stream)?;
    Ok(())
}

/// The tasks of one worker, which it pulls and acknowledges one by one.
fn make_worker_queue(asker: &mut Asker, pair: usize) -> Result<(), LoadError> {
    let consumer = json!({"stream_name": "TASKS", "config": {
        "durable_name": format!("worker{pair}"), "filter_subject": format!("task.{pair}"),
        "ack_policy": "explicit", "deliver_policy": "all",
    }});
    asker.ask(&format!("$JS.API.CONSUMER.DURABLE.CREATE.TASKS.worker{pair}"), &consumer)?;
    Ok(())
}

/// The results for one requester, sent to it as soon as they are stored.
fn make_result_feed(asker: &mut Asker, pair: usize, inbox: &str) -> Result<(), LoadError> {
    let consumer = json!({"stream_name": "RESULTS", "config": {
        "deliver_subject": inbox, "filter_subject": format!("result.{pair}"),
        "ack_policy": "none", "deliver_policy": "new",
    }});
    asker.ask("$JS.API.CONSUMER.CREATE.RESULTS", &consumer)?;
    Ok(())
}

/// Workers come first, requesters after them.
struct RoundTrips {
    tasks: Vec<Vec<u8>>,
    began: Vec<Instant>,
    /// Where each worker acknowledges the task it does.
    unacknowledged: Vec<String>,
    scratch: Vec<u8>,
    samples: Samples,
}

impl RoundTrips {
    fn send_task(&mut self, reactor: &mut Reactor, pair: usize) -> Result<(), LoadError> {
        self.began[pair] = Instant::now();
        reactor.send(self.tasks.len() + pair, &self.tasks[pair])
    }

    fn publish(
        &mut self,
        reactor: &mut Reactor,
        id: usize,
        subject: &str,
        reply: &str,
        payload: &str,
    ) -> Result<(), LoadError> {
        self.scratch.clear();
        publish(&mut self.scratch, subject, reply, payload.as_bytes());
        reactor.send(id, &self.scratch)
    }

    fn pull(&mut self, reactor: &mut Reactor, worker: usize) -> Result<(), LoadError> {
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.TASKS.worker{worker}");
        self.publish(reactor, worker, &subject, &format!("_TASK.{worker}"), PULL)
    }

    fn worker_got(
        &mut self,
        reactor: &mut Reactor,
        worker: usize,
        message: &Message<'_>,
    ) -> Result<(), LoadError> {
        if message.subscription == TASKS && !message.headers.is_empty() {
            // The pull ended without a task.
            return self.pull(reactor, worker);
        }
        if message.subscription == TASKS {
            message.reply.clone_into(&mut self.unacknowledged[worker]);
            self.scratch.clear();
            let (subject, inbox) = (format!("result.{worker}"), format!("_ACK.{worker}"));
            publish(&mut self.scratch, &subject, &inbox, RESULT);
            return reactor.send(worker, &self.scratch);
        }
        check_stored(message)?;
        let acknowledge = std::mem::take(&mut self.unacknowledged[worker]);
        self.publish(reactor, worker, &acknowledge, &format!("_TASK.{worker}"), PULL_NEXT)
    }
}

impl Messages for RoundTrips {
    fn message(
        &mut self,
        reactor: &mut Reactor,
        id: usize,
        message: &Message<'_>,
    ) -> Result<(), LoadError> {
        let Some(pair) = id.checked_sub(self.tasks.len()) else {
            return self.worker_got(reactor, id, message);
        };
        if message.payload != RESULT {
            return Err(LoadError::unexpected("a task through JetStream", message.payload));
        }
        self.samples.record(self.began[pair], Instant::now());
        self.send_task(reactor, pair)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.samples.is_over(now)
    }
}

/// Refuses an acknowledgement of a publication that does not say where the message is stored.
fn check_stored(message: &Message<'_>) -> Result<(), LoadError> {
    if message.headers.is_empty() && contains(message.payload, b"\"seq\":") {
        return Ok(());
    }
    let said = [message.headers, message.payload].concat();
    Err(LoadError::unexpected("a publication to JetStream", &said))
}

/// Events, each of which waits for its acknowledgement.
pub(crate) fn run_events(arguments: &Pairs) -> Result<Value, LoadError> {
    let mut asker = Asker::new(arguments.server)?;
    make_stream(&mut asker, "EVENTS", "event.*", "limits")?;
    let mut reactor = Reactor::new()?;
    let mut events = Vec::with_capacity(arguments.pairs);
    for number in 0..arguments.pairs {
        let inbox = format!("_EVENT.{number}");
        reactor.adopt(nats::connect(arguments.server, &[&inbox])?)?;
        let mut event = Vec::new();
        publish(&mut event, &format!("event.{number}"), &inbox, EVENT);
        events.push(event);
    }
    let began = vec![Instant::now(); events.len()];
    let mut load = Reporting { events, began, samples: arguments.window.samples() };
    for id in 0..arguments.pairs {
        load.report(&mut reactor, id)?;
    }
    let limit = load.samples.limit();
    let mut load = Spoken(load);
    reactor.run("the events of JetStream", limit, &mut load)?;
    Ok(load.0.samples.summary())
}

struct Reporting {
    events: Vec<Vec<u8>>,
    began: Vec<Instant>,
    samples: Samples,
}

impl Reporting {
    fn report(&mut self, reactor: &mut Reactor, id: usize) -> Result<(), LoadError> {
        self.began[id] = Instant::now();
        reactor.send(id, &self.events[id])
    }
}

impl Messages for Reporting {
    fn message(
        &mut self,
        reactor: &mut Reactor,
        id: usize,
        message: &Message<'_>,
    ) -> Result<(), LoadError> {
        check_stored(message)?;
        self.samples.record(self.began[id], Instant::now());
        self.report(reactor, id)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.samples.is_over(now)
    }
}
