//! `execute_cmd` and custom types: what they give, stream, and leave behind (nothing).

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::agent::{ALL, Home, until};
use crate::server::{Answer, Server};

fn cmd(cmd: &str) -> Value {
    json!({"type": "execute_cmd", "cmd": cmd})
}

/// Whether a process of this number is there and not a corpse.
fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn a_command_gives_its_status_and_both_outputs_in_order() {
    let server = Server::start();
    let home = Home::new(&server, ALL);
    let _agent = home.start();
    let result = server.ask("1", cmd("echo a; echo b >&2; echo c; exit 3"));
    assert_eq!(result, json!({"status_code": 3, "output": "a\nb\nc\n"}));
    assert_eq!(server.ask("2", cmd("kill -9 $$"))["status_code"], 137);
    let body =
        json!({"type": "execute_cmd", "cmd": "pwd; cat; env | grep -c GATEHOUSE_", "dir": "/usr"});
    assert_eq!(server.ask("3", body)["output"], "/usr\n0\n", "no input, nothing of ours");
    let sent = server.change(|books| books.outputs["1"].clone());
    assert_eq!(String::from_utf8_lossy(&sent), "a\nb\nc\n");
}

#[test]
fn output_is_sent_while_the_command_runs() {
    let server = Server::start();
    let home = Home::new(&server, ALL);
    let _agent = home.start();
    let gate = home.path("gate");
    fs::write(&gate, "").unwrap();
    let script =
        format!("echo first; while [ -e {} ]; do sleep 0.05; done; echo last", gate.display());
    server.offer("1", "c", cmd(&script));
    server.wait("the first line", |books| (books.outputs.get("1")? == b"first\n").then_some(()));
    assert!(server.change(|books| books.results.is_empty()));
    fs::remove_file(gate).unwrap();
    assert_eq!(server.result("1")["output"], "first\nlast\n");
    assert_eq!(server.change(|books| books.outputs["1"].clone()), b"first\nlast\n");
}

#[test]
fn output_goes_on_from_where_the_server_has_it() {
    // The first piece is lost after the server took two bytes; the second time it says so.
    let server = Server::scripted(|request, books| {
        if request.path != "/tasks_output" || books.count("POST", "/tasks_output") > 1 {
            return None;
        }
        books.outputs.insert("1".into(), request.body[..2].to_vec());
        Some(Answer::json(409, &json!({"error": true, "msg": "offset", "next": 2})))
    });
    let home = Home::new(&server, ALL);
    let _agent = home.start();
    assert_eq!(server.ask("1", cmd("printf abcdef"))["output"], "abcdef");
    assert_eq!(server.change(|books| books.outputs["1"].clone()), b"abcdef");
}

#[test]
fn a_claim_lost_on_the_way_is_asked_about_at_once_and_output_goes_on_under_the_next() {
    let server = Server::scripted(|request, _| {
        let lost = request.path == "/tasks_output" && request.query["claim"] == "c1";
        lost.then(|| {
            Answer::json(409, &json!({"error": true, "msg": "The claim is no longer held"}))
        })
    });
    let home = Home::new(&server, ALL);
    let text = fs::read_to_string(&home.config).unwrap();
    fs::write(&home.config, text.replace("lease_secs=3\n", "lease_secs=60\n")).unwrap();
    let _agent = home.start();
    let gate = home.path("gate");
    fs::write(&gate, "").unwrap();
    let body = cmd(&format!("echo first; while [ -e {} ]; do sleep 0.05; done", gate.display()));
    server.offer("1", "c1", body.clone());
    // Not after a third of a minute, when it would be due.
    let beats =
        |books: &crate::server::Books| (books.count("POST", "/tasks_lease") > 0).then_some(());
    server.wait("a heartbeat", beats);
    server.offer("1", "c2", body);
    server.wait("the output", |books| (books.outputs.get("1")? == b"first\n").then_some(()));
    fs::remove_file(gate).unwrap();
    assert_eq!(server.result("1")["output"], "first\n");
}

#[test]
fn output_beyond_the_limit_is_let_go_and_marked() {
    let server = Server::start();
    let home = Home::new(&server, &format!("{ALL}output_bytes_max=1000"));
    let _agent = home.start();
    let result = server.ask("1", cmd("head -c 300000 /dev/zero | tr '\\0' x; exit 7"));
    assert_eq!((&result["truncated"], &result["status_code"]), (&json!(true), &json!(7)));
    assert_eq!(result["output"].as_str().unwrap().len(), 1000);
}

/// A command that starts one process that left its group and its session, and one that also lost its
/// parent; both numbers go to files.
fn detaching(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "setsid sh -c 'echo $$ > {dir}/far; exec sleep 1000' & \
         (setsid sh -c 'echo $$ > {dir}/orphan; exec env -i sleep 1000' &) ; \
         while ! [ -s {dir}/far -a -s {dir}/orphan ]; do sleep 0.02; done; echo $$ > {dir}/near; "
    )
}

fn check_nothing_is_left(home: &Home) {
    for name in ["near", "far", "orphan"] {
        let pid = fs::read_to_string(home.path(name)).unwrap();
        assert!(!lives(&pid), "{name} is left");
    }
}

#[test]
fn a_command_over_its_time_ends_with_all_that_it_started() {
    let server = Server::start();
    let home = Home::new(&server, ALL);
    let _agent = home.start();
    let script = detaching(home.dir.path()) + "echo said; sleep 1000";
    let result = server.ask("1", json!({"type": "execute_cmd", "cmd": script, "timeout": 1.5}));
    let expected =
        json!({"error": true, "msg": "the command was ended after 1.5 s", "output": "said\n"});
    assert_eq!(result, expected);
    check_nothing_is_left(&home);
}

