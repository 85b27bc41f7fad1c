//! Agents that have been parked for so long that their request has left hyper.
//!
//! Invariant: nothing here holds only then, so no test depends on how long that takes.

use std::thread::sleep;
use std::time::Duration;

use bytes::Bytes;
use e2e::{Connection, Dispatch, Setup, Signal, wait_until};
use http_body_util::{BodyExt, Full};
use rustls::version::TLS13;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{http2, tls};

/// After it, a request that is parked has left.
const LONG: Duration = Duration::from_millis(250);
const HEAD: &str = "Host: x\r\nAuthorization: a:pw-a\r\n";

fn poll(wait_secs: u32) -> String {
    format!("GET /tasks?wait={wait_secs} HTTP/1.1\r\n{HEAD}\r\n")
}

fn long_parked(server: &Dispatch) -> Connection {
    let parked = server.parked("a");
    sleep(LONG);
    parked
}

#[test]
fn tasks_come_again_and_again_on_one_connection() {
    let server = Dispatch::start();
    let (admin, mut parked) = (server.admin(), long_parked(&server));
    for n in 0..5 {
        let id = admin.enqueue("a", &json!(n));
        let reply = parked.read_reply();
        assert_eq!(reply.ok()["events"], json!({id.as_str(): n}));
        assert!(reply.header("x-request-id").is_some() && reply.header("date").is_some());
        parked.write(format!(
            "POST /tasks_result?id={id} HTTP/1.1\r\n{HEAD}Content-Length: 4\r\n\r\ntrue"
        ));
        assert_eq!(parked.read_reply().status, 200);
        assert_eq!(admin.task(&id)["result"], true);
        parked.write(poll(20));
        sleep(LONG);
    }
}

#[test]
fn a_wait_that_ends_is_answered_and_so_is_what_was_asked_meanwhile() {
    let server = Dispatch::start();
    let mut parked = server.connect();
    parked.write(poll(1)).write(poll(1));
    sleep(LONG);
    parked.write(format!("GET /healthz HTTP/1.1\r\n{HEAD}\r\n"));
    assert_eq!(parked.read_reply().ok()["events"], json!({}));
    assert_eq!(parked.read_reply().ok()["events"], json!({}));
    assert!(parked.read_reply().ok().get("events").is_none());
}

#[test]
fn a_task_goes_to_the_next_when_who_was_parked_has_gone() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    for is_reset in [false, true] {
        let parked = long_parked(&server);
        if is_reset {
            parked.reset();
        } else {
            drop(parked);
        }
        let id = admin.enqueue("a", &json!(is_reset));
        assert_eq!(agent.take(), (id.clone(), json!(is_reset)));
        agent.answer(&id, &json!("done"));
    }
    assert!(agent.poll("wait=0").is_empty());
}

#[test]
fn a_task_on_a_connection_that_is_reset_at_once_is_offered_again() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let parked = long_parked(&server);
    let id = admin.enqueue("a", &json!(1));
    let _ = admin.task_in(&id, "taken");
    parked.reset();
    assert_eq!(agent.take().0, id);
}

#[test]
fn the_end_of_the_server_answers_who_is_parked() {
    let server = Dispatch::start();
    let mut parked = long_parked(&server);
    server.signal(Signal::TERM);
    let reply = parked.read_reply();
    assert_eq!(reply.ok()["events"], json!({}));
    assert_eq!(parked.read_to_close(), b"");
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn who_wants_the_connection_closed_has_it_closed() {
    let server = Dispatch::start();
    let admin = server.admin();
    for (version, connection) in [("1.0", ""), ("1.1", "Connection: close\r\n")] {
        let mut parked = server.connect();
        parked.write(format!("GET /tasks HTTP/{version}\r\n{HEAD}{connection}\r\n"));
        sleep(LONG);
        let id = admin.enqueue("a", &json!(version));
        assert_eq!(parked.read_reply().ok()["events"], json!({id.as_str(): version}));
        assert_eq!(parked.read_to_close(), b"", "{version}");
    }
}

#[test]
fn a_line_in_the_log_tells_how_long_it_was() {
    let server = Dispatch::serve(Setup::new().set("log", "access", "all"));
    let mut parked = long_parked(&server);
    let id = server.admin().enqueue("a", &json!(1));
    assert_eq!(parked.read_reply().ok()["events"], json!({id.as_str(): 1}));
    let line = wait_until("a line in the log", || {
        let log = server.log().so_far();
        log.lines()
            .find(|line| line.contains("path=\"/tasks\"") && line.contains("method=GET"))
            .map(str::to_owned)
    });
    assert!(line.contains("status=200"), "{line}");
    let micros: u64 = line.split("micros=").nth(1).unwrap().trim().parse().unwrap();
    assert!(micros >= 250_000, "{line}");
}

#[test]
fn it_is_the_same_behind_tls() {
    let (cert, key, trusted) = tls::certificate();
    let server = Dispatch::serve(tls::setup(&cert, &key));
    let connect = || tls::connect(&server, &trusted, &[&TLS13]).unwrap();
    let (mut admin, mut parked) = (connect(), connect());
    parked.write(poll(20)).write(format!("GET /healthz HTTP/1.1\r\n{HEAD}\r\n"));
    admin.write(
        "POST /login?user=root&pass=pw-root HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    );
    let token = admin.read_reply().ok()["token"].as_str().unwrap().to_owned();
    sleep(LONG);
    let head = format!("Host: x\r\nAuthorization: {token}\r\nContent-Length: 1\r\n");
    admin.write(format!("POST /tasks?target=a&noWait=1 HTTP/1.1\r\n{head}\r\n7"));
    let id = admin.read_reply().ok()["id"].as_str().unwrap().to_owned();
    assert_eq!(parked.read_reply().ok()["events"], json!({id.as_str(): 7}));
    assert_eq!(parked.read_reply().status, 200);
}

#[test]
fn polls_share_a_connection_of_http2() {
    let server = Dispatch::start();
    let admin = server.admin();
    http2::run(async {
        let mut owned = JoinSet::new();
        let client = http2::plain(&server, &mut owned).await;
        let mut polls = JoinSet::new();
        for name in ["a", "b"] {
            let mut client = client.clone();
            polls.spawn(async move {
                let request = http::Request::get("http://x/tasks?wait=20")
                    .header("authorization", format!("{name}:pw-{name}"))
                    .body(Full::new(Bytes::new()))
                    .unwrap();
                client.ready().await.unwrap();
                let reply = client.send_request(request).await.unwrap();
                let body = reply.into_body().collect().await.unwrap().to_bytes();
                serde_json::from_slice::<Value>(&body).unwrap()["events"].to_string()
            });
        }
        tokio::time::sleep(LONG).await;
        for name in ["b", "a"] {
            let admin = admin.clone();
            let id = tokio::task::spawn_blocking(move || admin.enqueue(name, &json!(name)));
            let expected = json!({id.await.unwrap().as_str(): name}).to_string();
            assert_eq!(polls.join_next().await.unwrap().unwrap(), expected);
        }
    });
}
