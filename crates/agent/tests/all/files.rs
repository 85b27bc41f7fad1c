//! Files to and from the server, moved, deleted; the agent's own program replaced.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::agent::{ALL, Home};
use crate::server::{Answer, Server};

/// SHA-256 of `abc`.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// A server with one file, `abc`, whose checksum it tells as `told`.
fn with_file(told: &'static str) -> Server {
    Server::scripted(move |request, _| {
        let answer = Answer::bytes(200, "abc").header("x-checksum-sha256", told);
        (request.method == "GET" && request.path.starts_with("/files/")).then_some(answer)
    })
}

fn msg(result: &Value) -> &str {
    result["msg"].as_str().unwrap_or_else(|| panic!("no failure: {result}"))
}

fn is_empty(home: &Home) -> bool {
    fs::read_dir(home.path("out")).unwrap().next().is_none()
}

#[test]
fn a_file_of_the_server_is_fetched_with_authorization() {
    let server = with_file(ABC);
    let home = Home::new(&server, ALL);
    let _agent = home.start();
    let out = home.path("file");
    fs::write(&out, "old and longer").unwrap();
    for url in ["/files/7/a%20b".to_owned(), format!("{}/files/7/a%20b", server.url)] {
        let body = json!({"type": "downloadfile", "url": url, "out": out, "sha256": ABC});
        assert_eq!(server.ask(&format!("{}", url.len()), body), json!({}));
        assert_eq!(fs::read_to_string(&out).unwrap(), "abc");
    }
    assert_ne!(fs::metadata(&out).unwrap().permissions().mode() & 0o044, 0, "as the mask lets");
    let authorized = server.change(|books| {
        let mut asked = books.requests.iter().filter(|r| r.path == "/files/7/a%20b");
        asked.all(|r| r.headers["authorization"] == "a1:hunter2")
    });
    assert!(authorized);
}

#[test]
fn a_file_from_elsewhere_is_fetched_without_authorization() {
    let (server, elsewhere) = (Server::start(), with_file(ABC));
    let home = Home::new(&server, ALL);
    let _agent = home.start();
    let url = format!("{}/files/1/x", elsewhere.url);
    let out = home.path("file");
    let body = json!({"type": "downloadfile", "url": url, "out": out});
    assert_eq!(server.ask("1", body), json!({}));
    let asked = elsewhere.change(|books| books.requests[0].clone());
    assert!(!asked.headers.contains_key("authorization"));
    // A redirect of the own server is not followed: it would take the authorization along.
}

#[test]
fn a_redirect_does_not_take_the_authorization_away() {
    let elsewhere = with_file(ABC);
    let target = format!("{}/files/1/x", elsewhere.url);
    let server = Server::scripted(move |request, _| {
        let moved = Answer::bytes(302, "").header("location", &target);
        request.path.starts_with("/files/").then_some(moved)
    });
    let home = Home::new(&server, ALL);
    let _agent = home.start();
    let body = json!({"type": "downloadfile", "url": "/files/1/x", "out": home.path("file")});
    assert!(msg(&server.ask("1", body)).contains("302"));
    assert!(elsewhere.change(|books| books.requests.is_empty()));
}

