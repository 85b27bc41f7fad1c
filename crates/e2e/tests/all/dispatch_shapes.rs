//! The documented endpoints: their JSON and their statuses, in every spelling.

use e2e::{Caller, Dispatch, Reply, encoded};
use serde_json::{Value, json};

const LATER: [&str; 2] = ["/tasks_result", "/task_result"];
const SELFREG: [&str; 2] = ["/agents_selfreg", "/agent_selfreg"];

fn check_empty(reply: &Reply) {
    assert_eq!((reply.status, reply.text().as_str()), (200, ""));
}

#[test]
fn a_session_begins_and_ends() {
    let server = Dispatch::start();
    let reply = server.post("/login?user=root&pass=pw-root").send();
    let said = reply.ok();
    assert_eq!((&said["error"], &said["msg"]), (&json!(false), &json!("Logged in")));
    let token = said["token"].as_str().unwrap();
    assert!(token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
    let (first, second) = (server.caller(token), server.caller(&server.login("root", "pw-root")));
    let out = first.request("POST", "/logout").send().ok();
    assert_eq!(out, json!({"error": false, "msg": "Logged out"}));
    let _ = first.get("/agents").refused(403);
    assert_eq!(second.get("/agents").status, 200, "the other session goes on");
}

#[test]
fn the_end_of_a_session_that_is_none_is_no_failure() {
    let server = Dispatch::start();
    for token in ["0".repeat(64), "x".into(), "short".into(), "much longer".repeat(200)] {
        let reply = server.caller(&token).request("POST", "/logout").send();
        assert_eq!(reply.ok(), json!({"error": false, "msg": "Logged out"}), "{token}");
    }
    let said = server.post("/logout").send().refused(400);
    assert_eq!(said, "Missing Authorization header");
}

#[test]
fn a_login_may_be_in_the_query_or_in_the_body() {
    let server = Dispatch::start();
    let replies = [
        server.post("/login?user=root&pass=pw%2Droot").send(),
        server.post("/login").json(&json!({"user": "root", "pass": "pw-root"})).send(),
        server.post("/login").form("user=root&pass=pw%2Droot").send(),
    ];
    for reply in replies {
        let token = reply.ok()["token"].as_str().unwrap().to_owned();
        assert_eq!(server.caller(&token).get("/agents").status, 200);
    }
    let log = server.log().so_far();
    assert!(!log.contains("pw-root") && !log.contains("pw%2Droot"), "{log}");
}

#[test]
fn a_bad_login_is_told_in_one_way() {
    let server = Dispatch::start();
    for query in ["user=root&pass=wrong", "user=nobody&pass=x", "user=a&pass=pw-a"] {
        let said = server.post(&format!("/login?{query}")).send().refused(403);
        assert_eq!(said, "Invalid credentials", "{query}");
    }
    for query in ["", "?user=root", "?pass=pw-root"] {
        let reply = server.post(&format!("/login{query}")).send();
        let _ = reply.refused(if reply.status == 400 { 400 } else { 403 });
    }
}

#[test]
fn the_agents_are_an_array_in_the_order_of_their_creation() {
    let server = Dispatch::start();
    server.add_account("z", "agent");
    server.add_account("d", "agent");
    let said = server.admin().get("/agents").ok();
    assert_eq!(said["error"], false);
    assert_eq!(said["agents"], json!(["a", "b", "c", "z", "d"]));
    assert_eq!(said["online"]["a"], false, "{said}");
    let _ = server.agent("a").poll("wait=0");
    assert_eq!(server.admin().get("/agents").ok()["online"]["a"], true);
}

#[test]
fn an_event_is_logged_and_read() {
    let server = Dispatch::start();
    let admin = server.admin();
    let none = json!({"error": false, "events": [], "max_size": 512});
    assert_eq!(admin.get("/events?agent=a").ok(), none);
    assert_eq!(admin.get("/events?agent=unknown").ok(), none);
    server.agent("a").report(&json!({"n": 1}));
    server.agent("a").report(&json!({"n": 2}));
    let said = admin.get("/events?agent=a").ok();
    assert_eq!(said, json!({"error": false, "events": [{"n": 1}, {"n": 2}], "max_size": 512}));
    assert_eq!(admin.get("/events?agent=b").ok(), none);
}

#[test]
fn a_task_goes_there_and_its_result_comes_back() {
    for path in LATER {
        let server = Dispatch::start();
        let asking = server.admin().apart(|admin| admin.post("/tasks?target=a", &json!({"do": 1})));
        let agent = server.agent("a");
        let given = agent.get("/tasks").ok();
        let (id, task) = given["events"].as_object().unwrap().iter().next().unwrap();
        assert_eq!(given, json!({"error": false, "events": {id: {"do": 1}}}));
        assert!(task["do"] == 1 && id.parse::<u64>().is_ok(), "{id}");
        check_empty(&agent.post(&format!("{path}?id={id}"), &json!({"done": [1, null]})));
        let said = asking.join().unwrap().ok();
        assert_eq!(said, json!({"error": false, "result": {"done": [1, null]}, "id": id}));
    }
}

#[test]
fn without_waiting_the_id_is_told_and_the_result_is_kept() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let said = admin.post("/tasks?target=a&noWait=1", &json!({"do": 1})).ok();
    let id = said["id"].as_str().unwrap().to_owned();
    assert_eq!(said, json!({"error": false, "msg": "Task enqueued", "id": id}));
    assert_eq!(agent.take(), (id.clone(), json!({"do": 1})));
    agent.answer(&id, &json!("done"));
    let task = admin.task(&id);
    assert_eq!((&task["state"], &task["result"]), (&json!("done"), &json!("done")));
}

