//! Callers that break the rules of HTTP or send too much: told so, and the others are served on.

use std::io::Write;

use e2e::{Caller, Connection, Dispatch, Reply, Setup};
use serde_json::json;

/// Still serves: a task goes there and back, an event is logged.
fn check_alive(server: &Dispatch) {
    let (admin, agent) = (server.admin(), server.agent("c"));
    let id = admin.enqueue("c", &json!("alive"));
    assert_eq!(agent.take().0, id);
    agent.answer(&id, &json!("yes"));
    assert_eq!(admin.task(&id)["result"], "yes");
    agent.report(&json!("alive"));
    let log = server.log().so_far();
    assert!(!log.contains("panicked"), "{log}");
}

/// The paths that take a body, and by whom.
fn with_body(server: &Dispatch) -> [(Caller, &'static str); 5] {
    let (admin, agent) = (server.admin(), server.agent("a"));
    [
        (agent.clone(), "/events"),
        (admin.clone(), "/tasks?target=a&noWait=1"),
        (agent, "/tasks_result?id=1"),
        (admin, "/webhooks"),
        (server.nobody(), "/enroll"),
    ]
}

#[test]
fn a_body_over_the_limit_is_refused() {
    let server = Dispatch::serve(Setup::new().set("limits", "body_bytes_max", "1000"));
    let filling = json!("x".repeat(1000));
    for (caller, path) in with_body(&server) {
        let _ = caller.post(path, &filling).refused(413);
    }
    server.agent("a").report(&json!("x".repeat(998)));
    check_alive(&server);
}

#[test]
fn a_hundred_megabytes_are_refused_before_they_are_held() {
    let server = Dispatch::start();
    let filling = vec![b'1'; 1 << 20];
    for head in ["Content-Length: 104857600\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut connection = server.connect();
        let head = format!("Host: x\r\nAuthorization: a:pw-a\r\n{head}");
        connection.write(format!("POST /events HTTP/1.1\r\n{head}\r\n"));
        let stream = connection.stream();
        for _ in 0..100 {
            let chunk = [b"100000\r\n", &filling[..], b"\r\n"].concat();
            let bytes = if head.contains("chunked") { &chunk } else { &filling };
            // It may answer and close at any point of this.
            if stream.write_all(bytes).is_err() {
                break;
            }
        }
        if let Some(reply) = connection.try_read_reply() {
            let _ = reply.refused(413);
        }
    }
    let peak = e2e::peak_memory_kib(server.process.pid());
    assert!(peak < 300 << 10, "{peak} KiB");
    assert_eq!(server.admin().get("/events?agent=a").ok()["events"], json!([]));
    check_alive(&server);
}

fn send(server: &Dispatch, request: impl AsRef<[u8]>) -> Option<Reply> {
    let mut connection = server.connect();
    connection.write(request);
    connection.finish_writing();
    connection.try_read_reply()
}

#[test]
fn what_is_no_request_is_refused() {
    let server = Dispatch::start();
    let auth = "Host: x\r\nAuthorization: a:pw-a\r\n";
    let long = "x".repeat(100_000);
    for request in [
        "garbage\r\n\r\n".to_owned(),
        format!("GET /tasks HTTP/9.9\r\n{auth}\r\n"),
        "GET /tasks?wait=0 HTTP/1.1\r\nAuthorization: a:pw-a\r\n\r\n".into(),
        format!("GET /tasks?wait=0&x={long} HTTP/1.1\r\n{auth}\r\n"),
        format!("GET /tasks?wait=0 HTTP/1.1\r\n{auth}X: {long}\r\n\r\n"),
        format!("POST /events HTTP/1.1\r\n{auth}Content-Length: -1\r\n\r\n1"),
        format!("POST /events HTTP/1.1\r\n{auth}Content-Length: 1\r\nContent-Length: 2\r\n\r\n11"),
        format!("POST /events HTTP/1.1\r\n{auth}Transfer-Encoding: chunked\r\n\r\nz\r\n"),
        format!("POST /events HTTP/1.1\r\n{auth}Content-Length: 10\r\n\r\n{{}}"),
        format!(
            "GET /tasks?wait=0 HTTP/1.1\r\nHost: x\r\n{}\r\n",
            "Authorization: a:pw-a\r\n".repeat(2)
        ),
    ] {
        let reply = send(&server, &request);
        let status = reply.as_ref().map_or(400, |reply| reply.status);
        assert!((400..600).contains(&status), "{status}: {request:.200}");
        // Also where the head could not be read: the path tells whose words it is to be told in.
        if let Some(reply) = reply.filter(|_| !request.starts_with("garbage")) {
            let _ = reply.refused(status);
        }
    }
    assert_eq!(server.admin().get("/events?agent=a").ok()["events"], json!([]));
    check_alive(&server);
}

#[test]
fn odd_queries_are_answered() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let long = "n".repeat(10_240);
    for value in [
        "%",
        "%zz",
        "%ff%fe",
        "%00",
        "a%00b",
        "a%2Fb",
        "a:b",
        "%F0%9F%99%82",
        "+",
        "a%0d%0aX:y",
        "'--",
        &long,
    ] {
        for path in ["/tasks?noWait=1&target=", "/events?agent=", "/agents?id="] {
            let reply = match path {
                "/agents?id=" => admin.delete(&format!("{path}{value}")),
                "/events?agent=" => admin.get(&format!("{path}{value}")),
                _ => admin.post(&format!("{path}{value}"), &json!({})),
            };
            let fine = reply.status == 200 && path.starts_with("/events");
            assert!(
                fine || matches!(reply.status, 400 | 404 | 414 | 431),
                "{path}{value}: {}",
                reply.text()
            );
            assert!(fine || reply.json()["error"] == true, "{}", reply.text());
        }
        for path in ["/tasks_result?id=", "/tasks?wait=", "/login?user="] {
            let reply = match path {
                "/tasks?wait=" => agent.get(&format!("{path}{value}")),
                _ => agent.post(&format!("{path}{value}"), &json!({})),
            };
            assert!((400..500).contains(&reply.status), "{path}{value}: {}", reply.status);
        }
    }
    assert_eq!(admin.get("/agents").ok()["agents"], json!(["a", "b", "c"]));
    check_alive(&server);
}