#[test]
fn a_download_that_goes_wrong_leaves_no_file() {
    let server = with_file("0000000000000000000000000000000000000000000000000000000000000000");
    let elsewhere = with_file(ABC);
    let broken = Server::scripted(|request, _| {
        (request.method == "GET").then(|| Answer::bytes(200, "abc").header("content-length", 3))
    });
    drop(broken);
    let home = Home::new(&server, &format!("{ALL}file_bytes_max=2"));
    fs::create_dir(home.path("out")).unwrap();
    let _agent = home.start();
    let out = home.path("out/file");
    let there = format!("{}/files/1/x", elsewhere.url);
    let fetch = |id: &str, url: &str, more: Value| {
        let mut body = json!({"type": "downloadfile", "url": url, "out": out});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        msg(&server.ask(id, body)).to_owned()
    };
    assert!(fetch("1", &there, json!({})).contains("more than 2 bytes"));
    assert!(fetch("2", "/tasks", json!({})).contains("only files"));
    assert!(fetch("3", "http://127.0.0.1:1/x", json!({})).contains("cannot reach"));
    assert!(fetch("4", &there, json!({"sha256": "abc"})).contains("'sha256'"));
    assert!(fetch("5", &there, json!({"out": "relative"})).contains("'out'"));
    assert!(fetch("6", &there, json!({"out": "/no/such/dir/x"})).contains("/no/such/dir"));
    assert!(fetch("7", &there, json!({"out": home.path("out")})).contains("directory"));
    assert!(fetch("8", &format!("{}/nothing", elsewhere.url), json!({})).contains("404"));
    assert!(is_empty(&home));
}

#[test]
fn a_file_with_another_checksum_than_was_told_is_not_kept() {
    let server = with_file("0000000000000000000000000000000000000000000000000000000000000000");
    let elsewhere = with_file(ABC);
    let home = Home::new(&server, ALL);
    fs::create_dir(home.path("out")).unwrap();
    let _agent = home.start();
    let out = home.path("out/file");
    let told = json!({"type": "downloadfile", "url": "/files/1/x", "out": out});
    assert!(msg(&server.ask("1", told)).contains("checksum"));
    let url = format!("{}/files/1/x", elsewhere.url);
    let wanted = json!({"type": "downloadfile", "url": url, "out": out, "sha256": "1".repeat(64)});
    assert!(msg(&server.ask("2", wanted)).contains("checksum"));
    assert!(is_empty(&home));
}

#[test]
fn a_file_is_given_to_the_server_with_its_name_and_length() {
    let server = Server::scripted(|request, _| {
        let stored = json!({"error": false, "url": "/files/9/x", "sha256": ABC});
        request.path.starts_with("/files/").then(|| Answer::json(200, &stored))
    });
    let home = Home::new(&server, ALL);
    let file = home.path("ein ü?.txt");
    fs::write(&file, "abc").unwrap();
    let _agent = home.start();
    let result = server.ask("1", json!({"type": "uploadfile", "path": file}));
    assert_eq!(result, json!({"url": "/files/9/x", "bytes": 3, "sha256": ABC}));
    let sent = server.wait("the upload", |books| {
        books.requests.iter().find(|r| r.path.starts_with("/files/")).cloned()
    });
    assert_eq!((sent.path.as_str(), &sent.body[..]), ("/files/ein%20%C3%BC%3F.txt", &b"abc"[..]));
    assert_eq!((sent.method.as_str(), sent.headers["content-length"].as_str()), ("POST", "3"));
    fs::write(&file, "abd").unwrap();
    let other = server.ask("2", json!({"type": "uploadfile", "path": file}));
    assert!(msg(&other).contains("another checksum"));
}

#[test]
fn what_is_no_file_or_too_large_is_not_given_away() {
    let server = Server::start();
    let home = Home::new(&server, &format!("{ALL}file_bytes_max=2"));
    fs::write(home.path("large"), "abc").unwrap();
    let _agent = home.start();
    let upload = |id: &str, path: Value| {
        msg(&server.ask(id, json!({"type": "uploadfile", "path": path}))).to_owned()
    };
    assert!(upload("1", json!(home.path("large"))).contains("more than 2 bytes"));
    assert!(upload("2", json!(home.dir.path())).contains("not a regular file"));
    assert!(upload("3", json!("/dev/zero")).contains("not a regular file"));
    assert!(upload("4", json!(home.path("absent"))).contains("absent"));
}

