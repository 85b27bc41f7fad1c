//! `redis`: tasks and results through lists, which workers and requesters wait at.
//!
//! Invariant: a worker sends its result and waits for the next task in one write, so that Redis is
//! asked as little as it can be.
//! Not here: how often Redis syncs its file, which is its configuration.

use std::io::Write;
use std::time::Instant;

use serde_json::Value;

use crate::Pairs;
use crate::error::LoadError;
use crate::reactor::{Conversation, Reactor};
use crate::roundtrip::{RESULT, TASK};
use crate::samples::Samples;

const BULK_BYTES_MAX: usize = 8 * 1024 * 1024;

pub(crate) fn run(arguments: &Pairs) -> Result<Value, LoadError> {
    let mut reactor = Reactor::new()?;
    for _ in 0..2 * arguments.pairs {
        reactor.connect(arguments.server)?;
    }
    let names = |pair: usize| (format!("task:{pair}"), format!("result:{pair}"));
    let mut load = Lists {
        began: vec![Instant::now(); arguments.pairs],
        tasks: Vec::new(),
        results: Vec::new(),
        samples: arguments.window.samples(),
    };
    for pair in 0..arguments.pairs {
        let (task, result) = names(pair);
        let wait_for_task = command(&[b"BRPOP", task.as_bytes(), b"0"]);
        reactor.send(pair, &wait_for_task)?;
        let give_result = command(&[b"LPUSH", result.as_bytes(), RESULT]);
        load.results.push([give_result, wait_for_task].concat());
        let give_task = command(&[b"LPUSH", task.as_bytes(), TASK]);
        let wait_for_result = command(&[b"BRPOP", result.as_bytes(), b"0"]);
        load.tasks.push([give_task, wait_for_result].concat());
    }
    for pair in 0..arguments.pairs {
        load.send_task(&mut reactor, pair)?;
    }
    reactor.run("the load of Redis", load.samples.limit(), &mut load)?;
    Ok(load.samples.summary())
}

/// Workers come first, requesters after them.
struct Lists {
    /// What each requester sends: a task, and that it waits for a result.
    tasks: Vec<Vec<u8>>,
    /// What each worker sends: a result, and that it waits for a task.
    results: Vec<Vec<u8>>,
    began: Vec<Instant>,
    samples: Samples,
}

impl Lists {
    fn send_task(&mut self, reactor: &mut Reactor, pair: usize) -> Result<(), LoadError> {
        self.began[pair] = Instant::now();
        reactor.send(self.results.len() + pair, &self.tasks[pair])
    }

    fn popped(&mut self, reactor: &mut Reactor, id: usize, what: &[u8]) -> Result<(), LoadError> {
        let (wanted, pair) = match id.checked_sub(self.results.len()) {
            None => (TASK, None),
            Some(pair) => (RESULT, Some(pair)),
        };
        if what != wanted {
            return Err(LoadError::unexpected("a list of Redis", what));
        }
        let Some(pair) = pair else { return reactor.send(id, &self.results[id]) };
        self.samples.record(self.began[pair], Instant::now());
        self.send_task(reactor, pair)
    }
}

impl Conversation for Lists {
    fn received(
        &mut self,
        reactor: &mut Reactor,
        id: usize,
        bytes: &[u8],
    ) -> Result<usize, LoadError> {
        let mut used = 0;
        while let Some((said, length)) = read(&bytes[used..])? {
            used += length;
            if let Said::Popped(what) = said {
                self.popped(reactor, id, what)?;
            }
        }
        Ok(used)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.samples.is_over(now)
    }
}

/// What Redis answers to the two commands used here.
#[derive(Debug, PartialEq, Eq)]
enum Said<'a> {
    /// The length of a list that something was put in.
    Pushed,
    /// What was taken from a list.
    Popped(&'a [u8]),
}

/// Reads the answer that `bytes` begin with and its length; `None` when there is more to come.
fn read(bytes: &[u8]) -> Result<Option<(Said<'_>, usize)>, LoadError> {
    let Some((line, mut used)) = first_line(bytes) else { return Ok(None) };
    let refused = || LoadError::protocol("Redis said", &bytes[..bytes.len().min(100)]);
    if line.starts_with(b":") {
        return Ok(Some((Said::Pushed, used)));
    }
    if line != b"*2" {
        return Err(refused());
    }
    let mut found: &[u8] = b"";
    // The name of the list, then what was in it.
    for _ in 0..2 {
        let Some((head, head_bytes)) = first_line(&bytes[used..]) else { return Ok(None) };
        let length =
            head.strip_prefix(b"$").and_then(|n| std::str::from_utf8(n).ok()?.parse().ok());
        let length: usize = length.filter(|n| *n <= BULK_BYTES_MAX).ok_or_else(refused)?;
        let start = used + head_bytes;
        let Some(bulk) = bytes.get(start..start + length + 2) else { return Ok(None) };
        found = &bulk[..length];
        used = start + length + 2;
    }
    Ok(Some((Said::Popped(found), used)))
}

/// The first line and its length with its end.
fn first_line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    Some((&bytes[..end], end + 2))
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to a vector never fails.
    let _ = write!(bytes, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(bytes, "${}\r\n", word.len());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], wanted: Said<'_>) {
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]).unwrap(), None, "{length} bytes");
        }
        let more = [bytes, b":1\r\n"].concat();
        assert_eq!(read(&more).unwrap(), Some((wanted, bytes.len())));
    }

    #[test]
    fn answers_are_read_when_all_of_them_is_there() {
        check(b":12\r\n", Said::Pushed);
        check(b"*2\r\n$6\r\ntask:1\r\n$4\r\n\r\nab\r\n", Said::Popped(b"\r\nab"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bytes in [&b"-ERR no\r\n"[..], b"*-1\r\n", b"*2\r\n$-1\r\n", b"*2\r\n$99999999\r\n"] {
            assert!(read(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_command_has_the_lengths_of_its_words() {
        assert_eq!(
            command(&[b"BRPOP", b"a", b"0"]),
            b"*3\r\n$5\r\nBRPOP\r\n$1\r\na\r\n$1\r\n0\r\n"
        );
    }
}
