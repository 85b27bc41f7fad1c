//! `gatehouse task …` against a scripted server.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Outcome;
use crate::scripted::{Scripted, User, serve};

const OK: &str = "200 OK";

/// The tasks of [`tasks`] that were asked about so far.
type Asked = Mutex<Vec<String>>;

/// A server with tasks: `a` gets 17, `b` 18, `c` none. `state` tells how a task stands, given its
/// number and those that were asked about before.
fn tasks(state: impl Fn(&str, &[String]) -> String + Send + Sync + 'static) -> Scripted {
    let asked = Asked::default();
    serve(move |request| {
        let line = request.split(" HTTP/").next().unwrap();
        let several = r#"{"ids":{"a":"17","b":"18"},"failed":{"c":"Agent doesn't exists"}}"#;
        match line.split_once(['?']).map_or(line, |(path, _)| path) {
            "POST /tasks" if line.contains("%2C") => (OK, several.to_owned()),
            "POST /tasks" => (OK, r#"{"id":"17"}"#.to_owned()),
            path => {
                let id = path.strip_prefix("GET /tasks/").unwrap();
                let mut asked = asked.lock().unwrap();
                let agent = if id == "17" { "a" } else { "b" };
                let state = state(id, &asked);
                asked.push(id.to_owned());
                (OK, format!(r#"{{"task":{{"id":"{id}","agent":"{agent}",{state}}}}}"#))
            }
        }
    })
}

/// A command's result.
fn ended(code: u8, output: &str) -> String {
    format!(r#""state":"done","result":{{"status_code":{code},"output":"{output}"}}"#)
}

const QUEUED: &str = r#""state":"queued""#;

#[test]
fn a_command_is_sent_waited_for_and_printed() {
    let server = tasks(|_, asked| if asked.is_empty() { QUEUED.into() } else { ended(0, "up") });
    let ran = User::default().run(&server, &["task", "send", "a", "--cmd", "uptime"]);
    assert_eq!((ran.outcome, ran.out.as_str()), (Ok(Outcome::Fine), "up\n"));
    let asked = server.asked();
    assert_eq!(asked[0], "POST /tasks?target=a&noWait=1");
    assert_eq!(asked[1], "GET /tasks/17?wait=25");
    let ran = User::default().run(&server, &["task", "send", "a", "--cmd", "uptime", "--json"]);
    let json = "{\"target\":\"a\",\"id\":\"17\",\"error\":false,\"state\":\"done\",\
                \"result\":{\"status_code\":0,\"output\":\"up\"}}\n";
    assert_eq!(ran.out, json);
}

#[test]
fn a_command_that_failed_ends_with_3() {
    let server = tasks(|_, _| ended(2, "no\\u001b"));
    let ran = User::default().run(&server, &["task", "send", "a", "--cmd", "x"]);
    assert_eq!((ran.outcome, ran.out.as_str()), (Ok(Outcome::Failed), "no\u{1b}\n"));
    assert_eq!(ran.err, "a: task 17: exit code 2\n");
    let looking = User { looks: true, ..User::default() };
    assert_eq!(looking.run(&server, &["task", "wait", "17"]).out, "no\\u{1b}\n");
}

#[test]
fn several_targets_answer_for_themselves_and_each_line_says_whose_it_is() {
    let server = tasks(|id, asked| match id {
        "17" if !asked.iter().any(|id| id == "18") => QUEUED.into(),
        "17" => ended(0, "1\\n2"),
        _ => ended(0, ""),
    });
    let looking = User { looks: true, ..User::default() };
    let ran = looking.run(&server, &["task", "send", "a", "b", "c", "--cmd", "x"]);
    let mut lines: Vec<&str> = ran.out.lines().collect();
    lines.sort_unstable();
    assert_eq!((ran.outcome, lines), (Ok(Outcome::Failed), vec!["a: 1", "a: 2", "b: done"]));
    assert_eq!(server.asked()[0], "POST /tasks?target=a%2Cb%2Cc&noWait=1");
    let err = &ran.err;
    assert!(err.contains("c: Agent doesn't exists\n"), "{err:?}");
    assert!(err.contains("0 of 2 answered") && err.contains("1 of 2 answered"), "{err:?}");
}

#[test]
fn without_waiting_the_numbers_are_printed() {
    let server = tasks(|_, _| unreachable!("nothing is asked about"));
    let send = |targets: &[&'static str]| {
        [&["task", "send", "--no-wait", "--type", "proclist"], targets].concat()
    };
    let ran = User::default().run(&server, &send(&["a"]));
    assert_eq!((ran.outcome, ran.out.as_str()), (Ok(Outcome::Fine), "17\n"));
    let ran = User::default().run(&server, &send(&["a", "b", "c"]));
    assert_eq!((ran.outcome, ran.out.as_str()), (Ok(Outcome::Failed), "a\t17\nb\t18\n"));
    assert!(server.last().ends_with(r#"{"type":"proclist"}"#));
}

#[test]
fn a_task_for_nobody_is_an_error() {
    let server = serve(|_| ("404 Not Found", r#"{"error":true,"msg":"Agent doesn't exists"}"#));
    let ran = User::default().run(&server, &["task", "send", "x", "--cmd", "y"]);
    assert_eq!(ran.outcome.unwrap_err(), "x: Agent doesn't exists");
    let ran = User::default().run(&server, &["task", "wait", "9"]);
    assert_eq!(ran.outcome.unwrap_err(), "Agent doesn't exists (status 404)");
    let nobody = serve(|_| (OK, r#"{"ids":{}}"#));
    assert!(User::default().run(&nobody, &["task", "send", "x*", "--cmd", "y"]).outcome.is_err());
}

#[test]
fn who_waited_long_enough_is_told_how_to_go_on() {
    let server = tasks(|id, _| if id == "17" { QUEUED.into() } else { ended(0, "x") });
    let ran = User::default().run(&server, &["task", "wait", "17", "18", "--timeout", "0"]);
    assert_eq!((ran.outcome, ran.out.as_str()), (Ok(Outcome::TimedOut), "b: x\n"));
    assert!(
        ran.err.ends_with(
            "1 of 2 not answered yet; the wait can go on with: gatehouse task wait 17\n"
        )
    );
    let ran = User::default().run(&server, &["task", "wait", "17", "--timeout", "0", "--json"]);
    let json = "{\"target\":\"17\",\"id\":\"17\",\"error\":true,\"timeout\":true,\
                \"msg\":\"no result yet\"}\n";
    assert_eq!((ran.outcome, ran.out.as_str()), (Ok(Outcome::TimedOut), json));
}

#[test]
fn who_interrupts_is_told_how_to_go_on() {
    let server = tasks(|_, _| QUEUED.into());
    let impatient = User { interrupts: true, ..User::default() };
    let ran = impatient.run(&server, &["task", "send", "a", "b", "c", "--cmd", "x"]);
    assert_eq!(ran.outcome, Ok(Outcome::Interrupted));
    assert!(ran.err.ends_with("gatehouse task wait 17 18\n"), "{}", ran.err);
}

#[test]
fn tasks_that_last_keep_no_other_waiting() {
    // The first 33 of 40 last until all others have been asked about; there are 32 threads.
    let server = tasks(|id, asked| {
        let lasts = id.parse::<u32>().unwrap() <= 33
            && !(34..=40).all(|other: u32| asked.contains(&other.to_string()));
        if lasts { QUEUED.into() } else { ended(0, "x") }
    });
    let ids: Vec<String> = (1..=40).map(|id: u32| id.to_string()).collect();
    let wait: Vec<&str> =
        ["task", "wait"].into_iter().chain(ids.iter().map(String::as_str)).collect();
    let ran = User::default().run(&server, &wait);
    assert_eq!((ran.outcome, ran.out.lines().count()), (Ok(Outcome::Fine), 40));
    // While others wait for a thread, a call is short.
    assert!(server.asked().contains(&"GET /tasks/1?wait=1".to_owned()));
}

#[test]
fn a_server_that_is_away_for_a_moment_is_asked_again() {
    let times = AtomicUsize::new(0);
    let server = serve(move |_| match times.fetch_add(1, Ordering::SeqCst) {
        0 => ("503 Service Unavailable".to_owned(), r#"{"error":true,"msg":"busy"}"#.to_owned()),
        _ => (OK.to_owned(), format!(r#"{{"task":{{"id":"17","agent":"a",{}}}}}"#, ended(0, "x"))),
    });
    let ran = User::default().run(&server, &["task", "wait", "17"]);
    assert_eq!((ran.outcome, ran.out.as_str()), (Ok(Outcome::Fine), "x\n"));
}

/// A server whose task 17 prints `a`, a cut character and `b`, in three pieces, and has ended then.
fn printing() -> Scripted {
    serve(|request| {
        let line = request.split(" HTTP/").next().unwrap();
        let offset = line.strip_prefix("GET /tasks/17/output?offset=");
        let offset = offset.map(|rest| rest.split('&').next().unwrap());
        let part =
            |next: &str, body: &str| (format!("{OK}\r\nx-output-next: {next}"), body.to_owned());
        match offset {
            Some("0") => part("2", "a\n"),
            Some("2") => part("3", "b"),
            Some("3") => part("3\r\nx-output-end: 1", ""),
            None if line.starts_with("POST") => (OK.to_owned(), r#"{"id":"17"}"#.to_owned()),
            None if line.starts_with("GET /tasks/17?") => {
                let task = ended(1, "a\\nb");
                (OK.to_owned(), format!(r#"{{"task":{{"id":"17","agent":"a",{task}}}}}"#))
            }
            other => panic!("{other:?} of {line}"),
        }
    })
}

#[test]
fn output_is_printed_while_it_comes_and_not_again_with_the_result() {
    let send = ["task", "send", "a", "--cmd", "x", "--follow"];
    let ran = User::default().run(&printing(), &send);
    assert_eq!((ran.outcome, ran.out.as_str()), (Ok(Outcome::Failed), "a\nb"));
    assert!(ran.err.contains("a: task 17: exit code 1"), "{}", ran.err);
    let ran = User::default().run(&printing(), &[&send[..], &["--json"]].concat());
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines[0], r#"{"id":"17","offset":0,"output":"a\n","target":"a"}"#);
    assert_eq!(lines[1], r#"{"id":"17","offset":2,"output":"b","target":"a"}"#);
    assert!(lines[2].contains(r#""msg":"exit code 1""#) && lines.len() == 3, "{}", ran.out);
}

#[test]
fn output_alone_is_printed_as_far_as_it_is() {
    let ran = User::default().run(&printing(), &["task", "output", "17"]);
    assert_eq!((ran.outcome, ran.out.as_str()), (Ok(Outcome::Fine), "a\nb"));
    let server = printing();
    let ran = User::default().run(&server, &["task", "output", "17", "-f", "--offset", "2"]);
    assert_eq!((ran.outcome, ran.out.as_str()), (Ok(Outcome::Fine), "b"));
    assert_eq!(server.asked()[0], "GET /tasks/17/output?offset=2&wait=25");
}

#[test]
fn tasks_are_listed_and_older_ones_pointed_to() {
    let server = serve(|_| {
        (
            OK,
            r#"{"tasks":[{"id":"9","agent":"a","state":"dead","by":"jo","body":{"type":"t"}}],"next":"9"}"#,
        )
    });
    let list = ["task", "list", "--agent", "a", "--state", "dead", "--limit", "1"];
    let ran = User::default().run(&server, &list);
    assert_eq!(ran.out, "9\ta\tdead\t\tjo\tt\n");
    assert!(ran.err.contains("--before 9"), "{}", ran.err);
    assert_eq!(server.asked(), ["GET /tasks_history?agent=a&state=dead&limit=1"]);
}

#[test]
fn a_task_is_shown_with_all_that_is_known() {
    let server = tasks(|_, _| r#""state":"done","attempts":2,"result":{"n":1.0}"#.to_owned());
    let ran = User::default().run(&server, &["task", "show", "17"]);
    assert!(ran.out.contains("attempts: 2\n"), "{}", ran.out);
    assert!(ran.out.ends_with("result:   {\n  \"n\": 1.0\n}\n"), "{}", ran.out);
    let ran = User::default().run(&server, &["task", "show", "17", "--json"]);
    assert!(ran.out.contains(r#""result":{"n":1.0}"#), "{}", ran.out);
}

#[test]
fn all_tasks_that_can_be_are_cancelled() {
    let server = serve(|request| match request.starts_with("DELETE /tasks/1 ") {
        true => ("409 Conflict", r#"{"error":true,"msg":"Task has ended"}"#),
        false => (OK, r#"{"error":false,"state":"cancelled"}"#),
    });
    let ran = User::default().run(&server, &["task", "cancel", "1", "2"]);
    assert_eq!((ran.outcome, ran.out.as_str()), (Ok(Outcome::Failed), "task 2: cancelled\n"));
    assert_eq!(ran.err, "task 1: Task has ended\n");
}
