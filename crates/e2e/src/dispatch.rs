//! A server of tasks and events, and those who call it.
//!
//! Invariant: it begins with the accounts of [`ACCOUNTS`], made by the program's own command; the
//! password of each is `pw-NAME`.
//! Not here: streams (`sse`), bytes that no decent client sends (`raw`).

use std::ffi::OsString;
use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::sync::OnceLock;
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tempfile::TempDir;
use ureq::Agent;

use crate::{
    Connection, Exit, Process, Reply, Request, Server, Setup, Signal, program, run_reading,
    wait_until,
};

/// The accounts that every server begins with, in the order of their creation.
const ACCOUNTS: [(&str, &str); 4] =
    [("root", "admin"), ("a", "agent"), ("b", "agent"), ("c", "agent")];

/// The database, in the server's directory.
const DATABASE: &str = "tasks.db";

/// A running server that dispatches.
#[derive(Debug)]
pub struct Dispatch {
    server: Server,
    arguments: Vec<OsString>,
    token: OnceLock<String>,
}

impl Deref for Dispatch {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Dispatch {
    /// `gatehouse server 0 tasks.db`.
    #[must_use]
    pub fn start() -> Self {
        Self::start_in(Setup::new())
    }

    /// As [`Self::start`], with what this setup has prepared.
    #[must_use]
    pub fn start_in(setup: Setup) -> Self {
        fill(setup.path());
        Self::run(setup, ["server", "0", DATABASE].map(OsString::from).into())
    }

    /// As [`Self::start`], by way of another program that runs it in its place.
    #[must_use]
    pub fn start_through(by: &str, arguments: &[&str]) -> Self {
        let setup = Setup::new();
        fill(setup.path());
        let command =
            [&*program().display().to_string(), "server", "0", DATABASE].map(str::to_owned);
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).chain(command);
        let arguments: Vec<OsString> = arguments.map(OsString::from).collect();
        let server = setup.start_with(Path::new(by), &arguments);
        let arguments = ["server", "0", DATABASE].map(OsString::from).into();
        Self { server, arguments, token: OnceLock::new() }
    }

    /// `gatehouse serve` with these keys in `[tasks]`.
    #[must_use]
    pub fn configured(keys: &[(&str, &str)]) -> Self {
        let setup = Setup::new();
        Self::serve(keys.iter().fold(setup, |setup, (key, value)| setup.set("tasks", key, value)))
    }

    /// `gatehouse serve` with this setup and the database.
    #[must_use]
    pub fn serve(setup: Setup) -> Self {
        let setup = setup.set("tasks", "database", &format!("{{dir}}/{DATABASE}"));
        fill(setup.path());
        let file = setup.write_configuration("gatehouse.ini");
        Self::run(setup, vec!["serve".into(), "-i".into(), file.into_os_string()])
    }

    fn run(setup: Setup, arguments: Vec<OsString>) -> Self {
        let server = setup.start_with(&program(), &arguments);
        Self { server, arguments, token: OnceLock::new() }
    }

    /// Ends it with `signal` and starts it again on the same database. Its port is another, so
    /// those who call it must be made anew.
    pub fn restart(&mut self, signal: Signal) {
        self.server.restart(signal, &self.arguments);
    }

    /// Kills it at this moment and starts it again on the same database.
    ///
    /// # Panics
    /// When its log tells of a panic.
    pub fn kill(&mut self) {
        let log = self.log().so_far();
        assert!(!log.contains("panicked"), "{log}");
        self.restart(Signal::KILL);
    }

    /// Ends it as a supervisor does; gives how it ended.
    pub fn stop(self) -> Exit {
        self.server.stop()
    }

    /// Kills it, starts it again, and kills that one so soon that it may not listen yet; then
    /// starts it for good.
    pub fn kill_twice(&mut self, soon: Duration) {
        self.server.signal(Signal::KILL);
        let _ = self.server.process.wait();
        let early = Process::start(&program(), &self.arguments, &self.path(""), &[]);
        let _ = early.ends_within(soon);
        // It is killed as it is dropped.
        drop(early);
        self.restart(Signal::KILL);
    }

    /// The file of its database.
    #[must_use]
    pub fn database(&self) -> String {
        self.path(DATABASE).display().to_string()
    }

    /// Someone who says nothing of who it is.
    #[must_use]
    pub fn nobody(&self) -> Caller {
        Caller { client: self.client(), base: self.base().to_owned(), authorization: None }
    }

    /// Someone who sends this `Authorization`.
    #[must_use]
    pub fn caller(&self, authorization: &str) -> Caller {
        Caller { authorization: Some(authorization.to_owned()), ..self.nobody() }
    }

    /// The admin `root`, in one session that outlives restarts.
    #[must_use]
    pub fn admin(&self) -> Caller {
        self.caller(self.token.get_or_init(|| self.login("root", "pw-root")))
    }

    /// The agent of this name.
    #[must_use]
    pub fn agent(&self, name: &str) -> Caller {
        self.caller(&format!("{name}:pw-{name}"))
    }

