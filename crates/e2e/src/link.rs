//! A caller that knows what it does not know: whether what it sent was done.
//!
//! Invariant: sends each request once; never again by itself, as clients with pools do.
//! Not here: whether to try again.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::{Connection, Reply};

/// How long to leave a server alone that does not listen yet.
const RETRY: Duration = Duration::from_millis(5);

/// What became of a request.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Its whole answer was read.
    Answered(Reply),
    /// It was sent, but the connection ended before its answer did: nobody knows.
    Unknown,
    /// Nobody listens: it was not sent.
    Unsent,
}

/// A connection that is made again when it has gone.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    authorization: String,
    connection: Option<Connection>,
}

impl Link {
    /// A caller with this authorization; none where it is empty.
    #[must_use]
    pub fn new(address: SocketAddr, authorization: &str) -> Self {
        Self { address, authorization: authorization.to_owned(), connection: None }
    }

    /// Sends one request once.
    pub fn ask(&mut self, method: &str, path: &str, body: &Value) -> Outcome {
        if self.connection.is_none() {
            self.connection = Connection::try_open(self.address);
        }
        let Some(connection) = &mut self.connection else {
            std::thread::sleep(RETRY);
            return Outcome::Unsent;
        };
        let body = if method == "GET" { String::new() } else { body.to_string() };
        let authorization = match &*self.authorization {
            "" => String::new(),
            authorization => format!("Authorization: {authorization}\r\n"),
        };
        connection.write(format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\n{authorization}Content-Length: {}\r\n\r\n{body}",
            body.len(),
        ));
        match connection.try_read_reply() {
            Some(reply) => Outcome::Answered(reply),
            None => {
                self.connection = None;
                Outcome::Unknown
            }
        }
    }
}
