//! Starts that must fail, clearly and at once, and starts that must succeed all the same.

use std::net::TcpListener;

use e2e::{Exit, Setup, program, run};
use serde_json::json;

/// The start fails, and what it says has all of these parts.
fn check(setup: Setup, parts: &[&str]) -> Exit {
    let exit = setup.fail_to_start();
    let said = format!("{}{}", exit.stdout, exit.stderr);
    for part in parts {
        assert!(said.contains(part), "no {part} in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    exit
}

#[test]
fn a_port_in_use_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    check(Setup::new().set("network", "port", &port).handler("A", "return {}"), &[&port]);
}

#[test]
fn an_address_that_is_not_here_is_told() {
    check(Setup::new().set("network", "bindto", "203.0.113.1"), &["203.0.113.1"]);
    check(Setup::new().set("network", "bindto", "no.such.host.invalid"), &["no.such.host.invalid"]);
}

#[test]
fn a_missing_configuration_is_told() {
    let setup = Setup::new();
    let exit = run(&program(), &["serve", "-i", "nowhere.ini"], setup.path());
    assert!(exit.code.is_some_and(|code| code != 0), "{exit:?}");
    assert!(exit.stderr.contains("nowhere.ini"), "{exit:?}");
}

#[test]
fn a_configuration_with_mistakes_is_told_with_its_lines() {
    check(Setup::new().set("network", "prot", "80"), &["gatehouse.ini", "prot", "network"]);
    check(Setup::new().set("network", "port", "eighty"), &["gatehouse.ini", "port", "eighty"]);
    check(Setup::new().set("network", "port", "70000"), &["port", "70000"]);
    check(Setup::new().set("limits", "body_bytes_max", "-1"), &["body_bytes_max"]);
    check(Setup::new().set("log", "level", "loud"), &["level", "loud"]);
    check(Setup::new().set("network", "trusted_proxies", "10.0.0.0/99"), &["trusted_proxies"]);
    check(Setup::new().set("mine", "a", "${mine:nothing}"), &["mine", "nothing"]);
    check(Setup::new().set("mine", "a", "${b}").set("mine", "b", "${a}"), &["mine"]);
    check(Setup::new().set("mine", "a", "int:seven"), &["mine", "seven"]);
}

#[test]
fn a_line_that_is_no_setting_is_told_with_its_number() {
    let text = "[network]\nport=0\n\nthis is no setting\n";
    check(Setup::new().whole(text), &["gatehouse.ini", "4"]);
    check(Setup::new().whole("[network\nport=0\n"), &["gatehouse.ini", "1"]);
    check(Setup::new().whole("port=0\n"), &["gatehouse.ini", "1"]);
}

#[test]
fn a_configuration_that_is_no_text_is_told() {
    let setup = Setup::new().file("bad.ini", [0xff, 0xfe, 0x00, 0x80]);
    let exit = run(&program(), &["serve", "-i", "bad.ini"], setup.path());
    assert!(exit.code.is_some_and(|code| code != 0), "{exit:?}");
    assert!(exit.stderr.contains("bad.ini") && !exit.stderr.contains("panicked"), "{exit:?}");
}

#[test]
fn a_python_that_is_not_there_is_told_and_the_rest_is_served() {
    let setup = Setup::new()
        .handler("A", "return {}")
        .set("python", "interpreter", "{dir}/no-python")
        .set("paths", "documents", "docs:{dir}/www")
        .file("www/a.txt", "served");
    let file = setup.write_configuration("gatehouse.ini");
    let arguments = ["serve", "-i", file.to_str().unwrap()];
    let mut process = e2e::Process::start(&program(), &arguments, setup.path(), &[]);
    // Either is an answer: no start, or a start that says what is missing.
    e2e::wait_until("a word about it", || {
        let ended = process.ends_within(std::time::Duration::ZERO);
        let said = process.stderr.so_far().contains("no-python");
        (ended || said).then_some(())
    });
    process.signal(e2e::Signal::TERM);
    assert!(process.wait().stderr.contains("no-python"));
}

#[test]
fn a_log_on_a_full_disk_stops_no_request() {
    let server = Setup::new()
        .handler("Chatty", "self.log('x' * 1000)\nprint('y')\nreturn {'ok': True}")
        .set("log", "file", "/dev/full")
        .set("log", "access", "all")
        .start();
    for _ in 0..20 {
        assert_eq!(server.get_json("/chatty"), json!({"ok": true}));
    }
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_log_file_is_written_instead_of_standard_error() {
    let server = Setup::new()
        .handler("Chatty", "self.log('into the file')\nreturn {}")
        .set("log", "file", "{dir}/server.log")
        .start();
    assert_eq!(server.get_json("/chatty"), json!({}));
    let read = || std::fs::read_to_string(server.path("server.log")).ok();
    e2e::wait_until("the line in the file", || {
        read().filter(|text| text.contains("into the file"))
    });
}

#[test]
fn a_log_in_json_is_json_line_by_line() {
    let server = Setup::new()
        .handler("Chatty", "self.log('a \"quoted\" line')\nraise ValueError('x')")
        .set("log", "format", "json")
        .start();
    let _ = server.get("/chatty");
    let _ = server.log().wait_for(&["quoted"]);
    let exit = server.stop();
    for line in exit.stderr.lines() {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok(), "{line}");
    }
}

#[test]
fn requests_are_logged_as_asked() {
    for (access, good, bad) in [("off", false, false), ("errors", false, true), ("all", true, true)]
    {
        let server = Setup::new()
            .handler("Good", "return {}")
            .handler("Bad", "return (500, {})")
            .set("log", "access", access)
            .set("log", "level", "info")
            .start();
        let _ = server.get("/good/marker-good");
        let _ = server.get("/bad/marker-bad");
        let log = server.stop().stderr;
        assert_eq!(log.contains("marker-good"), good, "{access}: {log}");
        assert_eq!(log.contains("marker-bad"), bad, "{access}: {log}");
    }
}

#[test]
fn both_spellings_of_settings_work() {
    let port = e2e::free_port();
    let text = format!(
        "# a comment\n; another\n[NETWORK]\nbindto: 127.0.0.1\nlisten: int:{port}\n[empty]\n[Paths]\npluginpath={{dir}}/plugins\n"
    );
    let server = Setup::new().whole(&text).handler("A", "return {'a': 1}").start();
    assert_eq!(server.address().port(), port);
    assert_eq!(server.get_json("/a"), json!({"a": 1}));
}

#[test]
fn a_server_without_plugins_is_a_server() {
    let server = Setup::new().start();
    assert_eq!(server.get("/plugins").status, 200);
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_host_name_may_be_bound() {
    let server = Setup::new().set("network", "bindto", "localhost").start();
    assert_eq!(server.get("/plugins").status, 200);
}

#[test]
fn thirty_files_of_plugins_start() {
    let setup = (0..30).fold(Setup::new(), |setup, n| {
        setup.handler(&format!("P{n}"), &format!("return {{'n': {n}}}"))
    });
    let server = setup.start();
    for n in 0..30 {
        assert_eq!(server.get_json(&format!("/p{n}")), json!({"n": n}));
    }
}

#[test]
fn servers_that_start_at_once_for_the_first_time_do_not_disturb_each_other() {
    let cache = tempfile::tempdir().unwrap();
    let cache = cache.path().display().to_string();
    std::thread::scope(|scope| {
        for n in 0..6 {
            let cache = &cache;
            scope.spawn(move || {
                let server = Setup::new()
                    .environment("XDG_CACHE_HOME", cache)
                    .environment("HOME", cache)
                    .handler("A", &format!("return {{'n': {n}}}"))
                    .start();
                assert_eq!(server.get_json("/a"), json!({"n": n}));
                assert_eq!(server.get("/reload/a").status, 200);
            });
        }
    });
}

#[test]
fn a_home_that_cannot_be_written_stops_nothing() {
    let server = Setup::new()
        .environment("XDG_CACHE_HOME", "/proc/nowhere")
        .environment("HOME", "/proc/nowhere")
        .handler("A", "return {'a': 1}")
        .start();
    assert_eq!(server.get_json("/a"), json!({"a": 1}));
}
