//! Once begun, never again; once ended, kept until the server has it.

use std::fs;

use serde_json::{Value, json};

use crate::agent::{ALL, Home, until};
use crate::server::{Answer, Server};

/// A command that adds a line to a file each time it runs.
fn counting(home: &Home) -> Value {
    let file = home.path("runs");
    json!({"type": "execute_cmd", "cmd": format!("echo run >> {}", file.display())})
}

fn runs(home: &Home) -> usize {
    fs::read_to_string(home.path("runs")).unwrap_or_default().lines().count()
}

#[test]
fn a_task_offered_again_is_not_run_again_and_its_result_goes_under_the_new_claim() {
    let server = Server::start();
    let home = Home::new(&server, ALL);
    let agent = home.start();
    let first = server.ask("1", counting(&home));
    server.change(|books| books.results.clear());
    server.offer("1", "c2", counting(&home));
    assert_eq!(server.result("1"), first);
    let claim = |books: &crate::server::Books| {
        let sent = books.requests.iter().rfind(|request| request.path == "/tasks_result");
        sent.unwrap().query["claim"].clone()
    };
    assert_eq!(server.change(|books| claim(books)), "c2");
    agent.kill();
    // The same after a restart.
    let _agent = home.start();
    server.change(|books| books.results.clear());
    server.offer("1", "c3", counting(&home));
    assert_eq!(server.result("1"), first);
    assert_eq!(server.change(|books| claim(books)), "c3");
    assert_eq!(runs(&home), 1);
    // Another task under the number of an old one (a server that was set up anew) is run.
    server.change(|books| books.results.clear());
    let other = json!({"type": "execute_cmd", "cmd": "echo other"});
    assert_eq!(server.ask("1", other)["output"], "other\n");
}

#[test]
fn a_result_that_the_server_did_not_take_is_sent_after_a_restart() {
    let server = Server::scripted(|request, books| {
        let refused = request.path == "/tasks_result" && books.count("POST", "/tasks_result") == 1;
        refused.then(|| Answer::bytes(503, "").header("retry-after", 200))
    });
    let home = Home::new(&server, ALL);
    let agent = home.start();
    server.offer("1", "c", counting(&home));
    server.wait("the first try", |books| (books.count("POST", "/tasks_result") == 1).then_some(()));
    agent.kill();
    assert!(home.path("state/results/1").exists());
    let _agent = home.start();
    assert_eq!(server.result("1")["status_code"], 0);
    until("putting away", || home.path("state/done/1").exists());
    assert_eq!((runs(&home), home.path("state/results/1").exists()), (1, false));
}

#[test]
fn a_task_that_ran_when_the_agent_was_killed_is_reported_and_not_run_again() {
    let server = Server::start();
    let home = Home::new(&server, ALL);
    let agent = home.start();
    let file = home.path("runs").display().to_string();
    let body = json!({"type": "execute_cmd", "cmd": format!("echo run >> {file}; sleep 1000")});
    server.offer("1", "c", body.clone());
    until("the command", || runs(&home) == 1);
    agent.kill();
    let _agent = home.start();
    let msg = "the agent was ended while the task ran; it is not run again";
    assert_eq!(server.result("1"), json!({"error": true, "msg": msg}));
    server.change(|books| books.results.clear());
    server.offer("1", "c2", body);
    assert_eq!(server.result("1")["msg"], msg);
    assert_eq!(runs(&home), 1);
}

#[test]
fn a_late_result_is_taken_for_delivered() {
    let server = Server::scripted(|request, books| {
        let late = request.path == "/tasks_result" && request.query["id"] == "1";
        late.then(|| {
            books.results.insert("1".into(), request.json());
            Answer::json(409, &json!({"error": true, "msg": "Claim is no longer held"}))
        })
    });
    let home = Home::new(&server, ALL);
    let _agent = home.start();
    server.ask("1", json!({"type": "execute_cmd", "cmd": "true"}));
    server.ask("2", json!({"type": "execute_cmd", "cmd": "true"}));
    let tries = server.change(|books| books.count("POST", "/tasks_result"));
    assert_eq!(tries, 2, "the late one is not sent again");
}

