//! The disk with the database is full, or can no longer be written, while the server runs.
//!
//! Each server has a small file system of its own, which nobody else sees and which goes with it.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use e2e::{Caller, Dispatch, Setup, Signal, program, run, wait_until};
use serde_json::{Value, json};

/// Has what follows run with the database on a disk in memory.
const IN_MEMORY: &str = "mkdir disk && mount -t tmpfs -o size=4m tmpfs disk &&
cp tasks.db* disk/ && cd disk && exec \"$0\" \"$@\"";

/// Has what follows run with the database on a disk that turns read-only when it fails.
const ON_DISK: &str = "truncate -s 16M image && mkfs.ext4 -q image && mkdir disk &&
mount -o loop,errors=remount-ro image disk && cp tasks.db* disk/ && sync -f disk && cd disk && exec \"$0\" \"$@\"";

/// Whether this machine lets the test have a file system made in this way.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn can(way: &[&str], script: &str) -> bool {
    let setup = Setup::new().file("tasks.db", "");
    let arguments = [way, &["sh", "-c", script, "true"]].concat();
    let exit = run(Path::new("unshare"), &arguments, setup.path());
    if exit.code != Some(0) {
        eprintln!("SKIPPED: this machine lets no one mount a file system so: {}", exit.stderr);
    }
    exit.code == Some(0)
}

/// The directory of the server's database, as the server sees it.
fn disk(server: &Dispatch) -> PathBuf {
    format!("/proc/{}/cwd", server.process.pid()).into()
}

fn numbers(caller: &Caller) -> Vec<i64> {
    let said = caller.get("/events?agent=a").ok();
    let events = said["events"].as_array().unwrap().clone();
    events.iter().map(|event| event["n"].as_i64().unwrap()).collect()
}

/// Reports events from `from` on until one is refused; gives those that were kept.
fn fill(agent: &Caller, from: i64) -> (Vec<i64>, String) {
    let filling = "x".repeat(20_000);
    let mut kept = Vec::new();
    for n in from..from + 1000 {
        let reply = agent.post("/events", &json!({"n": n, "filling": filling}));
        if reply.status != 200 {
            return (kept, reply.refused(503));
        }
        kept.push(n);
    }
    panic!("the disk is never full");
}

/// What is asked and only read is answered; what would change something is refused.
fn check_it_lives(server: &Dispatch, id: &str, kept: &[i64]) {
    let admin = server.admin();
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(admin.task(id)["state"], "queued");
    assert_eq!(numbers(&admin), kept, "reading goes on");
    let refused = admin.post("/tasks?target=a&noWait=1", &json!("x".repeat(20_000)));
    let _ = refused.refused(503);
    let _ = admin.delete(&format!("/tasks/{id}")).refused(503);
    assert_eq!(admin.task(id)["state"], "queued", "what could not be stored did not happen");
}

/// A server on the database in this directory.
fn check_kept(copy: Setup, id: &str, kept: &[i64], admin: Caller) {
    let arguments = ["server", "0", "tasks.db"].map(std::ffi::OsString::from);
    let server = copy.start_with(&program(), &arguments);
    let admin = admin.at(server.base());
    assert_eq!(numbers(&admin), kept);
    assert_eq!(admin.task(id)["state"], "queued");
}

