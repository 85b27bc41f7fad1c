//! The live stream of events, read message by message.
//!
//! Invariant: comments are read over; every read has the deadline.
//! Not here: what the messages mean.

use std::collections::VecDeque;

use serde_json::Value;

use crate::{Connection, Server};

/// One message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its `id:`, empty when it has none.
    pub id: String,
    /// Its `event:`.
    pub event: String,
    /// Its `data:` as JSON.
    pub data: Value,
}

/// A stream that has begun.
#[derive(Debug)]
pub struct Stream {
    connection: Connection,
    text: String,
    ready: VecDeque<Message>,
}

impl Stream {
    /// Asks for a stream; `headers` are whole lines with their ends.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn open(server: &Server, path: &str, headers: &str) -> Self {
        let mut connection = server.connect();
        connection.write(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"));
        let (status, headers) = connection.read_head().expect("an answer");
        assert_eq!(status, 200, "{path}: {headers:?}");
        let kind = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        assert!(kind.is_some_and(|(_, kind)| kind.starts_with("text/event-stream")), "{headers:?}");
        Self { connection, text: String::new(), ready: VecDeque::new() }
    }

    /// The next message.
    ///
    /// # Panics
    /// When the stream ends or the deadline passes first.
    #[must_use]
    pub fn read(&mut self) -> Message {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return message;
            }
            let chunk = self.connection.read_chunk().expect("more of the stream");
            self.text += &String::from_utf8(chunk).expect("text");
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                self.ready.extend(parse(block));
                self.text = rest.to_owned();
            }
        }
    }

    /// The next `count` messages.
    #[must_use]
    pub fn read_many(&mut self, count: usize) -> Vec<Message> {
        (0..count).map(|_| self.read()).collect()
    }
}

/// A block of lines, unless it holds comments alone.
fn parse(block: &str) -> Option<Message> {
    let field = |name: &str| {
        let mut lines = block.lines().filter_map(|line| line.strip_prefix(name));
        lines.next().map(|value| value.strip_prefix(' ').unwrap_or(value).to_owned())
    };
    let data = field("data:")?;
    let data = serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error}: {data}"));
    let event = field("event:").unwrap_or_default();
    Some(Message { id: field("id:").unwrap_or_default(), event, data })
}
