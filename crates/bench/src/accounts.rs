//! Sessions and agents for a load, made through the server under test itself.
//!
//! Invariant: agents are enrolled, so that their secret is a random key and costs nothing to check;
//! nobody's password is verified while something is measured.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::error::LoadError;
use crate::http::{Answer, Caller, request, write_request};
use crate::reactor::{Conversation, Reactor};

/// How many agents are enrolled at the same time: each waits for the disk.
const ENROLLING: usize = 64;
/// How many agents one token enrols.
const TOKEN_USES: usize = 10_000;

/// The server under test and an administrator there.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Dispatch {
    /// Where the server listens.
    #[arg(long, default_value = "127.0.0.1:8000")]
    pub(crate) server: SocketAddrV4,
    /// An account of type admin.
    #[arg(long, default_value = "bench")]
    admin: String,
    #[arg(long, default_value = "bench")]
    password: String,
}

impl Dispatch {
    /// Logs in that many times; every session has a token of its own.
    pub(crate) fn sessions(&self, count: usize) -> Result<Vec<String>, LoadError> {
        let mut caller = Caller::connect(self.server)?;
        let login = serde_json::json!({"user": self.admin, "pass": self.password}).to_string();
        let login = request("POST", "/login", "", login.as_bytes());
        (0..count)
            .map(|_| {
                let (status, body) = caller.call(&login)?;
                text(status, &body, "token", "the login")
            })
            .collect()
    }

    /// Enrols agents and returns the `Authorization` of each.
    pub(crate) fn agents(&self, session: &str, count: usize) -> Result<Vec<Agent>, LoadError> {
        let mut caller = Caller::connect(self.server)?;
        let mut agents = Vec::with_capacity(count);
        // Names of another load on the same database differ.
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
        while agents.len() < count {
            let uses = TOKEN_USES.min(count - agents.len());
            let target = format!("/enroll_tokens?uses={uses}");
            let (status, body) = caller.call(&request("POST", &target, session, b""))?;
            let token = text(status, &body, "token", "a token of enrolment")?;
            let prefix = format!("load{since:x}-{}", agents.len());
            agents.append(&mut enroll(self.server, &token, &prefix, uses)?);
        }
        Ok(agents)
    }
}

/// An enrolled agent.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    pub(crate) name: String,
    /// The value of its header.
    pub(crate) authorization: String,
}

fn enroll(
    server: SocketAddrV4,
    token: &str,
    prefix: &str,
    count: usize,
) -> Result<Vec<Agent>, LoadError> {
    let mut reactor = Reactor::new()?;
    let mut enrolling = Enrolling {
        request: Vec::new(),
        token: token.to_owned(),
        prefix: prefix.to_owned(),
        next: 0,
        count,
        agents: Vec::with_capacity(count),
    };
    for _ in 0..ENROLLING.min(count) {
        let id = reactor.connect(server)?;
        enrolling.ask(&mut reactor, id)?;
    }
    reactor.run("enrolling agents", Duration::from_secs(300), &mut enrolling)?;
    Ok(enrolling.agents)
}

struct Enrolling {
    request: Vec<u8>,
    token: String,
    prefix: String,
    next: usize,
    count: usize,
    agents: Vec<Agent>,
}

impl Enrolling {
    fn ask(&mut self, reactor: &mut Reactor, id: usize) -> Result<(), LoadError> {
        if self.next == self.count {
            return Ok(());
        }
        let name = format!("{}-{}", self.prefix, self.next);
        self.next += 1;
        let body = serde_json::json!({"token": self.token, "name": name}).to_string();
        write_request(&mut self.request, "POST", format_args!("/enroll"), "", body.as_bytes());
        reactor.send(id, &self.request)
    }
}

impl Conversation for Enrolling {
    fn received(
        &mut self,
        reactor: &mut Reactor,
        id: usize,
        bytes: &[u8],
    ) -> Result<usize, LoadError> {
        let Some(answer) = Answer::read(bytes)? else { return Ok(0) };
        let name = text(answer.status, answer.body, "name", "an enrolment")?;
        let secret = text(answer.status, answer.body, "secret", "an enrolment")?;
        self.agents.push(Agent { authorization: format!("{name}:{secret}"), name });
        self.ask(reactor, id)?;
        Ok(answer.used)
    }

    fn is_over(&self, _: Instant) -> bool {
        self.agents.len() == self.count
    }
}

/// A member of an answer of 200.
fn text(status: u16, body: &[u8], member: &str, what: &'static str) -> Result<String, LoadError> {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    match answer[member].as_str() {
        Some(text) if status == 200 => Ok(text.to_owned()),
        _ => {
            Err(LoadError::unexpected(what, &[status.to_string().as_bytes(), b" ", body].concat()))
        }
    }
}
