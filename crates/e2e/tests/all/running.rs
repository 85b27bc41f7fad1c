//! How handlers run: many at once, with asyncio as its users know it, and not for ever.

use std::collections::BTreeSet;
use std::thread;

use e2e::{Reply, Server, Setup, Signal, descendants, wait_until};
use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};

const BARRIER: &str = r#"
import asyncio, os
class Barrier(BasePlugin):
    async def initialize(self, **kwargs):
        self.waiting = 0
        self.all_here = asyncio.Event()
    async def request_handler(self, **data):
        self.waiting += 1
        if self.waiting == 50:
            self.all_here.set()
        await self.all_here.wait()
        return {"pid": os.getpid(), "n": data["n"]}
"#;

#[test]
fn fifty_slow_async_calls_overlap_on_one_worker() {
    let server = Setup::new().plugin("barrier.py", BARRIER).start();
    let answers: Vec<Value> = thread::scope(|scope| {
        let ask = |n: usize| server.get_json(&format!("/barrier?n={n}"));
        let calls: Vec<_> = (0..50).map(|n| scope.spawn(move || ask(n))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer["n"], n.to_string(), "each gets its own answer");
        assert_eq!(answer["pid"], answers[0]["pid"]);
    }
}

#[test]
fn a_blocking_handler_does_not_hold_up_another_file() {
    let server = Setup::new()
        .handler("Slow", "import os, time\nself.log('entered')\nwhile not os.path.exists(data['gate']):\n    time.sleep(0.02)\nreturn {'slow': True}")
        .handler("Quick", "return {'quick': True}")
        .start();
    let gate = server.path("gate");
    thread::scope(|scope| {
        let slow = scope.spawn(|| server.get_json(&format!("/slow?gate={}", gate.display())));
        let _ = server.log().wait_for(&["slow", "entered"]);
        for _ in 0..20 {
            assert_eq!(server.get_json("/quick"), json!({"quick": true}));
        }
        server.write("gate", "");
        assert_eq!(slow.join().unwrap(), json!({"slow": true}));
    });
}

const ASYNCIO: &str = r#"
import asyncio, contextvars
VAR = contextvars.ContextVar("var", default="none")
class Aio(BasePlugin):
    async def initialize(self, **kwargs):
        self.loop = asyncio.get_running_loop()
    async def request_handler(self, **data):
        seen = {"task": asyncio.current_task() is not None, "same_loop": asyncio.get_running_loop() is self.loop}
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 0.01)
        except asyncio.TimeoutError:
            seen["wait_for"] = "timed out"
        if hasattr(asyncio, "timeout"):
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.Event().wait()
            except TimeoutError:
                seen["timeout"] = "timed out"
        else:
            seen["timeout"] = "timed out"
        seen["gather"] = await asyncio.gather(self.one(), self.one())
        seen["thread"] = await asyncio.to_thread(lambda: 7)
        process = await asyncio.create_subprocess_exec("true")
        seen["process"] = await process.wait()
        before = VAR.get()
        VAR.set(data["n"])
        await asyncio.sleep(0)
        seen["var"] = [before, VAR.get()]
        return seen
    async def one(self):
        await asyncio.sleep(0)
        return 1
"#;

#[test]
fn asyncio_in_a_handler_is_as_its_users_know_it() {
    let server = Setup::new().plugin("aio.py", ASYNCIO).start();
    for n in ["a", "b", "c"] {
        let wanted = json!({
            "task": true, "same_loop": true, "wait_for": "timed out", "timeout": "timed out",
            "gather": [1, 1], "thread": 7, "process": 0, "var": ["none", n],
        });
        assert_eq!(server.get_json(&format!("/aio?n={n}")), wanted);
    }
}

#[test]
fn a_first_await_is_inside_a_timeout_of_the_handler() {
    // An async handler that is stepped once outside a task passes until it asks for one.
    let body = "import asyncio\ntry:\n    await asyncio.wait_for(asyncio.sleep(30), 0.05)\nexcept asyncio.TimeoutError:\n    return {'late': True}";
    let server = Setup::new().async_handler("Soon", body).start();
    assert_eq!(server.get_json("/soon"), json!({"late": true}));
}