#[test]
fn a_result_that_is_too_large_for_the_server_is_made_smaller() {
    let server = Server::scripted(|request, _| {
        let large = request.path == "/tasks_result" && request.body.len() > 20_000;
        large.then(|| Answer::json(413, &json!({"error": true, "msg": "Too large"})))
    });
    let home = Home::new(&server, ALL);
    let _agent = home.start();
    let body = json!({"type": "execute_cmd", "cmd": "head -c 100000 /dev/zero | tr '\\0' x"});
    let result = server.ask("1", body);
    assert_eq!((&result["status_code"], &result["truncated"]), (&json!(0), &json!(true)));
    assert_eq!(result["output"].as_str().unwrap().len(), 12_500);
}

#[test]
fn a_long_task_holds_its_claim_and_takes_a_new_one_while_others_run() {
    let server = Server::start();
    let home = Home::new(&server, &format!("{ALL}concurrency=3"));
    let _agent = home.start();
    let gate = home.path("gate");
    fs::write(&gate, "").unwrap();
    let wait = format!("while [ -e {} ]; do sleep 0.05; done; echo ran", gate.display());
    let long = json!({"type": "execute_cmd", "cmd": wait});
    server.offer("1", "c1", long.clone());
    let beat = |claim: &'static str| {
        server.wait("a heartbeat", |books| {
            let mut asked = books.requests.iter().filter(|r| r.path == "/tasks_lease");
            asked.any(|r| r.query["claim"] == claim && r.query["id"] == "1").then_some(())
        });
    };
    beat("c1");
    assert_eq!(server.ask("2", json!({"type": "execute_cmd", "cmd": "echo 2"}))["output"], "2\n");
    // Its lease ran out, say; the server offers it again.
    server.offer("1", "c2", long);
    beat("c2");
    fs::remove_file(&gate).unwrap();
    assert_eq!(server.result("1")["output"], "ran\n");
    let results = server.change(|books| {
        let sent =
            books.requests.iter().filter(|r| r.path == "/tasks_result" && r.query["id"] == "1");
        sent.map(|r| r.query["claim"].clone()).collect::<Vec<_>>()
    });
    assert_eq!(results, ["c2"]);
}

#[test]
fn no_more_is_fetched_than_there_are_places() {
    let server = Server::start();
    let home = Home::new(&server, &format!("{ALL}concurrency=2"));
    let gate = home.path("gate");
    fs::write(&gate, "").unwrap();
    let wait = format!("while [ -e {} ]; do sleep 0.05; done", gate.display());
    for id in ["1", "2", "3"] {
        server.offer(id, "c", json!({"type": "execute_cmd", "cmd": wait}));
    }
    let _agent = home.start();
    let beats =
        |books: &crate::server::Books| (books.count("POST", "/tasks_lease") >= 2).then_some(());
    server.wait("heartbeats", beats);
    let (polls, left) = server.change(|books| (books.count("GET", "/tasks"), books.queue.len()));
    assert_eq!((polls, left), (1, 1));
    fs::remove_file(gate).unwrap();
    for id in ["1", "2", "3"] {
        assert_eq!(server.result(id)["status_code"], 0);
    }
}

#[test]
fn a_server_without_leases_is_served_as_well() {
    let server = Server::scripted(|request, books| {
        if request.path != "/tasks" {
            return None;
        }
        let offer = books.queue.pop_front()?;
        Some(Answer::json(200, &json!({"error": false, "events": {offer.0: offer.2}})))
    });
    let home = Home::new(&server, "");
    let _agent = home.start();
    let result = server.ask("1", json!({"type": "proclist"}));
    assert!(result["procs"].as_array().unwrap().len() > 1);
    let claimed = server.change(|books| {
        books.requests.iter().any(|r| r.path == "/tasks_result" && r.query.contains_key("claim"))
    });
    assert!(!claimed);
}
