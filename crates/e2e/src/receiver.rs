//! A tiny receiver of webhooks.
//!
//! Invariant: answers what it was told to, keeps what it got; ends with the test.
//! Not here: what must have been sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver as Channel, channel};
use std::thread::spawn;

use crate::{DEADLINE, Reply};

/// Something that listens on a port of 127.0.0.1 and takes requests.
#[derive(Debug)]
pub struct Receiver {
    /// Where it is to be called.
    pub url: String,
    got: Channel<Reply>,
}

impl Receiver {
    /// Answers the first requests with these statuses, in their order, and the others with 200.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn start(statuses: &[u16]) -> Self {
        Self::start_at(0, statuses)
    }

    /// As [`Self::start`], at this port.
    ///
    /// # Panics
    /// When it is taken.
    #[must_use]
    pub fn start_at(port: u16, statuses: &[u16]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let (sender, got) = channel();
        let mut statuses = statuses.to_vec();
        statuses.reverse();
        spawn(move || {
            for stream in listener.incoming().flatten() {
                while let Some(request) = read(&stream) {
                    answer(&stream, statuses.pop().unwrap_or(200));
                    if sender.send(request).is_err() {
                        return;
                    }
                }
            }
        });
        Self { url: format!("http://{address}/hook"), got }
    }

    /// The next request: its headers and its body.
    ///
    /// # Panics
    /// When the deadline passes first.
    #[must_use]
    pub fn next_request(&self) -> Reply {
        self.got.recv_timeout(DEADLINE).expect("a request")
    }
}

fn read(stream: &TcpStream) -> Option<Reply> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    let mut headers = Vec::new();
    while reader.read_line(&mut line).ok()? > 0 {
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
            None if line.trim_end().is_empty() => break,
            None => {}
        }
        line.clear();
    }
    let mut request = Reply { status: 0, headers, body: Vec::new() };
    request.body.resize(request.header("content-length")?.parse().ok()?, 0);
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

fn answer(mut stream: &TcpStream, status: u16) {
    // One that does not wait for its answer is seen by what it sends next.
    let answer = format!("HTTP/1.1 {status} Told\r\nContent-Length: 0\r\n\r\n");
    let _ = stream.write_all(answer.as_bytes());
}
