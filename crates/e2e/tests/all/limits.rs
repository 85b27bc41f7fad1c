//! Clients that are slow, many, or send more than they may.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use e2e::{Connection, Reply, Server, Setup};
use serde_json::json;

const COUNT: &str = "if data.get('ask'):\n    return {'n': getattr(self, 'n', 0)}\nself.n = getattr(self, 'n', 0) + 1\nreturn {'length': int(data['request'].headers.get('content-length', -1))}";

fn server(section: &str, key: &str, value: &str) -> Server {
    Setup::new().handler("Count", COUNT).set(section, key, value).start()
}

fn calls(server: &Server) -> u64 {
    server.get_json("/count?ask=1")["n"].as_u64().unwrap()
}

fn check_too_large(reply: &Reply, server: &Server) {
    let _ = reply.json_error(413);
    assert_eq!(calls(server), 0, "a call was made without its body");
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_sent() {
    let server = server("limits", "body_bytes_max", "1000");
    let mut connection = server.connect();
    connection.write("POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n");
    check_too_large(&connection.read_reply(), &server);
}

#[test]
fn a_body_that_expects_to_continue_is_refused_or_asked_for() {
    let server = server("limits", "body_bytes_max", "1000");
    let mut connection = server.connect();
    connection.write(
        "POST /count HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n",
    );
    check_too_large(&connection.read_reply(), &server);
    let mut connection = server.connect();
    connection.write(
        "POST /count HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
    );
    assert_eq!(connection.read_head().unwrap().0, 100);
    connection.write("abc");
    assert_eq!(connection.read_reply().status, 200);
}

#[test]
fn a_body_at_the_limit_is_served() {
    let server = server("limits", "body_bytes_max", "1000");
    let reply = server.post("/count").body("text/plain", "x".repeat(1000)).send();
    assert_eq!((reply.status, reply.json()), (200, json!({"length": 1000})));
    check_status(&server, 1001, 413);
}

fn check_status(server: &Server, length: usize, status: u16) {
    let mut connection = server.connect();
    connection
        .write(format!("POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"));
    connection.write("x".repeat(length));
    assert_eq!(connection.read_reply().status, status, "{length}");
}

#[test]
fn sixteen_mebibytes_are_the_limit_where_none_is_set() {
    let server = Setup::new().handler("Count", COUNT).start();
    check_status(&server, 16 << 20, 200);
    let mut connection = server.connect();
    connection.write(format!(
        "POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        (16 << 20) + 1
    ));
    let _ = connection.read_reply().json_error(413);
}

#[test]
fn chunks_over_the_limit_are_refused() {
    let server = server("limits", "body_bytes_max", "1000");
    let mut connection = server.connect();
    connection.write("POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..11 {
        connection.write(format!("64\r\n{}\r\n", "x".repeat(100)));
    }
    check_too_large(&connection.read_reply(), &server);
}

#[test]
fn one_huge_chunk_is_refused_before_it_is_held() {
    let server = server("limits", "body_bytes_max", "1000");
    let mut connection = server.connect();
    connection
        .write("POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7FFFFFFF\r\n");
    connection.write("x".repeat(100_000));
    check_too_large(&connection.read_reply(), &server);
    assert!(e2e::peak_memory_kib(server.process.pid()) < 150_000);
}

#[test]
fn chunks_within_the_limit_are_one_body() {
    let body = "return {'text': await data['request'].text()}";
    let server = Setup::new().async_handler("Text", body).start();
    let mut connection = server.connect();
    connection.write("POST /text HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: 1\r\n\r\n");
    assert_eq!(connection.read_reply().json(), json!({"text": "abcde"}));
}

#[test]
fn a_form_over_the_limit_is_refused() {
    let server = server("limits", "body_bytes_max", "1000");
    let reply = server.post("/count").form(&format!("a={}", "x".repeat(2000))).send();
    check_too_large(&reply, &server);
}

#[test]
fn control_routes_have_the_limit_too() {
    let server = server("limits", "body_bytes_max", "1000");
    let reply = server.post("/plugins").json(&json!({"a": "x".repeat(2000)})).send();
    let _ = reply.json_error(413);
}

/// The peer sends part of a body and leaves: no call is made of it.
fn check_cut(request: &str) {
    let server = Setup::new().handler("Count", COUNT).start();
    let mut connection = server.connect();
    connection.write(request);
    connection.finish_writing();
    for reply in std::iter::from_fn(|| connection.try_read_reply()) {
        assert!((400..500).contains(&reply.status), "{}", reply.status);
    }
    assert_eq!(calls(&server), 0, "{request}");
}

#[test]
fn a_body_that_is_cut_off_makes_no_call() {
    check_cut("POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly this");
    check_cut(
        "POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
    );
    check_cut("POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab");
    check_cut(
        "POST /count HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{}",
    );
}

/// Sends a part, then `drip` again and again; the server ends it and serves others meanwhile.
fn check_slow(key: &str, start: &str, drip: &str) {
    let server = server("limits", key, "1");
    let mut slow = server.connect();
    slow.write(start);
    let mut more = Connection::over(slow.stream().try_clone().unwrap());
    let (stop, stopped) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            // The pace is what is tested: slower than the limit allows, never silent.
            while stopped.recv_timeout(Duration::from_millis(300)) == Err(RecvTimeoutError::Timeout)
            {
                more.write(drip);
            }
        });
        assert_eq!(server.get_json("/count")["length"], -1);
        ended(&mut slow);
        drop(stop);
    });
    assert_eq!(calls(&server), 1, "the slow one made no call");
}

fn ended(slow: &mut Connection) {
    let bytes = slow.read_to_close();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
}