#[test]
fn files_are_moved_and_deleted() {
    let server = Server::start();
    let home = Home::new(&server, ALL);
    fs::create_dir(home.path("a")).unwrap();
    fs::write(home.path("a/file"), "x").unwrap();
    let _agent = home.start();
    let moved = json!({"type": "movefile", "frompath": home.path("a"), "topath": home.path("b")});
    assert_eq!(server.ask("1", moved.clone()), json!({}));
    assert!(home.path("b/file").exists() && !home.path("a").exists());
    // Another id, or it would be taken for the same task.
    assert_eq!(server.ask("2", moved)["error"], true);
    let deleted = json!({"type": "deletefile", "path": home.path("b")});
    assert_eq!(server.ask("3", deleted.clone()), json!({}));
    assert!(!home.path("b").exists());
    assert_eq!(server.ask("4", deleted)["error"], true);
}

/// An update to `program`, offered as file 1 of the server.
fn offer_update(program: Vec<u8>, sha256: Option<&str>) -> (Server, Value) {
    let server = Server::scripted(move |request, _| {
        request.path.starts_with("/files/").then(|| Answer::bytes(200, program.clone()))
    });
    let mut body = json!({"type": "update", "url": "/files/1/new"});
    if let Some(sha256) = sha256 {
        body["sha256"] = sha256.into();
    }
    (server, body)
}

fn sha256_of(path: &std::path::Path) -> String {
    let output = crate::agent::command("sha256sum".as_ref()).arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

#[test]
fn an_agent_that_is_updated_restarts_as_the_new_program_with_all_delivered() {
    let real = env!("CARGO_BIN_EXE_gatehouse-agent");
    // The new program is the same with a byte more at its end: it runs, and is another file.
    let mut new = fs::read(real).unwrap();
    new.push(0);
    let holder = tempfile::tempdir().unwrap();
    fs::write(holder.path().join("new"), &new).unwrap();
    let (server, body) = offer_update(new, Some(&sha256_of(&holder.path().join("new"))));
    let mut home = Home::new(&server, ALL);
    home.program = home.path("gatehouse-agent");
    fs::copy(real, &home.program).unwrap();
    let mut agent = home.start();
    let result = server.ask("1", body.clone());
    assert_eq!(result["error"], false, "{result}");
    agent.log_until("restarting as");
    agent.log_until("fetching tasks");
    // The same process, another program; it goes on with its work, and commands run.
    let pid = json!({"type": "execute_cmd", "cmd": "ps -o ppid= -p $PPID"});
    let parent = server.ask("2", pid)["output"].as_str().unwrap().trim().to_owned();
    assert_eq!(parent, agent.pid().to_string());
    let now = std::path::PathBuf::from(format!("/proc/{}/exe", agent.pid()));
    assert_eq!(sha256_of(&now), body["sha256"].as_str().unwrap());
    assert_eq!(server.change(|books| books.count("POST", "/tasks_result")), 2, "no result twice");
}

#[test]
fn what_is_not_a_proven_agent_does_not_take_its_place() {
    let script = b"#!/bin/sh\necho something else\n".to_vec();
    let holder = tempfile::tempdir().unwrap();
    fs::write(holder.path().join("new"), &script).unwrap();
    let sum = sha256_of(&holder.path().join("new"));
    for (sha256, part) in [
        (None, "'sha256' is missing"),
        (Some(ABC), "checksum"),
        (Some(sum.as_str()), "does not run here as a gatehouse-agent"),
    ] {
        let (server, body) = offer_update(script.clone(), sha256);
        let mut home = Home::new(&server, ALL);
        fs::create_dir(home.path("bin")).unwrap();
        home.program = home.path("bin/gatehouse-agent");
        fs::copy(env!("CARGO_BIN_EXE_gatehouse-agent"), &home.program).unwrap();
        let before = sha256_of(&home.program);
        let _agent = home.start();
        let result = server.ask("1", body);
        assert!(msg(&result).contains(part), "{result}");
        assert_eq!(sha256_of(&home.program), before);
        assert_eq!(fs::read_dir(home.path("bin")).unwrap().count(), 1);
    }
}