#[test]
fn a_wait_that_ends_without_a_result_says_so_and_leaves_the_task() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    for query in ["timeout=1", "timeout=0", "noWait=0&timeout=1", "noWait=&timeout=0"] {
        let said = admin.post(&format!("/tasks?target=a&{query}"), &json!({"do": query})).ok();
        let id = said["id"].as_str().unwrap().to_owned();
        assert_eq!(said, json!({"error": false, "result": null, "timeout": true, "id": id}));
        assert_eq!(agent.take(), (id, json!({"do": query})));
    }
}

#[test]
fn a_result_of_null_is_no_timeout() {
    let server = Dispatch::start();
    let asking = server.admin().apart(|admin| admin.post("/tasks?target=a", &json!({})).ok());
    let agent = server.agent("a");
    let (id, _) = agent.take();
    agent.answer(&id, &Value::Null);
    let said = asking.join().unwrap();
    assert_eq!(said, json!({"error": false, "result": null, "id": id}));
}

#[test]
fn no_task_within_the_wait_is_an_empty_object() {
    let server = Dispatch::start();
    for query in ["wait=0", "wait=1"] {
        let said = server.agent("a").get(&format!("/tasks?{query}")).ok();
        assert_eq!(said, json!({"error": false, "events": {}}), "{query}");
    }
}

#[test]
fn both_waits_are_twenty_six_seconds() {
    let server = Dispatch::start();
    let started = std::time::Instant::now();
    let asking = server.admin().apart(|admin| admin.post("/tasks?target=b", &json!({})).ok());
    assert_eq!(server.agent("a").get("/tasks").ok(), json!({"error": false, "events": {}}));
    assert_eq!(asking.join().unwrap()["timeout"], true);
    let seconds = started.elapsed().as_secs_f64();
    assert!((25.5..28.5).contains(&seconds), "{seconds}");
}

/// The text of an answer without white space.
fn squeezed(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.text().split_whitespace().collect()
}

