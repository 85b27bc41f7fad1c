//! Calls about machines, each with the request it makes.

use wire::machines::{CreatedMachine, NewMachine, Step};

use super::check;
use crate::{Client, ClientError, Creating};

const STREAM: &str = "200 OK\r\nContent-Type: text/event-stream";
const CREATED: &str =
    r#"{"machine":{"id":"i","state":"ready"},"token":"t","username":"u","password":"p","port":9}"#;

/// All that is heard of a creation.
fn create(client: &Client) -> Result<(Vec<Step>, CreatedMachine), ClientError> {
    let mut creation =
        client.create_machine(&NewMachine { vcpus: Some(2), ..Default::default() })?;
    let mut steps = Vec::new();
    loop {
        match creation.wait()? {
            Creating::Step(step) => steps.push(step),
            Creating::Done(created) => return Ok((steps, *created)),
        }
    }
}

#[test]
fn a_creation_tells_its_steps_and_then_the_machine() {
    let body = format!(
        ": alive\n\nevent: step\ndata: {{\"step\":\"queued\"}}\n\nevent: step\ndata: \
         {{\"step\":\"polishing\"}}\n\nevent: step\ndata: {{\"step\":\"setting_up\"}}\n\n\
         event: machine\ndata: {CREATED}\n\n"
    );
    let (heard, request) = check((STREAM, &body), create);
    let (steps, created) = heard.unwrap();
    assert_eq!(steps, [Step::Queued, Step::SettingUp]);
    assert_eq!((created.machine.id.as_str(), created.password.expose()), ("i", "p"));
    assert!(request.starts_with("POST /machines HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\naccept: text/event-stream"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"vcpus\":2}"), "{request}");
}

#[test]
fn a_server_without_steps_answers_at_once() {
    let (steps, created) = check(("201 Created", CREATED), create).0.unwrap();
    assert_eq!((steps.len(), created.port), (0, 9));
}

/// The error of a creation with this answer.
#[track_caller]
fn check_failed(answer: (&str, &str), words: &str) -> ClientError {
    let error = check(answer, create).0.unwrap_err();
    assert!(error.to_string().contains(words), "{error}");
    error
}

#[test]
fn a_creation_fails_alike_before_and_after_its_first_step() {
    let full = r#"{"error":true,"status":503,"msg":"all 6 places are taken"}"#;
    let late =
        format!("event: step\ndata: {{\"step\":\"starting\"}}\n\nevent: error\ndata: {full}\n\n");
    for answer in [("503 Service Unavailable", full), (STREAM, late.as_str())] {
        let error = check_failed(answer, "all 6 places are taken");
        assert!(matches!(error, ClientError::Refused { status: 503, .. }), "{error:?}");
    }
    let stranger = r#"{"error":true,"status":401,"msg":"who are you?"}"#;
    check_failed(("401 Unauthorized", stranger), "gatehouse login");
}

#[test]
fn a_creation_that_breaks_off_is_no_machine() {
    check_failed((STREAM, ""), "ended before");
    check_failed((STREAM, "event: machine\ndata: {}\n\n"), "unexpected");
    check_failed((STREAM, "event: error\ndata: <html>\n\n"), "without a reason");
    // What lies beyond the limit is not read.
    let long = format!("{}event: machine\ndata: {CREATED}\n\n", ": alive\n\n".repeat(1 << 17));
    check_failed((STREAM, &long), "ended before");
}

#[test]
fn machines_are_listed_shown_extended_and_given_back() {
    let list = r#"{"machines":[{"id":"i","state":"ready"}],"available":5,"uptime":1}"#;
    let (machines, request) = check(("200 OK", list), Client::machines);
    assert_eq!(machines.unwrap().available, Some(5));
    assert!(request.starts_with("GET /machines HTTP"), "{request}");
    let one = ("200 OK", r#"{"id":"i","state":"ready","host_key":"ssh-ed25519 AAAA"}"#);
    let (machine, request) = check(one, |client| client.machine("a/b"));
    assert_eq!(machine.unwrap().host_key.as_deref(), Some("ssh-ed25519 AAAA"));
    assert!(request.starts_with("GET /machines/a%2Fb HTTP"), "{request}");
    let (machine, request) = check(one, |client| client.extend_machine("i", 7200));
    assert_eq!(machine.unwrap().id, "i");
    assert!(request.starts_with("PATCH /machines/i HTTP"), "{request}");
    assert!(request.ends_with("{\"ttl\":7200}"), "{request}");
    let (done, request) = check(("200 OK", "{}"), |client| client.destroy_machine("i"));
    assert!(done.is_ok() && request.starts_with("DELETE /machines/i HTTP"), "{request}");
}

#[test]
fn a_console_comes_as_it_is() {
    let (console, request) = check(("200 OK", "a\r\n\x1b[1m"), |c| c.machine_console("i", Some(9)));
    assert_eq!(console.unwrap(), b"a\r\n\x1b[1m");
    assert!(request.starts_with("GET /machines/i/console?bytes=9 HTTP"), "{request}");
}
