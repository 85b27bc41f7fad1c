//! The operator's commands over HTTP, and the whole of the main job: server, agent, operator.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use e2e::{Dispatch, Exit, Process, program, run, run_reading};
use serde_json::{Value, json};

fn environment(server: &Dispatch, token: &str) -> Vec<(String, String)> {
    let home = server.path("home").display().to_string();
    let state = server.path("state").display().to_string();
    let mut pairs = vec![
        ("GATEHOUSE_URL", server.base().to_owned()),
        ("HOME", home),
        ("XDG_STATE_HOME", state),
    ];
    if !token.is_empty() {
        pairs.push(("GATEHOUSE_TOKEN", token.to_owned()));
    }
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A command of `root`'s, begun.
fn begin(server: &Dispatch, arguments: &[&str]) -> Process {
    let token = server.login("root", "pw-root");
    Process::start(&program(), arguments, &server.path(""), &environment(server, &token))
}

/// What a command of `root`'s prints, which must end well.
fn done(server: &Dispatch, arguments: &[&str]) -> String {
    let exit = begin(server, arguments).wait();
    assert_eq!(exit.code, Some(0), "{arguments:?}: {exit:?}");
    exit.stdout
}

fn check_failed(exit: &Exit, part: &str) {
    assert!(exit.code.is_some_and(|code| code != 0), "{exit:?}");
    assert!(exit.stderr.contains(part) && !exit.stderr.contains("panicked"), "{part}: {exit:?}");
}

#[test]
fn agents_are_listed_for_people_and_for_programs() {
    let server = Dispatch::start();
    let _ = server.agent("b").poll("wait=0");
    let shown = done(&server, &["agents"]);
    for name in ["a", "b", "c"] {
        assert!(
            shown.lines().any(|line| line.split_whitespace().any(|word| word == name)),
            "{shown}"
        );
    }
    let told: Value = serde_json::from_str(&done(&server, &["agents", "--json"])).unwrap();
    assert!(told.to_string().contains("\"b\""), "{told}");
}

#[test]
fn a_task_is_sent_and_waited_for() {
    let server = Dispatch::start();
    let agent = server.agent("a").apart(|agent| {
        let (id, body) = agent.take();
        agent.answer(&id, &json!({"status_code": 0, "output": "answered words"}));
        body
    });
    let shown = done(&server, &["task", "send", "a", "--cmd", "uptime"]);
    assert!(shown.contains("answered words"), "{shown}");
    assert_eq!(agent.join().unwrap(), json!({"type": "execute_cmd", "cmd": "uptime"}));
}

#[test]
fn a_task_is_sent_and_asked_for_later() {
    let server = Dispatch::start();
    let body = r#"{"type":"mine","x":[1]}"#;
    let shown = done(&server, &["task", "send", "a", "--json-body", body, "--no-wait", "--json"]);
    let told: Value = serde_json::from_str(&shown).unwrap_or_else(|_| panic!("{shown}"));
    let (id, given) = server.agent("a").take();
    assert_eq!(given, json!({"type": "mine", "x": [1]}));
    assert!(told.to_string().contains(&format!("\"{id}\"")), "{told}");
    let listed = done(&server, &["task", "list", "--agent", "a"]);
    assert!(listed.contains(&id) && listed.contains("taken"), "{listed}");
    let mut waiting = begin(&server, &["task", "wait", &id, "--json"]);
    server.agent("a").answer(&id, &json!("answered words"));
    let exit = waiting.wait();
    assert!(exit.code == Some(0) && exit.stdout.contains("answered words"), "{exit:?}");
    assert!(done(&server, &["task", "show", &id]).contains("done"));
    let more = server.admin().enqueue("a", &json!(1));
    let _ = done(&server, &["task", "cancel", &more]);
    assert_eq!(server.admin().task(&more)["state"], "cancelled");
}

#[test]
fn events_are_shown_and_followed() {
    let server = Dispatch::start();
    server.agent("a").report(&json!({"word": "before"}));
    assert!(done(&server, &["events", "a"]).contains("before"));
    let following = begin(&server, &["events", "a", "--follow"]);
    // It may begin with what was or with what comes; what comes it must show.
    for n in 0.. {
        server.agent("a").report(&json!({"word": "after", "n": n}));
        if following.stdout.so_far().contains("after") {
            break;
        }
        assert!(n < 1000 && !following.ends_within(std::time::Duration::from_millis(20)), "{n}");
    }
}

#[test]
fn a_session_is_kept_for_its_owner_alone() {
    let server = Dispatch::start();
    let run_as = |arguments: &[&str]| {
        Process::start(&program(), arguments, &server.path(""), &environment(&server, "")).wait()
    };
    check_failed(&run_as(&["agents"]), "login");
    let arguments = ["login", "--user", "root", "--url", server.base()];
    // `env` gives the command its directories, for standard input is given here.
    let set = environment(&server, "").into_iter().map(|(name, value)| format!("{name}={value}"));
    let set: Vec<String> =
        set.chain([program().display().to_string()]).chain(arguments.map(str::to_owned)).collect();
    let exit = run_reading(&PathBuf::from("env"), &set, &server.path(""), "pw-root\n");
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert_eq!(run_as(&["agents"]).code, Some(0));
    let files = files_below(&server.path("state"));
    assert!(!files.is_empty());
    for file in files {
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.display());
        assert!(!fs::read_to_string(&file).unwrap().contains("pw-root"));
    }
    assert_eq!(run_as(&["logout"]).code, Some(0));
    check_failed(&run_as(&["agents"]), "login");
}