#[test]
fn any_json_goes_through_as_it_was_sent() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let texts = [
        "1",
        "\"text\"",
        "[1,[2,{}]]",
        "true",
        "null",
        "1e400",
        "-0.10",
        "123456789012345678901234567890",
        r#"{"b":1,"a":1.10,"b":2}"#,
        r#"{"unicode":"äöü✓🙂\u0000"}"#,
    ];
    for text in texts {
        check_json_goes_through(&admin, &agent, text);
    }
    let events = squeezed(&admin.get("/events?agent=a"));
    assert!(events.contains(&texts.join(",")), "{events}");
}

fn check_json_goes_through(admin: &Caller, agent: &Caller, text: &str) {
    assert_eq!(agent.post_bytes("/events", format!(" {text}\n")).status, 200, "{text}");
    let sent = admin.post_bytes("/tasks?target=a&noWait=1", format!("\n{text} ")).ok();
    let id = sent["id"].as_str().unwrap().to_owned();
    let given = squeezed(&agent.get("/tasks?wait=9"));
    assert!(given.contains(&format!("{{\"{id}\":{text}}}")), "{given}");
    check_empty(&agent.post_bytes(&format!("/tasks_result?id={id}"), text));
    let task = squeezed(&admin.get(&format!("/tasks/{id}")));
    assert!(task.contains(&format!("\"result\":{text}")), "{task}");
    assert!(task.contains(&format!("\"body\":{text}")), "{task}");
}

#[test]
fn self_registration_is_off_until_it_is_turned_on_and_that_is_kept() {
    let mut server = Dispatch::start();
    let register = |server: &Dispatch, name: &str| {
        server.post(&format!("/agents?user={name}&pass={}", encoded("p:w"))).send()
    };
    let said = register(&server, "new").refused(405);
    assert_eq!(said, "Agents self-registration is disabled");
    for (index, path) in SELFREG.into_iter().enumerate() {
        let admin = server.admin();
        assert_eq!(admin.get(path).text(), "0");
        check_empty(&admin.request("POST", &format!("{path}?enabled=1")).send());
        assert_eq!(admin.get(path).text(), "1");
        server.restart(e2e::Signal::KILL);
        let admin = server.admin();
        assert_eq!(admin.get(SELFREG[1 - index]).text(), "1", "it is kept");
        check_empty(&register(&server, &format!("new{index}")));
        let agent = server.caller(&format!("new{index}:p:w"));
        agent.report(&json!({}));
        check_empty(&admin.request("POST", &format!("{path}?enabled=0")).send());
        assert_eq!(admin.get(path).text(), "0");
    }
    let _ = register(&server, "more").refused(405);
    server.caller("new0:p:w").report(&json!("still an agent"));
}

#[test]
fn self_registration_refuses_what_is_wrong() {
    let server = Dispatch::start();
    let admin = server.admin();
    for path in SELFREG {
        for query in ["", "?enabled=2", "?enabled=yes", "?enabled=", "?enabled=1&enabled=1"] {
            let _ = admin.request("POST", &format!("{path}{query}")).send().refused(400);
        }
        assert_eq!(admin.get(path).text(), "0");
        let _ = server.nobody().get(path).refused(403);
        let _ = server.agent("a").get(path).refused(403);
        let reply = server.agent("a").request("POST", &format!("{path}?enabled=1")).send();
        let _ = reply.refused(403);
    }
    check_empty(&admin.request("POST", "/agents_selfreg?enabled=1").send());
    for query in ["", "?user=x", "?pass=x", "?user=&pass=x"] {
        let said = server.post(&format!("/agents{query}")).send().refused(400);
        assert!(said.contains("'user'") || query == "?user=&pass=x", "{query}: {said}");
    }
    for taken in ["a", "root"] {
        let _ = server.post(&format!("/agents?user={taken}&pass=x")).send().refused(409);
    }
    server.agent("a").report(&json!("its password is the old one"));
}

#[test]
fn health_is_told_to_anyone() {
    assert_eq!(Dispatch::start().get_json("/healthz"), json!({"error": false}));
}