    /// A session of this account, by its token.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn login(&self, name: &str, password: &str) -> String {
        let path = format!("/login?user={}&pass={}", encoded(name), encoded(password));
        let said = self.post(&path).send().ok();
        said["token"].as_str().unwrap_or_else(|| panic!("no token in {said}")).to_owned()
    }

    /// Adds an account with the password `pw-NAME` by the program's own command.
    ///
    /// # Panics
    /// When it fails.
    pub fn add_account(&self, name: &str, kind: &str) {
        let directory = self.path("");
        add_account(&directory, name, kind);
    }

    /// Adds an account of this kind and gives a session of it.
    #[must_use]
    pub fn role(&self, name: &str, kind: &str) -> Caller {
        self.add_account(name, kind);
        self.caller(&self.login(name, &format!("pw-{name}")))
    }

    /// Waits until this agent, which had not called before, is seen polling.
    pub fn wait_until_online(&self, name: &str) {
        let admin = self.admin();
        wait_until(&format!("{name} is online"), || {
            (admin.get("/agents").ok()["online"][name] == true).then_some(())
        });
    }

    /// A connection on which this agent has asked for a task, and which is parked.
    #[must_use]
    pub fn parked(&self, name: &str) -> Connection {
        let mut connection = self.connect();
        connection.write(format!(
            "GET /tasks HTTP/1.1\r\nHost: x\r\nAuthorization: {name}:pw-{name}\r\n\r\n"
        ));
        self.wait_until_online(name);
        connection
    }
}

/// Copies the database with the first accounts here; it is made once.
fn fill(directory: &Path) {
    static MADE: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    let files = MADE.get_or_init(|| {
        let made = TempDir::new().expect("a temporary directory");
        for (name, kind) in ACCOUNTS {
            add_account(made.path(), name, kind);
        }
        let files = fs::read_dir(made.path()).expect("its files").flatten();
        files
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(DATABASE))
            .filter(|entry| entry.path().is_file())
            .map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                (name, fs::read(entry.path()).expect("a part of the database"))
            })
            .collect()
    });
    for (name, content) in files {
        fs::write(directory.join(name), content).expect("a part of the database");
    }
}

fn add_account(directory: &Path, name: &str, kind: &str) {
    let arguments = ["addaccount", DATABASE, name, kind];
    let exit = run_reading(&program(), &arguments, directory, format!("pw-{name}\n"));
    assert_eq!(exit.code, Some(0), "{name}: {exit:?}");
}

/// A text as it may stand in a path or query.
#[must_use]
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Someone who calls the server, always with the same authorization.
#[derive(Debug, Clone)]
pub struct Caller {
    client: Agent,
    base: String,
    authorization: Option<String>,
}

impl Caller {
    /// The same at another address (`http://…`).
    #[must_use]
    pub fn at(self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self }
    }

    /// A request to be sent.
    #[must_use]
    pub fn request(&self, method: &str, path: &str) -> Request {
        let request = Request::new(&self.client, method, format!("{}{path}", self.base));
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }

    /// The answer to GET.
    #[must_use]
    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path).send()
    }

    /// The answer to DELETE.
    #[must_use]
    pub fn delete(&self, path: &str) -> Reply {
        self.request("DELETE", path).send()
    }

    /// The answer to a POST of this JSON.
    #[must_use]
    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.request("POST", path).json(body).send()
    }

    /// The answer to a POST of these bytes.
    #[must_use]
    pub fn post_bytes(&self, path: &str, body: impl Into<Vec<u8>>) -> Reply {
        self.request("POST", path).body("application/octet-stream", body).send()
    }

    /// An admin's: sends a task without waiting for its result and gives its id.
    #[must_use]
    pub fn enqueue(&self, target: &str, body: &Value) -> String {
        self.enqueue_with(target, "", body)
    }

    /// As [`Self::enqueue`], with more parameters (`&priority=1`).
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn enqueue_with(&self, target: &str, more: &str, body: &Value) -> String {
        let path = format!("/tasks?target={}&noWait=1{more}", encoded(target));
        let said = self.post(&path, body).ok();
        said["id"].as_str().unwrap_or_else(|| panic!("no id in {said}")).to_owned()
    }

    /// An admin's: what is known of a task.
    #[must_use]
    pub fn task(&self, id: &str) -> Value {
        self.get(&format!("/tasks/{id}")).ok()["task"].clone()
    }

    /// An admin's: waits until a task is in this state and gives what is known of it.
    #[must_use]
    pub fn task_in(&self, id: &str, state: &str) -> Value {
        wait_until(&format!("task {id} is {state}"), || {
            Some(self.task(id)).filter(|task| task["state"] == state)
        })
    }

    /// An agent's: the tasks of one poll with these parameters (`wait=1`), by id.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn poll(&self, parameters: &str) -> Vec<(String, Value)> {
        let said = self.get(&format!("/tasks?{parameters}")).ok();
        assert_eq!(said["error"], false, "{said}");
        let tasks = said["events"].as_object().unwrap_or_else(|| panic!("no object in {said}"));
        let mut tasks: Vec<_> = tasks.clone().into_iter().collect();
        tasks.sort_by_key(|(id, _)| id.parse::<u64>().expect("a decimal id"));
        tasks
    }

    /// An agent's: waits for exactly one task.
    ///
    /// # Panics
    /// When there are none or more.
    #[must_use]
    pub fn take(&self) -> (String, Value) {
        let mut tasks = self.poll("wait=20");
        assert_eq!(tasks.len(), 1, "one task: {tasks:?}");
        tasks.remove(0)
    }

    /// An agent's: sends a result, which must be taken.
    ///
    /// # Panics
    /// When it is refused, or the answer is not empty.
    pub fn answer(&self, id: &str, result: &Value) {
        let reply = self.post(&format!("/tasks_result?id={id}"), result);
        assert_eq!((reply.status, reply.text().as_str()), (200, ""), "the result of {id}");
    }

    /// An agent's: posts an event, which must be acknowledged.
    pub fn report(&self, event: &Value) {
        let said = self.post("/events", event).ok();
        assert_eq!(said, serde_json::json!({"error": false, "msg": "Event logged"}));
    }

    /// Does this on a thread of its own.
    pub fn apart<T: Send + 'static>(
        &self,
        act: impl FnOnce(Self) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let caller = self.clone();
        spawn(move || act(caller))
    }
}
