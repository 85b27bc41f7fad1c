//! Reloading: what is new is in force when the answer is sent, what is broken changes nothing, and
//! no request fails.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use e2e::{Server, Setup};
use serde_json::json;

use crate::naming::names;

const OLD: &str = "return {'version': 1}";

fn old() -> Setup {
    Setup::new().handler("Thing", OLD)
}

#[test]
fn changed_code_is_in_force_when_the_answer_is_sent() {
    let server = old().start();
    for version in 2..8 {
        // Within one second, and of the same length: times and sizes of files tell nothing.
        server.write_handler("Thing", &format!("return {{'version': {version}}}"));
        assert_eq!(server.get("/reload/thing").status, 200);
        assert_eq!(server.get_json("/thing"), json!({"version": version}));
    }
}

#[test]
fn a_changed_module_beside_the_plugin_is_in_force_too() {
    let server = Setup::new()
        .file("plugins/side.py", "VALUE = 1\n")
        .plugin("thing.py", "import side\nclass Thing(BasePlugin):\n    def request_handler(self, **data):\n        return {'v': side.VALUE}\n")
        .start();
    assert_eq!(server.get_json("/thing"), json!({"v": 1}));
    server.write("plugins/side.py", "VALUE = 2\n");
    assert_eq!(server.get("/reload/thing").status, 200);
    assert_eq!(server.get_json("/thing"), json!({"v": 2}));
}

#[test]
fn changed_parameters_and_configuration_are_in_force() {
    let mut server = Setup::new()
        .handler("Thing", "return {'p': self.args.get('p'), 'c': self.config.mine.c}")
        .parameters("thing", "p=old")
        .set("mine", "c", "old")
        .start();
    assert_eq!(server.get_json("/thing"), json!({"p": "old", "c": "old"}));
    server.configure(|setup| setup.parameters("thing", "p=new").set("mine", "c", "new"));
    assert_eq!(server.get("/reload/thing").status, 200);
    assert_eq!(server.get_json("/thing"), json!({"p": "new", "c": "new"}));
}

#[test]
fn changed_keys_are_in_force() {
    let mut server = Setup::new()
        .handler("Thing", OLD)
        .parameters("thing", "auth_type=plugin&apikey=plugin-old")
        .set("auth", "apikey", "global-old")
        .start();
    server.configure(|setup| {
        setup.parameters("thing", "auth_type=plugin&apikey=plugin-new").set(
            "auth",
            "apikey",
            "global-new",
        )
    });
    assert_eq!(server.get("/thing?apikey=plugin-old").status, 200);
    assert_eq!(server.get("/reload/all?apikey=global-new").status, 403);
    assert_eq!(server.get("/reload/all?apikey=global-old").status, 200);
    assert_eq!(server.get("/reload/all?apikey=global-old").status, 403);
    assert_eq!(server.get("/plugins?apikey=global-new").status, 200);
    assert_eq!(server.get("/thing?apikey=plugin-old").status, 403);
    assert_eq!(server.get("/thing?apikey=plugin-new").status, 200);
}

#[test]
fn a_key_that_is_new_closes_a_plugin_that_was_open() {
    let mut server = old().start();
    assert_eq!(server.get("/thing").status, 200);
    server.configure(|setup| setup.parameters("thing", "auth_type=plugin&apikey=k"));
    assert_eq!(server.get("/reload/thing").status, 200);
    assert_eq!(server.get("/thing").status, 403);
}

#[test]
fn added_and_removed_files_are_in_force() {
    let server = old().handler("Leaving", "return {}").start();
    server.remove("plugins/leaving.py");
    server.write_handler("Coming", "return {'coming': True}");
    server.reload_all();
    let _ = server.get("/leaving").json_error(404);
    assert_eq!(server.get_json("/coming"), json!({"coming": true}));
    let names = names(&server);
    assert!(
        names.contains(&"coming".to_owned()) && !names.contains(&"leaving".to_owned()),
        "{names:?}"
    );
}

#[test]
fn a_class_that_is_renamed_moves_its_route() {
    let server = old().start();
    server.write("plugins/thing.py", "from plugincore.baseplugin import BasePlugin\nclass Moved(BasePlugin):\n    def request_handler(self, **data):\n        return {'moved': True}\n");
    server.reload_all();
    let _ = server.get("/thing").json_error(404);
    assert_eq!(server.get_json("/moved"), json!({"moved": true}));
}

/// A new version that fails: 500 that says why, and the old one goes on.
fn check_failing(code: &str, why: &str) {
    for path in ["/reload/thing", "/reload/all"] {
        let server = old()
            .handler("Other", "return {'other': 1}")
            .set("python", "start_timeout_secs", "4")
            .start();
        server.write("plugins/thing.py", code);
        let said = server.get(path).json_error(500);
        assert!(said.contains(why), "{path}: {said}");
        assert!(!said.contains("Traceback"), "{path}: {said}");
        assert!(path != "/reload/all" || said.contains("thing"), "which of them? {said}");
        assert_eq!(server.get_json("/thing"), json!({"version": 1}), "{path}");
        assert_eq!(server.get_json("/other"), json!({"other": 1}), "{path}");
        server.write_handler("Thing", "return {'version': 3}");
        assert_eq!(server.get(path).status, 200, "{path}");
        assert_eq!(server.get_json("/thing"), json!({"version": 3}), "{path}");
    }
}