#[test]
fn a_head_that_takes_too_long_is_ended() {
    check_slow("header_timeout_secs", "GET /count HTTP/1.1\r\nHost: x\r\n", "");
}

#[test]
fn a_head_that_drips_without_end_is_ended() {
    check_slow("header_timeout_secs", "GET /count HTTP/1.1\r\nHost: x\r\nX-A: ", "a");
}

#[test]
fn a_body_that_stops_is_ended() {
    check_slow(
        "body_timeout_secs",
        "POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
        "",
    );
}

#[test]
fn a_connection_that_says_nothing_is_ended() {
    let server = Setup::new()
        .handler("Count", COUNT)
        .set("limits", "header_timeout_secs", "1")
        .set("limits", "idle_timeout_secs", "1")
        .start();
    assert!(server.connect().read_to_close().is_empty());
    let mut kept = server.connect();
    kept.write("GET /count HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(kept.read_reply().status, 200);
    assert!(kept.read_to_close().is_empty(), "a kept connection ends as well");
}

/// Opens this many idle connections and serves a client among them.
fn check_crowd(count: usize) {
    let server = Setup::new().handler("Count", COUNT).start();
    let crowd: Vec<_> = (0..count)
        .map(|n| {
            let mut connection = server.connect();
            if n % 2 == 0 {
                connection.write("GET /count HTTP/1.1\r\nHo");
            }
            connection
        })
        .collect();
    for _ in 0..50 {
        let mut connection = server.connect();
        connection.write("GET /count HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert_eq!(connection.read_reply().status, 200);
    }
    drop(crowd);
    assert_eq!(server.get_json("/count")["length"], -1);
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn thousands_of_idle_connections_do_not_hold_up_a_client() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let _alone = crate::MANY_FILES.lock();
    let limit = getrlimit(Resource::Nofile);
    // The server inherits the limit; both ends of every connection count against one each.
    let most = limit.maximum.unwrap_or(u64::MAX);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    check_crowd(if most >= 10_500 {
        10_000
    } else {
        2_000.min(usize::try_from(most).unwrap() - 200)
    });
}

#[test]
fn more_connections_than_allowed_wait_or_are_closed_but_break_nothing() {
    let server = server("limits", "connections_max", "50");
    let crowd: Vec<_> = (0..200).map(|_| server.connect()).collect();
    drop(crowd);
    e2e::wait_until("a client is served again", || {
        server.request("GET", "/count").try_send().ok().filter(|reply| reply.status == 200)
    });
}

#[test]
fn more_calls_than_allowed_are_refused_clearly() {
    let body = "import asyncio, os\nif data.get('gate'):\n    self.n = getattr(self, 'n', 0) + 1\n    if self.n == 5:\n        self.log('full now')\n    while not os.path.exists(data['gate']):\n        await asyncio.sleep(0.02)\nreturn {'ok': True}";
    let server = Setup::new().async_handler("Few", body).set("python", "calls_max", "5").start();
    let gate = format!("/few?gate={}", server.path("gate").display());
    thread::scope(|scope| {
        let calls: Vec<_> = (0..5).map(|_| scope.spawn(|| server.get_json(&gate))).collect();
        let _ = server.log().wait_for(&["full now"]);
        let reply = server.get("/few");
        assert!(matches!(reply.status, 429 | 503), "{}", reply.status);
        assert!(reply.json()["error"].is_string());
        server.write("gate", "");
        for call in calls {
            assert_eq!(call.join().unwrap(), json!({"ok": true}));
        }
    });
    assert_eq!(server.get_json("/few"), json!({"ok": true}));
}

#[test]
fn an_answer_before_the_body_never_spoils_the_connection_silently() {
    let server = Setup::new()
        .handler("Count", COUNT)
        .handler("Safe", "return {}")
        .parameters("safe", "auth_type=plugin&apikey=k")
        .start();
    let late = "{\"a\": 12345}";
    for (line, key) in [
        ("POST /nothing", ""),
        ("PUT /count", ""),
        ("POST /safe", "Authorization: Bearer wrong\r\n"),
        ("POST /reload/nothing", ""),
        ("GET /plugins", ""),
    ] {
        let mut connection = server.connect();
        connection.write(format!(
            "{line} HTTP/1.1\r\nHost: x\r\n{key}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            late.len()
        ));
        // As a client does that writes head and body one after the other.
        thread::sleep(Duration::from_millis(50));
        connection.write(late);
        let reply = connection.read_reply();
        if reply.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            continue;
        }
        connection.write("GET /count?ask=1 HTTP/1.1\r\nHost: x\r\n\r\n");
        let next = connection.try_read_reply().map(|reply| reply.status);
        assert_eq!(next, Some(200), "{line}: the connection was promised to be kept");
    }
}

#[test]
fn the_limit_of_an_answer_is_not_one_of_many_answers_at_once() {
    let code = r#"
import asyncio
class Crowd(BasePlugin):
    async def initialize(self, **kwargs):
        self.here = 0
        self.all_here = asyncio.Event()
    async def request_handler(self, **data):
        self.here += 1
        if self.here == 150:
            self.all_here.set()
        await self.all_here.wait()
        return (200, "x" * 60_000)
"#;
    let server =
        Setup::new().plugin("crowd.py", code).set("limits", "reply_bytes_max", "1MiB").start();
    thread::scope(|scope| {
        let calls: Vec<_> = (0..150).map(|_| scope.spawn(|| server.get("/crowd"))).collect();
        for call in calls {
            let reply = call.join().unwrap();
            assert_eq!((reply.status, reply.body.len()), (200, 60_000));
        }
    });
}
