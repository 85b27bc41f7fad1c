//! Tasks taken for a time: they come again, and the claim of a former taker is worth nothing.

use e2e::{Caller, Dispatch, Signal};
use serde_json::{Value, json};

/// One task with its claim: id and claim.
fn lease(agent: &Caller, parameters: &str) -> (String, String) {
    let said = agent.get(&format!("/tasks?wait=20&{parameters}")).ok();
    let claims = said["claims"].as_object().unwrap_or_else(|| panic!("no claims in {said}"));
    assert_eq!(claims.len(), 1, "{said}");
    assert!(claims.keys().eq(said["events"].as_object().unwrap().keys()), "{said}");
    let (id, claim) = claims.iter().next().unwrap();
    (id.clone(), claim.as_str().unwrap_or_else(|| panic!("no text in {said}")).to_owned())
}

fn result(agent: &Caller, id: &str, claim: &str, result: &Value) -> u16 {
    let reply = agent.post(&format!("/tasks_result?id={id}&claim={claim}"), result);
    match reply.status {
        200 => assert_eq!(reply.text(), ""),
        status => drop(reply.refused(status)),
    }
    reply.status
}

fn beat(agent: &Caller, id: &str, claim: &str, more: &str) -> e2e::Reply {
    agent.request("POST", &format!("/tasks_lease?id={id}&claim={claim}{more}")).send()
}

#[test]
fn a_leased_task_tells_its_claim_and_how_long() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let id = admin.enqueue("a", &json!({"do": 1}));
    let said = agent.get("/tasks?lease=60").ok();
    assert_eq!(said["events"], json!({id.as_str(): {"do": 1}}));
    assert_eq!(said["lease"], 60);
    let claim = said["claims"][&id].as_str().unwrap();
    assert_eq!(result(&agent, &id, claim, &json!("done")), 200);
    assert_eq!(admin.task(&id)["result"], "done");
    let none = agent.get("/tasks?lease=60&wait=0").ok();
    assert_eq!((&none["events"], &none["error"]), (&json!({}), &json!(false)));
}

#[test]
fn a_task_whose_lease_has_ended_comes_again_and_the_old_claim_is_worth_nothing() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let id = admin.enqueue("a", &json!(1));
    let (first, old) = lease(&agent, "lease=1");
    // Not before its time: only the end of the lease lets the next poll answer.
    let (second, new) = lease(&agent, "lease=60");
    assert_eq!((&first, &second), (&id, &id));
    assert_ne!(old, new);
    assert_eq!(admin.task(&id)["attempts"], 2);
    assert_eq!(result(&agent, &id, &old, &json!("from the first")), 409);
    let _ = beat(&agent, &id, &old, "").refused(409);
    assert_eq!(admin.task(&id)["state"], "taken");
    assert_eq!(result(&agent, &id, &new, &json!("from the second")), 200);
    assert_eq!(result(&agent, &id, &old, &json!("from the first")), 409);
    let task = admin.task(&id);
    assert_eq!((&task["state"], &task["result"]), (&json!("done"), &json!("from the second")));
}

#[test]
fn a_heartbeat_keeps_a_task() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let id = admin.enqueue("a", &json!(1));
    let (_, claim) = lease(&agent, "lease=1");
    let said = beat(&agent, &id, &claim, "&lease=60").ok();
    assert_eq!(said, json!({"error": false, "lease": 60}));
    // Longer than the first lease: without the heartbeat it would come again here.
    assert!(agent.poll("lease=60&wait=2").is_empty());
    assert_eq!(result(&agent, &id, &claim, &json!("done")), 200);
    let _ = beat(&agent, &id, &claim, "").refused(409);
}

#[test]
fn a_heartbeat_without_a_time_renews_the_lease_it_has() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let id = admin.enqueue("a", &json!(1));
    let (_, claim) = lease(&agent, "lease=45");
    assert_eq!(beat(&agent, &id, &claim, "").ok(), json!({"error": false, "lease": 45}));
}

#[test]
fn only_the_holder_of_a_claim_keeps_it() {
    let server = Dispatch::start();
    let (admin, agent, foreign) = (server.admin(), server.agent("a"), server.agent("b"));
    let id = admin.enqueue("a", &json!(1));
    let (_, claim) = lease(&agent, "lease=60");
    for wrong in ["0", "999", "x", "-1"] {
        let status = beat(&agent, &id, wrong, "").status;
        assert!(matches!(status, 400 | 409), "{wrong}: {status}");
        let status = result(&agent, &id, wrong, &json!("wrong"));
        assert!(matches!(status, 400 | 409), "{wrong}: {status}");
    }
    let status = beat(&foreign, &id, &claim, "").status;
    assert!(matches!(status, 404 | 409), "{status}");
    assert_ne!(result(&foreign, &id, &claim, &json!("foreign")), 500);
    assert_eq!(admin.task(&id)["state"], "taken");
    assert_eq!(result(&agent, &id, &claim, &json!("own")), 200);
    assert_eq!(admin.task(&id)["result"], "own");
}

