//! Hands results to the server until it has them.
//!
//! Invariant: one result at a time, oldest first; it leaves the queue when the server has it or has
//! said for good that it does not want it, never because a call failed.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::backoff::Backoff;
use crate::book::{Book, Record};
use crate::connection::{CallError, Connection};
use crate::stop::{Stop, lock};
use crate::task::{Failure, TaskId};

/// Output in a result that the server finds too large is halved down to this, in bytes.
const OUTPUT_BYTES_MIN: usize = 4096;

/// The queue of results.
#[derive(Debug, Default)]
pub(crate) struct Courier {
    queue: Mutex<VecDeque<Record>>,
    changed: Condvar,
    /// Told when the agent ends; what is left is on disk.
    pub(crate) stop: Stop,
}

impl Courier {
    /// Queues a result.
    pub(crate) fn send(&self, record: Record) {
        let mut queue = lock(&self.queue);
        // The newest claim is the one that counts.
        queue.retain(|queued| queued.id != record.id);
        queue.push_back(record);
        drop(queue);
        self.changed.notify_all();
    }

    /// Waits until everything is delivered, at most for `limit`; tells whether it is.
    pub(crate) fn wait_empty(&self, limit: Duration) -> bool {
        let waited =
            self.changed.wait_timeout_while(lock(&self.queue), limit, |queue| !queue.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_empty()
    }

    /// Tells [`Courier::run`] to return.
    pub(crate) fn end(&self) {
        self.stop.request();
        // Taken so that the notice cannot fall between its look and its wait.
        drop(lock(&self.queue));
        self.changed.notify_all();
    }

    /// Delivers until told to end.
    pub(crate) fn run(&self, connection: &Connection, book: &Arc<Book>) {
        let mut backoff = Backoff::default();
        while let Some(record) = self.first() {
            match deliver(connection, &record) {
                Ok(()) => {
                    backoff.reset();
                    self.done(&record, book);
                }
                Err(error) => {
                    let wait = backoff.next(&error);
                    tracing::warn!("task {}: its result waits: {error}", record.id);
                    if self.stop.wait(wait) {
                        return;
                    }
                }
            }
        }
    }

    /// The oldest result; waits for one. None: told to end.
    fn first(&self) -> Option<Record> {
        let waits = |queue: &mut VecDeque<Record>| queue.is_empty() && !self.stop.is_requested();
        let queue = self.changed.wait_while(lock(&self.queue), waits);
        let queue = queue.unwrap_or_else(PoisonError::into_inner);
        if self.stop.is_requested() { None } else { queue.front().cloned() }
    }

    fn done(&self, record: &Record, book: &Book) {
        if let Some(id) = TaskId::parse(&record.id)
            && let Err(error) = book.delivered(&id)
        {
            tracing::warn!("task {id}: its delivered result cannot be put away: {error}");
        }
        // Only this very record: a newer claim may have taken its place meanwhile.
        lock(&self.queue).retain(|queued| queued != record);
        self.changed.notify_all();
    }
}

/// Sends one result. Good also when the server will never want it.
fn deliver(connection: &Connection, record: &Record) -> Result<(), CallError> {
    let Some(id) = TaskId::parse(&record.id) else { return Ok(()) };
    let mut result = record.result.clone().unwrap_or_default();
    loop {
        match connection.send_result(&id, record.claim.as_deref(), &result) {
            Ok(()) => return Ok(()),
            Err(error) if error.is_passing() => return Err(error),
            Err(error) if error.status() == Some(413) => match smaller(&result) {
                Some(less) => result = less,
                None => return Ok(()),
            },
            Err(error) if error.status() == Some(409) => {
                tracing::info!("task {id}: the result came late: {error}");
                return Ok(());
            }
            Err(error) => {
                tracing::error!("task {id}: the server does not take the result: {error}");
                return Ok(());
            }
        }
    }
}

/// A smaller result in place of one that the server finds too large; none when it is small already.
fn smaller(result: &Value) -> Option<Value> {
    const MSG: &str = "the result was too large for the server";
    if result.get("msg").and_then(Value::as_str) == Some(MSG) {
        return None;
    }
    let output = result.get("output").and_then(Value::as_str).unwrap_or_default();
    if output.len() <= OUTPUT_BYTES_MIN {
        return Some(Failure::new(MSG).into_result());
    }
    let mut result = result.clone();
    let half = String::from_utf8_lossy(&output.as_bytes()[..output.len() / 2]);
    result["output"] = half.trim_end_matches('\u{fffd}').into();
    result["truncated"] = true.into();
    Some(result)
}

/// What is left of `limit` since `began`.
pub(crate) fn left(limit: Duration, began: Instant) -> Duration {
    limit.saturating_sub(began.elapsed())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(id: &str, claim: &str) -> Record {
        Record {
            id: id.to_owned(),
            claim: Some(claim.to_owned()),
            digest: String::new(),
            result: Some(json!({})),
        }
    }

    #[test]
    fn a_result_offered_again_is_sent_once_under_the_new_claim() {
        let courier = Courier::default();
        courier.send(record("1", "a"));
        courier.send(record("2", "a"));
        courier.send(record("1", "b"));
        let queue: Vec<_> = lock(&courier.queue).iter().cloned().collect();
        assert_eq!(queue, [record("2", "a"), record("1", "b")]);
    }

    #[test]
    fn a_result_that_is_too_large_loses_output_first_and_then_all() {
        let mut result = json!({"output": "ü".repeat(5000), "status_code": 0});
        let mut lengths = Vec::new();
        while let Some(less) = smaller(&result) {
            lengths.push(less["output"].as_str().map(str::len));
            result = less;
        }
        assert_eq!(lengths, [Some(5000), Some(2500), None]);
        assert_eq!(result["error"], true);
    }

    #[test]
    fn the_end_is_noticed_by_a_courier_that_waits() {
        let courier = Courier::default();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| courier.first());
            courier.end();
            assert_eq!(waiting.join().unwrap(), None);
        });
    }
}
