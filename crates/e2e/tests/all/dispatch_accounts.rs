//! Accounts by the command line: what is printed, how it ends, and what a running server makes of
//! it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use e2e::{Dispatch, Exit, Setup, Signal, program, run, run_reading};
use serde_json::json;

const DB: &str = "test.db";

/// The program, by its own name or through a link named `dutserver`.
fn names(setup: &Setup) -> [PathBuf; 2] {
    let link = setup.path().join("dutserver");
    symlink(program(), &link).unwrap();
    [program(), link]
}

fn add(program: &Path, setup: &Setup, name: &str, kind: &str, input: &str) -> Exit {
    run_reading(program, &["addaccount", DB, name, kind], setup.path(), input)
}

fn check_clean(exit: &Exit) {
    let said = format!("{}{}", exit.stdout, exit.stderr);
    assert!(!said.contains("panicked"), "{said}");
}

/// Ends badly, says something of this, and is no crash.
fn check_failed(exit: &Exit, part: &str) {
    check_clean(exit);
    assert!(exit.code.is_some_and(|code| code != 0), "{exit:?}");
    let said = format!("{}{}", exit.stdout, exit.stderr).to_lowercase();
    assert!(said.contains(&part.to_lowercase()), "no {part} in {exit:?}");
}

#[test]
fn an_account_is_added_with_the_documented_words() {
    let setup = Setup::new();
    for (program, name) in names(&setup).iter().zip(["one", "two"]) {
        let exit = add(program, &setup, name, "agent", "secret\n");
        assert_eq!(exit.code, Some(0), "{exit:?}");
        assert!(exit.stdout.starts_with("Enter password for account: "), "{exit:?}");
        assert!(exit.stderr.contains("OK."), "{exit:?}");
    }
    assert!(setup.path().join(DB).exists());
}

#[test]
fn a_type_that_does_not_exist_is_refused_before_anything_is_asked_or_made() {
    let setup = Setup::new();
    for program in names(&setup) {
        let exit = add(&program, &setup, "one", "robot", "secret\n");
        check_failed(&exit, "type");
        assert!(!exit.stdout.contains("Enter password"), "{exit:?}");
        assert!(!setup.path().join(DB).exists(), "no database is made");
    }
}

