//! A server that is away, refuses, or talks nonsense; types that are off; the agent's end.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::agent::{ALL, Home};
use crate::server::{Answer, Server};

#[test]
fn types_that_are_unknown_or_off_are_told_apart() {
    let server = Server::start();
    let home = Home::new(&server, "");
    home.executable("mine", "#!/bin/sh\n");
    let _agent = home.start();
    let bodies =
        [json!({"type": "screenshot"}), json!({}), json!([1]), json!({"type": 1}), json!(null)];
    for (id, body) in bodies.into_iter().enumerate() {
        let result = server.ask(&format!("{}", id + 1), body);
        assert_eq!(result, json!({"error": true, "msg": "unsupported task type"}));
    }
    let off =
        ["execute_cmd", "downloadfile", "uploadfile", "deletefile", "movefile", "update", "mine"];
    for (id, name) in off.into_iter().enumerate() {
        let result = server.ask(&format!("{}", id + 100), json!({"type": name, "cmd": "true"}));
        let msg = format!("task type '{name}' is not enabled on this agent");
        assert_eq!(result, json!({"error": true, "msg": msg}));
    }
    let dir = server.ask("200", json!({"type": "dircontents", "dir": home.path("tasks")}));
    let fullpath = home.path("tasks/mine");
    let expected = json!({"contents": [{"name": "mine", "dir": false, "fullpath": fullpath}]});
    assert_eq!(dir, expected);
    assert!(server.ask("201", json!({"type": "systeminfo"}))["ram"]["total"].as_u64() > Some(0));
}

#[test]
fn one_executable_is_enabled_by_its_name_alone() {
    let server = Server::start();
    let home = Home::new(&server, "allow=['mine']");
    home.executable("mine", "#!/bin/sh\necho 1");
    home.executable("other", "#!/bin/sh\necho 2");
    let _agent = home.start();
    assert_eq!(server.ask("1", json!({"type": "mine"})), json!(1));
    assert_eq!(server.ask("2", json!({"type": "other"}))["error"], true);
    assert_eq!(server.ask("3", json!({"type": "proclist"}))["error"], true);
}