const BACKGROUND: &str = r#"
import asyncio
class Back(BasePlugin):
    async def initialize(self, **kwargs):
        self.n = 0
        self.task = asyncio.create_task(self.run())
    async def run(self):
        while True:
            self.n += 1
            if self.n % 10 == 0:
                self.log(f"tick {self.n}.")
            await asyncio.sleep(0.02)
    async def request_handler(self, **data):
        return {"n": self.n}
"#;

#[test]
fn background_tasks_run_between_requests() {
    let server = Setup::new().plugin("back.py", BACKGROUND).start();
    let first = server.get_json("/back")["n"].as_u64().unwrap();
    let later = (first / 10 + 3) * 10;
    // No request is made meanwhile.
    let _ = server.log().wait_for(&["back", &format!("tick {later}.")]);
    assert!(server.get_json("/back")["n"].as_u64().unwrap() >= later);
}

#[test]
fn a_task_started_by_a_handler_outlives_its_request() {
    let body = "import asyncio\nasync def later():\n    await asyncio.sleep(0.05)\n    self.log('finished later')\n\
                self.kept = asyncio.create_task(later())\nreturn {'started': True}";
    let server = Setup::new().async_handler("Starter", body).start();
    assert_eq!(server.get_json("/starter"), json!({"started": true}));
    let _ = server.log().wait_for(&["starter", "finished later"]);
}

#[test]
fn a_failing_background_task_breaks_nothing() {
    let code = "import asyncio\nclass Failing(BasePlugin):\n    async def initialize(self, **kwargs):\n        self.task = asyncio.create_task(self.run())\n    async def run(self):\n        raise ValueError('in the background')\n    def request_handler(self, **data):\n        return {'ok': True}\n";
    let server = Setup::new().plugin("failing.py", code).start();
    for _ in 0..10 {
        assert_eq!(server.get_json("/failing"), json!({"ok": true}));
    }
}

#[test]
fn state_of_a_plugin_lives_from_call_to_call() {
    let server = Setup::new()
        .handler("Count", "self.n = getattr(self, 'n', 0) + 1\nreturn {'n': self.n}")
        .start();
    let counted: Vec<_> =
        (0..5).map(|_| server.get_json("/count")["n"].as_u64().unwrap()).collect();
    assert_eq!(counted, [1, 2, 3, 4, 5]);
}

/// A handler that takes too long: 504 in JSON, and the plugin answers again.
fn check_late(setup: Setup) {
    let server = setup.handler("Other", "return {'other': True}").start();
    let _ = server.get("/late?wait=1").json_error(504);
    assert_eq!(server.get_json("/other"), json!({"other": true}));
    let reply = wait_until("the plugin answers again", || {
        let reply = server.get("/late");
        if reply.status != 200 {
            assert!((500..600).contains(&reply.status), "{}", reply.status);
            assert!(reply.json()["error"].is_string());
        }
        (reply.status == 200).then_some(reply)
    });
    assert_eq!(reply.json(), json!({"late": false}));
}

fn late_class(attribute: &str, def: &str, wait: &str) -> String {
    format!(
        "import asyncio, time\nclass Late(BasePlugin):\n    {attribute}\n    {def} request_handler(self, **data):\n        \
         if data.get('wait'):\n            {wait}\n        return {{'late': False}}\n"
    )
}

#[test]
fn an_async_handler_over_its_own_limit_is_a_504() {
    let code = late_class("timeout_secs = 0.5", "async def", "await asyncio.sleep(3600)");
    check_late(Setup::new().plugin("late.py", &code));
}

#[test]
fn a_plain_handler_over_its_own_limit_is_a_504() {
    let code = late_class("timeout_secs = 0.5", "def", "time.sleep(3600)");
    check_late(Setup::new().plugin("late.py", &code));
}

#[test]
fn a_handler_over_the_servers_limit_is_a_504() {
    let code = late_class("pass", "async def", "await asyncio.sleep(3600)");
    check_late(Setup::new().plugin("late.py", &code).set("limits", "handler_timeout_secs", "1"));
}

#[test]
fn a_class_may_take_longer_than_the_servers_limit() {
    let code = late_class("timeout_secs = 30", "async def", "await asyncio.sleep(1.5)");
    let server =
        Setup::new().plugin("late.py", &code).set("limits", "handler_timeout_secs", "1").start();
    assert_eq!(server.get_json("/late?wait=1"), json!({"late": false}));
}

