//! Wrong calls of the documented endpoints: a status, one shape of error, and nothing is changed.

use e2e::{Caller, Dispatch, Reply, encoded};
use serde_json::{Value, json};

/// Every route, how it is called well, and who may.
const ROUTES: [(&str, &str, bool); 18] = [
    ("GET", "/agents", true),
    ("GET", "/events?agent=a", true),
    ("GET", "/events/stream", true),
    ("POST", "/tasks?target=a&noWait=1", true),
    ("GET", "/tasks/1", true),
    ("DELETE", "/tasks/1", true),
    ("GET", "/tasks/1/output", true),
    ("GET", "/tasks_history", true),
    ("GET", "/agents_selfreg", true),
    ("POST", "/agent_selfreg?enabled=1", true),
    ("POST", "/enroll_tokens", true),
    ("GET", "/webhooks", true),
    ("GET", "/audit", true),
    ("GET", "/tasks?wait=0", false),
    ("POST", "/events", false),
    ("POST", "/tasks_result?id=1", false),
    ("POST", "/tasks_lease?id=1&claim=1", false),
    ("POST", "/tasks_output?id=1&offset=0", false),
];

fn call(caller: &Caller, method: &str, path: &str) -> Reply {
    match method {
        "POST" => caller.post(path, &json!({})),
        _ => caller.request(method, path).send(),
    }
}

#[test]
fn who_says_nothing_or_is_a_stranger_is_refused_everywhere() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    for (method, path, for_admin) in ROUTES {
        let foreign = if for_admin { &agent } else { &admin };
        for caller in [&server.nobody(), foreign] {
            let said = call(caller, method, path).refused(403);
            assert_eq!(said, "Authorization failure", "{method} {path}");
        }
    }
    assert_eq!(admin.get("/agents_selfreg").text(), "0", "nothing was changed");
    assert!(agent.poll("wait=0").is_empty());
}

#[test]
fn no_wrong_authorization_is_taken_for_a_right_one() {
    let server = Dispatch::start();
    let token = server.login("root", "pw-root");
    let (upper, longer) = (token.to_uppercase(), format!("{token}0"));
    let for_admin =
        ["", " ", ":", "root:pw-root", "0", &token[..63], &upper, &longer, "Bearer ", "Basic x"];
    for wrong in for_admin {
        let reply = server.caller(wrong).get("/agents");
        // Letters of either case may be one token.
        assert!(reply.status == 403 || wrong == upper, "{wrong}: {}", reply.text());
    }
}

#[test]
fn no_wrong_password_is_taken_for_a_right_one() {
    let server = Dispatch::start();
    server.agent("a").report(&json!("right, and known from now on"));
    for wrong in ["a", "a:", "a:pw-", "a:PW-A", ":pw-a", "b:pw-a", "a:pw-b", "root:pw-root"] {
        let reply = server.caller(wrong).get("/tasks?wait=0");
        assert!(matches!(reply.status, 403 | 429), "{wrong}: {}", reply.status);
        let _ = reply.refused(reply.status);
    }
}

#[test]
fn every_form_of_authorization_is_taken() {
    let server = Dispatch::start();
    let token = server.login("root", "pw-root");
    for right in [token.clone(), format!("Bearer {token}"), format!("bearer {token}")] {
        assert_eq!(server.caller(&right).get("/agents").status, 200, "{right}");
    }
    // `a:pw-a` in base64.
    for right in ["a:pw-a", "Bearer a:pw-a", "Basic YTpwdy1h", "basic YTpwdy1h"] {
        assert!(server.caller(right).poll("wait=0").is_empty(), "{right}");
    }
}

fn check_method(caller: &Caller, path: &str, wrong: &[&str], allowed: &[&str]) {
    for method in wrong {
        let reply = caller.request(method, path).send();
        let _ = reply.refused(405);
        let told = reply.header("allow").unwrap_or_else(|| panic!("no Allow: {method} {path}"));
        let told: Vec<_> = told.split(',').map(str::trim).collect();
        for method in allowed {
            assert!(told.contains(method), "{path}: no {method} in {told:?}");
        }
        assert!(!told.contains(method), "{path}: {told:?}");
    }
}

