//! The text protocol of NATS, as far as a load needs it, and a connection that was greeted.
//!
//! Invariant: a message is given only when all of it is there.
//! Not here: what is measured ([`crate::request_reply`], [`crate::jetstream`]).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::error::LoadError;
use crate::reactor::{Conversation, Reactor, connect_from};

const LINE_BYTES_MAX: usize = 64 * 1024;
const PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Where answers to the questions of a setup go.
const SETUP_INBOX: &str = "_SETUP";

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    /// Its greeting, or that it heard us; nothing to do.
    Info,
    Pong,
    /// Wants a pong.
    Ping,
    Message(Message<'a>),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// The number that we gave the subscription.
    pub(crate) subscription: &'a str,
    /// Where an answer goes; empty when none is wanted.
    pub(crate) reply: &'a str,
    /// Raw headers with the status line; empty for most.
    pub(crate) headers: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// Reads what `bytes` begin with and its length; `None` when there is more to come.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(Said<'_>, usize)>, LoadError> {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else {
        if bytes.len() > LINE_BYTES_MAX {
            return Err(LoadError::protocol("NATS: a line has no end", bytes));
        }
        return Ok(None);
    };
    let (line, rest) = (&bytes[..end], &bytes[end + 2..]);
    let refused = || LoadError::protocol("NATS said", line);
    let text = std::str::from_utf8(line).map_err(|_| refused())?;
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let said = match words.next().unwrap_or_default() {
        "MSG" | "HMSG" => {
            let message = read_message(text, rest).ok_or_else(refused)?;
            return Ok(message.map(|(message, used)| (Said::Message(message), end + 2 + used)));
        }
        "INFO" | "+OK" => Said::Info,
        "PING" => Said::Ping,
        "PONG" => Said::Pong,
        _ => return Err(refused()),
    };
    Ok(Some((said, end + 2)))
}

/// `MSG subject sid [reply] bytes`, `HMSG subject sid [reply] header-bytes bytes`, and what follows.
/// The outer `None`: not that; the inner: more to come.
fn read_message<'a>(line: &'a str, rest: &'a [u8]) -> Option<Option<(Message<'a>, usize)>> {
    let mut words = [""; 6];
    let mut count = 0;
    for word in line.split(' ').filter(|word| !word.is_empty()) {
        *words.get_mut(count)? = word;
        count += 1;
    }
    let numbers = if words[0] == "HMSG" { 2 } else { 1 };
    let reply = match count.checked_sub(3 + numbers)? {
        0 => "",
        1 => words[3],
        _ => return None,
    };
    let total: usize = words[count - 1].parse().ok()?;
    let headers: usize = if numbers == 2 { words[count - 2].parse().ok()? } else { 0 };
    if total > PAYLOAD_BYTES_MAX || headers > total {
        return None;
    }
    if rest.len() < total + 2 {
        return Some(None);
    }
    let (headers, payload) = rest[..total].split_at(headers);
    let message = Message { subscription: words[2], reply, headers, payload };
    (&rest[total..total + 2] == b"\r\n").then_some(Some((message, total + 2)))
}

/// Adds a publication; `reply` may be empty.
pub(crate) fn publish(to: &mut Vec<u8>, subject: &str, reply: &str, payload: &[u8]) {
    // Writing to a vector never fails; two blanks count as one.
    let _ = write!(to, "PUB {subject} {reply} {}\r\n", payload.len());
    to.extend_from_slice(payload);
    to.extend_from_slice(b"\r\n");
}

/// A connection that the server has greeted and that has subscribed to `subjects`, numbered from 1.
pub(crate) fn connect(server: SocketAddrV4, subjects: &[&str]) -> Result<TcpStream, LoadError> {
    Ok(Asker::connect(server, subjects)?.stream)
}

/// A connection that waits for each answer: for preparations, which are not measured.
pub(crate) struct Asker {
    stream: TcpStream,
    inbox: Vec<u8>,
}

impl Asker {
    /// Connects, subscribes, and waits until the server has done both.
    fn connect(server: SocketAddrV4, subjects: &[&str]) -> Result<Self, LoadError> {
        let stream = connect_from(Ipv4Addr::LOCALHOST, server)?;
        let limit = Some(Duration::from_secs(30));
        stream.set_read_timeout(limit).map_err(LoadError::io("connection"))?;
        let mut asker = Self { stream, inbox: Vec::new() };
        let mut greeting = br#"CONNECT {"verbose":false,"pedantic":false,"headers":true}"#.to_vec();
        greeting.extend_from_slice(b"\r\n");
        for (subject, number) in subjects.iter().zip(1..) {
            let _ = write!(greeting, "SUB {subject} {number}\r\n");
        }
        greeting.extend_from_slice(b"PING\r\n");
        asker.send(&greeting)?;
        asker.until(|said| matches!(said, Said::Pong).then_some(()))?;
        Ok(asker)
    }

    /// One that may ask questions.
    pub(crate) fn new(server: SocketAddrV4) -> Result<Self, LoadError> {
        Self::connect(server, &[SETUP_INBOX])
    }