#[test]
fn the_older_name_ends_with_one_and_its_own_words() {
    let setup = Setup::new();
    let [_, dutserver] = names(&setup);
    let ends = |arguments: &[&str]| run(&dutserver, arguments, setup.path());
    let bare = ends(&[]);
    assert_eq!(bare.code, Some(0), "{bare:?}");
    for part in ["server", "addaccount", "remove"] {
        assert!(bare.stderr.contains(part), "no {part} in {bare:?}");
    }
    let unknown = ends(&["frobnicate"]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(unknown.stderr.contains("Unknown subcommand."), "{unknown:?}");
    for wrong in [&["server"][..], &["server", "1"], &["addaccount", DB], &["remove", DB]] {
        let exit = ends(wrong);
        assert_eq!(exit.code, Some(1), "{wrong:?}: {exit:?}");
        assert!(exit.stderr.contains("Usage: "), "{wrong:?}: {exit:?}");
    }
    let kind = add(&dutserver, &setup, "one", "robot", "x\n");
    assert_eq!(kind.code, Some(1), "{kind:?}");
    assert!(kind.stderr.contains("Invalid type."), "{kind:?}");
    assert!(!setup.path().join(DB).exists());
}

#[test]
fn a_name_that_is_taken_is_refused_whatever_its_type() {
    let setup = Setup::new();
    for program in names(&setup) {
        let _ = add(&program, &setup, "one", "agent", "secret\n");
        for kind in ["agent", "admin"] {
            let exit = add(&program, &setup, "one", kind, "other\n");
            check_failed(&exit, "Failed to add account: UNIQUE constraint failed");
            assert_eq!(exit.code, Some(1), "{exit:?}");
        }
    }
}

#[test]
fn the_end_of_input_is_no_password() {
    let setup = Setup::new();
    for program in names(&setup) {
        let exit = add(&program, &setup, "one", "agent", "");
        check_failed(&exit, "password");
        assert_eq!(exit.code, Some(1), "{exit:?}");
    }
}

#[test]
fn a_password_is_the_first_line_without_its_end() {
    let server = Dispatch::start();
    let inputs = [
        ("lf", "x y\nmore\n", "x y"),
        ("crlf", "x y\r\nmore\r\n", "x y"),
        ("unfinished", "x y", "x y"),
        ("colons", "a:b:c\n", "a:b:c"),
        ("unicode", "pässwörd ✓\n", "pässwörd ✓"),
    ];
    for (name, input, password) in inputs {
        let exit = run_reading(
            &program(),
            &["addaccount", "tasks.db", name, "agent"],
            &server.path(""),
            input,
        );
        assert_eq!(exit.code, Some(0), "{name}: {exit:?}");
        assert_eq!(poll_as(&server, &format!("{name}:{password}")), 200, "{name}");
        assert_eq!(poll_as(&server, &format!("{name}:{password}x")), 403, "{name}");
    }
}

/// The status of a poll with this authorization, whatever its letters.
fn poll_as(server: &Dispatch, authorization: &str) -> u16 {
    let mut connection = server.connect();
    connection.write(format!(
        "GET /tasks?wait=0 HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n\r\n"
    ));
    connection.read_reply().status
}

#[test]
fn an_account_is_removed_and_a_missing_one_as_well() {
    let setup = Setup::new();
    for program in names(&setup) {
        let _ = add(&program, &setup, "one", "agent", "secret\n");
        for name in ["one", "one", "never"] {
            let exit = run(&program, &["remove", DB, name], setup.path());
            assert_eq!(exit.code, Some(0), "{exit:?}");
            assert!(format!("{}{}", exit.stdout, exit.stderr).contains("OK."), "{exit:?}");
        }
        let exit = add(&program, &setup, "one", "admin", "secret\n");
        assert_eq!(exit.code, Some(0), "the name is free again: {exit:?}");
        let _ = run(&program, &["remove", DB, "one"], setup.path());
    }
}

#[test]
fn a_database_that_cannot_be_written_is_told() {
    let setup = Setup::new().file("text.db", "this is no database, and long enough to be seen");
    for program in names(&setup) {
        for db in ["missing/test.db", ".", "text.db"] {
            let exit =
                run_reading(&program, &["addaccount", db, "one", "agent"], setup.path(), "x\n");
            check_failed(&exit, db);
            let exit = run(&program, &["remove", db, "one"], setup.path());
            check_failed(&exit, db);
        }
    }
    let text = std::fs::read_to_string(setup.path().join("text.db")).unwrap();
    assert!(text.starts_with("this is no database"), "a foreign file is left alone");
}

#[test]
fn a_running_server_knows_an_account_at_once() {
    let server = Dispatch::start();
    let late = server.agent("late");
    let _ = late.get("/tasks?wait=0").refused(403);
    server.add_account("late", "agent");
    late.report(&json!({"n": 1}));
    let id = server.admin().enqueue("late", &json!({"n": 2}));
    assert_eq!(late.take().0, id);
    server.add_account("boss", "admin");
    let boss = server.caller(&server.login("boss", "pw-boss"));
    assert_eq!(boss.get_names(), ["a", "b", "c", "late"]);
}

/// The agents as a caller is told them.
trait Names {
    fn get_names(&self) -> Vec<String>;
}

impl Names for e2e::Caller {
    fn get_names(&self) -> Vec<String> {
        let said = self.get("/agents").ok();
        let names = said["agents"].as_array().unwrap_or_else(|| panic!("no array in {said}"));
        names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn a_running_server_refuses_at_once_whom_it_no_longer_has() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let boss = server.role("boss", "admin");
    agent.report(&json!("before"));
    let id = admin.enqueue("a", &json!("before"));
    for name in ["a", "boss"] {
        let exit = run(&program(), &["remove", "tasks.db", name], &server.path(""));
        assert_eq!(exit.code, Some(0), "{exit:?}");
    }
    // Also what had been verified before, and the session it had.
    let _ = agent.get("/tasks?wait=0").refused(403);
    let _ = agent.post("/events", &json!(1)).refused(403);
    let _ = boss.get("/agents").refused(403);
    let _ = server.post("/login?user=boss&pass=pw-boss").send().refused(403);
    assert_eq!(admin.get_names(), ["b", "c"]);
    let _ = admin.post("/tasks?target=a&noWait=1", &json!({})).refused(404);
    // A new account of that name has neither the queue nor the events of the old one.
    server.add_account("a", "agent");
    assert!(agent.poll("wait=0").is_empty(), "task {id} went with the account");
    assert_eq!(admin.get("/events?agent=a").ok()["events"], json!([]));
}

/// Runs the program on a terminal of its own, types a password when asked, and prints what came
/// back on the terminal.
const ON_A_TERMINAL: &str = r#"
import os, pty, sys
pid, master = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
shown, typed = b"", False
while True:
    try:
        piece = os.read(master, 4096)
    except OSError:
        break
    if not piece:
        break
    shown += piece
    if not typed and b"password" in shown:
        os.write(master, b"hidden-words\n")
        typed = True
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(code, shown)
"#;

#[test]
fn a_password_typed_on_a_terminal_is_not_shown() {
    let server = Dispatch::start();
    let program = program().display().to_string();
    let arguments = ["-c", ON_A_TERMINAL, &program, "addaccount", "tasks.db", "typed", "agent"];
    let exit = run(Path::new("python3"), &arguments, &server.path(""));
    assert!(exit.stdout.starts_with("0 "), "{exit:?}");
    assert!(exit.stdout.contains("Enter password for account: "), "{exit:?}");
    assert!(!exit.stdout.contains("hidden"), "{exit:?}");
    assert!(server.caller("typed:hidden-words").poll("wait=0").is_empty());
}

/// Runs the program on a terminal of its own, interrupts it at the prompt, and prints how it ended and whether the
/// terminal shows what is typed: at the prompt, and afterwards.
const INTERRUPTED: &str = r#"
import fcntl, os, pty, sys, termios
master, terminal = pty.openpty()
def shows():
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)
pid = os.fork()
if pid == 0:
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(terminal, number)
    os.execv(sys.argv[1], sys.argv[1:])
shown = b""
while b"password" not in shown:
    shown += os.read(master, 4096)
prompted = shows()
os.write(master, b"\x03")
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(code, prompted, shows())
"#;

#[test]
fn a_terminal_shows_again_what_is_typed_when_the_prompt_is_interrupted() {
    let setup = Setup::new();
    let program = program().display().to_string();
    let arguments = ["-c", INTERRUPTED, &program, "addaccount", DB, "typed", "agent"];
    let exit = run(Path::new("python3"), &arguments, setup.path());
    assert_eq!(exit.stdout.trim(), "-2 False True", "{exit:?}");
    assert!(!setup.path().join(DB).exists());
}

#[test]
fn the_older_name_serves_and_ends_at_once_with_zero() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let setup = Setup::new();
        let [_, dutserver] = names(&setup);
        let exit = add(&dutserver, &setup, "x", "agent", "y\n");
        assert_eq!(exit.code, Some(0), "{exit:?}");
        let arguments = ["server", "0", DB].map(std::ffi::OsString::from);
        let mut server = setup.start_with(&dutserver, &arguments);
        let reply = server.request("GET", "/tasks?wait=0").header("Authorization", "x:y").send();
        assert_eq!(reply.ok(), json!({"error": false, "events": {}}));
        // A parked poll does not hold it up.
        let mut parked = server.connect();
        parked.write("GET /tasks HTTP/1.1\r\nHost: x\r\nAuthorization: x:y\r\n\r\n");
        let _ = server.request("GET", "/tasks?wait=0").header("Authorization", "x:y").send();
        server.signal(signal);
        let in_time = server.process.ends_within(std::time::Duration::from_secs(5));
        assert!(in_time, "{signal:?}: {}", server.log().so_far());
        assert_eq!(server.process.wait().code, Some(0), "{signal:?}");
    }
}

