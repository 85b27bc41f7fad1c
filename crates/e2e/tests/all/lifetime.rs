//! The process itself: its first line, its signals, its end, and what it leaves behind.

use std::thread;

use e2e::{DEADLINE, Server, Setup, Signal, descendants, is_running, wait_until};
use serde_json::json;

/// Says that it has been entered and waits until the file `gate` exists.
const GATED: &str = "import asyncio, os\nself.log('entered')\nwhile not os.path.exists(data['gate']):\n    await asyncio.sleep(0.02)\nreturn {'done': True}";

fn gated() -> Setup {
    Setup::new().async_handler("Gated", GATED)
}

#[test]
fn the_first_line_printed_holds_the_pid() {
    let server = gated().start();
    let text = server.process.stdout.so_far();
    let first = text.lines().next().unwrap();
    let numbers = first.split(|c: char| !c.is_ascii_digit());
    assert!(
        numbers.into_iter().any(|number| number == server.process.pid().to_string()),
        "{first}"
    );
}

#[test]
fn the_pidfile_is_there_while_the_server_is() {
    let mut server = gated().set("paths", "pidfile", "{dir}/run.pid").start();
    let written = std::fs::read_to_string(server.path("run.pid")).unwrap();
    assert_eq!(written.trim(), server.process.pid().to_string());
    server.signal(Signal::HUP);
    server.signal(Signal::TERM);
    assert_eq!(server.process.wait().code, Some(0));
    assert!(!server.path("run.pid").exists());
}

#[test]
fn a_pidfile_of_a_process_long_gone_is_replaced() {
    let server =
        gated().file("run.pid", "999999999\n").set("paths", "pidfile", "{dir}/run.pid").start();
    let written = std::fs::read_to_string(server.path("run.pid")).unwrap();
    assert_eq!(written.trim(), server.process.pid().to_string());
}

const TOLD: &str = r#"
class Told(BasePlugin):
    def terminate_plugin(self):
        self.log('told of the end')
    async def request_handler(self, **data):
"#;

/// The signal ends the server in order: requests in flight finish, plugins are told, the code is 0.
fn check_end(signal: Signal) {
    let body: Vec<_> = GATED.lines().map(|line| format!("        {line}\n")).collect();
    let code = format!("{TOLD}{}", body.concat());
    let mut server = Setup::new().plugin("told.py", &code).start();
    let path = format!("/told?gate={}", server.path("gate").display());
    thread::scope(|scope| {
        let call = scope.spawn(|| server.get_json(&path));
        let _ = server.log().wait_for(&["told", "entered"]);
        server.signal(signal);
        server.write("gate", "");
        assert_eq!(call.join().unwrap(), json!({"done": true}), "{signal:?}");
    });
    let exit = server.process.wait();
    assert_eq!(exit.code, Some(0), "{signal:?}");
    assert!(exit.stderr.contains("told of the end"), "{signal:?}: {}", exit.stderr);
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
}

#[test]
fn sigterm_ends_it_in_order() {
    check_end(Signal::TERM);
}

#[test]
fn sigint_ends_it_in_order() {
    check_end(Signal::INT);
}

#[test]
fn sigabrt_ends_it_in_order() {
    check_end(Signal::ABORT);
}

