//! Who may do what, who did what, and how often a password may be guessed.

use e2e::{Caller, Dispatch};
use serde_json::{Value, json};

/// The status of a call with an empty JSON object.
fn status(caller: &Caller, method: &str, path: &str) -> u16 {
    let reply = match method {
        "POST" => caller.post(path, &json!({})),
        _ => caller.request(method, path).send(),
    };
    if reply.status >= 400 {
        let _ = reply.refused(reply.status);
    }
    reply.status
}

#[test]
fn each_role_may_what_it_is_for() {
    let server = Dispatch::start();
    let (viewer, operator) = (server.role("view", "viewer"), server.role("op", "operator"));
    let admin = server.admin();
    let id = admin.enqueue("b", &json!(1));
    let for_all = [
        ("GET", "/agents".to_owned()),
        ("GET", "/events?agent=a".into()),
        ("GET", format!("/tasks/{id}")),
        ("GET", "/tasks_history".into()),
    ];
    for (method, path) in &for_all {
        for caller in [&viewer, &operator, &admin] {
            assert_eq!(status(caller, method, path), 200, "{path}");
        }
    }
    assert_eq!(status(&viewer, "POST", "/tasks?target=a&noWait=1"), 403);
    assert_eq!(status(&viewer, "DELETE", &format!("/tasks/{id}")), 403);
    assert_eq!(status(&viewer, "POST", "/files/x"), 403);
    assert_eq!(status(&operator, "POST", "/tasks?target=a&noWait=1"), 200);
    assert_eq!(status(&operator, "POST", "/files/x"), 200);
    assert_eq!(status(&operator, "DELETE", &format!("/tasks/{id}")), 200);
    let for_admin = [
        ("DELETE", "/agents?id=a"),
        ("PATCH", "/agents?id=a&newId=x"),
        ("GET", "/audit"),
        ("GET", "/webhooks"),
        ("POST", "/webhooks"),
        ("POST", "/enroll_tokens"),
        ("POST", "/agents_selfreg?enabled=1"),
    ];
    for (method, path) in for_admin {
        for caller in [&viewer, &operator] {
            assert_eq!(status(caller, method, path), 403, "{method} {path}");
        }
    }
    // None of them is an agent, and an agent is none of them.
    for caller in [&viewer, &operator, &admin] {
        assert_eq!(status(caller, "GET", "/tasks?wait=0"), 403);
        assert_eq!(status(caller, "POST", "/events"), 403);
    }
    assert_eq!(server.agent("a").poll("wait=0").len(), 1);
}

/// The newest entries of the log, newest first.
fn entries(admin: &Caller) -> Vec<Value> {
    admin.get("/audit?limit=100").ok()["entries"].as_array().unwrap().clone()
}