#[test]
fn a_wrong_method_is_told_which_are_right() {
    let server = Dispatch::start();
    for caller in [server.admin(), server.agent("a"), server.nobody()] {
        check_method(&caller, "/tasks", &["PUT", "DELETE", "PATCH"], &["GET", "POST"]);
        check_method(&caller, "/events", &["PUT", "DELETE"], &["GET", "POST"]);
        check_method(&caller, "/agents", &["PUT"], &["GET", "POST"]);
        check_method(&caller, "/agents_selfreg", &["PUT", "DELETE"], &["GET", "POST"]);
        check_method(&caller, "/agent_selfreg", &["PUT", "DELETE"], &["GET", "POST"]);
        check_method(&caller, "/tasks_result", &["GET", "PUT"], &["POST"]);
        check_method(&caller, "/task_result", &["GET", "PUT"], &["POST"]);
        check_method(&caller, "/tasks_lease", &["GET"], &["POST"]);
        check_method(&caller, "/tasks_history", &["POST"], &["GET"]);
        check_method(&caller, "/tasks/1", &["POST", "PUT"], &["GET", "DELETE"]);
    }
}

#[test]
fn an_unknown_path_is_not_found_in_json() {
    let server = Dispatch::start();
    for path in ["/nothing", "/tasks/1/2/3", "/task", "/sutrc/api/nothing", "/event"] {
        let reply = server.admin().get(path);
        assert!(matches!(reply.status, 400 | 404), "{path}: {}", reply.text());
        assert!(!reply.json()["error"].is_null(), "{path}: {}", reply.text());
    }
}

fn check_refused(caller: &Caller, method: &str, path: &str, status: u16, part: &str) {
    let said = call(caller, method, path).refused(status);
    assert!(said.contains(part), "{method} {path}: {said}");
}

#[test]
fn a_missing_parameter_is_told() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    check_refused(&admin, "POST", "/tasks", 400, "Missing");
    check_refused(&admin, "POST", "/tasks?target=", 400, "");
    check_refused(&admin, "GET", "/events", 400, "Missing");
    check_refused(&agent, "POST", "/tasks_result", 400, "Missing");
    check_refused(&agent, "POST", "/task_result", 400, "Missing");
    check_refused(&agent, "POST", "/tasks_lease?claim=1", 400, "Missing");
    check_refused(&agent, "POST", "/tasks_lease?id=1", 400, "Missing");
    check_refused(&agent, "POST", "/tasks_output?offset=0", 400, "Missing");
    check_refused(&admin, "DELETE", "/agents", 400, "Missing");
    check_refused(&admin, "PATCH", "/agents?id=a", 400, "Missing");
}

#[test]
fn a_parameter_given_twice_is_refused() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let twice = "Duplicate parameter";
    check_refused(&admin, "POST", "/tasks?target=a&target=b&noWait=1", 400, twice);
    check_refused(&admin, "POST", "/tasks?target=a&target=a&noWait=1", 400, twice);
    check_refused(&admin, "POST", "/tasks?target=a&noWait=1&noWait=1", 400, twice);
    check_refused(&admin, "GET", "/events?agent=a&agent=b", 400, twice);
    check_refused(&agent, "POST", "/tasks_result?id=1&id=2", 400, twice);
    check_refused(&agent, "GET", "/tasks?wait=0&wait=0", 400, twice);
    check_refused(&server.nobody(), "POST", "/login?user=root&user=root&pass=pw-root", 400, twice);
    assert!(agent.poll("wait=0").is_empty(), "nothing was enqueued");
}

#[test]
fn a_number_that_is_none_or_out_of_its_limits_is_refused() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    for more in [
        "priority=101",
        "priority=-101",
        "priority=x",
        "priority=",
        "ttl=-1",
        "ttl=x",
        "timeout=3601",
        "timeout=-1",
        "timeout=x",
        "timeout=1e3",
        "timeout=99999999999999999999",
        "retries=-1",
        "retries=x",
        "ttl=99999999999999999999",
    ] {
        check_refused(&admin, "POST", &format!("/tasks?target=a&{more}"), 400, "");
    }
    for more in
        ["wait=61", "wait=-1", "wait=x", "lease=0", "lease=86401", "lease=x", "max=0", "max=101"]
    {
        check_refused(&agent, "GET", &format!("/tasks?{more}"), 400, "");
    }
    for path in ["/tasks_history?limit=0", "/tasks_history?limit=1001", "/tasks_history?state=lost"]
    {
        check_refused(&admin, "GET", path, 400, "");
    }
    check_refused(&admin, "GET", "/events?agent=a&after=x", 400, "");
    check_refused(&admin, "GET", "/events?agent=a&limit=-1", 400, "");
    check_refused(&agent, "POST", "/tasks_lease?id=1&claim=1&lease=0", 400, "");
    check_refused(&agent, "POST", "/tasks_output?id=1&offset=-1", 400, "");
    for id in ["x", "-1", "1.0", "", "0x1", "%F0%9F%99%82", "99999999999999999999999"] {
        let reply = agent.post(&format!("/tasks_result?id={id}"), &json!({}));
        // A number larger than any id is an unknown id.
        assert!(reply.status == 400 || id.len() > 20 && id.starts_with('9'), "{id}");
    }
    let said = agent.post("/tasks_result?id=seven", &json!({})).refused(400);
    assert_eq!(said, "Non-numeric task id");
    assert!(agent.poll("wait=0").is_empty(), "nothing was enqueued");
}