#[test]
fn who_is_not_on_loopback_without_tls_is_warned() {
    let server = Dispatch::start();
    assert!(server.process.stdout.so_far().contains("0.0.0.0"), "every interface, as documented");
    let _ = server.log().wait_for_line("a warning of TLS", |line| {
        line.to_lowercase().contains("warn") && line.contains("TLS")
    });
}

#[test]
fn a_copy_of_an_open_database_is_a_database() {
    let server = Dispatch::start();
    let admin = server.admin();
    server.agent("a").report(&json!("kept"));
    let id = admin.enqueue("b", &json!("queued"));
    let told = run(&program(), &["accounts", "tasks.db"], &server.path(""));
    assert_eq!(told.code, Some(0), "{told:?}");
    for part in ["root", "admin", "a", "agent"] {
        assert!(told.stdout.contains(part), "no {part} in {told:?}");
    }
    let copied = run(&program(), &["backup", "tasks.db", "copy.db"], &server.path(""));
    assert_eq!(copied.code, Some(0), "{copied:?}");
    let restored = run(&program(), &["restore", "copy.db", "new.db"], &server.path(""));
    assert_eq!(restored.code, Some(0), "{restored:?}");
    let setup = Setup::new().file("new.db", std::fs::read(server.path("new.db")).unwrap());
    let arguments = ["server", "0", "new.db"].map(std::ffi::OsString::from);
    let other = setup.start_with(&program(), &arguments);
    let reply = other.request("GET", "/tasks?wait=0").header("Authorization", "b:pw-b").send();
    assert_eq!(reply.ok(), json!({"error": false, "events": {id: "queued"}}));
}

#[test]
fn a_database_is_never_written_over_by_a_copy() {
    let server = Dispatch::start();
    let setup = Setup::new().file("kept.db", "something of mine");
    let kept = setup.path().join("kept.db").display().to_string();
    let exit = run(&program(), &["backup", "tasks.db", &kept], &server.path(""));
    check_failed(&exit, "kept.db");
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "something of mine");
    // Nor a database that a server has open.
    let copied = run(&program(), &["backup", "tasks.db", "copy.db"], &server.path(""));
    assert_eq!(copied.code, Some(0), "{copied:?}");
    let exit = run(&program(), &["restore", "copy.db", "tasks.db"], &server.path(""));
    check_failed(&exit, "tasks.db");
}
