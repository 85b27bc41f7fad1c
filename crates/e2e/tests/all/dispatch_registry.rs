//! Agents that come, are renamed and go; tokens that enrol them.

use e2e::{Dispatch, Reply};
use serde_json::{Value, json};

fn enrol(server: &Dispatch, token: &str, name: &str) -> Reply {
    server.post("/enroll").json(&json!({"token": token, "name": name})).send()
}

fn token(server: &Dispatch, query: &str) -> (String, Value) {
    let said = server.admin().request("POST", &format!("/enroll_tokens{query}")).send().ok();
    (said["token"].as_str().unwrap().to_owned(), said)
}

#[test]
fn a_token_enrols_one_agent_once() {
    let server = Dispatch::start();
    let (token, said) = token(&server, "");
    assert_eq!((&said["expires_in"], &said["uses"]), (&json!(3600), &json!(1)));
    let enrolled = enrol(&server, &token, "new").ok();
    let secret = enrolled["secret"].as_str().unwrap();
    assert_eq!(enrolled, json!({"error": false, "name": "new", "secret": secret}));
    assert!(secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let agent = server.caller(&format!("new:{secret}"));
    let id = server.admin().enqueue("new", &json!(1));
    assert_eq!(agent.take().0, id);
    let _ = enrol(&server, &token, "more").refused(403);
    for wrong in ["", "x", &token.to_uppercase(), &format!("{token}0")] {
        let reply = enrol(&server, wrong, "more");
        assert!(matches!(reply.status, 400 | 403), "{wrong}: {}", reply.text());
    }
}

#[test]
fn a_token_may_be_for_several_and_a_taken_name_costs_none_of_them() {
    let mut server = Dispatch::start();
    let (token, said) = token(&server, "?uses=2&ttl=60");
    assert_eq!((&said["expires_in"], &said["uses"]), (&json!(60), &json!(2)));
    let _ = enrol(&server, &token, "a").refused(409);
    assert_eq!(enrol(&server, &token, "new1").status, 200);
    server.restart(e2e::Signal::KILL);
    assert_eq!(enrol(&server, &token, "new2").status, 200);
    let _ = enrol(&server, &token, "new3").refused(403);
    server.agent("a").report(&json!("its password is the old one"));
}

#[test]
fn a_token_of_one_use_is_used_by_one_of_many_at_once() {
    let server = Dispatch::start();
    let (token, _) = token(&server, "");
    let tries: Vec<_> = (0..12)
        .map(|n| {
            let body = json!({"token": token, "name": format!("new{n}")});
            server.nobody().apart(move |nobody| nobody.post("/enroll", &body).status)
        })
        .collect();
    let statuses: Vec<_> = tries.into_iter().map(|one| one.join().unwrap()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
}

#[test]
fn a_token_ends_with_its_time() {
    let server = Dispatch::start();
    let (token, _) = token(&server, "?ttl=1&uses=1000");
    let refused = e2e::wait_until("the end of the token", || {
        let reply = enrol(&server, &token, "a");
        (reply.status != 409).then_some(reply)
    });
    let _ = refused.refused(403);
    for query in ["?ttl=0", "?ttl=x", "?uses=0", "?uses=-1", "?ttl=1&ttl=2"] {
        let reply = server.admin().request("POST", &format!("/enroll_tokens{query}")).send();
        let _ = reply.refused(400);
    }
}

#[test]
fn an_agent_that_is_removed_is_gone_with_all_it_had() {
    let server = Dispatch::start();
    let admin = server.admin();
    let parked = server.agent("a").apart(|agent| agent.get("/tasks"));
    server.wait_until_online("a");
    let asking = admin.apart(|admin| admin.post("/tasks?target=b", &json!(1)));
    let (id, _) = server.agent("b").take();
    for name in ["a", "b"] {
        assert_eq!(admin.delete(&format!("/agents?id={name}")).ok(), json!({"error": false}));
        let _ = server.agent(name).get("/tasks?wait=0").refused(403);
    }
    let _ = parked.join().unwrap().refused(403);
    let reply = asking.join().unwrap();
    assert_eq!(reply.json()["error"], true, "task {id}: {}", reply.text());
    assert_eq!(admin.get("/agents").ok()["agents"], json!(["c"]));
}

#[test]
fn an_agent_is_renamed_with_its_queue_and_its_events() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    agent.report(&json!("before"));
    let id = admin.enqueue("a", &json!(1));
    assert_eq!(admin.request("PATCH", "/agents?id=a&newId=z").send().ok(), json!({"error": false}));
    let _ = agent.get("/tasks?wait=0").refused(403);
    let renamed = server.caller("z:pw-a");
    assert_eq!(renamed.take().0, id);
    assert_eq!(admin.get("/events?agent=z").ok()["events"], json!(["before"]));
    assert_eq!(admin.task(&id)["agent"], "z");
    let _ = admin.post("/tasks?target=a&noWait=1", &json!(1)).refused(404);
    assert_eq!(admin.get("/agents").ok()["agents"], json!(["z", "b", "c"]));
}

#[test]
fn guessing_tokens_is_slowed_down_and_who_has_one_is_not() {
    let server = Dispatch::start();
    let (token, _) = token(&server, "");
    let guessed = (0..200).find_map(|_| {
        let reply = enrol(&server, "guess", "new");
        (reply.status != 403).then_some(reply)
    });
    let reply = guessed.expect("an end of guessing");
    let _ = reply.refused(429);
    assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(enrol(&server, &token, "new").status, 200);
}