#[test]
fn a_new_version_with_a_syntax_error_changes_nothing() {
    check_failing("class Thing(\n", "SyntaxError");
}

#[test]
fn a_new_version_that_raises_changes_nothing() {
    check_failing("raise RuntimeError('not today')\n", "not today");
}

#[test]
fn a_new_version_whose_initialize_fails_changes_nothing() {
    let code = "from plugincore.baseplugin import BasePlugin\nclass Thing(BasePlugin):\n    async def initialize(self, **kwargs):\n        raise OSError('no resource')\n    def request_handler(self, **data):\n        return {'version': 2}\n";
    check_failing(code, "no resource");
}

#[test]
fn a_new_version_that_ends_its_process_changes_nothing() {
    check_failing("import os\nos._exit(9)\n", "9");
}

#[test]
fn a_new_version_that_never_starts_changes_nothing() {
    check_failing("import time\ntime.sleep(3600)\n", "start_timeout_secs");
}

#[test]
fn a_configuration_that_is_broken_changes_nothing() {
    for broken in ["[network\nport=0\n", "[network]\nport=many\n", "[network]\nprot=1\n"] {
        let mut server = old().start();
        server.configure(|setup| setup.whole(broken));
        server.write_handler("Thing", "return {'version': 2}");
        for path in ["/reload/thing", "/reload/all"] {
            let why = server.get(path).json_error(500);
            assert!(
                why.contains("gatehouse.ini") || why.contains("line") || why.contains("network"),
                "{why}"
            );
            assert_eq!(server.get_json("/thing"), json!({"version": 1}), "{broken}");
        }
    }
}

#[test]
fn a_configuration_that_is_gone_changes_nothing() {
    let server = old().start();
    server.remove("gatehouse.ini");
    let _ = server.get("/reload/all").json_error(500);
    assert_eq!(server.get_json("/thing"), json!({"version": 1}));
}

#[test]
fn a_directory_that_is_gone_changes_nothing() {
    let server = old().start();
    std::fs::rename(server.path("plugins"), server.path("elsewhere")).unwrap();
    let _ = server.get("/reload/all").json_error(500);
    assert_eq!(server.get_json("/thing"), json!({"version": 1}));
    std::fs::rename(server.path("elsewhere"), server.path("plugins")).unwrap();
    server.reload_all();
    assert_eq!(server.get_json("/thing"), json!({"version": 1}));
}

#[test]
fn a_removed_file_is_told_when_it_alone_is_reloaded() {
    let server = old().start();
    server.remove("plugins/thing.py");
    let reply = server.get("/reload/thing");
    assert!(reply.status == 404 || reply.status == 500, "{} {}", reply.status, reply.text());
    assert!(reply.json()["error"].is_string());
}

const MARKED: &str = r#"
class Marked(BasePlugin):
    DEF terminate_plugin(self):
        open("{dir}/mark", "a").write("VERSION ")
    def request_handler(self, **data):
        return {"v": "VERSION"}
"#;

fn marked(def: &str, version: &str) -> String {
    MARKED.replace("DEF", def).replace("VERSION", version)
}

#[test]
fn plugins_are_told_of_their_end_on_reload_and_shutdown() {
    for def in ["def", "async def"] {
        let server = Setup::new().plugin("marked.py", &marked(def, "one")).start();
        let mark = server.path("mark");
        let code = marked(def, "two").replace("{dir}", &server.path("").display().to_string());
        server.write(
            "plugins/marked.py",
            format!("from plugincore.baseplugin import BasePlugin\n{code}"),
        );
        assert_eq!(server.get("/reload/marked").status, 200);
        assert_eq!(server.get_json("/marked"), json!({"v": "two"}));
        e2e::wait_until("the first one's mark", || {
            std::fs::read_to_string(&mark).ok().filter(|text| text == "one ")
        });
        let copy = mark.clone();
        // The directory goes with the server, so its end is watched from a link outside.
        let kept = tempfile::tempdir().unwrap();
        std::fs::hard_link(&copy, kept.path().join("mark")).unwrap();
        assert_eq!(server.stop().code, Some(0));
        assert_eq!(std::fs::read_to_string(kept.path().join("mark")).unwrap(), "one two ");
    }
}

