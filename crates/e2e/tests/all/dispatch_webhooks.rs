//! Webhooks: every event of theirs, in order, signed, again until it is taken.

use e2e::{Caller, Dispatch, Receiver, Reply, Signal};
use serde_json::{Value, json};

fn add(admin: &Caller, body: &Value) -> Value {
    let said = admin.post("/webhooks", body).ok();
    assert!(said["id"].is_string() && said["secret"].is_string(), "{said}");
    said
}

fn check(request: &Reply, agent: &str, event: &Value) {
    let body = request.json();
    assert_eq!((&body["agent"], &body["event"]), (&json!(agent), event), "{body}");
    assert!(body["at"].is_u64(), "{body}");
    assert_eq!(request.header("x-gatehouse-event-id"), body["id"].as_str());
    let time = request.header("x-gatehouse-timestamp").unwrap();
    assert!(time.parse::<u64>().is_ok_and(|time| time > 1_600_000_000), "{time}");
}

/// The signature by another hand: Python's.
fn signature(secret: &str, request: &Reply) -> String {
    const CODE: &str = "import hmac, sys\nbody = sys.stdin.buffer.read()\nprint(hmac.new(sys.argv[1].encode(), sys.argv[2].encode() + b'.' + body, 'sha256').hexdigest())";
    let time = request.header("x-gatehouse-timestamp").unwrap();
    let arguments = ["-c", CODE, secret, time];
    let python = std::path::Path::new("python3");
    let exit = e2e::run_reading(python, &arguments, std::path::Path::new("/"), &request.body);
    format!("sha256={}", exit.stdout.trim())
}

#[test]
fn events_are_sent_in_order_and_signed() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    agent.report(&json!("before"));
    let receiver = Receiver::start(&[]);
    let said = add(&admin, &json!({"url": receiver.url, "secret": "shared"}));
    assert_eq!(said["secret"], "shared");
    for n in 0..5 {
        agent.report(&json!({"n": n}));
    }
    for n in 0..5 {
        let request = receiver.next_request();
        check(&request, "a", &json!({"n": n}));
        let signed = request.header("x-gatehouse-signature").unwrap();
        assert_eq!(signed, signature("shared", &request));
    }
    let list = admin.get("/webhooks").ok();
    let told = list.to_string();
    assert!(told.contains(&receiver.url) && !told.contains("shared"), "{told}");
}

#[test]
fn only_the_agents_it_asks_for_are_told() {
    let server = Dispatch::start();
    server.add_account("web-1", "agent");
    let receiver = Receiver::start(&[]);
    let _ = add(&server.admin(), &json!({"url": receiver.url, "agents": ["b", "web-*"]}));
    for name in ["a", "b", "c", "web-1"] {
        server.agent(name).report(&json!(name));
    }
    for name in ["b", "web-1"] {
        check(&receiver.next_request(), name, &json!(name));
    }
}

#[test]
fn what_is_not_taken_is_sent_again_before_what_follows() {
    let server = Dispatch::start();
    let receiver = Receiver::start(&[500, 302]);
    let _ = add(&server.admin(), &json!({"url": receiver.url}));
    server.agent("a").report(&json!(1));
    server.agent("a").report(&json!(2));
    let first = receiver.next_request();
    for _ in 0..2 {
        let again = receiver.next_request();
        check(&again, "a", &json!(1));
        assert_eq!(again.header("x-gatehouse-event-id"), first.header("x-gatehouse-event-id"));
    }
    check(&receiver.next_request(), "a", &json!(2));
}

#[test]
fn the_next_server_goes_on_where_the_last_one_ended() {
    let mut server = Dispatch::start();
    let receiver = Receiver::start(&[200, 503]);
    let id = add(&server.admin(), &json!({"url": receiver.url}))["id"].as_str().unwrap().to_owned();
    server.agent("a").report(&json!(1));
    server.agent("a").report(&json!(2));
    check(&receiver.next_request(), "a", &json!(1));
    check(&receiver.next_request(), "a", &json!(2));
    e2e::wait_until("the failure is told", || {
        let list = server.admin().get("/webhooks").ok().to_string();
        list.contains("503").then_some(())
    });
    server.restart(Signal::KILL);
    // The one that was taken may come again when the server died before it had written that down.
    let mut request = receiver.next_request();
    if request.json()["event"] == 1 {
        request = receiver.next_request();
    }
    check(&request, "a", &json!(2));
    server.agent("a").report(&json!(3));
    check(&receiver.next_request(), "a", &json!(3));
    let gone = server.admin().delete(&format!("/webhooks?id={id}")).ok();
    assert_eq!(gone["error"], false);
    let _ = server.admin().delete(&format!("/webhooks?id={id}")).refused(404);
}

#[test]
fn one_that_never_answers_holds_up_nobody() {
    let server = Dispatch::start();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let receiver = Receiver::start(&[]);
    let admin = server.admin();
    let _ = add(&admin, &json!({"url": format!("http://{}/", silent.local_addr().unwrap())}));
    let _ = add(&admin, &json!({"url": receiver.url}));
    for n in 0..20 {
        server.agent("a").report(&json!(n));
        check(&receiver.next_request(), "a", &json!(n));
    }
}

#[test]
fn what_is_no_webhook_is_refused() {
    let server = Dispatch::start();
    let admin = server.admin();
    for body in [
        json!({}),
        json!([]),
        json!({"url": 1}),
        json!({"url": ""}),
        json!({"url": "nowhere"}),
        json!({"url": "file:///etc/passwd"}),
        json!({"url": "http://"}),
        json!({"url": "http://x/", "agents": "a"}),
        json!({"url": "http://x/", "agents": [1]}),
        json!({"url": "http://x/", "secret": 1}),
    ] {
        let _ = admin.post("/webhooks", &body).refused(400);
    }
    let _ = admin.post_bytes("/webhooks", "{").refused(400);
}
