//! The later protocol of the same authors, under `/sutrc/api`.

use e2e::{Caller, Dispatch};
use serde_json::{Value, json};

/// A server whose polls are short, with agents of this protocol: their names are their hardware
/// ids with an `n` before them.
fn server(hardware: &[&str]) -> Dispatch {
    let server = Dispatch::configured(&[("wait_secs", "1")]);
    let admin = server.admin();
    assert_eq!(admin.request("POST", "/agents_selfreg?enabled=1").send().status, 200);
    for id in hardware {
        assert_eq!(register(&server, &format!("n{id}"), id), 200);
    }
    assert_eq!(admin.request("POST", "/agents_selfreg?enabled=0").send().status, 200);
    server
}

fn register(server: &Dispatch, name: &str, hardware: &str) -> u16 {
    server.post(&format!("/sutrc/api/agents?name={name}&hwid={hardware}")).send().status
}

/// A task of this protocol: it has a type.
fn task(kind: &str) -> Value {
    json!({"type": kind})
}

/// Takes one task and gives its id.
fn take(agent: &Caller, kind: &str) -> u64 {
    let taken = e2e::wait_until("a task", || {
        let said = agent.get("/sutrc/api/tasks").ok();
        (said != json!({})).then_some(said)
    });
    assert_eq!(taken["type"], kind, "a bare task: {taken}");
    taken["id"].as_u64().unwrap_or_else(|| panic!("no number in {taken}"))
}