#[test]
fn a_command_that_ends_by_itself_leaves_nothing_running() {
    let server = Server::start();
    let home = Home::new(&server, ALL);
    let _agent = home.start();
    let result = server.ask("1", cmd(&(detaching(home.dir.path()) + "echo done")));
    assert_eq!(result, json!({"status_code": 0, "output": "done\n"}));
    check_nothing_is_left(&home);
}

#[test]
fn an_agent_that_is_killed_leaves_no_command_running() {
    let server = Server::start();
    let home = Home::new(&server, ALL);
    let agent = home.start();
    server.offer("1", "c", cmd(&(detaching(home.dir.path()) + "sleep 1000")));
    until("the command", || home.path("near").exists());
    agent.kill();
    for name in ["near", "far", "orphan"] {
        let pid = fs::read_to_string(home.path(name)).unwrap();
        until(&format!("the end of {name}"), || !lives(&pid));
    }
}

#[test]
fn a_command_that_kills_its_supervisor_is_a_failure_and_ends() {
    let server = Server::start();
    let home = Home::new(&server, ALL);
    let _agent = home.start();
    let (near, gate) = (home.path("near"), home.path("gate"));
    fs::write(&gate, "").unwrap();
    let script = format!(
        "echo $$ > {}; echo begun; while [ -e {} ]; do sleep 0.05; done; kill -9 $PPID; sleep 1000",
        near.display(),
        gate.display()
    );
    server.offer("1", "c", cmd(&script));
    server.wait("the begin", |books| books.outputs.get("1").map(drop));
    fs::remove_file(gate).unwrap();
    assert_eq!(server.result("1")["error"], true);
    let pid = fs::read_to_string(home.path("near")).unwrap();
    until("the end of the command", || !lives(&pid));
    assert_eq!(server.ask("2", cmd("echo well"))["output"], "well\n");
}

#[test]
fn a_cancelled_task_is_ended() {
    let server = Server::scripted(|request, _| {
        let body = json!({"error": true, "msg": "Task was cancelled"});
        (request.path == "/tasks_lease").then(|| Answer::json(409, &body))
    });
    let home = Home::new(&server, ALL);
    let _agent = home.start();
    let result = server.ask("1", cmd("sleep 1000"));
    assert_eq!(result["msg"], "the task was cancelled");
}

#[test]
fn a_command_that_cannot_be_started_says_why() {
    let server = Server::start();
    let home = Home::new(&server, ALL);
    let _agent = home.start();
    let body = json!({"type": "execute_cmd", "cmd": "true", "dir": "/no/such/dir"});
    let msg = server.ask("1", body)["msg"].as_str().unwrap().to_owned();
    assert!(msg.contains("cannot be started"), "{msg}");
    for bad in [json!({"type": "execute_cmd"}), json!({"type": "execute_cmd", "cmd": 3})] {
        let msg =
            server.ask(&format!("{}", 10 + bad.as_object().unwrap().len()), bad)["msg"].clone();
        assert_eq!(msg, "field 'cmd' is missing, empty or not text");
    }
    let body = json!({"type": "execute_cmd", "cmd": "true", "timeout": -1});
    assert_eq!(server.ask("20", body)["msg"], "field 'timeout' must be a number above 0");
}

#[test]
fn an_executable_gets_the_task_and_gives_the_result() {
    let server = Server::start();
    let home = Home::new(&server, ALL);
    home.executable(
        "echo-task",
        "#!/bin/sh\necho working >&2\nprintf '{\"got\":'\ncat\nprintf '}'",
    );
    home.executable("silent", "#!/bin/sh\n");
    home.executable("fails", "#!/bin/sh\necho '{\"error\":true,\"msg\":\"own words\"}'; exit 1");
    home.executable("breaks", "#!/bin/sh\necho why >&2; exit 4");
    home.executable("babbles", "#!/bin/sh\necho no JSON");
    home.executable("sleeps", "#!/bin/sh\nsleep 1000");
    let _agent = home.start();
    let body = json!({"type": "echo-task", "x": [1, "ü"]});
    assert_eq!(server.ask("1", body.clone()), json!({ "got": body }));
    assert_eq!(server.change(|books| books.outputs["1"].clone()), b"working\n");
    assert_eq!(server.ask("2", json!({"type": "silent", "much": "x".repeat(1 << 20)})), json!({}));
    assert_eq!(server.ask("3", json!({"type": "fails"}))["msg"], "own words");
    let broken = server.ask("4", json!({"type": "breaks"}));
    let expected = json!({"error": true, "msg": "'breaks' exited with status 4", "status_code": 4,
        "output": "why\n"});
    assert_eq!(broken, expected);
    let msg = server.ask("5", json!({"type": "babbles"}))["msg"].clone();
    assert_eq!(msg, "what 'babbles' answered is not JSON");
    let msg = server.ask("6", json!({"type": "sleeps", "timeout": 0.2}))["msg"].clone();
    assert_eq!(msg, "the command was ended after 0.2 s");
}

#[test]
fn an_executable_that_others_may_write_is_not_run() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::start();
    let home = Home::new(&server, ALL);
    home.executable("open", "#!/bin/sh\necho 1");
    fs::set_permissions(home.path("tasks/open"), fs::Permissions::from_mode(0o777)).unwrap();
    let _agent = home.start();
    let msg = server.ask("1", json!({"type": "open"}))["msg"].as_str().unwrap().to_owned();
    assert!(msg.contains("others may write it"), "{msg}");
}