    /// Asks JetStream's own interface; an answer with an error is one here.
    pub(crate) fn ask(&mut self, subject: &str, question: &Value) -> Result<Value, LoadError> {
        let mut bytes = Vec::new();
        publish(&mut bytes, subject, SETUP_INBOX, question.to_string().as_bytes());
        self.send(&bytes)?;
        let payload = self.until(|said| match said {
            Said::Message(message) => Some(message.payload.to_vec()),
            _ => None,
        })?;
        match serde_json::from_slice::<Value>(&payload) {
            Ok(answer) if answer.get("error").is_none() => Ok(answer),
            _ => Err(LoadError::unexpected("a question to JetStream", &payload)),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        self.stream.write_all(bytes).map_err(LoadError::io("sending"))
    }

    fn until<T>(&mut self, wanted: impl Fn(&Said<'_>) -> Option<T>) -> Result<T, LoadError> {
        let mut buffer = [0; 4096];
        loop {
            while let Some((said, used)) = read(&self.inbox)? {
                let found = wanted(&said);
                self.inbox.drain(..used);
                if let Some(found) = found {
                    return Ok(found);
                }
            }
            let count = self.stream.read(&mut buffer).map_err(LoadError::io("NATS"))?;
            if count == 0 {
                return Err(LoadError::Protocol("NATS closed the connection".to_owned()));
            }
            self.inbox.extend_from_slice(&buffer[..count]);
        }
    }
}

/// What a load does with a message. Everything else of the protocol is done for it.
pub(crate) trait Messages {
    fn message(
        &mut self,
        reactor: &mut Reactor,
        id: usize,
        message: &Message<'_>,
    ) -> Result<(), LoadError>;

    fn is_over(&self, now: std::time::Instant) -> bool;
}

/// Turns bytes into messages.
pub(crate) struct Spoken<M>(pub(crate) M);

impl<M: Messages> Conversation for Spoken<M> {
    fn received(
        &mut self,
        reactor: &mut Reactor,
        id: usize,
        bytes: &[u8],
    ) -> Result<usize, LoadError> {
        let mut used = 0;
        while let Some((said, length)) = read(&bytes[used..])? {
            used += length;
            match said {
                Said::Message(message) => self.0.message(reactor, id, &message)?,
                Said::Ping => reactor.send(id, b"PONG\r\n")?,
                Said::Info | Said::Pong => {}
            }
        }
        Ok(used)
    }

    fn is_over(&self, now: std::time::Instant) -> bool {
        self.0.is_over(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<'a>(reply: &'a str, headers: &'a [u8], payload: &'a [u8]) -> Said<'a> {
        Said::Message(Message { subscription: "1", reply, headers, payload })
    }

    /// Every beginning of `bytes` is incomplete; all of them are `wanted`, whatever follows.
    #[track_caller]
    fn check(bytes: &[u8], wanted: Said<'_>) {
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]).unwrap(), None, "{length} bytes");
        }
        let more = [bytes, b"PING\r\n"].concat();
        assert_eq!(read(&more).unwrap(), Some((wanted, bytes.len())));
    }

    #[test]
    fn a_message_is_read_when_all_of_it_is_there() {
        check(b"MSG a.b 1 5\r\nhello\r\n", message("", b"", b"hello"));
        check(b"MSG a.b 1 _INBOX.x 0\r\n\r\n", message("_INBOX.x", b"", b""));
        check(b"MSG a 1 4\r\n\r\n\r\n\r\n", message("", b"", b"\r\n\r\n"));
    }

    #[test]
    fn headers_are_taken_from_the_front_of_a_message() {
        check(
            b"HMSG a 1 r 28 30\r\nNATS/1.0 408 Timed Out\r\n\r\n\r\nok\r\n",
            message("r", b"NATS/1.0 408 Timed Out\r\n\r\n\r\n", b"ok"),
        );
        check(b"HMSG a 1 12 12\r\nNATS/1.0\r\n\r\n\r\n", message("", b"NATS/1.0\r\n\r\n", b""));
    }

    #[test]
    fn the_rest_of_what_a_server_says_is_known() {
        check(b"INFO {\"server_id\":\"x\"}\r\n", Said::Info);
        check(b"PING\r\n", Said::Ping);
        check(b"PONG\r\n", Said::Pong);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bytes in [
            &b"-ERR 'Unknown'\r\n"[..],
            b"MSG a 1\r\n",
            b"MSG a 1 r s 5\r\nhello\r\n",
            b"MSG a 1 x\r\n",
            b"MSG a 1 5\r\nhelloXX",
            b"MSG a 1 99999999\r\n",
            b"HMSG a 1 6 5\r\nhello\r\n",
        ] {
            assert!(read(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        assert!(read(&[b'a'; LINE_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn a_publication_has_its_length() {
        let mut bytes = Vec::new();
        publish(&mut bytes, "a.b", "c", b"hello");
        assert_eq!(bytes, b"PUB a.b c 5\r\nhello\r\n");
    }
}