fn answer(agent: &Caller, id: u64, result: &Value) {
    let reply = agent.post(&format!("/sutrc/api/task_result?id={id}"), result);
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[test]
fn a_known_machine_registers_also_when_it_is_off() {
    let server = server(&["hw1"]);
    assert_eq!(register(&server, "nhw1", "hw1"), 200);
    assert_eq!(register(&server, "new", "hw2"), 405);
    let agent = server.caller("hw1");
    assert_eq!(agent.get("/sutrc/api/tasks").ok(), json!({}));
    let _ = server.caller("hw2").get("/sutrc/api/tasks").refused(403);
    let _ = server.nobody().get("/sutrc/api/tasks").refused(403);
}

#[test]
fn tasks_go_to_several_and_results_come_in_the_order_of_the_targets() {
    let server = server(&["hw1", "hw2"]);
    let asking = server.admin().apart(|admin| {
        let path = "/sutrc/api/tasks?target=nhw2,unknown,nhw1&timeout=20";
        admin.post(path, &task("proclist")).ok()
    });
    let (one, two) = (server.caller("hw1"), server.caller("hw2"));
    let id = take(&one, "proclist");
    answer(&one, id, &json!({"procs": []}));
    let id = take(&two, "proclist");
    answer(&two, id, &json!({"error": true, "msg": "unsupported task type"}));
    let said = asking.join().unwrap();
    assert_eq!(said["error"], false);
    let results = said["results"].as_array().unwrap();
    let check = |index: usize, pairs: &[(&str, Value)]| {
        for (key, value) in pairs {
            assert_eq!(results[index][key], *value, "{said}");
        }
    };
    check(
        0,
        &[
            ("target", json!("nhw2")),
            ("error", json!(true)),
            ("msg", json!("unsupported task type")),
        ],
    );
    check(
        1,
        &[
            ("target", json!("unknown")),
            ("error", json!(true)),
            ("msg", json!("Agent doesn't exists")),
        ],
    );
    check(2, &[("target", json!("nhw1")), ("error", json!(false)), ("procs", json!([]))]);
}

#[test]
fn a_task_that_was_not_taken_in_time_is_cancelled() {
    let server = server(&["hw1"]);
    let path = "/sutrc/api/tasks?target=nhw1&timeout=1";
    let said = server.admin().post(path, &task("proclist")).ok();
    let result = &said["results"][0];
    assert_eq!((&result["error"], &result["target"]), (&json!(true), &json!("nhw1")), "{said}");
    assert_eq!(result["msg"], "Time out while waiting for task result");
    assert_eq!(server.caller("hw1").get("/sutrc/api/tasks").ok(), json!({}));
}

#[test]
fn what_is_no_task_or_no_result_is_refused() {
    let server = server(&["hw1"]);
    let (admin, agent) = (server.admin(), server.caller("hw1"));
    for body in [json!({}), json!([]), json!({"kind": "x"}), json!({"type": 1})] {
        let _ = admin.post("/sutrc/api/tasks?target=nhw1&timeout=0", &body).refused(400);
    }
    let _ = admin.post_bytes("/sutrc/api/tasks?target=nhw1&timeout=0", "{").refused(400);
    let _ = admin.post("/sutrc/api/tasks", &task("x")).refused(400);
    let _ = agent.post("/sutrc/api/task_result", &json!({})).refused(400);
    let _ = agent.post("/sutrc/api/task_result?id=x", &json!({})).refused(400);
    let _ = agent.post("/sutrc/api/task_result?id=1", &json!([])).refused(400);
    let _ = agent.post("/sutrc/api/tasks?target=nhw1", &task("x")).refused(403);
    assert_eq!(agent.get("/sutrc/api/tasks").ok(), json!({}));
}

#[test]
fn agents_are_listed_by_length_and_who_is_online_is_told() {
    let server = server(&["hw1", "h9", "h10"]);
    let _ = server.caller("h9").get("/sutrc/api/tasks");
    let said = server.admin().get("/sutrc/api/agents").ok();
    assert_eq!(said["error"], false);
    assert_eq!(said["agents"], json!(["a", "b", "c", "nh9", "nh10", "nhw1"]));
    assert_eq!((&said["online"]["nh9"], &said["online"]["nh10"]), (&json!(true), &json!(false)));
}

#[test]
fn an_agent_that_is_deregistered_is_told_and_so_is_who_waits_for_it() {
    let server = Dispatch::start();
    let admin = server.admin();
    assert_eq!(admin.request("POST", "/agents_selfreg?enabled=1").send().status, 200);
    assert_eq!(register(&server, "n1", "hw1"), 200);
    assert_eq!(register(&server, "n2", "hw2"), 200);
    let asking =
        admin.apart(|admin| admin.post("/sutrc/api/tasks?target=n1", &task("update")).ok());
    let _ = take(&server.caller("hw1"), "update");
    let parked = server.caller("hw2").apart(|agent| agent.get("/sutrc/api/tasks"));
    server.wait_until_online("n2");
    for name in ["n1", "n2"] {
        assert_eq!(admin.delete(&format!("/sutrc/api/agents?id={name}")).status, 200);
        let _ = admin.delete(&format!("/sutrc/api/agents?id={name}")).refused(404);
    }
    assert_eq!(parked.join().unwrap().refused(403), "Agent deregistered");
    let result = asking.join().unwrap()["results"][0].clone();
    assert_eq!((&result["error"], &result["msg"]), (&json!(true), &json!("Agent deregistered")));
}

#[test]
fn an_agent_is_renamed_with_its_queue() {
    let server = server(&["hw1", "hw2"]);
    let admin = server.admin();
    let id = admin.enqueue("nhw1", &task("proclist"));
    let rename = |from: &str, to: &str| {
        admin.request("PATCH", &format!("/sutrc/api/agents?id={from}&newId={to}")).send()
    };
    assert_eq!(rename("nhw1", "other").status, 200);
    let _ = rename("nhw1", "more").refused(404);
    let _ = rename("other", "nhw2").refused(409);
    assert_eq!(take(&server.caller("hw1"), "proclist").to_string(), id);
}

#[test]
fn a_dropped_file_comes_back() {
    let server = server(&["hw1"]);
    let agent = server.caller("hw1");
    let reply = agent.post_bytes("/sutrc/api/filedrop/x.bin", "hello");
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    let url = reply.text();
    let path = url.trim().trim_start_matches(server.base());
    let path = if path.starts_with('/') { path } else { &path[path.find("/sutrc").unwrap()..] };
    assert_eq!(server.admin().get(path).text(), "hello");
    let _ = server.nobody().get(path).refused(403);
    let _ = server.nobody().post_bytes("/sutrc/api/filedrop/x", "hello").refused(403);
}

#[test]
fn both_protocols_share_one_store() {
    let server = server(&["hw1"]);
    let admin = server.admin();
    let agent = server.caller("hw1");
    let id = admin.enqueue("nhw1", &json!({"type": "proclist", "more": [1]}));
    assert_eq!(take(&agent, "proclist").to_string(), id);
    answer(&agent, id.parse().unwrap(), &json!({"procs": []}));
    assert_eq!(admin.task(&id)["result"]["procs"], json!([]));
    let asking =
        admin.apart(|admin| admin.post("/sutrc/api/tasks?target=a", &task("proclist")).ok());
    let (id, given) = e2e::wait_until("the task", || server.agent("a").poll("wait=1").pop());
    assert_eq!(given, task("proclist"));
    server.agent("a").answer(&id, &json!({"procs": [1]}));
    assert_eq!(asking.join().unwrap()["results"][0]["procs"], json!([1]));
}

#[test]
fn a_pass_code_alone_begins_a_session() {
    let server = server(&["hw1"]);
    let arguments = ["addpasscode", &server.database()];
    let exit = e2e::run_reading(&e2e::program(), &arguments, &server.path(""), "the code\n");
    assert_eq!(exit.code, Some(0), "{exit:?}");
    for method in ["GET", "POST"] {
        let path = "/sutrc/api/login?token=the%20code";
        let said = server.nobody().request(method, path).send().ok();
        let admin = server.caller(said["token"].as_str().unwrap());
        assert_eq!(admin.get("/sutrc/api/agents").status, 200);
        assert_eq!(admin.request("POST", "/sutrc/api/logout").send().status, 200);
        let _ = admin.get("/sutrc/api/agents").refused(403);
    }
    let _ = server.get("/sutrc/api/login?token=another").refused(403);
    let _ = server.get("/sutrc/api/login").refused(403);
}