#[test]
fn a_disk_without_room_refuses_what_it_cannot_keep_and_goes_on_when_there_is_some() {
    const WAY: &[&str] = &["-Urm"];
    if !can(WAY, IN_MEMORY) {
        return;
    }
    let server = Dispatch::start_through("unshare", &[WAY, &["sh", "-c", IN_MEMORY]].concat());
    let (admin, agent) = (server.admin(), server.agent("a"));
    let id = admin.enqueue("b", &json!("before"));
    let taken = admin.enqueue("c", &json!("to be taken"));
    let filler = disk(&server).join("filler");
    fs::write(&filler, vec![0; 2 << 20]).unwrap();
    let (mut kept, said) = fill(&agent, 0);
    assert!(said.contains("full") && !kept.is_empty(), "{said}, {kept:?}");
    check_it_lives(&server, &id, &kept);
    // The last byte is taken as well.
    let _ = fs::write(disk(&server).join("rest"), vec![0; 4 << 20]);
    check_it_lives(&server, &id, &kept);
    let polled = server.agent("c").get("/tasks?wait=0");
    let was_given = polled.status == 200 && polled.json()["events"][&taken] == "to be taken";
    fs::remove_file(&filler).unwrap();
    fs::remove_file(disk(&server).join("rest")).unwrap();
    wait_until("there is room again", || {
        (agent.post("/events", &json!({"n": 2000})).status == 200).then_some(())
    });
    kept.push(2000);
    let more = admin.enqueue("c", &json!("more"));
    let found = server.agent("c").poll("wait=0&max=9");
    let expected = [(taken, json!("to be taken")), (more, json!("more"))];
    assert_eq!(found, expected[usize::from(was_given)..], "each once");
    // The disk goes with the last who has it open.
    let held = File::open(disk(&server)).unwrap();
    server.signal(Signal::KILL);
    assert!(server.process.ends_within(e2e::DEADLINE));
    let copy = Setup::new();
    for name in ["tasks.db", "tasks.db-wal"] {
        let from = format!("/proc/self/fd/{}/{name}", held.as_raw_fd());
        fs::copy(from, copy.path().join(name)).unwrap();
    }
    check_kept(copy, &id, &kept, admin);
}

/// The block device of the mounted image.
fn device(server: &Dispatch) -> String {
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", server.process.pid())).unwrap();
    let mount = mounts.lines().find(|line| line.split(' ').nth(1).unwrap().ends_with("/disk"));
    let device = mount.expect("it is mounted").split(' ').next().unwrap();
    device.rsplit('/').next().unwrap().to_owned()
}

#[test]
fn a_disk_that_turns_read_only_is_told_and_has_all_that_was_acknowledged() {
    const WAY: &[&str] = &["-m"];
    let script = ON_DISK.replace(
        "exec",
        "test -w /sys/fs/ext4/$(basename $(findmnt -no SOURCE .))/trigger_fs_error && exec",
    );
    if !can(WAY, &script) {
        return;
    }
    let server = Dispatch::start_through("unshare", &[WAY, &["sh", "-c", ON_DISK]].concat());
    let (admin, agent) = (server.admin(), server.agent("a"));
    let id = admin.enqueue("b", &json!("before"));
    let kept: Vec<i64> = (0..50).collect();
    for n in &kept {
        agent.report(&json!({"n": n}));
    }
    let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", device(&server));
    fs::write(trigger, "a test asks for it").unwrap();
    for n in 0..5 {
        let _ = agent.post("/events", &json!({"n": 100 + n})).refused(503);
    }
    check_it_lives(&server, &id, &kept);
    let _ = server.post("/login?user=root&pass=pw-root").send().refused(503);
    let _ = server.agent("c").get("/tasks?wait=0").json();
    assert!(!server.log().so_far().contains("panicked"));
    server.signal(Signal::KILL);
    assert!(server.process.ends_within(e2e::DEADLINE));
    let copy = Setup::new();
    // What the journal of the file system holds is part of it.
    let code = "e2fsck -fy \"$0\"; debugfs -R 'rdump / .' \"$0\"";
    let image = server.path("image").display().to_string();
    let exit = run(Path::new("sh"), &["-c", code, &image], copy.path());
    assert_eq!(exit.code, Some(0), "{exit:?}");
    check_kept(copy, &id, &kept, admin);
}

#[test]
fn a_file_in_transfer_that_has_no_room_is_refused_and_leaves_nothing() {
    const WAY: &[&str] = &["-Urm"];
    if !can(WAY, IN_MEMORY) {
        return;
    }
    let server = Dispatch::start_through("unshare", &[WAY, &["sh", "-c", IN_MEMORY]].concat());
    let admin = server.admin();
    let put = |bytes: usize| {
        admin
            .request("POST", "/files/x.bin")
            .body("application/octet-stream", vec![7; bytes])
            .send()
    };
    assert!(put(8 << 20).refused(507).contains("no room"));
    let said: Value = put(1 << 20).ok();
    assert_eq!(said["bytes"], 1 << 20, "what the first has taken was given back");
}
