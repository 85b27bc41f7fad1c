//! A tiny HTTP server that answers as a test says, and a command run against it, with other programs that
//! only note how they were called.

use std::cell::RefCell;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use clap::Parser;
use wire::Secret;

use crate::dispatch::DispatchCommand;
use crate::machine::kept::Kept;
use crate::programs::Programs;
use crate::session::{Sessions, Surroundings};
use crate::{Outcome, Screen};

/// A server on this machine; it listens as long as the tests run.
pub(crate) struct Scripted {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

/// A server whose answer to each request (its head and body) is a status, which more headers may
/// follow, and a body.
pub(crate) fn serve<S: Into<String>, B: Into<String>>(
    answer: impl Fn(&str) -> (S, B) + Send + Sync + 'static,
) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (seen, answer) = (requests.clone(), Arc::new(answer));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (seen, answer) = (seen.clone(), answer.clone());
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let request = read(&stream);
                seen.lock().unwrap().push(request.clone());
                let (status, body) = answer(&request);
                let (status, body) = (status.into(), body.into());
                let length = body.len();
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n");
                // The client may have seen enough.
                let _ = write!(stream, "{head}Connection: close\r\n\r\n{body}");
            });
        }
    });
    Scripted { url, requests }
}

fn read(stream: &TcpStream) -> String {
    let (mut lines, mut head) = (BufReader::new(stream), String::new());
    while lines.read_line(&mut head).unwrap() > 2 {}
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    lines.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

impl Scripted {
    /// The first lines of all requests, without the protocol.
    pub(crate) fn asked(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        let line = |request: &String| request.split(" HTTP/").next().unwrap().to_owned();
        requests.iter().map(line).collect()
    }

    /// All requests, whole.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The last request.
    pub(crate) fn last(&self) -> String {
        self.requests.lock().unwrap().last().unwrap().clone()
    }
}

/// Who runs a command, and where.
#[derive(Default)]
pub(crate) struct User {
    pub(crate) token: Option<&'static str>,
    pub(crate) sessions: Option<Sessions>,
    pub(crate) kept: Option<Kept>,
    pub(crate) home: Option<PathBuf>,
    pub(crate) programs: Noted,
    /// Looks at results and remarks.
    pub(crate) looks: bool,
    /// Interrupts at once.
    pub(crate) interrupts: bool,
}

/// A key that nobody has.
pub(crate) const PUBLIC_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPouCE3CJULFssp87nKlS+zSMSSlLH0eTeL1QJ65dJk6";

/// Programs that only note how they were called.
#[derive(Default)]
pub(crate) struct Noted {
    /// There is an `ssh-keygen`, which makes [`PUBLIC_KEY`].
    pub(crate) has_keygen: bool,
    pub(crate) calls: RefCell<Vec<Vec<String>>>,
}

impl Noted {
    /// Programs and arguments so far.
    pub(crate) fn calls(&self) -> Vec<Vec<String>> {
        self.calls.borrow().clone()
    }
}

impl Programs for Noted {
    fn run(&self, program: &str, arguments: &[String]) -> io::Result<bool> {
        self.replace(program, arguments)?;
        if !self.has_keygen {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = arguments.last().unwrap();
        std::fs::write(file, "private")?;
        std::fs::write(format!("{file}.pub"), format!("{PUBLIC_KEY} made\n"))?;
        Ok(true)
    }

    fn replace(&self, program: &str, arguments: &[String]) -> io::Result<()> {
        self.calls.borrow_mut().push([&[program.to_owned()], arguments].concat());
        Ok(())
    }
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) outcome: Result<Outcome, String>,
    pub(crate) out: String,
    pub(crate) err: String,
}

#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: DispatchCommand,
}

impl User {
    /// Runs `gatehouse` with `arguments` against `server`; the password is `hunter2`.
    pub(crate) fn run(&self, server: &Scripted, arguments: &[&str]) -> Ran {
        // Behind the first word: what follows `--` is not ours.
        let (word, rest) = arguments.split_at(1);
        let line = [&["gatehouse"], word, &["--url", &server.url], rest].concat();
        let command = Program::try_parse_from(line).unwrap().command;
        let around = Surroundings {
            token: self.token.map(Secret::new),
            sessions: self.sessions.clone(),
            kept: self.kept.clone(),
            home: self.home.clone(),
            programs: &self.programs,
            configured: &|_| Ok(None),
            ask: &|user| Ok((user.unwrap_or("asked").to_owned(), Secret::new("hunter2"))),
            pause: &|_| (),
            on_interrupt: &|tell| {
                if self.interrupts {
                    tell();
                }
            },
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut screen = Screen {
            out: &mut out,
            err: &mut err,
            out_is_terminal: self.looks,
            err_is_terminal: self.looks,
            json: command.server().json,
            in_progress: false,
        };
        let outcome = command.run(&around, &mut screen).map_err(|error| error.to_string());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { outcome, out: text(out), err: text(err) }
    }
}
