//! Golden bytes shared with `python/tests/test_golden.py`, and bytes that no worker sends.

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};

use super::*;
use crate::call::{Call, FormValue};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/worker").join(name)
}

/// Compares with the file that the other side reads; `GATEHOUSE_REWRITE=1` writes it anew.
fn check_golden(name: &str, bytes: &[u8]) {
    if std::env::var_os("GATEHOUSE_REWRITE").is_some() {
        std::fs::write(golden(name), bytes).unwrap();
    }
    let expected = std::fs::read(golden(name)).unwrap();
    assert!(bytes == expected, "{name} differs; GATEHOUSE_REWRITE=1 rewrites it");
}

fn call() -> Call {
    let mut headers = HeaderMap::new();
    headers.insert("host", "localhost".parse().unwrap());
    headers.append("x-twice", "1".parse().unwrap());
    headers.append("x-twice", "2".parse().unwrap());
    headers.insert("x-latin", HeaderValue::from_bytes(b"caf\xe9").unwrap());
    headers.insert("content-type", "Application/Vnd.x+JSON; charset=utf-8".parse().unwrap());
    Call {
        method: Method::POST,
        uri: "/caf%C3%A9/x?a=1&a=2&b=%C3%BC".parse().unwrap(),
        subpath: Some("x".into()),
        headers,
        body: Bytes::from_static(b"{\"k\": 1}"),
        form: Some(vec![
            ("text".into(), FormValue::Text("ü".repeat(200))),
            ("file".into(), FormValue::File(Bytes::from_static(b"\x00\xff"))),
        ]),
        client_ip: "2001:db8::1".parse().unwrap(),
    }
}

#[test]
fn what_the_server_sends_is_what_the_worker_reads() {
    let mut outgoing = Outgoing::default();
    outgoing.hello(r#"{"version": 1}"#);
    outgoing.call(7, 2, &call());
    outgoing.ping();
    outgoing.cancel(7);
    outgoing.credit(8);
    outgoing.stop();
    let mut frames = Vec::new();
    outgoing.take_frame(&mut frames);
    assert!(outgoing.is_empty());
    check_golden("to_worker.bin", &frames);
}

#[test]
fn what_the_worker_sends_is_what_the_server_reads() {
    // Written by the other side: `GATEHOUSE_REWRITE=1 python3 -m unittest python/tests/test_golden.py`.
    let mut buffer = BytesMut::from(&std::fs::read(golden("from_worker.bin")).unwrap()[..]);
    let mut seen = Vec::new();
    while let Ok(frame) = take_frame(&mut buffer) {
        read_frame(frame, |message| seen.push(format!("{message:?}"))).unwrap();
    }
    assert!(buffer.is_empty());
    let expected = [
        r#"Hello("{\"version\": 1}")"#,
        "Pong",
        r#"Answer { id: 7, status: 200, headers: {"content-type": "application/json"}, body: b"{\"a\":1}" }"#,
        // Of the pairs, the one with a line break and the connection's own are left out.
        r#"Answer { id: 8, status: 418, headers: {"x-tea": "caf\xc3\xa9", "set-cookie": "a=1", "set-cookie": "b=2"}, body: b"" }"#,
        r#"StreamHead { id: 9, status: 200, headers: {"content-type": "text/event-stream"} }"#,
        r#"StreamPiece { id: 9, piece: b"data: 1\n\n" }"#,
        r#"StreamEnd { id: 9, problem: None }"#,
        r#"StreamEnd { id: 10, problem: Some("it broke") }"#,
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_frame_cut_anywhere_is_an_error_and_no_panic() {
    let whole = std::fs::read(golden("from_worker.bin")).unwrap();
    let mut buffer = BytesMut::from(&whole[..]);
    while let Ok(frame) = take_frame(&mut buffer) {
        for end in 0..frame.len() {
            let cut = read_frame(frame.slice(..end), drop);
            assert!(cut.is_err(), "cut at {end} of {}", frame.len());
        }
    }
}

#[test]
fn damaged_frames_do_not_panic() {
    let whole = std::fs::read(golden("from_worker.bin")).unwrap();
    // Numerical Recipes' generator: the same damage at every run.
    let mut random = 1u32;
    let mut next = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as usize
    };
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut damaged = whole.clone();
        for _ in 0..=next() % 4 {
            let at = next() % damaged.len();
            damaged[at] = u8::try_from(next() % 256).unwrap();
        }
        let mut buffer = BytesMut::from(&damaged[..]);
        while let Ok(frame) = take_frame(&mut buffer) {
            refused += usize::from(read_frame(frame, drop).is_err());
        }
    }
    assert!(refused > 1000, "only {refused} were noticed");
}

#[test]
fn a_frame_is_taken_only_when_it_is_whole() {
    let mut frames = Vec::new();
    let mut outgoing = Outgoing::default();
    outgoing.ping();
    outgoing.take_frame(&mut frames);
    for end in 0..frames.len() {
        let mut part = BytesMut::from(&frames[..end]);
        let whole = if end < 4 { 0 } else { frames.len() };
        assert_eq!(take_frame(&mut part), Err(whole));
        assert_eq!(part.len(), end);
    }
}

#[test]
fn a_body_may_be_json_where_clients_say_nothing_better() {
    let check = |content_type: Option<&str>, expected: i32| {
        let mut call = call();
        call.headers.remove("content-type");
        if let Some(value) = content_type {
            call.headers.insert("content-type", value.parse().unwrap());
        }
        assert_eq!(body_kind(&call), expected, "{content_type:?}");
    };
    check(Some("application/json"), BODY_MUST_BE_JSON);
    check(Some("application/problem+json"), BODY_MUST_BE_JSON);
    check(Some("application/x-www-form-urlencoded"), BODY_MAY_BE_JSON);
    check(None, BODY_MAY_BE_JSON);
    check(Some("text/plain"), 0);
    check(Some("multipart/form-data; boundary=x"), 0);
}