#[test]
fn what_is_not_json_is_refused_and_changes_nothing() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let deep = "[".repeat(100_000);
    let bodies: [&[u8]; 12] = [
        b"",
        b" ",
        b"{",
        b"{}{}",
        b"nul",
        b"'x'",
        b"[1,]",
        b"{\"a\":1,}",
        b"NaN",
        b"\"\x01\"",
        b"\xff\xfe{}",
        deep.as_bytes(),
    ];
    let id = admin.enqueue("a", &json!("task"));
    assert_eq!(agent.take().0, id);
    for body in bodies {
        assert_eq!(agent.post_bytes("/events", body).refused(400), "Invalid JSON");
        assert_eq!(admin.post_bytes("/tasks?target=a&noWait=1", body).refused(400), "Invalid JSON");
        let said = agent.post_bytes(&format!("/tasks_result?id={id}"), body).refused(400);
        assert_eq!(said, "Invalid JSON passed in body");
    }
    assert_eq!(admin.get("/events?agent=a").ok()["events"], json!([]));
    assert!(agent.poll("wait=0").is_empty());
    assert_eq!(admin.task(&id)["state"], "taken");
}

#[test]
fn text_that_is_no_utf8_never_makes_an_answer_that_is_none() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let reply = agent.post_bytes("/events", b"{\"x\":\"\xff\"}".to_vec());
    assert!(matches!(reply.status, 200 | 400), "{}", reply.status);
    agent.report(&json!("after"));
    let said = admin.get("/events?agent=a").ok();
    assert_eq!(said["events"].as_array().unwrap().last().unwrap(), "after");
}

#[test]
fn an_unknown_agent_is_not_found() {
    let server = Dispatch::start();
    let admin = server.admin();
    check_refused(&admin, "POST", "/tasks?target=unknown", 404, "");
    check_refused(&admin, "POST", "/tasks?target=root", 404, "");
    check_refused(&admin, "DELETE", "/agents?id=unknown", 404, "");
    check_refused(&admin, "PATCH", "/agents?id=unknown&newId=x", 404, "");
    check_refused(&admin, "PATCH", "/agents?id=a&newId=b", 409, "");
    check_refused(&admin, "GET", "/tasks/999999", 404, "");
    check_refused(&admin, "DELETE", "/tasks/999999", 404, "");
}

#[test]
fn odd_names_are_refused_or_served_but_never_confused() {
    let server = Dispatch::start();
    let admin = server.admin();
    assert_eq!(admin.request("POST", "/agents_selfreg?enabled=1").send().status, 200);
    let long = "n".repeat(10_240);
    let names = [
        "x/y",
        "../x",
        "a:b",
        ":",
        "nul\0",
        "\0",
        "🙂",
        "ä",
        " ",
        " a",
        "a ",
        "a\n",
        "a\r\nb: c",
        "%",
        "%41",
        "a,b",
        "a*",
        "*",
        "\"",
        "\\",
        "<b>",
        "?",
        "#",
        "&x=1",
        "\u{202e}a",
        &long,
    ];
    let mut listed = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
    for name in names {
        let reply = server.post(&format!("/agents?user={}&pass=p", encoded(name))).send();
        let never = name.contains([':', '\0', '\n']) || name.len() > 10_000;
        match reply.status {
            200 if !never => listed.push(name.to_owned()),
            414 | 431 if name.len() > 10_000 => drop(reply.refused(reply.status)),
            _ => drop(reply.refused(400)),
        }
    }
    assert_eq!(admin.get("/agents").ok()["agents"], json!(listed));
    for name in listed.iter().skip(3) {
        let id = admin.enqueue(name, &json!(name));
        assert!(server.agent("a").poll("wait=0").is_empty(), "{name} is not a");
        assert_eq!(admin.task(&id)["agent"], json!(name));
    }
    for name in names.into_iter().filter(|name| !listed.iter().any(|known| known == name)) {
        let reply = admin.post(&format!("/tasks?target={}&timeout=0", encoded(name)), &Value::Null);
        // A comma or a star is a list or a beginning, so its answer may be about others.
        let several = name.contains([',', '*']);
        assert!(
            several || matches!(reply.status, 400 | 404 | 414 | 431),
            "{name}: {}",
            reply.text()
        );
    }
}