#[test]
fn a_call_that_is_late_is_cancelled() {
    let code = late_class(
        "timeout_secs = 0.3",
        "async def",
        "try: await asyncio.sleep(3600)\n            finally: self.log('was cancelled')",
    );
    let server = Setup::new().plugin("late.py", &code).start();
    let _ = server.get("/late?wait=1").json_error(504);
    let _ = server.log().wait_for(&["late", "was cancelled"]);
}

#[test]
fn only_the_methods_of_the_class_are_open() {
    let code = "class Verb(BasePlugin):\n    methods = ('GET', 'PUT', 'DELETE', 'PATCH')\n    def request_handler(self, **data):\n        return {'method': data['request'].method, 'x': data.get('x')}\n";
    let server = Setup::new().plugin("verb.py", code).start();
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        let reply = server.request(method, "/verb?x=1").send();
        assert_eq!((reply.status, reply.json()), (200, json!({"method": method, "x": "1"})));
    }
    let reply = server.request("PUT", "/verb").json(&json!({"x": 5})).send();
    assert_eq!(reply.json(), json!({"method": "PUT", "x": 5}));
    let reply = server.post("/verb").send();
    let _ = reply.json_error(405);
    let allow = reply.header("allow").expect("Allow").to_owned();
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        assert!(allow.contains(method), "{allow}");
    }
    assert!(!allow.contains("POST"), "{allow}");
}

#[test]
fn a_class_may_ask_for_more_time_than_there_is() {
    let code = late_class("timeout_secs = 10 ** 19", "async def", "await asyncio.sleep(0)");
    let server = Setup::new().plugin("late.py", &code).start();
    assert_eq!(server.get_json("/late?wait=1"), json!({"late": false}));
}

/// A call that may take longer than the server's limit gets its time on the old version as well.
fn check_long_call(def: &str, wait: &str) {
    let wait = format!("self.log('entered'); {wait}");
    let code = late_class("timeout_secs = 60", def, &wait);
    let server =
        Setup::new().plugin("late.py", &code).set("limits", "handler_timeout_secs", "1").start();
    thread::scope(|scope| {
        let call = scope.spawn(|| server.get("/late?wait=1"));
        let _ = server.log().wait_for(&["late", "entered"]);
        assert_eq!(server.get("/reload/late").status, 200);
        let reply = call.join().unwrap();
        assert_eq!((reply.status, reply.json()), (200, json!({"late": false})), "{def}");
    });
}

#[test]
fn a_long_async_call_survives_a_reload() {
    check_long_call("async def", "await asyncio.sleep(3)");
}

#[test]
fn a_long_plain_call_survives_a_reload() {
    check_long_call("def", "time.sleep(3)");
}

/// Asks eight times at once and gives the pids of those workers that answered.
fn pids(server: &Server) -> BTreeSet<u64> {
    let replies: Vec<Reply> = thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| server.get("/who"))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    for reply in &replies {
        assert!(reply.status == 200 || reply.status >= 500, "{} {}", reply.status, reply.text());
    }
    let well = replies.iter().filter(|reply| reply.status == 200);
    well.map(|reply| reply.json()["pid"].as_u64().unwrap()).collect()
}

#[test]
fn two_workers_share_the_calls_and_one_that_is_killed_is_replaced() {
    let server = Setup::new()
        .async_handler(
            "Who",
            "import asyncio, os\nawait asyncio.sleep(0.02)\nreturn {'pid': os.getpid()}",
        )
        .parameters("who", "workers=2")
        .start();
    let two = || Some(pids(&server)).filter(|pids| pids.len() == 2);
    let first = wait_until("answers of two workers", two);
    let workers = descendants(server.process.pid());
    let killed = *first.first().unwrap();
    let raw = workers.into_iter().find(|pid| u64::from(*pid) == killed).expect("our own");
    let pid = Pid::from_raw(i32::try_from(raw).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    let second =
        wait_until("answers of two workers again", || two().filter(|pids| !pids.contains(&killed)));
    assert_eq!(
        first.intersection(&second).count(),
        1,
        "the other one goes on: {first:?} {second:?}"
    );
}