#[test]
fn who_did_what_is_written_down() {
    let server = Dispatch::start();
    let admin = server.admin();
    let operator = server.role("op", "operator");
    let id = operator.enqueue("a", &json!({"cmd": "secret command"}));
    assert_eq!(operator.delete(&format!("/tasks/{id}")).status, 200);
    assert_eq!(admin.delete("/agents?id=b").status, 200);
    let _ = server.post("/login?user=op&pass=wrong-words").send().refused(403);
    let found = entries(&admin);
    let ids: Vec<u64> =
        found.iter().map(|entry| entry["id"].as_str().unwrap().parse().unwrap()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] > pair[1]), "newest first: {ids:?}");
    for entry in &found {
        for key in ["id", "at", "who", "from", "act", "what", "outcome"] {
            assert!(!entry[key].is_null(), "no {key} in {entry}");
        }
        let is_local = entry["who"].as_str().unwrap().starts_with("uid:");
        let from = if is_local { "local" } else { "127.0.0.1" };
        assert!(entry["from"].as_str().unwrap().contains(from), "{entry}");
    }
    let by = |who: &str| found.iter().filter(|entry| entry["who"] == who).count();
    assert!(by("op") >= 4 && by("root") >= 2, "{found:?}");
    let added = |entry: &&Value| entry["act"] == "add account" && entry["what"] == "op (operator)";
    assert_eq!(found.iter().filter(added).count(), 1, "{found:?}");
    let of = |what: &str| found.iter().any(|entry| entry["what"].as_str().unwrap().contains(what));
    assert!(of(&id) && of("b"), "{found:?}");
    let text = json!(found).to_string();
    for secret in ["pw-op", "pw-root", "wrong-words"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn strangers_cannot_fill_the_log() {
    let server = Dispatch::start();
    let admin = server.admin();
    for n in 0..60 {
        let _ = server.post(&format!("/login?user=root&pass=guess{n}")).send();
        let _ = server.post(&format!("/sutrc/api/login?token=guess{n}")).send();
    }
    assert_eq!(admin.post("/agents_selfreg?enabled=1", &json!({})).status, 200);
    for _ in 0..30 {
        let _ = server.post("/agents?user=root&pass=x").send().refused(409);
    }
    let count = entries(&admin).len();
    assert!(count < 40, "{count}");
}

#[test]
fn who_sent_what_to_whom_is_written_down() {
    let server = Dispatch::start();
    let admin = server.admin();
    let id = admin.enqueue("a", &json!("not this"));
    let said = admin.post("/tasks?target=b,c&noWait=1", &json!(1)).ok();
    let _ = admin.post("/sutrc/api/tasks?target=c&timeout=0", &json!({"type": "x"})).ok();
    let found = entries(&admin);
    let sent: Vec<&str> = found
        .iter()
        .filter(|entry| entry["act"] == "send task" && entry["who"] == "root")
        .map(|entry| entry["what"].as_str().unwrap())
        .collect();
    assert_eq!(sent.len(), 3, "{found:?}");
    assert_eq!(sent[2], format!("{id} -> a"));
    for (name, id) in said["ids"].as_object().unwrap() {
        assert!(sent[1].contains(&format!("{} -> {name}", id.as_str().unwrap())), "{sent:?}");
    }
    assert!(!json!(found).to_string().contains("not this"));
}

#[test]
fn the_log_of_acts_is_read_page_by_page_and_is_kept() {
    let mut server = Dispatch::start();
    let admin = server.admin();
    let sent: Vec<_> = (0..5).map(|n| admin.enqueue("a", &json!(n))).collect();
    server.restart(e2e::Signal::KILL);
    let admin = server.admin();
    let whole = entries(&admin);
    assert!(whole.len() >= sent.len(), "{whole:?}");
    let (mut path, mut paged) = ("/audit?limit=2".to_owned(), Vec::new());
    loop {
        let said = admin.get(&path).ok();
        paged.extend(said["entries"].as_array().unwrap().clone());
        let Some(next) = said["next"].as_str() else { break };
        path = format!("/audit?limit=2&before={next}");
    }
    assert!(paged.ends_with(&whole), "the same, whatever the page");
    for method in ["DELETE", "POST", "PUT"] {
        assert_eq!(status(&admin, method, "/audit"), 405, "nothing takes it away");
    }
}

#[test]
fn guessing_passwords_is_slowed_down_and_says_for_how_long() {
    let server = Dispatch::start();
    let guessed = (0..200).find_map(|_| {
        let reply = server.post("/login?user=root&pass=guess").send();
        (reply.status != 403).then_some(reply)
    });
    let reply = guessed.expect("an end of guessing");
    let _ = reply.refused(429);
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3600).contains(&wait), "{wait}");
    let _ = server.post("/login?user=root&pass=pw-root").send().refused(429);
    server.agent("a").report(&json!("others are served"));
}

#[test]
fn guessing_an_agents_password_is_slowed_down_too_but_not_for_the_agent() {
    let server = Dispatch::start();
    let agent = server.agent("a");
    agent.report(&json!("known"));
    let guess = server.caller("a:guess");
    let slowed = (0..200).any(|_| guess.get("/tasks?wait=0").status == 429);
    assert!(slowed, "guessing goes on for ever");
    agent.report(&json!("the agent itself, whose password is known to be right, goes on"));
}

#[test]
fn who_waits_and_has_no_session_any_more_is_told_nothing() {
    let server = Dispatch::start();
    let operator = server.role("op", "operator");
    let id = operator.enqueue("b", &json!(1));
    let waits = |path: String| {
        let method = if path.starts_with("/tasks?") { "POST" } else { "GET" };
        operator.apart(move |operator| operator.request(method, &path).body("", *b"1").send())
    };
    let waiting = [
        waits("/tasks?target=a&timeout=3".to_owned()),
        waits(format!("/tasks/{id}?wait=3")),
        waits(format!("/tasks/{id}/output?wait=3")),
    ];
    let (taken, _) = server.agent("a").take();
    assert_ne!(taken, id);
    assert_eq!(operator.post("/logout", &json!({})).status, 200);
    for waiting in waiting {
        assert_eq!(waiting.join().unwrap().refused(403), "Authorization failure");
    }
}