#[test]
fn the_holder_of_a_cancelled_task_is_told() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let id = admin.enqueue("a", &json!(1));
    let (_, claim) = lease(&agent, "lease=60");
    assert_eq!(admin.delete(&format!("/tasks/{id}")).status, 200);
    let said = beat(&agent, &id, &claim, "").refused(409);
    assert!(said.contains("cancelled"), "{said}");
    assert_eq!(result(&agent, &id, &claim, &json!("late")), 409);
    assert_eq!(admin.task(&id)["state"], "cancelled");
}

#[test]
fn a_task_that_nobody_finishes_is_dead_with_a_reason() {
    let server = Dispatch::configured(&[("attempts_max", "2")]);
    let (admin, agent) = (server.admin(), server.agent("a"));
    let waiting = admin.apart(|admin| admin.post("/tasks?target=a&retries=0", &json!("once")));
    let (once, _) = lease(&agent, "lease=1");
    let twice = admin.enqueue("a", &json!("twice"));
    for _ in 0..2 {
        assert_eq!(lease(&agent, "lease=1").0, twice);
    }
    for id in [&once, &twice] {
        let task = admin.task_in(id, "dead");
        assert!(task["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{task}");
    }
    assert_eq!(admin.task(&twice)["attempts"], 2);
    let reply = waiting.join().unwrap();
    let _ = reply.refused(409);
    assert_eq!(reply.json()["id"], json!(once));
    assert!(agent.poll("wait=0").is_empty());
}

#[test]
fn leases_outlive_the_server() {
    let mut server = Dispatch::start();
    let id = server.admin().enqueue("a", &json!("kept"));
    let short = server.admin().enqueue("b", &json!("comes again"));
    let (_, claim) = lease(&server.agent("a"), "lease=60");
    let (_, old) = lease(&server.agent("b"), "lease=1");
    server.restart(Signal::KILL);
    let (admin, agent) = (server.admin(), server.agent("a"));
    let (again, new) = lease(&server.agent("b"), "lease=60");
    assert_eq!(again, short);
    assert_ne!(old, new);
    assert_eq!(result(&server.agent("b"), &short, &old, &json!("old")), 409);
    assert!(agent.poll("wait=0&lease=60").is_empty(), "it is held still");
    assert_eq!(beat(&agent, &id, &claim, "").status, 200);
    assert_eq!(result(&agent, &id, &claim, &json!("done")), 200);
    assert_eq!(admin.task(&id)["result"], "done");
}

#[test]
fn an_agent_that_asks_for_no_lease_keeps_its_task() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let id = admin.enqueue("a", &json!(1));
    assert_eq!(agent.take().0, id);
    // Longer than a connection is watched after the task was written to it.
    assert!(agent.poll("wait=2").is_empty());
    agent.answer(&id, &json!("done"));
    assert_eq!(admin.task(&id)["attempts"], 1);
}

#[test]
fn output_grows_while_the_task_runs_and_is_resumed_from_an_offset() {
    let server = Dispatch::configured(&[("output_bytes_max", "20")]);
    let (admin, agent) = (server.admin(), server.agent("a"));
    let id = admin.enqueue("a", &json!(1));
    let (_, claim) = lease(&agent, "lease=60");
    let put = |offset: usize, bytes: &str| {
        agent.post_bytes(&format!("/tasks_output?id={id}&offset={offset}&claim={claim}"), bytes)
    };
    let output = format!("/tasks/{id}/output");
    assert_eq!(put(0, "hello ").ok(), json!({"error": false, "next": 6}));
    let reply = admin.get(&format!("{output}?offset=0"));
    assert_eq!((reply.text().as_str(), reply.header("x-output-next")), ("hello ", Some("6")));
    assert_eq!(reply.header("x-output-end"), None);
    let gap = put(9, "lost");
    let _ = gap.refused(409);
    assert_eq!(gap.json()["next"], 6);
    let path = format!("{output}?offset=6&wait=20");
    let waiting = admin.apart(move |admin| admin.get(&path).text());
    // Sent again from an earlier offset, as after a lost answer.
    assert_eq!(put(3, "lo world").ok()["next"], 11);
    assert_eq!(waiting.join().unwrap(), "world");
    let said = put(11, "0123456789abcdef").ok();
    assert_eq!(said["capped"], true, "{said}");
    assert_eq!(result(&agent, &id, &claim, &json!({})), 200);
    let reply = admin.get(&format!("{output}?offset=0&wait=20"));
    assert_eq!(reply.text(), "hello world012345678");
    assert_eq!(reply.header("x-output-end"), Some("1"));
    assert_eq!(
        server.agent("b").post_bytes(&format!("/tasks_output?id={id}&offset=20"), "x").status / 100,
        4
    );
}
