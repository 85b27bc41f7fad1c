//! Commands against a scripted server: what they ask, print, and end with.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Outcome;
use crate::scripted::{Scripted, User, serve};
use crate::session::Sessions;

const OK: &str = "200 OK";

/// A server that gives `body` to everything.
fn always(body: &'static str) -> Scripted {
    serve(move |_| (OK, body))
}

/// Runs `arguments` against a server that answers `body`; compares the request and what is printed,
/// in words and as JSON.
#[track_caller]
fn check(arguments: &[&str], body: &'static str, asked: &str, words: &str, json: &str) {
    let server = always(body);
    let ran = User::default().run(&server, arguments);
    assert_eq!((ran.outcome, ran.out.as_str()), (Ok(Outcome::Fine), words), "{}", ran.err);
    assert_eq!(server.asked(), [asked]);
    let ran = User::default().run(&server, &[arguments, &["--json"]].concat());
    assert_eq!((ran.outcome, ran.out.as_str()), (Ok(Outcome::Fine), json), "{}", ran.err);
}

#[test]
fn agents_are_listed_with_who_is_there() {
    let body = r#"{"error":false,"agents":["a","b\u001b"],"online":{"a":true,"b\u001b":false}}"#;
    check(
        &["agents"],
        body,
        "GET /agents",
        "a\tonline\nb\\u{1b}\toffline\n",
        "{\"agents\":[\"a\",\"b\\u001b\"],\"online\":{\"a\":true,\"b\\u001b\":false}}\n",
    );
    let looking = User { looks: true, ..User::default() };
    let ran = looking.run(&always(body), &["agents", "--online"]);
    assert_eq!(ran.out, "AGENT  STATE\na      online\n");
}

#[test]
fn agents_are_renamed_removed_and_let_in() {
    let done = r#"{"error":false}"#;
    let asked = "PATCH /agents?id=a&newId=b";
    let json = "{\"name\":\"b\",\"renamed\":\"a\"}\n";
    check(&["agent", "rename", "a", "b"], done, asked, "a is now b\n", json);
    let asked = "DELETE /agents?id=a";
    check(&["agent", "remove", "a"], done, asked, "removed a\n", "{\"removed\":\"a\"}\n");
    let asked = "POST /agent_selfreg?enabled=0";
    check(&["agent", "selfreg", "off"], "", asked, "off\n", "{\"selfreg\":false}\n");
    let asked = "GET /agent_selfreg";
    check(&["agent", "selfreg"], "1", asked, "on\n", "{\"selfreg\":true}\n");
}

#[test]
fn an_enrolment_token_is_printed_alone() {
    let body = r#"{"error":false,"token":"t","expires_in":60,"uses":2}"#;
    check(
        &["enroll-token", "--ttl", "60", "--uses", "2"],
        body,
        "POST /enroll_tokens?ttl=60&uses=2",
        "t\n",
        "{\"token\":\"t\",\"expires_in\":60,\"uses\":2}\n",
    );
}

#[test]
fn webhooks_come_show_how_they_fare_and_go() {
    check(
        &["webhook", "add", "http://x/", "--agent", "a*"],
        r#"{"error":false,"id":"1","secret":"s"}"#,
        "POST /webhooks",
        "added webhook 1\nsecret: s\n",
        "{\"id\":\"1\",\"secret\":\"s\"}\n",
    );
    check(
        &["webhook", "list"],
        r#"{"webhooks":[{"id":"1","url":"http://x/","delivered_to":"9","last_error":null}]}"#,
        "GET /webhooks",
        "1\thttp://x/\tall\t9\t\n",
        "{\"webhooks\":[{\"id\":\"1\",\"url\":\"http://x/\",\"agents\":null,\
         \"delivered_to\":\"9\",\"last_error\":null}]}\n",
    );
    let asked = "DELETE /webhooks?id=1";
    let json = "{\"removed\":\"1\"}\n";
    check(&["webhook", "remove", "1"], "{}", asked, "removed webhook 1\n", json);
}

