//! Events: in order, the newest of each agent, page by page and live.

use std::time::Duration;

use e2e::{Caller, Dispatch, Message, Signal, Stream};
use serde_json::{Value, json};

fn numbers(said: &Value) -> Vec<i64> {
    let events = said["events"].as_array().unwrap_or_else(|| panic!("no array in {said}"));
    events.iter().map(|event| event["n"].as_i64().unwrap()).collect()
}

fn report(agent: &Caller, numbers: std::ops::Range<i64>) {
    for n in numbers {
        agent.report(&json!({"n": n}));
    }
}

/// What the admin finds at the path.
fn read(server: &Dispatch, query: &str) -> Value {
    server.admin().get(&format!("/events?agent=a{query}")).ok()
}

#[test]
fn the_newest_512_are_kept_in_order() {
    let server = Dispatch::start();
    let posters: Vec<_> =
        ["a", "b"].map(|name| server.agent(name).apart(|agent| report(&agent, 0..600))).into();
    for poster in posters {
        poster.join().unwrap();
    }
    for name in ["a", "b"] {
        let said = server.admin().get(&format!("/events?agent={name}")).ok();
        assert_eq!(numbers(&said), (88..600).collect::<Vec<_>>(), "{name}");
        assert_eq!(said["max_size"], 512);
    }
}

#[test]
fn how_many_are_kept_can_be_set() {
    let mut server = Dispatch::configured(&[("events_max", "5")]);
    report(&server.agent("a"), 0..12);
    for signal in [Signal::TERM, Signal::KILL] {
        let said = read(&server, "");
        assert_eq!((numbers(&said), &said["max_size"]), ((7..12).collect(), &json!(5)));
        server.restart(signal);
    }
}

#[test]
fn what_one_connection_posts_after_another_stays_in_order_among_many() {
    let server = Dispatch::start();
    let posters: Vec<_> = (0..8)
        .map(|poster| {
            server.agent("a").apart(move |agent| {
                for n in 0..50 {
                    agent.report(&json!({"poster": poster, "n": n}));
                }
            })
        })
        .collect();
    for poster in posters {
        poster.join().unwrap();
    }
    let said = read(&server, "");
    let events = said["events"].as_array().unwrap();
    assert_eq!(events.len(), 400);
    for poster in 0..8 {
        let own = events.iter().filter(|event| event["poster"] == poster);
        let order: Vec<_> = own.map(|event| event["n"].as_i64().unwrap()).collect();
        assert_eq!(order, (0..50).collect::<Vec<_>>(), "{poster}");
    }
}

#[test]
fn events_are_read_page_by_page() {
    let server = Dispatch::start();
    report(&server.agent("a"), 0..10);
    report(&server.agent("b"), 100..103);
    let (mut after, mut found) = ("0".to_owned(), Vec::new());
    loop {
        let said = read(&server, &format!("&after={after}&limit=3&details=1"));
        let details = said["details"].as_array().unwrap().clone();
        assert_eq!(details.len(), numbers(&said).len());
        assert!(details.len() <= 3, "{said}");
        for (detail, event) in details.iter().zip(said["events"].as_array().unwrap()) {
            assert_eq!(detail["event"], *event);
            assert!(detail["at"].as_u64().is_some_and(|at| at > 1_600_000_000_000), "{detail}");
        }
        found.extend(numbers(&said));
        match details.last() {
            Some(last) => after = last["id"].as_str().unwrap().to_owned(),
            None => break,
        }
    }
    assert_eq!(found, (0..10).collect::<Vec<_>>());
    assert!(read(&server, "").get("details").is_none(), "only who asks is told more");
}

fn token(server: &Dispatch) -> String {
    format!("Authorization: {}\r\n", server.login("root", "pw-root"))
}

fn check_message(message: &Message, agent: &str, n: i64) {
    assert_eq!(message.event, "event", "{message:?}");
    assert_eq!(message.data["agent"], agent, "{message:?}");
    assert_eq!(message.data["event"], json!({"n": n}), "{message:?}");
    assert!(message.data["at"].is_u64() && message.id.parse::<u64>().is_ok(), "{message:?}");
}

#[test]
fn a_stream_tells_what_happens_from_its_beginning_on() {
    let server = Dispatch::start();
    report(&server.agent("a"), 0..3);
    let token = token(&server);
    let mut all = Stream::open(&server, "/events/stream", &token);
    let mut own = Stream::open(&server, "/events/stream?agent=b", &token);
    report(&server.agent("a"), 3..5);
    report(&server.agent("b"), 5..7);
    for (message, (agent, n)) in
        all.read_many(4).iter().zip([("a", 3), ("a", 4), ("b", 5), ("b", 6)])
    {
        check_message(message, agent, n);
    }
    for (message, n) in own.read_many(2).iter().zip(5..) {
        check_message(message, "b", n);
    }
}

