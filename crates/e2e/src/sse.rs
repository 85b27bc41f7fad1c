//! The live stream of events, read message by message.
//!
//! Invariant: comments are read over; every read has the deadline, signs of life or not.
//! Not here: what the messages mean.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use serde_json::Value;

use crate::{Connection, DEADLINE, Server};

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
    /// The last id that was read.
    cursor: String,
}

impl Stream {
    /// Asks for a stream; `headers` are whole lines with their ends.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn open(server: &Server, path: &str, headers: &str) -> Self {
        Self::over(server.connect(), path, headers).expect("an answer")
    }

    /// As [`Self::open`], at an address where there may be nobody; `None` when there is not.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn try_open(address: SocketAddr, path: &str, headers: &str) -> Option<Self> {
        Self::over(Connection::try_open(address)?, path, headers)
    }

    fn over(mut connection: Connection, path: &str, headers: &str) -> Option<Self> {
        connection.write(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"));
        let (status, headers) = connection.read_head()?;
        assert_eq!(status, 200, "{path}: {headers:?}");
        let kind = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        assert!(kind.is_some_and(|(_, kind)| kind.starts_with("text/event-stream")), "{headers:?}");
        let (text, cursor) = (String::new(), String::new());
        Some(Self { connection, text, ready: VecDeque::new(), cursor })
    }

    /// The last id that was read, of a message or alone: where one goes on.
    #[must_use]
    pub fn cursor(&self) -> &str {
        &self.cursor
    }

    /// The next message.
    ///
    /// # Panics
    /// When the stream ends or the deadline passes first.
    #[must_use]
    pub fn read(&mut self) -> Message {
        let began = Instant::now();
        loop {
            if let Some(message) = self.ready.pop_front() {
                self.cursor.clone_from(&message.id);
                return message;
            }
            let chunk = self.connection.read_chunk().expect("more of the stream");
            self.take(chunk);
            assert!(began.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for a message");
        }
    }

    /// The next message; `None` when the stream ends first, or breaks off.
    ///
    /// # Panics
    /// When the deadline passes first.
    pub fn try_read(&mut self) -> Option<Message> {
        let began = Instant::now();
        while self.ready.is_empty() {
            let chunk = self.connection.try_read_chunk().filter(|chunk| !chunk.is_empty())?;
            self.take(chunk);
            assert!(began.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for a message");
        }
        let message = self.ready.pop_front()?;
        self.cursor.clone_from(&message.id);
        Some(message)
    }

    /// Reads up to the end.
    ///
    /// # Panics
    /// When there is another message, or the stream breaks off.
    pub fn read_end(&mut self) {
        let began = Instant::now();
        assert_eq!(self.ready.pop_front(), None);
        while let Some(chunk) = self.connection.read_chunk() {
            self.take(chunk);
            assert_eq!(self.ready.pop_front(), None);
            assert!(began.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for the end");
        }
    }

    /// Reads until there is a cursor: the stream has begun.
    ///
    /// # Panics
    /// When there is none before the first message.
    pub fn read_begin(&mut self) {
        while self.cursor.is_empty() {
            let chunk = self.connection.read_chunk().expect("a beginning");
            self.take(chunk);
        }
    }

    fn take(&mut self, chunk: Vec<u8>) {
        self.text += &String::from_utf8(chunk).expect("text");
        while let Some((block, rest)) = self.text.split_once("\n\n") {
            match parse(block) {
                Some(message) => self.ready.push_back(message),
                // Behind messages that are still to be read it comes with the next one.
                None if self.ready.is_empty() => {
                    let id = block.lines().find_map(|line| line.strip_prefix("id: "));
                    self.cursor = id.map_or(std::mem::take(&mut self.cursor), str::to_owned);
                }
                None => {}
            }
            self.text = rest.to_owned();
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
