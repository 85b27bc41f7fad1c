//! Events told as they come, by streams and webhooks: whatever ends or breaks off in between, nothing
//! is missing silently.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use e2e::{
    Chance, Dispatch, Link, Outcome, Receiver, Setup, Signal, Stream, free_port, wait_until,
};
use serde_json::{Value, json};

/// So many events make the store drop those that are too many.
const MANY: usize = 20_500;
/// The most that is done at a time.
const AT_ONCE: usize = 64;

fn header(token: &str) -> String {
    format!("Authorization: {token}\r\n")
}

fn number(id: &Value) -> u64 {
    id.as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no id: {id}"))
}

#[test]
fn a_stream_that_told_nothing_yet_goes_on_from_its_beginning() {
    let mut server = Dispatch::start();
    let token = server.login("root", "pw-root");
    server.agent("a").report(&json!("before"));
    let mut stream = Stream::open(&server, "/events/stream", &header(&token));
    stream.read_begin();
    let cursor = stream.cursor().to_owned();
    drop(stream);
    server.agent("a").report(&json!("between"));
    server.restart(Signal::KILL);
    let headers = format!("{}Last-Event-ID: {cursor}\r\n", header(&token));
    let mut stream = Stream::open(&server, "/events/stream", &headers);
    assert_eq!(stream.read().data["event"], "between");
}

#[test]
fn the_last_id_of_a_browser_wins_over_where_it_once_began() {
    let server = Dispatch::start();
    for n in 0..4 {
        server.agent("a").report(&json!(n));
    }
    let token = header(&server.login("root", "pw-root"));
    let mut stream = Stream::open(&server, "/events/stream?after=0", &token);
    let second = stream.read_many(2).pop().unwrap();
    assert_eq!(second.data["event"], 1);
    let headers = format!("{token}Last-Event-ID: {}\r\n", second.id);
    let mut stream = Stream::open(&server, "/events/stream?after=0", &headers);
    assert_eq!(stream.read().data["event"], 2);
}

#[test]
fn a_stream_tells_of_the_agents_it_is_asked_for() {
    let server = Dispatch::start();
    server.add_account("web-1", "agent");
    server.add_account("x,y", "agent");
    let token = header(&server.login("root", "pw-root"));
    let check = |query: &str, names: &[&str]| {
        let path = format!("/events/stream?after=0&agent={query}");
        let mut stream = Stream::open(&server, &path, &token);
        for name in names {
            assert_eq!(stream.read().data["agent"], *name, "{query}");
        }
    };
    for name in ["a", "b", "web-1", "x,y", "c"] {
        server.agent(name).report(&json!(null));
    }
    check("a,c", &["a", "c"]);
    check("web-*,c", &["web-1", "c"]);
    check("x%2Cy", &["x,y"]);
    check("*", &["a", "b", "web-1", "x,y", "c"]);
    let admin = server.admin();
    for wrong in ["", "a,,b", &"a".repeat(300)] {
        let _ = admin.get(&format!("/events/stream?agent={wrong}")).refused(400);
    }
}

#[test]
fn a_stream_ends_with_the_session_and_tells_nothing_more() {
    let server = Dispatch::start();
    let token = server.login("root", "pw-root");
    let mut stream = Stream::open(&server, "/events/stream", &header(&token));
    stream.read_begin();
    assert_eq!(server.caller(&token).post("/logout", &json!(null)).status, 200);
    server.agent("a").report(&json!("secret"));
    stream.read_end();
}

#[test]
fn streams_and_silent_webhooks_do_not_hold_up_the_end() {
    let server = Dispatch::start();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let _ = server.admin().post("/webhooks", &json!({ "url": url })).ok();
    let token = header(&server.login("root", "pw-root"));
    let mut stream = Stream::open(&server, "/events/stream", &token);
    server.agent("a").report(&json!(1));
    assert_eq!(stream.read().data["event"], 1);
    let (_called, _) = silent.accept().unwrap();
    let begin = std::time::Instant::now();
    let exit = server.stop();
    assert_eq!(exit.code, Some(0));
    // A stream would be cut after the ten seconds that requests have; the webhook waits for fifteen.
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    stream.read_end();
}

/// Posts so many events of this agent as fast as it goes.
fn flood(server: &Dispatch, name: &str, count: usize) {
    scope(|scope| {
        for part in 0..AT_ONCE {
            let mut link = Link::new(server.address(), &format!("{name}:pw-{name}"));
            let own = count / AT_ONCE + usize::from(part < count % AT_ONCE);
            scope.spawn(move || {
                for _ in 0..own {
                    let Outcome::Answered(reply) = link.ask("POST", "/events", &json!(0)) else {
                        panic!("not answered")
                    };
                    assert_eq!(reply.status, 200, "{}", reply.text());
                }
            });
        }
    });
}