#[test]
fn a_stream_goes_on_where_the_last_one_ended_also_on_the_next_server() {
    let mut server = Dispatch::start();
    let headers = token(&server);
    let mut stream = Stream::open(&server, "/events/stream", &headers);
    report(&server.agent("a"), 0..4);
    let last = stream.read_many(2).pop().unwrap();
    drop(stream);
    report(&server.agent("a"), 4..6);
    server.restart(Signal::KILL);
    for (path, more) in [
        ("/events/stream", format!("Last-Event-ID: {}\r\n", last.id)),
        (&*format!("/events/stream?after={}", last.id), String::new()),
        (&*format!("/events/stream?agent=a&after={}", last.id), String::new()),
    ] {
        let mut stream = Stream::open(&server, path, &format!("{headers}{more}"));
        for (message, n) in stream.read_many(4).iter().zip(2..) {
            check_message(message, "a", n);
        }
        let ids: Vec<u64> = read(&server, "&details=1")["details"]
            .as_array()
            .unwrap()
            .iter()
            .map(|detail| detail["id"].as_str().unwrap().parse().unwrap())
            .collect();
        assert!(ids.is_sorted(), "{ids:?}");
    }
}

#[test]
fn what_was_dropped_before_a_stream_could_tell_it_is_told_as_a_gap() {
    let server = Dispatch::configured(&[("events_max", "5")]);
    let headers = token(&server);
    report(&server.agent("b"), 0..1);
    report(&server.agent("a"), 0..1);
    let first = read(&server, "&details=1")["details"][0]["id"].as_str().unwrap().to_owned();
    report(&server.agent("a"), 1..400);
    // What is too many is dropped some time after it came.
    let begin = std::time::Instant::now();
    while read(&server, &format!("&after={first}&limit=1"))["events"][0]["n"] == json!(1) {
        assert!(begin.elapsed() < Duration::from_secs(30), "nothing was dropped");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut stream = Stream::open(&server, &format!("/events/stream?after={first}"), &headers);
    let gap = stream.read();
    assert_eq!(gap.event, "gap", "{gap:?}");
    assert_eq!(gap.data["agent"], json!("a"), "{gap:?}");
    let first = stream.read();
    let n = first.data["event"]["n"].as_i64().unwrap();
    assert!((2..=395).contains(&n), "the newest five are kept: {first:?}");
    assert_eq!(gap.data["before"], json!(first.id), "{gap:?}");
    let rest = usize::try_from(399 - n).unwrap();
    for (message, n) in stream.read_many(rest).iter().zip(n + 1..) {
        check_message(message, "a", n);
    }
}

#[test]
fn a_cursor_that_has_seen_all_that_was_dropped_has_no_gap() {
    let server = Dispatch::configured(&[("events_max", "5")]);
    report(&server.agent("a"), 0..12);
    let seen = read(&server, "&details=1")["details"][1]["id"].as_str().unwrap().to_owned();
    let mut stream =
        Stream::open(&server, &format!("/events/stream?agent=a&after={seen}"), &token(&server));
    for (message, n) in stream.read_many(3).iter().zip(9..) {
        check_message(message, "a", n);
    }
}

#[test]
fn a_slow_reader_misses_nothing_silently() {
    let server = Dispatch::configured(&[("events_max", "50")]);
    let headers = token(&server);
    let mut stream = Stream::open(&server, "/events/stream", &headers);
    // Larger together than what lies between the two: the stream cannot have sent it all.
    let filling = "x".repeat(100_000);
    for n in 0..200 {
        server.agent("a").report(&json!({"n": n, "filling": filling}));
    }
    let (mut expected, mut told) = (0, false);
    while expected < 200 {
        let message = stream.read();
        if message.event == "gap" {
            told = true;
            continue;
        }
        let n = message.data["event"]["n"].as_i64().unwrap();
        assert!(n == expected || (told && n > expected), "{n} instead of {expected}");
        (expected, told) = (n + 1, false);
    }
}

#[test]
fn a_stream_is_for_those_who_may_see() {
    let server = Dispatch::start();
    let _ = server.nobody().get("/events/stream").refused(403);
    let _ = server.agent("a").get("/events/stream").refused(403);
    let admin = server.admin();
    let _ = admin.get("/events/stream?after=x").refused(400);
    let _ = admin.request("GET", "/events/stream").header("Last-Event-ID", "x").send().refused(400);
}
