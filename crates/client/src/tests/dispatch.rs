//! Calls about agents, tasks, events and files, each with the request it makes.

use std::time::Duration;

use wire::Secret;
use wire::dispatch::TaskState;

use super::check;
use crate::{ClientError, HistoryFilter, SendOptions, Streamed, Upload};

const SHA256_OF_HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// The request must begin so.
#[track_caller]
fn check_asked(request: &str, line: &str) {
    assert!(request.starts_with(&format!("{line} HTTP/1.1\r\n")), "{request}");
}

#[test]
fn a_password_travels_in_the_body_alone() {
    let answer = ("200 OK", r#"{"error":false,"token":"t","role":"admin","expires_in":60}"#);
    let (login, request) = check(answer, |c| c.login("jo&e", &Secret::new("p w\"")));
    let login = login.unwrap();
    assert_eq!((login.token.expose(), login.role.as_deref()), ("t", Some("admin")));
    check_asked(&request, "POST /login");
    assert!(request.ends_with("\r\n\r\n{\"pass\":\"p w\\\"\",\"user\":\"jo&e\"}"), "{request}");
}

#[test]
fn wrong_passwords_and_ended_sessions_are_told_apart() {
    let wrong = ("403 Forbidden", r#"{"error":true,"msg":"Invalid credentials"}"#);
    let error = check(wrong, |c| c.login("a", &Secret::new("b"))).0.unwrap_err();
    assert_eq!(error.to_string(), "Invalid credentials (status 403)");
    let ended = ("403 Forbidden", r#"{"error":true,"msg":"Authorization failure"}"#);
    let error = check(ended, crate::Client::agents).0.unwrap_err();
    assert!(error.to_string().contains("gatehouse login"), "{error}");
}

#[test]
fn agents_come_with_who_is_there() {
    let answer = ("200 OK", r#"{"error":false,"agents":["a","b"],"online":{"a":true}}"#);
    let agents = check(answer, crate::Client::agents).0.unwrap();
    assert_eq!((agents.agents.len(), agents.online.get("a")), (2, Some(&true)));
}

#[test]
fn documented_empty_answers_are_good_ones() {
    let (done, request) = check(("200 OK", ""), |c| c.set_selfreg(true));
    done.unwrap();
    check_asked(&request, "POST /agent_selfreg?enabled=1");
    let (on, request) = check(("200 OK", "1"), crate::Client::selfreg);
    assert!(on.unwrap());
    check_asked(&request, "GET /agent_selfreg");
    let page = check(("200 OK", "<html>"), |c| c.remove_agent("a")).0;
    assert!(matches!(page, Err(ClientError::Unexpected { .. })), "{page:?}");
}

#[test]
fn a_rename_names_both() {
    let (done, request) = check(("200 OK", r#"{"error":false}"#), |c| c.rename_agent("a&b", "ü"));
    done.unwrap();
    check_asked(&request, "PATCH /agents?id=a%26b&newId=%C3%BC");
}

#[test]
fn a_task_is_sent_as_it_is_and_not_waited_for() {
    let answer = ("200 OK", r#"{"error":false,"msg":"Task enqueued","id":"17"}"#);
    let options = SendOptions { priority: Some(-3), ttl_secs: Some(60), retries: None };
    let body = r#"{"n":18446744073709551617}"#;
    let (sent, request) = check(answer, |c| c.enqueue("a,b*", &options, body));
    assert_eq!(sent.unwrap().id.as_deref(), Some("17"));
    check_asked(&request, "POST /tasks?target=a%2Cb%2A&noWait=1&priority=-3&ttl=60");
    assert!(request.ends_with(body), "{request}");
}

#[test]
fn a_wait_is_asked_for_in_whole_seconds() {
    let task = r#"{"error":false,"task":{"id":"17","agent":"a","state":"done","result":null}}"#;
    let wait = Duration::from_millis(1500);
    let (found, request) = check(("200 OK", task), |c| c.task(17, wait));
    let found = found.unwrap();
    assert_eq!((found.state, found.result.unwrap().get()), (TaskState::Done, "null"));
    check_asked(&request, "GET /tasks/17?wait=2");
    let (_, request) = check(("200 OK", task), |c| c.task(17, Duration::ZERO));
    check_asked(&request, "GET /tasks/17");
}

#[test]
fn output_says_where_to_go_on_and_when_it_is_all() {
    let (part, request) = check(("200 OK\r\nX-Output-Next: 12", "\u{7}ab"), |c| {
        c.task_output(17, 9, Duration::from_secs(5))
    });
    let part = part.unwrap();
    assert_eq!((part.bytes.as_slice(), part.next, part.ended), (&b"\x07ab"[..], 12, false));
    check_asked(&request, "GET /tasks/17/output?offset=9&wait=5");
    let last = ("200 OK\r\nX-Output-Next: 12\r\nX-Output-End: 1", "");
    assert!(check(last, |c| c.task_output(17, 12, Duration::ZERO)).0.unwrap().ended);
}

#[test]
fn history_is_asked_for_by_what_is_wanted() {
    let filter = HistoryFilter {
        agent: Some("a".into()),
        state: Some(TaskState::Dead),
        before: Some("9".into()),
        limit: Some(5),
    };
    let page = ("200 OK", r#"{"error":false,"tasks":[],"next":null}"#);
    let (found, request) = check(page, |c| c.history(&filter));
    assert!(found.unwrap().next.is_none());
    check_asked(&request, "GET /tasks_history?agent=a&state=dead&before=9&limit=5");
}

#[test]
fn a_file_is_sent_with_its_length_and_tells_how_far_it_is() {
    let answer = ("200 OK", r#"{"error":false,"url":"/files/x/a b","bytes":5}"#);
    let mut seen = Vec::new();
    let (stored, request) = check(answer, |client| {
        let contents = &mut &b"hello and more"[..];
        let upload = Upload { name: "a b", contents, bytes: 5, ttl_secs: None, uses: Some(2) };
        client.put_file(upload, &mut |done, total| seen.push((done, total)))
    });
    assert_eq!(stored.unwrap().url, "/files/x/a b");
    check_asked(&request, "POST /files/a%20b?uses=2");
    assert!(!request.contains("chunked") && request.ends_with("\r\n\r\nhello"), "{request}");
    assert_eq!(seen.last(), Some(&(5, Some(5))));
}

#[test]
fn a_fetched_file_is_compared_with_what_the_server_says() {
    let good = format!("200 OK\r\nX-Checksum-Sha256: {SHA256_OF_HELLO}");
    for (head, good) in [(good.as_str(), true), ("200 OK\r\nX-Checksum-Sha256: 00", false)] {
        let mut to = Vec::new();
        let (fetched, request) =
            check((head, "hello"), |c| c.get_file("/files/x/a%20b", &mut to, &mut |_, _| ()));
        check_asked(&request, "GET /files/x/a%20b");
        assert_eq!(to, b"hello");
        match fetched {
            Ok(fetched) => assert!(good && fetched.sha256 == SHA256_OF_HELLO),
            Err(error) => assert!(!good && matches!(error, ClientError::Damaged { .. })),
        }
    }
}

#[test]
fn the_key_does_not_follow_a_file_to_another_address() {
    let client = crate::Client::new("http://127.0.0.1:1", None, None).unwrap();
    for path in ["http://elsewhere/files/x/a", "files/x/a", "/files/x", "/tasks/1", "/files/x/a/b"]
    {
        let error = client.get_file(path, &mut Vec::new(), &mut |_, _| ()).unwrap_err();
        assert!(matches!(error, ClientError::BadAddress { .. }), "{path}: {error:?}");
    }
}

#[test]
fn a_stream_gives_events_and_gaps_and_knows_where_it_is() {
    let body = ": alive\n\nid: 4\n\nevent: gap\ndata: {\"agent\":\"a\",\"before\":\"7\"}\n\n\
                id: 9\nevent: event\ndata: {\"agent\":\"a\",\"at\":1,\"event\":{\"x\":1.0}}\n\n";
    let (stream, request) = check(("200 OK\r\nContent-Type: text/event-stream", body), |c| {
        c.event_stream(Some("a"), Some("3"))
    });
    check_asked(&request, "GET /events/stream?agent=a");
    assert!(request.contains("\r\nlast-event-id: 3\r\n"), "{request}");
    let mut stream = stream.unwrap();
    assert_eq!(stream.cursor(), Some("3"));
    let Some(Streamed::Gap(gap)) = stream.wait().unwrap() else { panic!("no gap") };
    assert_eq!((gap.before.as_str(), stream.cursor()), ("7", Some("4")));
    let Some(Streamed::Event { id, event }) = stream.wait().unwrap() else { panic!("no event") };
    assert_eq!((id.as_str(), event.event.get()), ("9", r#"{"x":1.0}"#));
    assert_eq!(stream.cursor(), Some("9"));
    assert!(stream.wait().unwrap().is_none());
}

#[test]
fn an_answer_that_is_no_stream_is_noticed() {
    let stream = check(("200 OK", "{}"), |c| c.event_stream(None, None)).0;
    assert!(matches!(stream.err(), Some(ClientError::Unexpected { .. })));
}
