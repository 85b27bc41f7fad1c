//! A running server and what tests do with it.
//!
//! Invariant: it listens when a [`Server`] exists, and is gone when the [`Server`] is.
//! Not here: how it is prepared (`setup`).

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use ureq::Agent;

use crate::setup::{handler_file, write};
use crate::{Connection, Exit, Process, Reply, Request, Setup, Signal, Text, http, program};

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// The process itself.
    pub process: Process,
    setup: Setup,
    agent: Agent,
    base: String,
}

impl Server {
    pub(crate) fn new(setup: Setup, process: Process) -> Self {
        let line = process.stdout.wait_for(&["listening on http"]);
        let base = line.split_whitespace().find(|word| word.starts_with("http"));
        // Who listens on every interface listens on this one.
        let base = base.expect("an address").trim_end_matches('/').replace("0.0.0.0", "127.0.0.1");
        Self { process, setup, agent: http::agent(), base }
    }

    /// `http://127.0.0.1:PORT`, or https.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Where it listens.
    ///
    /// # Panics
    /// When what it printed is no address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let address = self.base.split_once("://").map(|(_, address)| address);
        address.and_then(|address| address.parse().ok()).expect("an address and a port")
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Text {
        &self.process.stderr
    }

    /// The directory of its files, or a path in it.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.setup.path().join(path)
    }

    /// A request to be sent.
    #[must_use]
    pub fn request(&self, method: &str, path: &str) -> Request {
        Request::new(&self.agent, method, format!("{}{path}", self.base))
    }

    /// A request to another of its ports.
    #[must_use]
    pub fn request_by(&self, port: u16, method: &str, path: &str) -> Request {
        Request::new(&self.agent, method, format!("http://127.0.0.1:{port}{path}"))
    }

    /// The answer to GET.
    #[must_use]
    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path).send()
    }

    /// The JSON of the answer to GET, which must be 200.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn get_json(&self, path: &str) -> serde_json::Value {
        let reply = self.get(path);
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.json()
    }

    /// A POST to be given a body and sent.
    #[must_use]
    pub fn post(&self, path: &str) -> Request {
        self.request("POST", path)
    }

    /// A connection for bytes.
    #[must_use]
    pub fn connect(&self) -> Connection {
        Connection::open(self.address())
    }

    /// Writes a file in its directory.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        write(self.setup.path(), path, content.as_ref());
    }

    /// Writes a plugin of one class with one plain handler, as [`Setup::handler`] does.
    pub fn write_handler(&self, class: &str, body: &str) {
        let path = format!("plugins/{}.py", class.to_lowercase());
        self.write(&path, handler_file(class, body));
    }

    /// Removes a file from its directory.
    ///
    /// # Panics
    /// When it is not there.
    pub fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).expect("a file to remove");
    }

    /// Changes the settings and writes the configuration file anew.
    pub fn configure(&mut self, change: impl FnOnce(Setup) -> Setup) {
        let setup = std::mem::take(&mut self.setup);
        self.setup = change(setup);
        let _ = self.setup.write_configuration("gatehouse.ini");
    }

    /// Reloads everything, which must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn reload_all(&self) {
        let reply = self.get("/reload/all");
        assert_eq!(reply.status, 200, "/reload/all: {}", reply.text());
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Ends it with `signal` and starts another in its directory.
    ///
    /// # Panics
    /// When it does not end, or the other does not listen.
    pub fn restart(&mut self, signal: Signal, arguments: &[OsString]) {
        self.signal(signal);
        let _ = self.process.wait();
        self.start_again(arguments);
    }

    /// Starts another in the directory of this one, which has ended.
    ///
    /// # Panics
    /// When it does not listen.
    pub fn start_again(&mut self, arguments: &[OsString]) {
        let setup = std::mem::take(&mut self.setup);
        *self = setup.start_with(&program(), arguments);
    }

    /// A client of its own for this server.
    pub(crate) fn client(&self) -> Agent {
        self.agent.clone()
    }

    /// Ends it with SIGTERM and gives how it ended.
    #[must_use]
    pub fn stop(mut self) -> Exit {
        self.signal(Signal::TERM);
        self.process.wait()
    }
}