#[test]
fn json_as_deep_as_it_may_be_is_kept_or_refused() {
    let server = Dispatch::start();
    let agent = server.agent("a");
    for depth in [100, 10_000, 200_000] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let reply = agent.post_bytes("/events", deep.as_str());
        match reply.status {
            200 => assert!(server.admin().get("/events?agent=a").text().contains(&deep)),
            status => drop(reply.refused(if status == 413 { 413 } else { 400 })),
        }
    }
    check_alive(&server);
}

#[test]
fn hundreds_of_parked_polls_and_half_sent_requests_stop_nobody() {
    let server = Dispatch::start();
    // Known from now on: this is not about passwords.
    check_alive(&server);
    server.agent("a").report(&json!("known"));
    let mut held: Vec<Connection> = Vec::new();
    for n in 0..400 {
        let mut connection = server.connect();
        connection.write(match n % 2 {
            0 => "GET /tasks HTTP/1.1\r\nHost: x\r\nAuthorization: a:pw-a\r\n\r\n",
            _ => "POST /events HTTP/1.1\r\nHost: x\r\nAuthorization: a:pw-a\r\nContent-Length: 5\r\n\r\n1",
        });
        held.push(connection);
    }
    check_alive(&server);
    drop(held);
    check_alive(&server);
}

#[test]
fn requests_one_behind_the_other_are_answered_in_their_order() {
    let server = Dispatch::start();
    let mut connection = server.connect();
    let head = "Host: x\r\nAuthorization: a:pw-a\r\n";
    let event = format!("POST /events HTTP/1.1\r\n{head}Content-Length: 1\r\n\r\n");
    let poll = format!("GET /tasks?wait=0 HTTP/1.1\r\n{head}\r\n");
    connection.write(format!("{event}1{poll}{event}2{poll}"));
    for _ in 0..2 {
        assert_eq!(connection.read_reply().ok()["msg"], "Event logged");
        assert_eq!(connection.read_reply().ok()["events"], json!({}));
    }
    assert_eq!(server.admin().get("/events?agent=a").ok()["events"], json!([1, 2]));
}

#[test]
fn a_body_may_be_chunked_and_announced() {
    let server = Dispatch::start();
    let mut connection = server.connect();
    let head = "Host: x\r\nAuthorization: a:pw-a\r\n";
    connection.write(format!("POST /events HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n1\r\n[\r\n1\r\n]\r\n0\r\n\r\n"));
    assert_eq!(connection.read_reply().ok()["msg"], "Event logged");
    connection.write(format!(
        "POST /events HTTP/1.1\r\n{head}Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    ));
    assert_eq!(connection.read_reply().status, 100);
    connection.write("{}");
    assert_eq!(connection.read_reply().ok()["msg"], "Event logged");
    assert_eq!(server.admin().get("/events?agent=a").ok()["events"], json!([[], {}]));
}

#[test]
fn a_wrong_password_is_never_in_the_log() {
    let server = Dispatch::start();
    let token = server.login("root", "pw-root");
    let _ = server.caller("a:mistyped-words").get("/tasks?wait=0");
    let _ = server.post("/login?user=root&pass=mistyped-words").send();
    let _ = server.get("/agents?token=mistyped-words&apikey=mistyped-words");
    let _ = server.get("/nothing?pass=mistyped-words");
    let _ = server.get("/sutrc/api/login?token=mistyped-words");
    check_alive(&server);
    let log = server.log().so_far();
    for secret in ["mistyped-words", "pw-a", "pw-root", &token] {
        assert!(!log.contains(secret), "{secret} in:\n{log}");
    }
}

#[test]
fn strangers_send_little() {
    let server = Dispatch::start();
    for path in ["/login", "/enroll"] {
        let reply = server.nobody().post(path, &json!("x".repeat(70_000)));
        assert!(reply.refused(413).contains("65536"), "{path}");
    }
    server.agent("a").report(&json!("x".repeat(70_000)));
}

#[test]
fn who_says_twice_who_they_are_is_nobody() {
    let server = Dispatch::start();
    let mut connection = server.connect();
    let head = "Host: x\r\nAuthorization: a:pw-a\r\nAuthorization: b:pw-b\r\n";
    connection.write(format!("GET /tasks?wait=0 HTTP/1.1\r\n{head}\r\n"));
    assert_eq!(connection.read_reply().refused(403), "Authorization failure");
}
