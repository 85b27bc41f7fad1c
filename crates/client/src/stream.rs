//! Events as they come: the `text/event-stream` of `GET /events/stream`.
//!
//! Invariant: the cursor moves only when the message that carried it has been given out, so that a
//! stream begun again at the cursor repeats nothing and skips nothing.
//! Not here: beginning again (the caller knows how long it is worth trying).

use std::io::{self, BufRead, BufReader, Read as _};
use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::SendBody;
use ureq::http::{HeaderMap, Method};
use wire::dispatch::{Gap, StreamedEvent};

use crate::call::{Patience, Route};
use crate::{Client, ClientError};

/// How long a stream may be silent: three of the server's keep-alives.
const SILENT: Patience = Patience::Each(Duration::from_secs(45));
/// What a message may be long.
const MESSAGE_BYTES_MAX: u64 = 256 << 20;

/// What a stream brings.
#[derive(Debug, Clone)]
pub enum Streamed {
    /// An event.
    Event {
        /// Its number, in decimal.
        id: String,
        /// The event.
        event: StreamedEvent,
    },
    /// Events that were dropped before they could be sent.
    Gap(Gap),
}

/// A live stream of events.
pub struct EventStream {
    reader: Box<dyn BufRead + Send>,
    client: Client,
    cursor: Option<String>,
}

impl Client {
    /// The events of `agent`, or of all, from after the event `after` on and as they come; without
    /// `after`, from now on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn event_stream(
        &self,
        agent: Option<&str>,
        after: Option<&str>,
    ) -> Result<EventStream, ClientError> {
        let route = Route::new("events/stream").with_some("agent", agent);
        let mut headers = vec![("Accept", "text/event-stream"), ("Cache-Control", "no-store")];
        headers.extend(after.map(|after| ("Last-Event-ID", after)));
        let response = self.send(Method::GET, &route, &headers, SendBody::none(), SILENT)?;
        if !is_stream(response.headers()) {
            return Err(self.unexpected(&route, "it is not a stream of events"));
        }
        let reader = Box::new(BufReader::new(response.into_body().into_reader()));
        Ok(EventStream { reader, client: self.clone(), cursor: after.map(str::to_owned) })
    }
}

impl EventStream {
    /// What to give as `after` to go on where this stream is now.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// What comes next; `None` when the server ended the stream.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::TimedOut`] when even the keep-alives have stopped.
    pub fn wait(&mut self) -> Result<Option<Streamed>, ClientError> {
        loop {
            let message = read_message(&mut self.reader);
            let Some(message) = message.map_err(|error| self.client.broken(SILENT, error))? else {
                return Ok(None);
            };
            let streamed = match message.kind.as_str() {
                "" | "event" | "message" if !message.data.is_empty() => {
                    let id = message.id.clone().or_else(|| self.cursor.clone());
                    let event = self.parse(&message.data)?;
                    Some(Streamed::Event { id: id.unwrap_or_default(), event })
                }
                "gap" => Some(Streamed::Gap(self.parse(&message.data)?)),
                // A cursor alone, or something that a newer server has to say.
                _ => None,
            };
            if message.id.is_some() {
                self.cursor = message.id;
            }
            if streamed.is_some() {
                return Ok(streamed);
            }
        }
    }

    fn parse<T: DeserializeOwned>(&self, data: &str) -> Result<T, ClientError> {
        serde_json::from_str(data)
            .map_err(|error| self.client.unexpected(&Route::new("events/stream"), error))
    }
}

/// Whether an answer with these headers is a stream of events.
pub(crate) fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
}

/// One message of the stream, by the rules for `text/event-stream`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// The field `event`.
    pub(crate) kind: String,
    id: Option<String>,
    pub(crate) data: String,
}

/// Reads up to the next empty line; `None` at the end. What the end cuts off is no message.
pub(crate) fn read_message(reader: &mut dyn BufRead) -> io::Result<Option<Message>> {
    let mut message = Message::default();
    let mut left = MESSAGE_BYTES_MAX;
    let mut any = false;
    loop {
        let mut line = Vec::new();
        let length = reader.take(left).read_until(b'\n', &mut line)?;
        left -= length as u64;
        if line.pop() != Some(b'\n') {
            if left == 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an endless message"));
            }
            return Ok(None);
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let line = String::from_utf8_lossy(&line);
        if line.is_empty() && any {
            // Each line of data adds a line end; the last one's does not count.
            message.data.pop();
            return Ok(Some(message));
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        any |= !field.is_empty();
        match field {
            "event" => value.clone_into(&mut message.kind),
            "id" if !value.contains('\0') => message.id = Some(value.to_owned()),
            "data" => message.data.extend([value, "\n"]),
            // A comment (nothing before the colon) keeps the connection alive, no more.
            _ => {}
        }
        if !any {
            left = MESSAGE_BYTES_MAX;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Message, read_message};

    #[track_caller]
    fn check(text: &str, messages: &[(&str, Option<&str>, &str)]) {
        let mut reader = text.as_bytes();
        for (kind, id, data) in messages {
            let expected = Message {
                kind: (*kind).to_owned(),
                id: id.map(str::to_owned),
                data: (*data).to_owned(),
            };
            assert_eq!(read_message(&mut reader).unwrap(), Some(expected), "{text:?}");
        }
        assert_eq!(read_message(&mut reader).unwrap(), None, "{text:?}");
    }

    #[test]
    fn messages_end_with_an_empty_line() {
        check(
            "id: 9\nevent: event\ndata: {}\n\ndata: x\n\n",
            &[("event", Some("9"), "{}"), ("", None, "x")],
        );
        check("id:9\r\ndata:a\r\ndata: b\r\n\r\n", &[("", Some("9"), "a\nb")]);
    }

    #[test]
    fn comments_and_empty_lines_are_no_messages() {
        check(": alive\n\n: alive\n\n\nid: 7\n\n", &[("", Some("7"), "")]);
    }

    #[test]
    fn what_the_end_cuts_off_is_no_message() {
        check("data: {}\n", &[]);
        check("data: {}\n\nid: 3\ndata: {", &[("", None, "{}")]);
    }
}
