//! A database that cannot be used: told, survived, and nothing acknowledged is lost.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::{Dispatch, Process, Setup, program, run, wait_until};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};

/// Holds the database for itself until it is ended.
const HOLD: &str = "import sqlite3, sys, time
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute('BEGIN EXCLUSIVE')
print('held', flush=True)
time.sleep(600)";

/// Starts a server that lives on when a file grows over a limit, as on a full disk.
const LIMITED: &str = "trap '' XFSZ; exec \"$0\" \"$@\"";

fn numbers(server: &Dispatch) -> Vec<i64> {
    let said = server.admin().get("/events?agent=a").ok();
    let events = said["events"].as_array().unwrap().clone();
    events.iter().map(|event| event["n"].as_i64().unwrap()).collect()
}

#[test]
fn a_database_that_another_has_locked_is_unavailable_until_it_is_let_go() {
    let server = Dispatch::start();
    let (admin, agent) = (server.admin(), server.agent("a"));
    agent.report(&json!({"n": 0}));
    let id = admin.enqueue("a", &json!("before"));
    let arguments = ["-c", HOLD, &server.database()];
    let holder = Process::start(Path::new("python3"), &arguments, &server.path(""), &[]);
    let _ = holder.stdout.wait_for(&["held"]);
    let event = agent.apart(|agent| agent.post("/events", &json!({"n": 1})));
    let task = admin.apart(|admin| admin.post("/tasks?target=b&noWait=1", &json!(1)));
    let _ = event.join().unwrap().refused(503);
    let _ = task.join().unwrap().refused(503);
    assert_eq!(admin.task(&id)["state"], "queued", "reading goes on");
    drop(holder);
    wait_until("it is available again", || {
        (agent.post("/events", &json!({"n": 2})).status == 200).then_some(())
    });
    assert_eq!(numbers(&server), [0, 2], "what was refused is not there");
    assert!(server.agent("b").poll("wait=0").is_empty());
    assert_eq!(agent.take().0, id);
}