#[test]
fn requests_that_do_not_finish_do_not_hold_up_the_end() {
    let mut server = gated().set("limits", "drain_timeout_secs", "1").start();
    let mut connection = server.connect();
    connection.write("GET /gated?gate=/never/there HTTP/1.1\r\nHost: x\r\n\r\n");
    let _ = server.log().wait_for(&["gated", "entered"]);
    server.signal(Signal::TERM);
    assert_eq!(server.process.wait().code, Some(0));
    for reply in std::iter::from_fn(|| connection.try_read_reply()) {
        assert!(reply.status >= 500, "{}", reply.status);
    }
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let mut server = gated().set("limits", "drain_timeout_secs", "3600").start();
    let mut idle: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for connection in &mut idle[..10] {
        connection.write("GET /plugins HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(connection.read_reply().status, 200);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.process.wait().code, Some(0));
}

#[test]
fn a_second_signal_does_not_break_the_end() {
    let mut server = gated().start();
    for signal in [Signal::TERM, Signal::INT, Signal::TERM, Signal::HUP] {
        server.signal(signal);
    }
    let code = server.process.wait().code;
    assert!(code.is_some(), "it was killed by a signal");
}

#[test]
fn a_signal_during_the_start_ends_it() {
    let setup = Setup::new()
        .plugin("slow.py", "import time\nprint('is starting', flush=True)\ntime.sleep(3600)\n");
    let file = setup.write_configuration("gatehouse.ini");
    let arguments = ["serve".into(), "-i".into(), file.into_os_string()];
    let mut process =
        e2e::Process::start::<std::ffi::OsString>(&e2e::program(), &arguments, setup.path(), &[]);
    let _ = process.stdout.wait_for_line("the pid", |_| true);
    wait_until("a worker", || descendants(process.pid()).first().copied());
    process.signal(Signal::TERM);
    assert!(process.wait().code.is_some());
}

/// Asks for a value until it is what it should be.
fn wait_for_value(server: &Server, wanted: &str) {
    wait_until(wanted, || {
        let reply = server.request("GET", "/value").header("Connection", "close").send();
        assert_eq!(reply.status, 200, "{}", reply.text());
        (reply.json()["p"] == wanted).then_some(())
    });
}

fn value() -> Setup {
    gated().handler("Value", "return {'p': self.args.get('p')}").parameters("value", "p=first")
}

#[test]
fn sighup_brings_a_new_configuration_and_new_plugins_on_the_same_port() {
    let mut server = value().start();
    let pid = server.process.pid();
    server.write_handler("Added", "return {'added': True}");
    server.configure(|setup| setup.parameters("value", "p=second"));
    server.signal(Signal::HUP);
    wait_for_value(&server, "second");
    wait_until("the added plugin", || (server.get("/added").status == 200).then_some(()));
    assert_eq!(server.process.pid(), pid);
    assert!(is_running(pid));
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn sighup_lets_open_requests_finish() {
    let mut server = value().start();
    let path = format!("/gated?gate={}", server.path("gate").display());
    let (address, log) = (server.address(), server.log().clone());
    thread::scope(|scope| {
        let call = scope.spawn(move || {
            let mut connection = e2e::Connection::open(address);
            connection.write(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
            connection.read_reply()
        });
        let _ = log.wait_for(&["gated", "entered"]);
        server.configure(|setup| setup.parameters("value", "p=second"));
        server.signal(Signal::HUP);
        wait_for_value(&server, "second");
        server.write("gate", "");
        let reply = call.join().unwrap();
        assert_eq!((reply.status, reply.json()), (200, json!({"done": true})));
    });
}

#[test]
fn sighup_under_load_fails_no_request() {
    let mut server = value().start();
    let done = std::sync::atomic::AtomicBool::new(false);
    let address = server.address();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    let mut connection = e2e::Connection::open(address);
                    connection.write("GET /value HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                    assert_eq!(connection.read_reply().status, 200);
                }
            });
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for n in 0..5 {
                server.configure(|setup| setup.parameters("value", &format!("p=v{n}")));
                server.signal(Signal::HUP);
                wait_for_value(&server, &format!("v{n}"));
            }
        }));
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        if let Err(failure) = outcome {
            std::panic::resume_unwind(failure);
        }
    });
}

#[test]
fn sighup_with_a_broken_configuration_leaves_the_old_one_in_force_and_says_so() {
    let mut server = value().start();
    server
        .configure(|setup| setup.set("network", "unheard_of", "1").parameters("value", "p=second"));
    server.signal(Signal::HUP);
    let _ = server.log().wait_for(&["unheard_of"]);
    for _ in 0..5 {
        wait_for_value(&server, "first");
    }
    server.configure(|_| value());
    assert!(is_running(server.process.pid()));
}

#[test]
fn many_sighups_at_once_are_survived() {
    let mut server = value().start();
    server.configure(|setup| setup.parameters("value", "p=second"));
    for _ in 0..30 {
        server.signal(Signal::HUP);
    }
    wait_for_value(&server, "second");
    assert_eq!(server.stop().code, Some(0));
}

/// A server with workers of every sort: idle, asleep, spinning, with a child of their own.
fn with_workers() -> (Server, Vec<u32>, Vec<e2e::Connection>) {
    let server = Setup::new()
        .handler("Idle", "return {}")
        .handler("Asleep", "import time\nself.log('entered')\ntime.sleep(3600)")
        .handler("Spinning", "self.log('entered')\nwhile True: pass")
        .set("limits", "drain_timeout_secs", "1")
        .set("python", "stop_timeout_secs", "1")
        .start();
    let mut callers = Vec::new();
    for name in ["asleep", "spinning"] {
        let mut connection = server.connect();
        connection.write(format!("GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let _ = server.log().wait_for(&[name, "entered"]);
        callers.push(connection);
    }
    let workers = descendants(server.process.pid());
    assert!(workers.len() >= 3, "{workers:?}");
    (server, workers, callers)
}

fn check_gone(workers: &[u32]) {
    wait_until("every worker is gone", || {
        (!workers.iter().any(|pid| is_running(*pid))).then_some(())
    });
}

#[test]
fn workers_are_gone_after_the_end() {
    let (mut server, workers, _callers) = with_workers();
    server.signal(Signal::TERM);
    assert!(server.process.ends_within(DEADLINE));
    check_gone(&workers);
    assert_eq!(server.process.wait().code, Some(0));
}

#[test]
fn workers_are_gone_after_the_server_is_killed() {
    let (mut server, workers, _callers) = with_workers();
    server.signal(Signal::KILL);
    check_gone(&workers);
    assert_eq!(server.process.wait().code, None);
}

#[test]
fn a_worker_that_is_killed_is_replaced() {
    let server = Setup::new().handler("Who", "import os\nreturn {'pid': os.getpid()}").start();
    let first = server.get_json("/who")["pid"].as_u64().unwrap();
    let child = descendants(server.process.pid()).into_iter().find(|pid| u64::from(*pid) == first);
    let child = rustix::process::Pid::from_raw(i32::try_from(child.unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(child, Signal::KILL).unwrap();
    let second = wait_until("another worker", || {
        let reply = server.get("/who");
        assert!(reply.status == 200 || reply.status >= 500);
        (reply.status == 200)
            .then(|| reply.json()["pid"].as_u64().unwrap())
            .filter(|pid| *pid != first)
    });
    assert_ne!(first, second);
}