#[test]
fn a_secret_that_was_brought_is_not_printed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "mine\n").unwrap();
    let server = always(r#"{"error":false,"id":"1","secret":"mine"}"#);
    let file = file.path().to_str().unwrap();
    let ran = User::default().run(&server, &["webhook", "add", "http://x/", "--secret-file", file]);
    assert_eq!(ran.out, "added webhook 1\n");
    assert!(server.last().ends_with(r#"{"secret":"mine","url":"http://x/"}"#));
}

#[test]
fn the_audit_log_tells_of_older_lines() {
    let body =
        r#"{"entries":[{"id":"7","at":0,"who":"jo","act":"send","outcome":"ok"}],"next":"7"}"#;
    let server = always(body);
    let ran = User::default().run(&server, &["audit", "--before", "9", "--limit", "1"]);
    assert_eq!(server.asked(), ["GET /audit?before=9&limit=1"]);
    assert!(
        ran.out.starts_with("7\t19") && ran.out.ends_with("\tjo\t\tsend\t\tok\n"),
        "{}",
        ran.out
    );
    assert!(ran.err.contains("--before 7"), "{}", ran.err);
}

#[test]
fn a_session_is_kept_used_and_forgotten() {
    let state = tempfile::tempdir().unwrap();
    let sessions = Some(Sessions::below(state.path()));
    let user = User { sessions: sessions.clone(), ..User::default() };
    let server = always(r#"{"error":false,"token":"t0ken","role":"viewer","agents":[]}"#);
    let ran = user.run(&server, &["login", "--user", "jo"]);
    assert_eq!(ran.out, format!("logged in to {} as jo (viewer)\n", server.url));
    assert!(server.last().ends_with(r#"{"pass":"hunter2","user":"jo"}"#));
    let sent = |user: &User, server: &Scripted, arguments: &[&str]| {
        user.run(server, arguments).outcome.unwrap();
        server
            .last()
            .lines()
            .find_map(|line| line.strip_prefix("authorization: "))
            .map(str::to_owned)
    };
    assert_eq!(sent(&user, &server, &["agents"]).as_deref(), Some("Bearer t0ken"));
    let scripted = User { token: Some("other"), sessions, ..User::default() };
    assert_eq!(sent(&scripted, &server, &["agents"]).as_deref(), Some("Bearer other"));
    let elsewhere = always(r#"{"agents":[]}"#);
    assert_eq!(sent(&user, &elsewhere, &["agents"]), None);
    assert_eq!(sent(&user, &server, &["logout"]).as_deref(), Some("Bearer t0ken"));
    assert_eq!(sent(&user, &server, &["agents"]), None);
}

#[test]
fn a_login_that_fails_keeps_the_session_there_was() {
    let state = tempfile::tempdir().unwrap();
    let sessions = Sessions::below(state.path());
    let server = serve(|_| ("403 Forbidden", r#"{"error":true,"msg":"Invalid credentials"}"#));
    let kept = sessions.store(&server.url, &wire::Secret::new("old")).unwrap();
    let user = User { sessions: Some(sessions), ..User::default() };
    let ran = user.run(&server, &["login", "--user", "jo"]);
    assert!(ran.outcome.unwrap_err().contains("Invalid credentials"));
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "old\n");
}

const EVENTS: &str = r#"{"error":false,"max_size":512,"details":[
    {"id":"8","at":0,"event":{"x":1.0}},{"id":"9","at":0,"event":"\u001b[2J"}]}"#;

#[test]
fn events_are_listed_oldest_first_and_escaped() {
    let server = always(EVENTS);
    let ran = User::default().run(&server, &["events", "a", "--after", "7"]);
    assert_eq!(server.asked(), ["GET /events?agent=a&details=1&after=7"]);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].starts_with("8\t") && lines[0].ends_with("\ta\t{\"x\":1.0}"), "{}", ran.out);
    assert!(lines[1].ends_with("\ta\t\"\\u001b[2J\""), "{}", ran.out);
    let ran = User::default().run(&server, &["events", "a", "-n", "1", "--json"]);
    assert_eq!(ran.out, "{\"agent\":\"a\",\"id\":\"9\",\"at\":0,\"event\":\"\\u001b[2J\"}\n");
}

/// Follows events on a server whose first stream ends after event 12 and a gap; the next attempt meets
/// a server that is away, the third an ended session.
#[track_caller]
fn check_follow(arguments: &[&str], starts_after: Option<&str>, out: &[&str]) -> String {
    let streams = AtomicUsize::new(0);
    let server = serve(move |request| {
        if !request.starts_with("GET /events/stream") {
            return (OK.to_owned(), EVENTS);
        }
        match streams.fetch_add(1, Ordering::SeqCst) {
            0 => (
                format!("{OK}\r\nContent-Type: text/event-stream"),
                ": alive\n\nevent: gap\ndata: {\"agent\":\"b\",\"before\":\"11\"}\n\n\
                 id: 12\nevent: event\ndata: {\"agent\":\"b\",\"at\":0,\"event\":1}\n\n",
            ),
            1 => ("503 Service Unavailable".to_owned(), r#"{"error":true,"msg":"busy"}"#),
            _ => ("403 Forbidden".to_owned(), r#"{"error":true,"msg":"Authorization failure"}"#),
        }
    });
    let ran = User::default().run(&server, arguments);
    assert!(ran.outcome.unwrap_err().contains("gatehouse login"));
    let ids: Vec<&str> = ran.out.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(ids, out);
    assert!(server.last().contains("\r\nlast-event-id: 12\r\n"), "{}", server.last());
    let all = server.requests().join("\n");
    let first = all.split("GET /events/stream").nth(1).unwrap();
    let cursor = first.lines().find_map(|line| line.strip_prefix("last-event-id: "));
    assert_eq!(cursor, starts_after);
    ran.err
}

#[test]
fn followed_events_go_on_where_they_broke_off_and_gaps_are_told() {
    let err = check_follow(&["events", "b", "--follow"], Some("9"), &["8", "9", "12"]);
    assert!(err.contains("gap: events of b before 11"), "{err}");
    assert!(err.contains("going on after event 12") && err.contains("busy"), "{err}");
    check_follow(&["events", "--follow"], None, &["12"]);
    check_follow(&["events", "b", "-f", "--after", "3"], Some("3"), &["12"]);
    let gap = r#"{"gap":{"agent":"b","before":"11"}}"#;
    let event = r#"{"agent":"b","id":"12","at":0,"event":1}"#;
    check_follow(&["events", "--follow", "--json"], None, &[gap, event]);
}

#[test]
fn a_file_is_put_under_its_name_and_its_address_printed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a b.txt");
    std::fs::write(&file, "hello").unwrap();
    let server = always(r#"{"error":false,"url":"/files/x/a%20b.txt","id":"x","bytes":5}"#);
    let ran = User::default().run(&server, &["file", "put", file.to_str().unwrap()]);
    assert_eq!(ran.out, format!("{}/files/x/a%20b.txt\n", server.url), "{:?}", ran.outcome);
    assert_eq!(server.asked(), ["POST /files/a%20b.txt"]);
    assert!(server.last().ends_with("\r\n\r\nhello"));
}

#[test]
fn a_fetched_file_is_there_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("to");
    let get = ["file", "get", "/files/x/a", "-o", to.to_str().unwrap()];
    let damaged = serve(|_| ("200 OK\r\nX-Checksum-Sha256: 00", "hello"));
    let ran = User::default().run(&damaged, &get);
    assert!(ran.outcome.unwrap_err().contains("damaged"));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    let ran = User::default().run(&always("hello"), &get);
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "hello");
    assert_eq!(ran.out, format!("{} (5 bytes)\n", to.display()));
    let ran = User::default().run(&always("hello"), &["file", "get", "/files/x/a", "-o", "-"]);
    assert_eq!(ran.out, "hello");
}

#[test]
fn a_long_transfer_tells_how_far_it_is_where_somebody_looks() {
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("to");
    let server = serve(|_| (OK, "x".repeat(3 << 20)));
    let get = ["file", "get", "/files/x/a", "-o", to.to_str().unwrap()];
    let looking = User { looks: true, ..User::default() };
    let err = looking.run(&server, &get).err;
    assert!(err.contains(" of 3.0 MiB\u{1b}[K") && err.ends_with("\r\u{1b}[K"), "{err:?}");
    let again = User::default().run(&server, &get);
    assert_eq!((again.outcome, again.err.as_str()), (Ok(Outcome::Fine), ""));
}