#[test]
fn the_agent_asks_again_after_any_failure_and_says_so() {
    let server = Server::scripted(|request, books| {
        let nth = books.count("GET", "/tasks");
        let answer = match nth {
            1 => Answer::bytes(500, "oops"),
            2 => Answer::bytes(200, "<html>"),
            3 => Answer::json(429, &json!({"error": true, "msg": "Slow"})).header("retry-after", 1),
            4 => Answer::json(200, &json!({"events": {"x": {}, "../../1": {}}})),
            _ => return None,
        };
        (request.path == "/tasks").then_some(answer)
    });
    let home = Home::new(&server, "");
    let agent = home.start();
    assert!(server.ask("1", json!({"type": "proclist"}))["procs"].is_array());
    agent.terminate();
    let (status, log) = agent.end();
    assert!(status.success());
    for part in ["status 500", "not JSON", "Slow (status 429)", "odd id", "answers again"] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

#[test]
fn an_agent_that_is_not_known_says_what_to_do_and_stays_calm() {
    let server = Server::scripted(|_, _| {
        Some(Answer::json(403, &json!({"error": true, "msg": "Authorization failure"})))
    });
    let home = Home::new(&server, "");
    let mut agent = home.start();
    let mut log = agent.log_until("enroll --force");
    let header = server.wait("a poll", |books| books.requests.first().cloned()).headers;
    assert_eq!(header["authorization"], "a1:hunter2");
    agent.terminate();
    let (status, rest) = agent.end();
    assert!(status.success(), "an end when told, not by itself: {rest}");
    log += &rest;
    assert!(log.contains("Authorization failure"), "{log}");
    assert!(!log.contains("hunter2"));
    assert_eq!(server.change(|books| books.count("GET", "/tasks")), 1);
}

#[test]
fn a_server_that_comes_later_is_found() {
    // Bound and dropped: nobody listens there yet.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let home = Home::at(&format!("http://{address}"), ALL);
    let mut agent = home.start();
    agent.log_until("cannot reach the server");
    let server = Server::listening(std::net::TcpListener::bind(address).unwrap(), |_, _| None);
    assert_eq!(server.ask("1", json!({"type": "execute_cmd", "cmd": "echo 1"}))["output"], "1\n");
}

#[test]
fn an_agent_whose_log_nobody_reads_goes_on() {
    let server = Server::start();
    let home = Home::new(&server, ALL);
    let mut agent = home.start();
    agent.log_until("fetching tasks");
    agent.close_log();
    for id in ["1", "2"] {
        assert!(server.ask(id, json!({"type": "proclist"}))["procs"].is_array());
    }
    agent.terminate();
    assert!(agent.end().0.success());
}

#[test]
fn an_agent_that_is_told_to_stop_lets_its_tasks_finish_and_takes_no_more() {
    let server = Server::start();
    let home = Home::new(&server, ALL);
    let mut agent = home.start();
    let gate = home.path("gate");
    fs::write(&gate, "").unwrap();
    let wait =
        format!("echo begun; while [ -e {} ]; do sleep 0.05; done; echo finished", gate.display());
    server.offer("1", "c", json!({"type": "execute_cmd", "cmd": wait}));
    server.wait("the begin", |books| books.outputs.get("1").map(drop));
    agent.terminate();
    agent.log_until("told to stop");
    // What its last poll still brings is not begun, and given back at once.
    let ran = home.path("ran");
    let body = json!({"type": "execute_cmd", "cmd": format!("touch {}", ran.display())});
    server.offer("2", "late", body);
    server.wait("the giving back", |books| {
        let mut asked = books.requests.iter().filter(|r| r.path == "/tasks_lease");
        asked.any(|r| r.query["claim"] == "late" && r.query["lease"] == "1").then_some(())
    });
    assert!(!ran.exists());
    fs::remove_file(gate).unwrap();
    let (status, log) = agent.end();
    assert!(status.success(), "{log}");
    assert_eq!(server.result("1")["output"], "begun\nfinished\n");
}

#[test]
fn tasks_that_do_not_finish_in_time_are_ended_and_reported() {
    let server = Server::start();
    let home = Home::new(&server, &format!("{ALL}finish_secs_max=1"));
    let agent = home.start();
    server.offer("1", "c", json!({"type": "execute_cmd", "cmd": "echo begun; sleep 1000"}));
    server.wait("the begin", |books| books.outputs.get("1").map(drop));
    let told = Instant::now();
    agent.terminate();
    let (status, _) = agent.end();
    assert!(status.success() && told.elapsed() >= Duration::from_secs(1));
    let msg = "the agent was stopped before the task ended";
    assert_eq!(server.result("1"), json!({"error": true, "msg": msg, "output": "begun\n"}));
}

#[test]
fn a_disk_that_cannot_be_written_means_that_nothing_is_run() {
    let server = Server::start();
    let home = Home::new(&server, ALL);
    let _agent = home.start();
    server.ask("1", json!({"type": "execute_cmd", "cmd": "true"}));
    // Whoever runs as root may write everywhere: a file in the directory's place stops it as well.
    fs::remove_dir_all(home.path("state")).unwrap();
    let ran = home.path("ran");
    let body = json!({"type": "execute_cmd", "cmd": format!("touch {}", ran.display())});
    let result = server.ask("2", body);
    let msg = result["msg"].as_str().unwrap();
    assert!(msg.contains("the agent cannot write") && msg.ends_with("nothing was run"), "{msg}");
    assert!(!ran.exists());
}

#[test]
fn two_agents_do_not_share_a_state() {
    let server = Server::start();
    let home = Home::new(&server, "");
    let _first = home.start();
    server.ask("1", json!({"type": "proclist"}));
    let (status, log) = home.start().end();
    assert!(!status.success() && log.contains("another agent uses it"), "{log}");
}
