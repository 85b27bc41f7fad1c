//! Gives a body to the answers that hyper makes by itself.
//!
//! A head that cannot be read never reaches the door: hyper answers 400, 414 or 431 with nothing behind
//! it and closes. People and programs expect JSON from every error, so the bytes are exchanged here, on
//! their way to the socket. Only HTTP/1 has such answers. In which words, the path decides as elsewhere: the beginning
//! of what was read since the last answer is remembered for that.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::dispatch;

/// As much of a request as tells a path of dispatch. Each connection has room for it.
const START_BYTES: usize = 48;

/// What is sent in place of an answer of hyper's, as long as it has not left.
#[derive(Debug)]
pub struct Exchange {
    instead: Option<(Vec<u8>, usize)>,
    /// The beginning of what was read since something was written.
    start: [u8; START_BYTES],
    start_bytes: usize,
}

impl Default for Exchange {
    fn default() -> Self {
        Self { instead: None, start: [0; START_BYTES], start_bytes: 0 }
    }
}

impl Exchange {
    /// `bytes` have come.
    pub fn has_read(&mut self, bytes: &[u8]) {
        let free = &mut self.start[self.start_bytes..];
        let count = free.len().min(bytes.len());
        free[..count].copy_from_slice(&bytes[..count]);
        self.start_bytes += count;
    }

    /// Something is written: what is read next begins a request.
    pub fn has_written(&mut self) {
        self.start_bytes = 0;
    }

    /// Whether `bytes`, which are about to be written, are exchanged: then [`Exchange::poll_send`] does
    /// the writing.
    pub fn takes(&mut self, bytes: &[u8]) -> bool {
        if self.instead.is_none() {
            let start = &self.start[..self.start_bytes];
            self.instead = with_body(bytes, is_for_dispatch(start)).map(|bytes| (bytes, 0));
        }
        self.instead.is_some()
    }

    /// Sends what was put in place of `replaced` bytes; they count as written when it has left.
    pub fn poll_send(
        &mut self,
        socket: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        replaced: usize,
    ) -> Poll<io::Result<usize>> {
        while let Some((bytes, sent)) = &mut self.instead {
            if *sent == bytes.len() {
                self.instead = None;
                break;
            }
            *sent += ready!(Pin::new(&mut *socket).poll_write(cx, &bytes[*sent..]))?;
        }
        Poll::Ready(Ok(replaced))
    }
}

/// Whether a request that begins so is for a path of dispatch, as far as that can be told.
fn is_for_dispatch(start: &[u8]) -> bool {
    let line = start.trim_ascii_start();
    let Some(target) = line.split(|byte| *byte == b' ').nth(1) else { return false };
    let path = target.split(|byte| b"?\r\n".contains(byte)).next().unwrap_or_default();
    let Ok(path) = std::str::from_utf8(path) else { return false };
    // What is longer than what is remembered.
    let is_below = ["/files/", "/tasks/", "/sutrc/"].iter().any(|begin| path.starts_with(begin));
    is_below || dispatch::find(path).is_some()
}

/// The answer with a body, when `bytes` are one that hyper made by itself.
fn with_body(bytes: &[u8], is_for_dispatch: bool) -> Option<Vec<u8>> {
    let status = bytes.strip_prefix(b"HTTP/1.1 4")?.get(..2)?;
    let (line, message) = match status {
        b"00" => ("400 Bad Request", "the request is not valid HTTP"),
        b"14" => ("414 URI Too Long", "the path is too long"),
        b"31" => ("431 Request Header Fields Too Large", "the headers are too long or too many"),
        _ => return None,
    };
    let head = std::str::from_utf8(bytes).ok()?;
    let is_hypers = head.ends_with("\r\n\r\n")
        && head.contains("\r\ncontent-length: 0\r\n")
        && head.contains("\r\nconnection: close\r\n")
        && !head.contains("\r\nx-request-id: ");
    is_hypers.then(|| {
        let body = if is_for_dispatch {
            format!(r#"{{"error":true,"msg":"{message}"}}"#)
        } else {
            format!(r#"{{"error":"{message}"}}"#)
        };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {line}\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n"
        );
        [head, body].concat().into_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hypers_own_answers_are_exchanged() {
        let own = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let text = String::from_utf8(with_body(own, false).unwrap()).unwrap();
        assert!(text.starts_with("HTTP/1.1 431 ") && text.ends_with("too many\"}"), "{text}");
        let doors = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\nx-request-id: 1\r\n\r\n";
        assert!(with_body(doors, false).is_none());
        assert!(with_body(b"HTTP/1.1 404 Not Found\r\n\r\n", false).is_none());
        assert!(with_body(b"HTTP/1.1 4", false).is_none());
    }

    #[test]
    fn a_path_of_dispatch_is_told_by_what_has_come() {
        let check = |pieces: &[&str], expected| {
            let mut exchange = Exchange::default();
            exchange.has_read(b"GET /tasks?wait=0 HTTP/1.1\r\n");
            exchange.has_written();
            pieces.iter().for_each(|piece| exchange.has_read(piece.as_bytes()));
            let start = &exchange.start[..exchange.start_bytes];
            assert_eq!(is_for_dispatch(start), expected, "{pieces:?}");
        };
        check(&["GET /tasks HTTP/1.1\r\nHost"], true);
        check(&["\r\nP", "OST /tasks_result?id=1", &"0".repeat(100)], true);
        check(&["GET /files/", &"0".repeat(100)], true);
        check(&["GET /tasks\r\n"], true);
        check(&["DELETE /sutrc/api/agents?id=a HTTP/1.1"], true);
        check(&["GET /taskforce HTTP/1.1"], false);
        check(&["GET /weather?x=/tasks HTTP/1.1"], false);
        check(&["GET /login", &"x".repeat(100)], false);
        check(&["\x16\x03\x01"], false);
        check(&[], false);
    }
}
