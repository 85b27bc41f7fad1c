//! HTTP/1.1 as this load needs it: requests as bytes, answers of a known length.
//!
//! Invariant: an answer is given only when all of it is there.
//! Not here: sockets of a load ([`crate::reactor`]); chunked bodies, which no measured answer has.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use crate::error::LoadError;
use crate::reactor::connect_from;

const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A whole answer at the beginning of what was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
    /// The length of head and body.
    pub(crate) used: usize,
}

impl<'a> Answer<'a> {
    /// Reads the answer that `bytes` begin with; `None` when there is more to come.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Option<Self>, LoadError> {
        let Some(head_bytes) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            if bytes.len() > HEAD_BYTES_MAX {
                return Err(LoadError::protocol("an answer's head has no end", bytes));
            }
            return Ok(None);
        };
        let head = &bytes[..head_bytes];
        let refused = |what| LoadError::protocol(what, head);
        let text = std::str::from_utf8(head).map_err(|_| refused("a head is not text"))?;
        let mut lines = text.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.1 "))
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| refused("not an answer of HTTP/1.1"))?;
        let mut body_bytes = 0;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                body_bytes = value.trim().parse().map_err(|_| refused("a length is no number"))?;
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(refused("a body without a length"));
            }
        }
        if body_bytes > BODY_BYTES_MAX {
            return Err(refused("a body is too long"));
        }
        let (start, used) = (head_bytes + 4, head_bytes + 4 + body_bytes);
        Ok(bytes.get(start..used).map(|body| Self { status, body, used }))
    }

    /// The body, when the status is 200.
    pub(crate) fn ok(&self, what: &'static str) -> Result<&'a [u8], LoadError> {
        if self.status == 200 {
            return Ok(self.body);
        }
        let said = String::from_utf8_lossy(self.body);
        Err(LoadError::unexpected(what, format!("{} {said}", self.status).as_bytes()))
    }
}

/// Replaces what is in `to` by a request. `authorization` is the header's value, if not empty.
pub(crate) fn write_request(
    to: &mut Vec<u8>,
    method: &str,
    target: std::fmt::Arguments<'_>,
    authorization: &str,
    body: &[u8],
) {
    to.clear();
    // Writing to a vector never fails.
    let _ = write!(to, "{method} {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n");
    if !authorization.is_empty() {
        let _ = write!(to, "authorization: {authorization}\r\n");
    }
    if method == "POST" {
        let length = body.len();
        let _ = write!(to, "content-type: application/json\r\ncontent-length: {length}\r\n");
    }
    to.extend_from_slice(b"\r\n");
    to.extend_from_slice(body);
}

/// A new request.
pub(crate) fn request(method: &str, target: &str, authorization: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_request(&mut bytes, method, format_args!("{target}"), authorization, body);
    bytes
}

/// Whether `bytes` contain `wanted`.
pub(crate) fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|part| part == wanted)
}

/// The decimal id of the one task in an answer to `GET /tasks`; `None` when there is no task.
pub(crate) fn task_id(body: &[u8]) -> Option<&str> {
    const BEFORE: &[u8] = b"\"events\":{\"";
    let start = body.windows(BEFORE.len()).position(|part| part == BEFORE)? + BEFORE.len();
    let rest = &body[start..];
    std::str::from_utf8(&rest[..rest.iter().position(|byte| *byte == b'"')?]).ok()
}

/// One connection that waits for each answer: for preparations, which are not measured.
pub(crate) struct Caller {
    stream: TcpStream,
    inbox: Vec<u8>,
}

impl Caller {
    pub(crate) fn connect(server: SocketAddrV4) -> Result<Self, LoadError> {
        Self::connect_within(server, Duration::from_secs(60))
    }

    /// The same with a limit of its own for each answer.
    pub(crate) fn connect_within(server: SocketAddrV4, limit: Duration) -> Result<Self, LoadError> {
        let stream = connect_from(Ipv4Addr::LOCALHOST, server)?;
        stream.set_read_timeout(Some(limit)).map_err(LoadError::io("connection"))?;
        Ok(Self { stream, inbox: Vec::new() })
    }

    /// Sends `request` and returns the status and the body of its answer.
    pub(crate) fn call(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>), LoadError> {
        self.stream.write_all(request).map_err(LoadError::io("sending"))?;
        let mut buffer = [0; 4096];
        loop {
            if let Some(answer) = Answer::read(&self.inbox)? {
                let (found, used) = ((answer.status, answer.body.to_vec()), answer.used);
                self.inbox.drain(..used);
                return Ok(found);
            }
            let count = self.stream.read(&mut buffer).map_err(LoadError::io("an answer"))?;
            if count == 0 {
                return Err(LoadError::Protocol("closed without an answer".to_owned()));
            }
            self.inbox.extend_from_slice(&buffer[..count]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nx-a: b\r\n\r\ntrueHTTP/1.1";

    /// `wanted`: an answer, or none when more is needed, or a word of the error.
    #[track_caller]
    fn check(bytes: &[u8], wanted: Result<Option<Answer<'_>>, &str>) {
        match (Answer::read(bytes), wanted) {
            (Ok(found), Ok(wanted)) => assert_eq!(found, wanted),
            (Err(error), Err(word)) => assert!(error.to_string().contains(word), "{error}"),
            (found, wanted) => panic!("{found:?} instead of {wanted:?}"),
        }
    }

    #[test]
    fn an_answer_ends_where_its_length_says() {
        check(WHOLE, Ok(Some(Answer { status: 200, body: b"true", used: 50 })));
        check(
            b"HTTP/1.1 204 No Content\r\n\r\n",
            Ok(Some(Answer { status: 204, body: b"", used: 27 })),
        );
    }

    #[test]
    fn an_answer_is_given_when_all_of_it_is_there() {
        for length in 0..50 {
            check(&WHOLE[..length], Ok(None));
        }
    }

    #[test]
    fn what_is_not_read_here_is_refused() {
        check(b"HTTP/1.0 200 OK\r\n\r\n", Err("not an answer"));
        check(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Err("without a length"));
        check(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", Err("no number"));
        check(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n", Err("too long"));
        check(&[b'a'; HEAD_BYTES_MAX + 1], Err("no end"));
    }

    #[test]
    fn a_request_says_what_it_must() {
        let post = request("POST", "/events", "a:b", b"{}");
        let wanted = "POST /events HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: a:b\r\n\
                      content-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(String::from_utf8(post).unwrap(), wanted);
        let get = request("GET", "/tasks", "", b"");
        assert_eq!(get, b"GET /tasks HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
    }

    #[test]
    fn the_task_of_a_poll_is_found() {
        assert_eq!(task_id(br#"{"error":false,"events":{"17":{"cmd":"x"}}}"#), Some("17"));
        assert_eq!(task_id(br#"{"error":false,"events":{}}"#), None);
        assert!(contains(b"abc", b"bc") && !contains(b"abc", b"bd") && !contains(b"", b"a"));
    }
}
