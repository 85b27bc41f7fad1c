//! The operator's commands, and the program under its older name.

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use e2e::{Exit, Server, Setup, Signal, free_port, program, run};
use serde_json::json;

fn said(exit: &Exit) -> String {
    format!("{}{}", exit.stdout, exit.stderr)
}

fn run_in(setup: &Setup, arguments: &[&str]) -> Exit {
    run(&program(), arguments, setup.path())
}

#[test]
fn a_good_configuration_is_found_good() {
    let setup = Setup::new().set("auth", "apikey", "k").parameters("x", "a=1").set(
        "other",
        "id",
        "${auth:apikey}",
    );
    let file = setup.write_configuration("good.ini");
    let exit = run_in(&setup, &["config", "check", file.to_str().unwrap()]);
    assert_eq!(exit.code, Some(0), "{exit:?}");
}

#[test]
fn all_mistakes_of_a_configuration_are_told_at_once() {
    let text = "[network]\nport=many\nbindto=127.0.0.1\nprot=1\n\n[limits]\nbody_bytes_max=much\n[log]\nlevel=loud\n[ssl]\nenabled=true\n";
    let setup = Setup::new().whole(text);
    let file = setup.write_configuration("bad.ini");
    let exit = run_in(&setup, &["config", "check", file.to_str().unwrap()]);
    assert!(exit.code.is_some_and(|code| code != 0), "{exit:?}");
    let text = said(&exit);
    for part in ["bad.ini", "many", "prot", "much", "loud", "certfile", "2", "4", "7", "9"] {
        assert!(text.contains(part), "no {part} in:\n{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_configuration_that_is_missing_is_told() {
    let setup = Setup::new();
    let exit = run_in(&setup, &["config", "check", "nowhere.ini"]);
    assert!(exit.code.is_some_and(|code| code != 0), "{exit:?}");
    assert!(said(&exit).contains("nowhere.ini"), "{exit:?}");
}

#[test]
fn a_configuration_is_shown_without_its_secrets() {
    let setup = Setup::new()
        .set("auth", "apikey", "global-secret")
        .parameters("safe", "auth_type=plugin&apikey=plugin-secret&colour=red")
        .set("limits", "body_bytes_max", "12345");
    let file = setup.write_configuration("gatehouse.ini");
    let exit = run_in(&setup, &["config", "show", "-i", file.to_str().unwrap()]);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let text = said(&exit);
    assert!(text.contains("12345") && text.contains("red"), "{text}");
    assert!(!text.contains("global-secret") && !text.contains("plugin-secret"), "{text}");
}

#[test]
fn commands_that_are_none_are_told() {
    let setup = Setup::new();
    for arguments in [vec!["nonsense"], vec!["plugin", "nonsense"], vec!["serve", "--nonsense"]] {
        let exit = run_in(&setup, &arguments);
        assert!(exit.code.is_some_and(|code| code != 0), "{arguments:?}: {exit:?}");
        assert!(!exit.stderr.is_empty());
    }
    let exit = run_in(&setup, &["--help"]);
    assert_eq!(exit.code, Some(0));
    assert!(exit.stdout.contains("serve") && exit.stdout.contains("plugin"), "{}", exit.stdout);
    assert_eq!(run_in(&setup, &["--version"]).code, Some(0));
}

/// A server on a port that its configuration file names, so that commands find it.
fn reachable(setup: Setup) -> Server {
    setup.set("network", "port", &free_port().to_string()).start()
}

fn command(server: &Server, arguments: &[&str]) -> Exit {
    let file = server.path("gatehouse.ini");
    let mut all: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    all.extend(["-i".into(), file.into_os_string()]);
    run(&program(), &all, &server.path(""))
}

fn check_done(server: &Server, arguments: &[&str]) -> String {
    let exit = command(server, arguments);
    assert_eq!(exit.code, Some(0), "{arguments:?}: {exit:?}");
    exit.stdout
}

fn check_failed(server: &Server, arguments: &[&str], why: &str) {
    let exit = command(server, arguments);
    assert!(exit.code.is_some_and(|code| code != 0), "{arguments:?}: {exit:?}");
    assert!(exit.stderr.contains(why), "{arguments:?}: {exit:?}");
    assert!(!exit.stderr.contains("panicked"), "{exit:?}");
}

#[test]
fn plugins_are_listed_loaded_reloaded_and_unloaded_by_command() {
    for key in [None, Some("the-key")] {
        let mut setup = Setup::new().handler("One", "return {'v': 1}");
        if let Some(key) = key {
            setup = setup.set("auth", "apikey", key);
        }
        let server = reachable(setup);
        assert!(check_done(&server, &["plugin", "list"]).contains("one"));
        server.write_handler("One", "return {'v': 2}");
        let _ = check_done(&server, &["plugin", "reload", "one"]);
        assert_eq!(server.get_json("/one"), json!({"v": 2}));
        server.write_handler("Two", "return {'v': 3}");
        let _ = check_done(&server, &["plugin", "load", "two"]);
        assert_eq!(server.get_json("/two"), json!({"v": 3}));
        let _ = check_done(&server, &["plugin", "unload", "one"]);
        assert_eq!(server.get("/one").status, 404);
        assert!(!check_done(&server, &["plugin", "list"]).contains("one"));
        let _ = check_done(&server, &["plugin", "reload", "all"]);
    }
}

#[test]
fn a_command_that_fails_says_why() {
    let server = reachable(Setup::new().handler("One", "return {'v': 1}"));
    check_failed(&server, &["plugin", "reload", "nothing"], "nothing");
    check_failed(&server, &["plugin", "unload", "nothing"], "nothing");
    check_failed(&server, &["plugin", "load", "nothing"], "nothing");
    server.write("plugins/one.py", "import no_such_module_here\n");
    check_failed(&server, &["plugin", "reload", "one"], "no_such_module_here");
    assert_eq!(server.get_json("/one"), json!({"v": 1}));
}

#[test]
fn a_server_that_does_not_run_is_told() {
    let port = free_port().to_string();
    let setup = Setup::new().set("network", "port", &port);
    let file = setup.write_configuration("gatehouse.ini");
    let exit = run_in(&setup, &["plugin", "list", "-i", file.to_str().unwrap()]);
    assert!(exit.code.is_some_and(|code| code != 0), "{exit:?}");
    assert!(exit.stderr.contains(&port), "{exit:?}");
}

#[test]
fn a_new_plugin_is_written_and_works_at_once() {
    let server = reachable(Setup::new());
    let _ = check_done(&server, &["plugin", "new", "fresh"]);
    assert!(server.path("plugins/fresh.py").exists());
    let _ = check_done(&server, &["plugin", "load", "fresh"]);
    assert_eq!(server.get("/fresh").status, 200);
    server.write_handler("Fresh", "return {'mine': True}");
    check_failed(&server, &["plugin", "new", "fresh"], "fresh");
    let text = std::fs::read_to_string(server.path("plugins/fresh.py")).unwrap();
    assert!(text.contains("mine"), "what is there is not overwritten");
}

#[test]
fn the_test_of_a_new_plugin_is_run_by_the_command_that_is_printed() {
    let setup = Setup::new().file("plugins/readme.txt", "");
    let exit = run_in(&setup, &["plugin", "new", "fresh", "--directory", "plugins"]);
    let printed = exit.stdout.lines().find(|line| line.contains("PYTHONPATH="));
    let printed = printed.unwrap_or_else(|| panic!("no command in:\n{}", exit.stdout));
    let command = &printed[printed.find("PYTHONPATH=").unwrap()..];
    let check = |expected: i32| {
        let shell = run(Path::new("/bin/sh"), &["-c", command], setup.path());
        assert_eq!(shell.code, Some(expected), "{command}\n{}", said(&shell));
    };
    check(0);
    // The test is one that can fail.
    let file = setup.path().join("plugins/fresh.py");
    let code = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, code.replace("200", "500")).unwrap();
    check(1);
}

#[test]
fn a_new_plugin_has_a_name_that_can_be_one() {
    let server = reachable(Setup::new());
    for name in ["../evil", "a b", "", "1st", "plugins", "a/b", "class"] {
        let exit = command(&server, &["plugin", "new", name]);
        assert!(exit.code.is_some_and(|code| code != 0), "{name}: {exit:?}");
    }
    assert!(!server.path("evil.py").exists());
}

/// The program under its older name, in the directory of this setup.
fn pserve(setup: &Setup) -> PathBuf {
    let link = setup.path().join("pserve");
    symlink(program(), &link).unwrap();
    link
}

fn chatty() -> Setup {
    Setup::new().handler(
        "Chatty",
        "self.log.debug('small words')\nself.log.error('large words')\nreturn {'ok': True}",
    )
}

#[test]
fn the_older_name_takes_its_file_with_i() {
    for option in ["-i", "--ini-file"] {
        let setup = chatty();
        let program = pserve(&setup);
        let file = setup.write_configuration("other.ini");
        let server = setup.start_with(&program, &[option.into(), file.into_os_string()]);
        assert_eq!(server.get_json("/chatty"), json!({"ok": true}));
        let first = server.process.stdout.so_far();
        assert!(
            first.lines().next().unwrap().contains(&server.process.pid().to_string()),
            "{first}"
        );
        assert_eq!(server.stop().code, Some(0));
    }
}

#[test]
fn the_older_name_finds_its_file_where_it_is_started() {
    let setup = chatty();
    let program = pserve(&setup);
    let _ = setup.write_configuration("pserve.ini");
    let server = setup.start_with(&program, &[]);
    assert_eq!(server.get_json("/chatty"), json!({"ok": true}));
}

#[test]
fn the_older_name_without_a_file_says_which() {
    let setup = Setup::new();
    let exit = run::<OsString>(&pserve(&setup), &[], setup.path());
    assert!(exit.code.is_some_and(|code| code != 0), "{exit:?}");
    assert!(exit.stderr.contains("pserve.ini"), "{exit:?}");
}

#[test]
fn the_older_name_logs_where_and_what_it_is_told() {
    for (level, small) in [("DEBUG", true), ("debug", true), ("ERROR", false), ("CRITICAL", false)]
    {
        let setup = chatty();
        let program = pserve(&setup);
        let file = setup.write_configuration("pserve.ini");
        let log = setup.path().join("old.log");
        let arguments = [
            "-i".into(),
            file.into_os_string(),
            "-l".into(),
            log.clone().into_os_string(),
            "-v".into(),
            level.into(),
        ];
        let mut server = setup.start_with(&program, &arguments);
        assert_eq!(server.get_json("/chatty"), json!({"ok": true}));
        server.signal(Signal::TERM);
        assert_eq!(server.process.wait().code, Some(0));
        let text = std::fs::read_to_string(&log).unwrap();
        assert_eq!(text.contains("small words"), small, "{level}: {text}");
        assert!(text.contains("large words") || level == "CRITICAL", "{level}: {text}");
    }
}