/// Lets the files of this process grow to so many bytes, or without a limit.
fn limit_files(pid: u32, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    let maximum = getrlimit(Resource::Fsize).maximum;
    let _ = prlimit(pid, Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
}

fn limited() -> Dispatch {
    Dispatch::start_through("/bin/sh", &["-c", LIMITED])
}

#[test]
fn a_full_disk_refuses_what_it_cannot_keep_and_goes_on_when_there_is_room() {
    let mut server = limited();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let id = admin.enqueue("b", &json!("before"));
    let pid = server.process.pid();
    limit_files(pid, Some(600 << 10));
    let filling = "x".repeat(20_000);
    let mut kept = Vec::new();
    let mut refused = 0;
    for n in 0..100 {
        let reply = agent.post("/events", &json!({"n": n, "filling": filling}));
        match reply.status {
            200 => kept.push(n),
            _ => {
                let _ = reply.refused(503);
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && !kept.is_empty(), "kept {kept:?}, refused {refused}");
    assert_eq!(numbers(&server), kept, "reading goes on");
    assert_eq!(admin.task(&id)["state"], "queued");
    limit_files(pid, None);
    wait_until("there is room again", || {
        (agent.post("/events", &json!({"n": 1000})).status == 200).then_some(())
    });
    kept.push(1000);
    assert_eq!(numbers(&server), kept);
    server.restart(e2e::Signal::KILL);
    assert_eq!(numbers(&server), kept);
    assert_eq!(server.agent("b").take(), (id, json!("before")));
}

#[test]
fn a_task_that_cannot_be_kept_as_taken_is_not_given_or_given_once() {
    let server = limited();
    let (admin, agent) = (server.admin(), server.agent("a"));
    let ids: Vec<_> = (0..3).map(|n| admin.enqueue("a", &json!(n))).collect();
    let pid = server.process.pid();
    limit_files(pid, Some(4096));
    let mut taken: Vec<String> = Vec::new();
    for _ in 0..3 {
        let reply = agent.get("/tasks?wait=0");
        match reply.status {
            200 => taken.extend(reply.json()["events"].as_object().unwrap().keys().cloned()),
            _ => drop(reply.refused(503)),
        }
    }
    limit_files(pid, None);
    wait_until("the rest", || {
        let reply = agent.get("/tasks?wait=1");
        if reply.status == 200 {
            taken.extend(reply.json()["events"].as_object().unwrap().keys().cloned());
        }
        (taken.len() >= 3).then_some(())
    });
    assert!(agent.poll("wait=0").is_empty());
    taken.sort_unstable();
    assert_eq!(taken, ids, "each once");
}

/// Starts a server on this file, which must end badly and say which file it is.
fn check_no_start(setup: &Setup, database: &str) {
    let exit = run(&program(), &["server", "0", database], setup.path());
    assert!(exit.code.is_some_and(|code| code != 0), "{database}: {exit:?}");
    let said = format!("{}{}", exit.stdout, exit.stderr);
    assert!(said.contains(database) && !said.contains("panicked"), "{said}");
}

#[test]
fn what_is_no_database_starts_no_server() {
    let setup = Setup::new()
        .file("text.db", "this is no database, and long enough to be seen as none of them")
        .file("directory.db/x", "");
    for database in ["text.db", "directory.db", "missing/tasks.db"] {
        check_no_start(&setup, database);
    }
    let text = fs::read_to_string(setup.path().join("text.db")).unwrap();
    assert!(text.starts_with("this is no database"), "a foreign file is left alone");
}

#[test]
fn a_database_of_a_later_program_is_left_alone() {
    let setup = Setup::new();
    let code = "import sqlite3, sys
made = sqlite3.connect(sys.argv[1])
made.execute('PRAGMA user_version = 99999')
made.execute('CREATE TABLE theirs (x)')
made.commit()";
    let exit = run(Path::new("python3"), &["-c", code, "later.db"], setup.path());
    assert_eq!(exit.code, Some(0), "{exit:?}");
    check_no_start(&setup, "later.db");
}

#[test]
fn a_broken_database_is_told_and_never_served_as_a_whole_one() {
    let server = Dispatch::start();
    let agent = server.agent("a");
    for n in 0..200 {
        agent.report(&json!({"n": n, "filling": "x".repeat(500)}));
    }
    let (directory, name) = (server.path(""), "tasks.db");
    let setup = Setup::new();
    let copied = run(&program(), &["backup", name, "whole.db"], &directory);
    assert_eq!(copied.code, Some(0), "{copied:?}");
    let mut bytes = fs::read(directory.join("whole.db")).unwrap();
    // Every page but the first, which tells that it is a database.
    bytes.iter_mut().skip(4096).for_each(|byte| *byte ^= 0x5a);
    fs::write(setup.path().join("broken.db"), bytes).unwrap();
    check_no_start(&setup, "broken.db");
}

#[test]
fn a_copy_taken_under_load_is_whole_and_has_all_that_was_acknowledged_before() {
    let server = Dispatch::start();
    let (copied, posting) = (Arc::new(AtomicBool::new(false)), server.agent("a"));
    let until = copied.clone();
    let poster = posting.apart(move |agent| {
        (0..).find(|n| {
            agent.report(&json!({"n": n}));
            until.load(Ordering::Relaxed)
        })
    });
    wait_until("some events", || (numbers(&server).len() > 20).then_some(()));
    let before = numbers(&server);
    let exit = run(&program(), &["backup", "tasks.db", "copy.db"], &server.path(""));
    copied.store(true, Ordering::Relaxed);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(poster.join().unwrap().is_some());
    let setup = Setup::new().file("copy.db", fs::read(server.path("copy.db")).unwrap());
    let arguments = ["server", "0", "copy.db"].map(std::ffi::OsString::from);
    let other = setup.start_with(&program(), &arguments);
    let reply = server.admin().at(other.base()).get("/events?agent=a").ok();
    let found = reply["events"].as_array().unwrap().clone();
    let found: Vec<_> = found.iter().map(|event| event["n"].as_i64().unwrap()).collect();
    assert!(found.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{found:?}");
    assert!(found.last() >= before.last(), "{found:?} after {before:?}");
}

/// Whether this machine lets an ordinary process have a file system of its own to see.
fn can_unshare(setup: &Setup) -> bool {
    run(Path::new("unshare"), &["-Urm", "true"], setup.path()).code == Some(0)
}

#[test]
fn a_database_on_a_read_only_file_system_starts_no_server() {
    let server = Dispatch::start();
    let setup = Setup::new();
    if !can_unshare(&setup) {
        eprintln!("SKIPPED: this machine lets no one have a file system of their own");
        return;
    }
    let copied = run(&program(), &["backup", "tasks.db", "copy.db"], &server.path(""));
    assert_eq!(copied.code, Some(0), "{copied:?}");
    fs::create_dir(setup.path().join("ro")).unwrap();
    fs::copy(server.path("copy.db"), setup.path().join("ro/tasks.db")).unwrap();
    let code = "mount --bind ro ro && mount -o remount,bind,ro ro && \"$@\"; echo code $?";
    let program = program().display().to_string();
    for command in [&["server", "0", "ro/tasks.db"][..], &["remove", "ro/tasks.db", "a"]] {
        let arguments = [&["-Urm", "sh", "-c", code, "sh", &program][..], command].concat();
        let exit = run(Path::new("unshare"), &arguments, setup.path());
        let said = format!("{}{}", exit.stdout, exit.stderr);
        assert!(exit.stdout.contains("code ") && !exit.stdout.contains("code 0"), "{said}");
        assert!(said.contains("ro/tasks.db") && !said.contains("panicked"), "{said}");
    }
}

#[test]
fn two_servers_on_one_database_give_no_task_twice() {
    let server = Dispatch::start();
    let other = program();
    let mut second = Process::start(&other, &["server", "0", "tasks.db"], &server.path(""), &[]);
    let admin = server.admin();
    let id = admin.enqueue("a", &json!(1));
    if second.ends_within(std::time::Duration::from_secs(3)) {
        let exit = second.wait();
        assert!(exit.code.is_some_and(|code| code != 0), "{exit:?}");
        assert!(format!("{}{}", exit.stdout, exit.stderr).contains("tasks.db"), "{exit:?}");
        assert_eq!(server.agent("a").take().0, id);
        return;
    }
    let line = second.stdout.wait_for(&["listening on http"]);
    let port = line.trim_end_matches('/').rsplit(':').next().unwrap();
    let elsewhere = server.agent("a").at(&format!("http://127.0.0.1:{port}"));
    let taken: Vec<(String, Value)> =
        [server.agent("a"), elsewhere].iter().flat_map(|agent| agent.poll("wait=1")).collect();
    assert_eq!(taken, [(id, json!(1))]);
}