#[test]
fn what_was_dropped_before_it_could_be_told_is_told_as_a_gap() {
    let mut server = Dispatch::configured(&[("events_max", "5")]);
    let (admin, port) = (server.admin(), free_port());
    let headers = header(&server.login("root", "pw-root"));
    // Nobody listens there yet.
    let hook = json!({"url": format!("http://127.0.0.1:{port}/"), "agents": ["a"]});
    let _ = admin.post("/webhooks", &hook).ok();
    server.agent("b").report(&json!("first"));
    flood(&server, "a", MANY);
    // The store drops in its own time.
    wait_until("events are dropped", || {
        let mut stream = Stream::open(&server, "/events/stream?after=0&agent=a", &headers);
        (stream.read().event == "gap").then_some(())
    });
    let mut stream = Stream::open(&server, "/events/stream?after=0&agent=a,b", &headers);
    assert_eq!(stream.read().data["agent"], "b");
    // Some may have been read before they were dropped.
    let gap = std::iter::repeat_with(|| stream.read()).find(|it| it.event == "gap").unwrap();
    assert_eq!(gap.data["agent"], "a");
    let before = number(&gap.data["before"]);
    for message in stream.read_many(5) {
        assert!(message.event == "event" && message.id.parse::<u64>().unwrap() >= before);
    }
    // The one that is far behind among others finds its own.
    server.agent("b").report(&json!("last"));
    let mut stream = Stream::open(&server, "/events/stream?after=0&agent=b", &headers);
    let own: Vec<_> = stream.read_many(2).iter().map(|it| it.data["event"].clone()).collect();
    assert_eq!(own, ["first", "last"]);
    server.restart(Signal::TERM);
    let receiver = Receiver::start_at(port, &[]);
    let gap = wait_until("the gap is delivered", || {
        let request = receiver.next_request();
        let body = request.json();
        body["gap"].is_object().then_some(body)
    });
    assert_eq!(gap["gap"]["agent"], "a");
    let event = receiver.next_request().json();
    assert!(number(&event["id"]) >= number(&gap["gap"]["before"]), "{event} after {gap}");
}

/// Follows a stream from one server to the next; gives every event, in order.
fn follow(
    server: &std::net::SocketAddr,
    token: &str,
    mut cursor: String,
    is_over: &AtomicBool,
) -> Vec<Value> {
    let mut told = Vec::new();
    loop {
        let headers = format!("{}Last-Event-ID: {cursor}\r\n", header(token));
        let Some(mut stream) = Stream::try_open(*server, "/events/stream", &headers) else {
            sleep(Duration::from_millis(5));
            continue;
        };
        while let Some(message) = stream.try_read() {
            assert_eq!(message.event, "event", "{message:?}");
            cursor = message.id;
            told.push(message.data["event"].clone());
            if message.data["event"] == "last" && is_over.load(Ordering::Relaxed) {
                return told;
            }
        }
    }
}

#[test]
fn whoever_follows_is_told_all_that_was_acknowledged_however_often_the_server_is_killed() {
    let (mut chance, seed) = Chance::of_today();
    println!("SEED={seed}");
    let setup = Setup::new().set("network", "port", &free_port().to_string());
    let mut server = Dispatch::serve(setup.set("tasks", "events_max", "1000000"));
    let token = server.login("root", "pw-root");
    let receiver = Receiver::start(&[]);
    let _ = server.admin().post("/webhooks", &json!({"url": receiver.url})).ok();
    let mut begin = Stream::open(&server, "/events/stream", &header(&token));
    begin.read_begin();
    let (address, cursor) = (server.address(), begin.cursor().to_owned());
    drop(begin);
    let (is_over, is_last) = (AtomicBool::new(false), AtomicBool::new(false));
    let (acknowledged, told) = scope(|scope| {
        let reader = scope.spawn(|| follow(&address, &token, cursor, &is_last));
        let reporters: Vec<_> = ["a", "b", "c"]
            .map(|name| {
                let mut link = Link::new(address, &format!("{name}:pw-{name}"));
                let is_over = &is_over;
                scope.spawn(move || {
                    let (mut known, mut n) = (Vec::new(), 0);
                    while !is_over.load(Ordering::Relaxed) {
                        let event = json!(format!("{name}{n}"));
                        if let Outcome::Answered(reply) = link.ask("POST", "/events", &event)
                            && reply.status == 200
                        {
                            known.push(event);
                        }
                        n += 1;
                    }
                    known
                })
            })
            .into();
        for _ in 0..12 {
            // Not for luck: the moment itself is what is tried.
            sleep(Duration::from_millis(chance.below(350)));
            server.kill();
        }
        is_over.store(true, Ordering::Relaxed);
        let known: Vec<Value> = reporters.into_iter().flat_map(|it| it.join().unwrap()).collect();
        is_last.store(true, Ordering::Relaxed);
        server.agent("a").report(&json!("last"));
        (known, reader.join().unwrap())
    });
    assert!(acknowledged.len() > 50, "hardly any load: {}", acknowledged.len());
    let once: BTreeSet<String> = told.iter().map(Value::to_string).collect();
    assert_eq!(once.len(), told.len(), "a stream tells nothing twice");
    check_all(&acknowledged, &once);
    let (mut posted, mut ids) = (BTreeSet::new(), BTreeSet::new());
    while !posted.contains("\"last\"") {
        let body = receiver.next_request().json();
        let is_new = ids.insert(number(&body["id"]));
        // One that was taken comes again if that was not written down; what is new comes in order.
        assert!(
            !is_new || ids.last() == Some(&number(&body["id"])),
            "{body} after {:?}",
            ids.last()
        );
        posted.insert(body["event"].to_string());
    }
    check_all(&acknowledged, &posted);
}

fn check_all(acknowledged: &[Value], told: &BTreeSet<String>) {
    let lost: Vec<_> = acknowledged.iter().filter(|it| !told.contains(&it.to_string())).collect();
    assert!(lost.is_empty(), "{lost:?}");
}
