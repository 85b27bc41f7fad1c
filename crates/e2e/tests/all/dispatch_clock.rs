//! The clock on the wall is set while the server runs, and while it does not.
//!
//! The server runs with a library before it that adds to its wall clock what stands in a file.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use e2e::{Dispatch, Setup, Signal, run, wait_until};
use serde_json::{Value, json};

const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile long *shift;

__attribute__((constructor)) static void find_shift(void) {
    const char *path = getenv("CLOCK_SHIFT");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *found = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    if (found != MAP_FAILED) shift = found;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = syscall(SYS_clock_gettime, clock, time);
    if (!failed && clock == CLOCK_REALTIME && shift) time->tv_sec += *shift;
    return failed;
}
"#;

const DAY: i64 = 24 * 60 * 60;

/// A server whose clock can be set, unless no C compiler is here.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn start() -> Option<Dispatch> {
    let setup = Setup::new().file("clock.c", LIBRARY).file("shift", [0; 8]);
    let at = |file: &str| setup.path().join(file).display().to_string();
    let arguments = ["-c", "command -v cc && cc -O1 -shared -fPIC -o clock.so clock.c"];
    if run(Path::new("/bin/sh"), &arguments, setup.path()).code != Some(0) {
        eprintln!("SKIPPED: no C compiler is here to make the library that sets the clock");
        return None;
    }
    let (library, shift) = (at("clock.so"), at("shift"));
    let setup = setup.environment("LD_PRELOAD", &library).environment("CLOCK_SHIFT", &shift);
    Some(Dispatch::start_in(setup))
}

/// Sets the clock to so many seconds from the true time.
fn set_clock(server: &Dispatch, shift: i64) {
    let file = OpenOptions::new().write(true).open(server.path("shift")).unwrap();
    file.write_all_at(&shift.to_ne_bytes(), 0).unwrap();
}

fn numbers(server: &Dispatch) -> Vec<i64> {
    let said = server.admin().get("/events?agent=a").ok();
    let events = said["events"].as_array().unwrap().clone();
    events.iter().map(|event| event["n"].as_i64().unwrap()).collect()
}

fn enqueued_at(server: &Dispatch, id: &str) -> i64 {
    server.admin().task(id)["enqueued_at"].as_i64().unwrap()
}

#[test]
fn a_clock_that_is_set_back_loses_nothing_and_stops_nothing() {
    let Some(server) = start() else { return };
    let (admin, agent) = (server.admin(), server.agent("a"));
    agent.report(&json!({"n": 0}));
    let early = admin.enqueue("a", &json!("early"));
    let leased = admin.enqueue("b", &json!("leased"));
    let brief = admin.post("/tasks?target=c&noWait=1&ttl=2", &json!("brief")).ok();
    assert_eq!(server.agent("b").poll("lease=1&wait=1"), [(leased.clone(), json!("leased"))]);
    set_clock(&server, -DAY);
    let late = admin.enqueue("a", &json!("late"));
    let apart = enqueued_at(&server, &early) - enqueued_at(&server, &late);
    assert!(apart > DAY * 900, "the clock was not set: {apart} ms");
    agent.report(&json!({"n": 1}));
    assert_eq!(numbers(&server), [0, 1], "in the order in which they came");
    let _ = server.login("root", "pw-root");
    let again = server.agent("b").poll("lease=30&wait=20");
    assert_eq!(again, [(leased, json!("leased"))], "its lease ran out");
    wait_until("a lifetime is over", || {
        let state = admin.task(brief["id"].as_str().unwrap())["state"].clone();
        (state == "expired").then_some(())
    });
    let token = admin.post("/enroll_tokens", &json!({})).ok()["token"].clone();
    let enrolled = server.nobody().post("/enroll", &json!({"token": token, "name": "new"}));
    assert_eq!(enrolled.status, 200, "{}", enrolled.text());
    let tasks: Vec<_> = [(); 2].iter().flat_map(|()| agent.poll("wait=1")).collect();
    assert_eq!(tasks, [(early, json!("early")), (late, json!("late"))], "the older first");
}

#[test]
fn a_clock_that_was_set_between_two_starts_changes_nothing_that_is_kept() {
    let Some(mut server) = start() else { return };
    let id = server.admin().enqueue("a", &json!(1));
    server.agent("a").report(&json!({"n": 0}));
    let brief = server.admin().post("/tasks?target=b&noWait=1&ttl=2", &json!("brief")).ok();
    let mut last = id.parse::<u64>().unwrap();
    for (n, shift) in [(1, -10 * DAY), (2, DAY), (3, -400 * DAY)] {
        set_clock(&server, shift);
        server.restart(Signal::KILL);
        let admin = server.admin();
        assert_eq!(admin.task(&id)["state"], "queued", "and the session goes on");
        server.agent("a").report(&json!({"n": n}));
        assert_eq!(numbers(&server), (0..=n).collect::<Vec<_>>());
        let next = admin.enqueue("c", &Value::Null).parse().unwrap();
        assert!(next > last, "{next} after {last}");
        last = next;
    }
    let brief = brief["id"].as_str().unwrap();
    wait_until("a lifetime is over", || {
        (server.admin().task(brief)["state"] == "expired").then_some(())
    });
    assert_eq!(server.agent("a").take(), (id, json!(1)));
}
