//! Bodies that a plugin yields piece by piece.

use e2e::{Setup, Signal};
use serde_json::json;

const GATED: &str = r#"
import asyncio
from plugincore import Response
class Gate(BasePlugin):
    async def initialize(self, **kwargs):
        self.open = asyncio.Event()
    async def request_handler(self, **data):
        if data.get("open"):
            self.open.set()
            return {"opened": True}
        body = self.pieces()
        if data.get("kind"):
            return Response(status=200, body=body, headers={"Content-Type": data["kind"]})
        return (202, body)
    async def pieces(self):
        yield "first;"
        await self.open.wait()
        yield b"second;"
        yield "drittä"
"#;

/// Everything of the chunks, read on until `end`.
fn read_until(connection: &mut e2e::Connection, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let chunk = connection.read_chunk().expect("more of the stream");
        text += &String::from_utf8(chunk).unwrap();
    }
    text
}

#[test]
fn pieces_arrive_as_they_are_yielded() {
    let server = Setup::new().plugin("gate.py", GATED).start();
    let mut connection = server.connect();
    connection.write("GET /gate HTTP/1.1\r\nHost: x\r\n\r\n");
    let (status, headers) = connection.read_head().unwrap();
    assert_eq!(status, 202);
    assert!(
        headers
            .iter()
            .any(|(name, value)| name.eq_ignore_ascii_case("transfer-encoding")
                && value == "chunked")
    );
    // The rest is yielded only after another request: what is read here came before the end.
    assert_eq!(read_until(&mut connection, "first;"), "first;");
    assert_eq!(server.get_json("/gate?open=1"), json!({"opened": true}));
    assert_eq!(read_until(&mut connection, "drittä"), "second;drittä");
    assert_eq!(connection.read_chunk(), None);
    connection.write("GET /gate HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(connection.read_reply().text(), "first;second;drittä", "the connection is kept");
}

#[test]
fn server_sent_events_arrive_one_by_one() {
    let server = Setup::new().plugin("gate.py", GATED).start();
    let mut connection = server.connect();
    connection.write("GET /gate?kind=text/event-stream HTTP/1.1\r\nHost: x\r\n\r\n");
    let (status, headers) = connection.read_head().unwrap();
    assert_eq!(status, 200);
    let kind = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    assert!(kind.unwrap().1.starts_with("text/event-stream"), "{headers:?}");
    assert!(read_until(&mut connection, "first;").contains("first;"));
    assert_eq!(server.get_json("/gate?open=1"), json!({"opened": true}));
    let _ = read_until(&mut connection, "drittä");
}

#[test]
fn a_handler_may_be_the_generator_itself() {
    let server = Setup::new().async_handler("Gen", "yield 'a'\nyield 'b'").start();
    let reply = server.get("/gen");
    assert_eq!((reply.status, reply.text().as_str()), (200, "ab"));
}

#[test]
fn a_large_stream_arrives_whole_and_in_order() {
    let body = "async def many():\n    for n in range(20000):\n        yield f'{n:07d}\\n' * 50\nreturn (200, many())";
    let server = Setup::new().async_handler("Much", body).start();
    let text = server.get("/much").text();
    let mut lines = text.lines();
    for n in 0..20_000 {
        for _ in 0..50 {
            assert_eq!(lines.next().and_then(|line| line.parse().ok()), Some(n));
        }
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn a_stream_that_fails_in_the_middle_is_seen_to_be_cut() {
    let body = "async def bad():\n    yield 'some'\n    raise ValueError('in the stream')\nreturn (200, bad())";
    let server = Setup::new().async_handler("Bad", body).start();
    assert!(server.request("GET", "/bad").try_send().is_err(), "the end of the body is missing");
    let _ = server.log().wait_for(&["in the stream"]);
    assert!(server.request("GET", "/bad").try_send().is_err(), "it goes on answering");
}

#[test]
fn a_stream_ends_when_its_reader_leaves() {
    let body = "import asyncio\nasync def endless():\n    try:\n        while True:\n            yield 'x' * 1000\n            await asyncio.sleep(0.01)\n    finally:\n        self.log('reader has left')\nreturn (200, endless())";
    let server = Setup::new().async_handler("Endless", body).start();
    let mut connection = server.connect();
    connection.write("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
    let _ = connection.read_head().unwrap();
    let _ = connection.read_chunk().unwrap();
    drop(connection);
    let _ = server.log().wait_for(&["endless", "reader has left"]);
}

#[test]
fn a_reader_that_does_not_read_does_not_fill_the_memory() {
    let body = "n = data.get('ping')\nif n:\n    return {'sent': self.sent}\nself.sent = 0\nasync def flood():\n    while True:\n        self.sent += 1\n        yield b'x' * 1_000_000\nreturn (200, flood())";
    let server = Setup::new().async_handler("Flood", body).start();
    let mut connection = server.connect();
    connection.write("GET /flood HTTP/1.1\r\nHost: x\r\n\r\n");
    let _ = connection.read_head().unwrap();
    // Each answered ping gives the stream a turn; without back pressure it would never stand still.
    let mut sent = (0, 0);
    e2e::wait_until("the stream stands still", || {
        let now = server.get_json("/flood?ping=1")["sent"].as_u64().unwrap();
        sent = if now == sent.0 { (now, sent.1 + 1) } else { (now, 0) };
        (sent.1 == 10).then_some(())
    });
    assert!(sent.0 < 200, "{} MB are waiting somewhere", sent.0);
    assert!(e2e::peak_memory_kib(server.process.pid()) < 400_000);
}

#[test]
fn a_stream_does_not_hold_up_the_end_for_ever() {
    let body = "import asyncio\nasync def endless():\n    while True:\n        yield 'x'\n        await asyncio.sleep(0.05)\nreturn (200, endless())";
    let mut server = Setup::new()
        .async_handler("Endless", body)
        .set("limits", "drain_timeout_secs", "1")
        .start();
    let mut connection = server.connect();
    connection.write("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
    let _ = connection.read_head().unwrap();
    server.signal(Signal::TERM);
    assert_eq!(server.process.wait().code, Some(0));
}

#[test]
fn head_of_a_stream_has_no_body() {
    let server = Setup::new().async_handler("Gen", "yield 'a'").start();
    let mut connection = server.connect();
    connection.write("HEAD /gen HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(connection.read_head().unwrap().0, 200);
    connection.write("GET /gen HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(connection.read_reply().text(), "a");
}
