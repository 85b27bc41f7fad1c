//! Handlers that go wrong as badly as they can: their own calls fail clearly, they come back by
//! themselves, and another plugin never notices.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use e2e::{Reply, Server, Setup, wait_until};
use serde_json::json;

/// A handler that does harm when asked with `do`, else says hello.
fn harmful(harm: &str) -> String {
    let mut body = String::from("import os, sys, time, asyncio, ctypes\nif data.get('do'):\n");
    for line in harm.lines() {
        body += &format!("    {line}\n");
    }
    body + "return {'well': True}"
}

/// Small limits, a good plugin in another file.
fn setup() -> Setup {
    Setup::new()
        .handler("Good", "return {'good': True}")
        .set("limits", "handler_timeout_secs", "2")
        .set("python", "hang_timeout_secs", "2")
}

fn is_clear(reply: &Reply) -> bool {
    let kind = reply.header("content-type").unwrap_or_default();
    (500..600).contains(&reply.status)
        && kind.starts_with("application/json")
        && reply.json()["error"].is_string()
}

/// Does the harm while the good plugin is asked without pause, then waits for the bad one's return.
/// Gives the answer to the harmful call.
fn check_started(server: &Server) -> Reply {
    assert_eq!(server.get_json("/bad"), json!({"well": true}));
    let done = AtomicBool::new(false);
    let served = AtomicU32::new(0);
    let reply = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                assert_eq!(server.get_json("/good"), json!({"good": true}));
                served.fetch_add(1, Ordering::SeqCst);
            }
        });
        // Ends the other thread however this one ends.
        let ending = Ending(&done);
        let reply = server.get("/bad?do=harm");
        assert!(is_clear(&reply) || reply.status == 200, "{} {}", reply.status, reply.text());
        let mut well = 0;
        // A worker on its way out may still answer once: only several answers show a new one.
        wait_until("the plugin comes back and stays", || {
            let reply = server.get("/bad");
            assert!(reply.status == 200 || is_clear(&reply), "{} {}", reply.status, reply.text());
            well = if reply.status == 200 { well + 1 } else { 0 };
            (well == 6).then_some(())
        });
        drop(ending);
        reply
    });
    assert!(served.load(Ordering::SeqCst) > 0);
    reply
}

struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The harm, once in a plain and once in an async handler; the call itself must fail clearly.
fn check(harm: &str) {
    for server in [
        setup().handler("Bad", &harmful(harm)).start(),
        setup().async_handler("Bad", &harmful(harm)).start(),
    ] {
        let reply = check_started(&server);
        assert!(is_clear(&reply), "{harm}: {} {}", reply.status, reply.text());
        assert_eq!(server.stop().code, Some(0));
    }
}

#[test]
fn a_handler_that_exits() {
    check("sys.exit(3)");
}

#[test]
fn a_handler_that_raises_what_is_no_exception() {
    check("raise KeyboardInterrupt");
    check("raise asyncio.CancelledError");
    check("raise GeneratorExit");
}

#[test]
fn a_handler_that_ends_its_process() {
    check("os._exit(5)");
}

#[test]
fn a_handler_that_kills_its_process() {
    check("os.kill(os.getpid(), 9)");
}

#[test]
fn a_handler_that_stops_its_process() {
    check("os.kill(os.getpid(), 19)");
}

#[test]
fn a_handler_that_reads_where_nothing_is() {
    check("ctypes.string_at(0)");
}

#[test]
fn a_handler_that_never_ends() {
    check("while True: pass");
}

#[test]
fn a_handler_that_sleeps_for_an_hour() {
    check("time.sleep(3600)");
}

#[test]
fn a_handler_that_holds_the_interpreter() {
    // One call into C that keeps every other Python thread of the process from running.
    check("sum(range(10**12))");
}

#[test]
fn a_handler_that_closes_what_is_not_its_own() {
    check("os.closerange(0, 64)\nraise ValueError");
}

#[test]
fn a_handler_that_eats_all_memory() {
    let harm = harmful("held = []\nwhile True: held.append(bytearray(20_000_000))");
    let server = setup()
        .handler("Bad", &harm)
        .set("python", "memory_max_mib", "300")
        .set("limits", "handler_timeout_secs", "20")
        .start();
    let reply = check_started(&server);
    assert!(is_clear(&reply), "{} {}", reply.status, reply.text());
}

#[test]
fn a_handler_that_returns_a_gigabyte() {
    let harm = harmful("return (200, b'x' * 2**30)");
    let server = setup().handler("Bad", &harm).set("limits", "handler_timeout_secs", "20").start();
    let reply = check_started(&server);
    assert!(is_clear(&reply), "{} {}", reply.status, reply.text());
    let peak = e2e::peak_memory_kib(server.process.pid());
    assert!(peak < 500_000, "the server held {peak} KiB");
}