fn files_below(directory: &std::path::Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let found = entries.flat_map(|entry| match entry.path() {
        path if path.is_dir() => files_below(&path),
        path => vec![path],
    });
    found.collect()
}

#[test]
fn what_fails_is_told_and_ends_so() {
    let server = Dispatch::start();
    let token = server.login("root", "pw-root");
    let run_with = |arguments: &[&str], token: &str| {
        Process::start(&program(), arguments, &server.path(""), &environment(&server, token)).wait()
    };
    check_failed(&run_with(&["agents"], "wrong"), "login");
    check_failed(&run_with(&["task", "send", "unknown", "--cmd", "x"], &token), "unknown");
    check_failed(&run_with(&["task", "show", "999"], &token), "999");
    check_failed(&run_with(&["task", "send", "a", "--json-body", "{"], &token), "JSON");
    let nobody = ["agents", "--url", "http://127.0.0.1:1"];
    check_failed(&run_with(&nobody, &token), "127.0.0.1:1");
}

#[test]
fn the_main_job_in_two_terminals() {
    let server = Dispatch::start();
    let agent = program().with_file_name("gatehouse-agent");
    assert!(agent.exists(), "{} is missing: `cargo build -p agent` first", agent.display());
    let token = done(&server, &["enroll-token", "--json"]);
    let token: Value = serde_json::from_str(&token).unwrap_or_else(|_| panic!("{token}"));
    let token = token["token"].as_str().unwrap();
    let enrol = [
        "enroll",
        "--url",
        server.base(),
        "--token",
        token,
        "--name",
        "laptop",
        "-c",
        "agent.toml",
    ];
    let exit = run(&agent, &enrol, &server.path(""));
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let mut text = fs::read_to_string(server.path("agent.toml")).unwrap();
    let safe = "allow = [\"proclist\", \"dircontents\", \"systeminfo\"]\n";
    assert!(text.contains(safe), "dangerous types are off until they are named: {text}");
    text = text.replace(safe, "");
    let state = server.path("agent-state");
    text = format!("allow = [\"execute_cmd\"]\nstate_dir = {state:?}\n{text}");
    server.write("agent.toml", text);
    let _running = Process::start(&agent, &["run", "-c", "agent.toml"], &server.path(""), &[]);
    let shown = done(&server, &["task", "send", "laptop", "--cmd", "echo from the $((40+2))nd"]);
    assert!(shown.contains("from the 42nd"), "{shown}");
}
