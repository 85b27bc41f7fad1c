//! The real agent and the real server: a task goes out, its result comes back, whoever is killed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use e2e::{Process, Signal, free_port, program, run, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A server with an admin and an agent; both programs in one directory.
struct House {
    dir: TempDir,
    port: String,
    server: Option<Process>,
    agent: Option<Process>,
    token: String,
}

fn agent_program() -> PathBuf {
    let path = program().with_file_name("gatehouse-agent");
    assert!(path.exists(), "{} is missing: `cargo build -p agent` first", path.display());
    path
}

impl House {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let port = free_port().to_string();
        for account in ["admin admin", "a1 agent"] {
            let line = format!("echo secret | {} addaccount db {account}", program().display());
            let exit = run("/bin/sh".as_ref(), &["-c", &line], dir.path());
            assert_eq!(exit.code, Some(0), "{exit:?}");
        }
        let config = dir.path().join("agent.toml");
        let text = format!(
            "url='http://127.0.0.1:{port}'\nname='a1'\nsecret='secret'\nlease_secs=3\n\
             state_dir='{}/state'\nallow=['execute_cmd']\n",
            dir.path().display()
        );
        fs::write(&config, text).unwrap();
        fs::set_permissions(&config, Permissions::from_mode(0o600)).unwrap();
        let mut house = Self { dir, port, server: None, agent: None, token: String::new() };
        house.start_server();
        house.start_agent();
        let login = house.ask("POST", "/login?user=admin&pass=secret", None).unwrap();
        house.token = login["token"].as_str().unwrap().to_owned();
        house
    }

    fn start_server(&mut self) {
        let arguments = ["server", &self.port, "db"];
        self.server = Some(Process::start(&program(), &arguments, self.dir.path(), &[]));
        wait_until("the server", || self.ask("GET", "/healthz", None));
    }

    fn start_agent(&mut self) {
        let arguments = ["run", "-v", "-c", "agent.toml"];
        self.agent = Some(Process::start(&agent_program(), &arguments, self.dir.path(), &[]));
    }

    /// The JSON of a good answer.
    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let authorization = ("authorization", self.token.as_str());
        let answer = match method {
            "POST" => ureq::post(&url)
                .header(authorization.0, authorization.1)
                .send(body.unwrap_or_default().to_string()),
            "DELETE" => ureq::delete(&url).header(authorization.0, authorization.1).call(),
            _ => ureq::get(&url).header(authorization.0, authorization.1).call(),
        };
        serde_json::from_str(&answer.ok()?.body_mut().read_to_string().ok()?).ok()
    }

    /// Sends a command; gives the task's number.
    fn send(&self, cmd: &str) -> String {
        let body = json!({"type": "execute_cmd", "cmd": cmd});
        let answer = self.ask("POST", "/tasks?target=a1&noWait=1", Some(body)).unwrap();
        answer["id"].as_str().unwrap().to_owned()
    }

    /// The task when it has ended.
    fn ended(&self, id: &str) -> Value {
        self.ask("GET", &format!("/tasks/{id}?wait=20"), None).unwrap()["task"].clone()
    }

    /// A command that runs until the file is gone, and the file.
    fn gated(&self) -> (PathBuf, String) {
        let gate = self.dir.path().join("gate");
        fs::write(&gate, "").unwrap();
        let runs = self.dir.path().join("runs").display().to_string();
        let wait = format!("while [ -e {} ]; do sleep 0.05; done", gate.display());
        (gate, format!("echo run >> {runs}; echo begun; {wait}; echo ended"))
    }

    fn runs(&self) -> usize {
        fs::read_to_string(self.dir.path().join("runs")).unwrap_or_default().lines().count()
    }
}

#[test]
fn a_command_goes_out_and_its_result_comes_back() {
    let house = House::new();
    let body = json!({"type": "execute_cmd", "cmd": "echo out; echo err >&2; exit 3"});
    let answer = house.ask("POST", "/tasks?target=a1", Some(body)).unwrap();
    assert_eq!(answer["result"], json!({"status_code": 3, "output": "out\nerr\n"}));
}

#[test]
fn a_task_survives_a_server_that_is_killed_while_it_runs() {
    let mut house = House::new();
    let (gate, cmd) = house.gated();
    let id = house.send(&cmd);
    wait_until("the command", || (house.runs() == 1).then_some(()));
    house.server.as_ref().unwrap().signal(Signal::KILL);
    house.server.take().unwrap().wait();
    fs::remove_file(gate).unwrap();
    house.start_server();
    let task = house.ended(&id);
    assert_eq!(task["result"], json!({"status_code": 0, "output": "begun\nended\n"}));
    assert_eq!(house.runs(), 1);
}

#[test]
fn a_task_whose_agent_is_killed_is_reported_and_not_run_twice() {
    let mut house = House::new();
    let (_gate, cmd) = house.gated();
    let id = house.send(&cmd);
    wait_until("the command", || (house.runs() == 1).then_some(()));
    house.agent.as_ref().unwrap().signal(Signal::KILL);
    house.agent.take().unwrap().wait();
    house.start_agent();
    let task = house.ended(&id);
    assert_eq!((&task["state"], &task["result"]["error"]), (&json!("done"), &json!(true)));
    assert_eq!(house.runs(), 1);
}

#[test]
fn a_cancelled_command_is_ended_on_the_agent() {
    let house = House::new();
    let pid = house.dir.path().join("pid");
    let id = house.send(&format!("echo $$ > {}; exec sleep 1000", pid.display()));
    let pid =
        wait_until("the command", || fs::read_to_string(&pid).ok()?.trim().parse::<u32>().ok());
    assert_eq!(house.ask("DELETE", &format!("/tasks/{id}"), None).unwrap()["state"], "cancelled");
    let stat = PathBuf::from(format!("/proc/{pid}/stat"));
    wait_until("its end", || (!stat.exists()).then_some(()));
}