#[test]
fn a_failing_or_endless_end_of_a_plugin_stops_neither_reload_nor_shutdown() {
    for ending in ["raise ValueError('at the end')", "import time; time.sleep(3600)"] {
        let code = format!(
            "class Thing(BasePlugin):\n    def terminate_plugin(self):\n        {ending}\n    def request_handler(self, **data):\n        return {{'v': 1}}\n"
        );
        let server =
            Setup::new().plugin("thing.py", &code).set("python", "stop_timeout_secs", "1").start();
        assert_eq!(server.get("/reload/thing").status, 200, "{ending}");
        assert_eq!(server.get_json("/thing"), json!({"v": 1}));
        assert_eq!(server.stop().code, Some(0), "{ending}");
    }
}

#[test]
fn an_endless_stream_of_the_old_version_is_given_up_and_its_plugin_told() {
    let code = r#"
import asyncio
class Endless(BasePlugin):
    def request_handler(self, **data):
        return self.pieces()
    async def pieces(self):
        yield "begun;"
        await asyncio.sleep(3600)
    def terminate_plugin(self):
        self.log("told of the end")
"#;
    let server =
        Setup::new().plugin("endless.py", code).set("limits", "handler_timeout_secs", "1").start();
    let mut connection = server.connect();
    connection.write("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(connection.read_head().unwrap().0, 200);
    assert_eq!(connection.read_chunk().as_deref(), Some(&b"begun;"[..]));
    assert_eq!(server.get("/reload/endless").status, 200);
    let _ = server.log().wait_for(&["endless", "told of the end"]);
}

#[test]
fn a_call_begun_on_the_old_version_ends_on_it() {
    let old = "import asyncio, os\nself.log('entered')\nwhile not os.path.exists(data['gate']):\n    await asyncio.sleep(0.02)\nreturn {'version': 1}";
    let server = Setup::new().async_handler("Thing", old).start();
    let gate = server.path("gate");
    thread::scope(|scope| {
        let call = scope.spawn(|| server.get_json(&format!("/thing?gate={}", gate.display())));
        let _ = server.log().wait_for(&["thing", "entered"]);
        server.write_handler("Thing", "return {'version': 2}");
        assert_eq!(server.get("/reload/thing").status, 200);
        assert_eq!(
            server.get_json("/thing"),
            json!({"version": 2}),
            "while the old one still works"
        );
        server.write("gate", "");
        assert_eq!(call.join().unwrap(), json!({"version": 1}));
    });
}

#[test]
fn reloads_at_the_same_time_all_end_well() {
    let server = old().handler("Other", "return {}").start();
    thread::scope(|scope| {
        for path in ["/reload/all", "/reload/thing", "/reload/other", "/reload/all"] {
            let server = &server;
            scope.spawn(move || assert_eq!(server.get(path).status, 200, "{path}"));
        }
    });
    assert_eq!(server.get_json("/thing"), json!({"version": 1}));
}

/// Eight clients ask without pause; every answer must be 200 and no older than what was in force
/// when its request began.
fn check_under_load(server: &Server, reloads: u64, path: &str) -> u64 {
    let done = AtomicBool::new(false);
    let in_force = AtomicU64::new(0);
    let served = AtomicU64::new(0);
    thread::scope(|scope| {
        for client in 0..8 {
            let (done, in_force, served) = (&done, &in_force, &served);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    // Leaves the processor to the workers that start.
                    thread::sleep(Duration::from_millis(5));
                    let oldest = in_force.load(Ordering::SeqCst);
                    let reply = if client % 2 == 0 {
                        server.get("/count")
                    } else {
                        server.post("/count").json(&json!({"a": "x".repeat(2000)})).send()
                    };
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    let version = reply.json()["version"].as_u64().unwrap();
                    assert!(
                        version >= oldest,
                        "{version} was answered after {oldest} was in force"
                    );
                    served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for version in 1..=reloads {
                server.write_handler("Count", &format!("return {{'version': {version}}}"));
                let reply = server.get(path);
                assert_eq!(reply.status, 200, "{}", reply.text());
                in_force.store(version, Ordering::SeqCst);
            }
        }));
        done.store(true, Ordering::SeqCst);
        if let Err(failure) = outcome {
            std::panic::resume_unwind(failure);
        }
    });
    served.load(Ordering::SeqCst)
}

#[test]
fn a_hundred_reloads_under_load_fail_no_request() {
    let server = Setup::new().handler("Count", "return {'version': 0}").start();
    let served = check_under_load(&server, 100, "/reload/count");
    assert!(served >= 100, "{served}");
    e2e::wait_until("the old workers are gone", || {
        let left =
            e2e::descendants(server.process.pid()).into_iter().filter(|pid| e2e::is_running(*pid));
        (left.count() <= 4).then_some(())
    });
}

#[test]
fn reloads_of_everything_under_load_fail_no_request() {
    let server = Setup::new()
        .handler("Count", "return {'version': 0}")
        .handler("Other", "return {}")
        .start();
    let _ = check_under_load(&server, 10, "/reload/all");
}

#[test]
fn reloads_of_two_workers_under_load_fail_no_request() {
    let server = Setup::new()
        .handler("Count", "return {'version': 0}")
        .parameters("count", "workers=2")
        .start();
    let _ = check_under_load(&server, 10, "/reload/count");
}