#[test]
fn a_reply_over_the_limit_is_refused_and_one_below_is_not() {
    let server = Setup::new()
        .handler("Size", "return (200, b'x' * int(data['n']))")
        .set("limits", "reply_bytes_max", "100000")
        .start();
    assert_eq!(server.get("/size?n=90000").body.len(), 90_000);
    let reply = server.get("/size?n=5000000");
    assert!(is_clear(&reply), "{} {}", reply.status, reply.text());
    assert_eq!(server.get("/size?n=90000").body.len(), 90_000);
}

#[test]
fn a_handler_that_floods_standard_output() {
    let harm = harmful("for n in range(100_000): print('flood ' * 20)");
    let server = setup().handler("Bad", &harm).set("limits", "handler_timeout_secs", "3").start();
    let _ = check_started(&server);
}

#[test]
fn a_handler_that_prints_without_end() {
    let harm = harmful("while True: print('flood ' * 20)");
    let server = setup().handler("Bad", &harm).start();
    let reply = check_started(&server);
    assert!(is_clear(&reply), "{} {}", reply.status, reply.text());
}

#[test]
fn a_handler_that_writes_bytes_to_the_channels_it_was_given() {
    let harm = harmful("for fd in (1, 2): os.write(fd, bytes(range(256)) * 64)");
    let server = setup().handler("Bad", &harm).start();
    assert_eq!(check_started(&server).status, 200, "standard output is no channel of the server");
}

#[test]
fn a_line_without_end_on_standard_output_is_not_collected() {
    let harm = harmful("for n in range(3000): os.write(1, b'x' * 65536)");
    let server = setup().handler("Bad", &harm).set("limits", "handler_timeout_secs", "3").start();
    let _ = check_started(&server);
    let peak = e2e::peak_memory_kib(server.process.pid());
    assert!(peak < 150_000, "the server held {peak} KiB");
}

#[test]
fn a_handler_that_asks_its_standard_input() {
    check("input()\nraise ValueError('not reached')");
}

#[test]
fn a_handler_that_stops_the_loop_it_runs_on() {
    let harm = harmful(
        "asyncio.get_running_loop().stop()\nawait asyncio.sleep(0)\nawait asyncio.sleep(30)",
    );
    let server = setup().async_handler("Bad", &harm).start();
    let _ = check_started(&server);
}

#[test]
fn a_handler_that_leaves_a_thread_running_does_not_hold_up_the_end() {
    let harm = harmful(
        "import threading\nthreading.Thread(target=time.sleep, args=(3600,)).start()\nreturn {'thread': True}",
    );
    let server = setup().handler("Bad", &harm).set("python", "stop_timeout_secs", "1").start();
    assert_eq!(server.get_json("/bad?do=harm"), json!({"thread": true}));
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn many_calls_lost_with_their_worker_all_get_an_answer() {
    let body = "import asyncio, os\nif data.get('die'):\n    os._exit(1)\nif data.get('wait'):\n    self.n = getattr(self, 'n', 0) + 1\n    if self.n == 20:\n        self.log('all are waiting')\n    await asyncio.sleep(3600)\nreturn {'well': True}";
    let server =
        setup().async_handler("Bad", body).set("limits", "handler_timeout_secs", "30").start();
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..20).map(|_| scope.spawn(|| server.get("/bad?wait=1"))).collect();
        let _ = server.log().wait_for(&["all are waiting"]);
        assert!(is_clear(&server.get("/bad?die=1")));
        for call in waiting {
            assert!(is_clear(&call.join().unwrap()));
        }
    });
    wait_until("the plugin comes back", || (server.get("/bad").status == 200).then_some(()));
}

#[test]
fn a_plugin_that_dies_again_and_again_still_comes_back() {
    let server = setup().handler("Bad", &harmful("os._exit(1)")).start();
    for _ in 0..4 {
        wait_until("the plugin comes back", || (server.get("/bad").status == 200).then_some(()));
        assert!(is_clear(&server.get("/bad?do=harm")));
        assert_eq!(server.get_json("/good"), json!({"good": true}));
    }
    wait_until("the plugin comes back", || (server.get("/bad").status == 200).then_some(()));
}

#[test]
fn a_loop_that_blocks_between_calls_is_replaced() {
    let code = "import asyncio, time\nclass Bad(BasePlugin):\n    async def request_handler(self, **data):\n        if data.get('do'):\n            asyncio.get_running_loop().call_later(0.05, time.sleep, 3600)\n        return {'well': True}\n";
    let server = setup().plugin("bad.py", code).start();
    let _ = check_started(&server);
    let _ = server.log().wait_for_line("a word about the plugin", |line| line.contains("bad"));
}
