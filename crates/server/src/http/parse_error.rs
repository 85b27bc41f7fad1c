//! Gives a body to the answers that hyper makes by itself.
//!
//! A head that cannot be read never reaches the door: hyper answers 400, 414 or 431 with nothing behind
//! it and closes. People and programs expect JSON from every error, so the bytes are exchanged here, on
//! their way to the socket. Only HTTP/1 has such answers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// What is sent in place of an answer of hyper's, as long as it has not left.
#[derive(Debug, Default)]
pub struct Exchange {
    instead: Option<(Vec<u8>, usize)>,
}

impl Exchange {
    /// Whether `bytes`, which are about to be written, are exchanged: then [`Exchange::poll_send`] does
    /// the writing.
    pub fn takes(&mut self, bytes: &[u8]) -> bool {
        if self.instead.is_none() {
            self.instead = with_body(bytes).map(|bytes| (bytes, 0));
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

/// The answer with a body, when `bytes` are one that hyper made by itself.
fn with_body(bytes: &[u8]) -> Option<Vec<u8>> {
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
        let body = format!(r#"{{"error":"{message}"}}"#);
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
        let text = String::from_utf8(with_body(own).unwrap()).unwrap();
        assert!(text.starts_with("HTTP/1.1 431 ") && text.ends_with("too many\"}"), "{text}");
        let doors = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\nx-request-id: 1\r\n\r\n";
        assert!(with_body(doors).is_none());
        assert!(with_body(b"HTTP/1.1 404 Not Found\r\n\r\n").is_none());
        assert!(with_body(b"HTTP/1.1 4").is_none());
    }
}
