//! Which files become plugins, what they are called, and what a broken one does to the others.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use e2e::{Server, Setup, wait_until};
use serde_json::{Value, json};

/// The names the server lists, sorted.
pub(crate) fn names(server: &Server) -> Vec<String> {
    let list = server.get_json("/plugins");
    let names = list["loaded_plugins"].as_array().expect("a list of names");
    let mut names: Vec<_> = names.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// Starts a server with these files and compares what these paths answer.
fn check(files: &[(&str, &str)], answers: &[(&str, Value)]) -> Server {
    let setup = files.iter().fold(Setup::new(), |setup, (file, code)| setup.plugin(file, code));
    let server = setup.start();
    for (path, wanted) in answers {
        assert_eq!(server.get_json(path), *wanted, "{path}");
    }
    server
}

#[test]
fn a_plugin_is_called_as_its_class_in_lower_case() {
    let code = "class MixedCase(BasePlugin):\n    def request_handler(self, **data):\n        return (200, {'id': self._plugin_id})\n";
    let server = check(&[("other.py", code)], &[("/mixedcase", json!({"id": "mixedcase"}))]);
    let _ = server.get("/MixedCase").json_error(404);
    let _ = server.get("/other").json_error(404);
    assert!(names(&server).contains(&"mixedcase".to_owned()));
}

#[test]
fn a_plugin_names_itself_after_the_constructor_of_its_base() {
    let code = r#"
class Anything(BasePlugin):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._plugin_id = "chosen"
    def request_handler(self, **data):
        return {"id": self._plugin_id}
"#;
    let server = check(&[("a.py", code)], &[("/chosen", json!({"id": "chosen"}))]);
    let _ = server.get("/anything").json_error(404);
}

#[test]
fn a_plugin_is_named_by_route_path_in_its_parameters() {
    let server = Setup::new()
        .handler("Renamed", "return {'id': self._plugin_id}")
        .parameters("renamed", "route_path=elsewhere")
        .start();
    assert_eq!(server.get_json("/elsewhere"), json!({"id": "elsewhere"}));
    let _ = server.get("/renamed").json_error(404);
}

#[test]
fn a_file_holds_several_plugins_and_classes_that_are_none() {
    let code = r#"
class Helper:
    pass
class First(BasePlugin):
    def request_handler(self, **data):
        return {"i": 1}
class Second(BasePlugin):
    async def request_handler(self, **data):
        return {"i": 2}
"#;
    let answers = [("/first", json!({"i": 1})), ("/second", json!({"i": 2}))];
    let server = check(&[("both.py", code)], &answers);
    let _ = server.get("/helper").json_error(404);
    let _ = server.get("/baseplugin").json_error(404);
}

#[test]
fn a_class_that_a_plugin_imports_from_its_sibling_is_one_plugin_only() {
    let base = r#"
VALUE = "from the sibling"
class Shared(BasePlugin):
    def request_handler(self, **data):
        return {"who": "shared"}
"#;
    let child = r#"
import a_base
from a_base import Shared, VALUE
class Child(Shared):
    def request_handler(self, **data):
        return {"who": "child", "value": VALUE, "same": a_base.VALUE}
"#;
    let child_answer =
        json!({"who": "child", "value": "from the sibling", "same": "from the sibling"});
    let server = check(
        &[("a_base.py", base), ("z_child.py", child)],
        &[("/child", child_answer), ("/shared", json!({"who": "shared"}))],
    );
    let shared = names(&server).into_iter().filter(|name| name == "shared").count();
    assert_eq!(shared, 1);
}

#[test]
fn modules_and_packages_beside_a_plugin_can_be_imported() {
    let server = Setup::new()
        .file("plugins/pack/__init__.py", "from pack.inner import NUMBER\n")
        .file("plugins/pack/inner.py", "NUMBER = 42\n")
        .file("plugins/plain_module.py", "TEXT = 'plain'\n")
        .handler(
            "User",
            "import pack\nimport plain_module\nreturn {'n': pack.NUMBER, 't': plain_module.TEXT}",
        )
        .start();
    assert_eq!(server.get_json("/user"), json!({"n": 42, "t": "plain"}));
}

#[test]
fn files_are_loaded_in_the_order_of_their_names() {
    let write = "open('{dir}/order', 'a').write(__name__.split('.')[-1] + ' ')\n";
    let files = ["c_third.py", "a_first.py", "b_second.py", "d_fourth.py"];
    let server = files.iter().fold(Setup::new(), |setup, file| {
        let class = file.trim_end_matches(".py").replace('_', "");
        let handler = format!("class {class}(BasePlugin):\n    def request_handler(self, **data):\n        return {{}}\n");
        setup.plugin(file, &format!("{write}{handler}"))
    });
    let server = server.start();
    let order = std::fs::read_to_string(server.path("order")).unwrap();
    assert_eq!(order.trim(), "a_first b_second c_third d_fourth");
}

#[test]
fn plugins_come_from_every_directory_listed() {
    let other = "from plugincore.baseplugin import BasePlugin\nclass Far(BasePlugin):\n    def request_handler(self, **data):\n        return {'far': True}\n";
    let server = Setup::new()
        .handler("Near", "return {'near': True}")
        .file("more/far.py", other)
        .set("paths", "plugins", "list:{dir}/plugins {dir}/more")
        .start();
    assert_eq!(server.get_json("/near"), json!({"near": true}));
    assert_eq!(server.get_json("/far"), json!({"far": true}));
}

#[test]
fn what_is_no_python_file_is_left_alone() {
    let server = Setup::new()
        .handler("Good", "return {'good': True}")
        .file("plugins/notes.txt", "not python at all {")
        .file("plugins/old.py.bak", "raise SystemExit")
        .file("plugins/__pycache__/x.py", "raise SystemExit")
        .start();
    assert_eq!(server.get_json("/good"), json!({"good": true}));
}

/// A server with one broken file between two good ones: it says what is broken and serves the rest.
fn check_broken(code: &str, said: &str) {
    let server = Setup::new()
        .handler("Alpha", "return {'alpha': True}")
        .plugin("broken.py", code)
        .handler("Zulu", "return {'zulu': True}")
        .set("python", "start_timeout_secs", "4")
        .start();
    assert_eq!(server.get_json("/alpha"), json!({"alpha": true}));
    assert_eq!(server.get_json("/zulu"), json!({"zulu": true}));
    let reply = server.get("/broken");
    assert!(matches!(reply.status, 404 | 500..=599), "{} {}", reply.status, reply.text());
    assert!(reply.json()["error"].is_string(), "{}", reply.text());
    wait_until(&format!("the log says {said}"), || {
        let log = server.log().so_far();
        (log.contains("broken") && log.contains(said)).then_some(())
    });
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_syntax_error_stops_its_own_file_only() {
    check_broken("class Broken(BasePlugin:\n", "SyntaxError");
}

#[test]
fn a_failing_import_stops_its_own_file_only() {
    check_broken("import no_such_module_anywhere\n", "no_such_module_anywhere");
}

#[test]
fn a_raising_constructor_stops_its_own_plugin_only() {
    let code = "class Broken(BasePlugin):\n    def __init__(self, **kwargs):\n        raise ValueError('no luck today')\n";
    check_broken(code, "no luck today");
}

#[test]
fn a_failing_initialize_stops_its_own_plugin_only() {
    let code = "class Broken(BasePlugin):\n    async def initialize(self, **kwargs):\n        raise OSError('nothing there')\n    def request_handler(self, **data):\n        return {}\n";
    check_broken(code, "nothing there");
}

#[test]
fn a_plugin_without_a_handler_stops_nobody() {
    check_broken("class Broken(BasePlugin):\n    pass\n", "broken");
}

#[test]
fn a_file_that_exits_on_import_stops_its_own_file_only() {
    check_broken("import sys\nsys.exit(3)\n", "broken");
}

#[test]
fn a_file_that_kills_its_process_on_import_stops_its_own_file_only() {
    check_broken("import os\nos._exit(7)\n", "broken");
}

#[test]
fn a_file_that_never_ends_its_import_stops_its_own_file_only() {
    check_broken("while True:\n    pass\n", "broken");
}

#[test]
fn a_file_that_is_not_text_stops_its_own_file_only() {
    let server = Setup::new()
        .handler("Good", "return {'good': True}")
        .file("plugins/binary.py", [0xff, 0xfe, 0x00, 0x80, 0x0a])
        .start();
    assert_eq!(server.get_json("/good"), json!({"good": true}));
    let _ = server.get("/binary").json_error(404);
}

#[test]
fn one_failing_class_does_not_stop_the_other_in_its_file() {
    let code = r#"
class Bad(BasePlugin):
    def __init__(self, **kwargs):
        raise ValueError("bad one")
class Fine(BasePlugin):
    def request_handler(self, **data):
        return {"fine": True}
"#;
    let _ = check(&[("pair.py", code)], &[("/fine", json!({"fine": true}))]);
}

#[test]
fn a_name_of_the_server_itself_is_refused_and_the_rest_loads() {
    for taken in ["Plugins", "Reload", "Load", "Unload"] {
        let server = Setup::new()
            .handler(taken, "return {'stolen': True}")
            .handler("Honest", "return {'honest': True}")
            .start();
        assert_eq!(server.get_json("/honest"), json!({"honest": true}));
        let lower = taken.to_lowercase();
        assert!(!server.get(&format!("/{lower}")).text().contains("stolen"), "{taken}");
        assert!(!names(&server).contains(&lower), "{taken}");
        let _ = server.log().wait_for(&[&lower]);
    }
}

#[test]
fn a_name_of_the_server_cannot_be_taken_by_route_path_either() {
    let server = Setup::new()
        .handler("Thief", "return {'stolen': True}")
        .parameters("thief", "route_path=plugins")
        .handler("Honest", "return {'honest': True}")
        .start();
    assert_eq!(names(&server).iter().filter(|name| *name == "plugins").count(), 0);
    assert_eq!(server.get_json("/honest"), json!({"honest": true}));
}

#[test]
fn two_plugins_of_one_name_are_told_apart_in_the_log_and_one_serves() {
    let same = |value: u8| {
        format!(
            "class Twin(BasePlugin):\n    def request_handler(self, **data):\n        return {{'v': {value}}}\n"
        )
    };
    let server = Setup::new().plugin("a.py", &same(1)).plugin("b.py", &same(2)).start();
    let first = server.get_json("/twin");
    assert!(first["v"].is_number());
    for _ in 0..20 {
        assert_eq!(server.get_json("/twin"), first);
    }
    let _ = server.log().wait_for(&["twin"]);
}

/// The simple example of the documents, its one line broken into Python's lines and nothing else.
const EXAMPLE: &str = r#"
class Example(BasePlugin):
    def request_hanlder(**args:dict) ->tuple:
        return (200, {'example': 'Hi from Example.py'})
"#;

#[test]
fn the_simple_example_of_the_documents_runs_as_it_is() {
    let _ = check(
        &[("example.py", EXAMPLE)],
        &[("/example", json!({"example": "Hi from Example.py"}))],
    );
}

#[test]
fn the_complex_example_of_the_documents_runs_as_it_is() {
    let server = Setup::new()
        .with_python_packages()
        .file("plugins/netinfo.py", include_str!("netinfo.py"))
        .start();
    let first = server.get_json("/netinfo");
    let lo = |list: &Value| {
        let list = list.as_array().expect("a list of interfaces").clone();
        list.into_iter().find(|entry| entry["address"] == "127.0.0.1/8").expect("a loopback")
    };
    assert_eq!(lo(&first)["tx"], "n/a", "nothing is measured yet");
    let measured = wait_until("a measured speed", || {
        let entry = lo(&server.get_json("/netinfo"));
        (entry["tx"] != "n/a").then_some(entry)
    });
    assert!(measured["tx"].as_str().unwrap().ends_with("bps"), "{measured}");
    assert!(measured["rx"].as_str().unwrap().ends_with("bps"), "{measured}");
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_name_of_two_segments_leaves_long_paths_of_slashes_quick() {
    let server = Setup::new()
        .handler("Deep", "return {'subpath': data['subpath']}")
        .parameters("deep", "route_path=api/v1")
        .start();
    assert_eq!(server.get_json("/api/v1"), json!({"subpath": null}));
    assert_eq!(server.get_json("/api/v1/x"), json!({"subpath": "x"}));
    for path in ["/x".repeat(30_000), "/".repeat(60_000), format!("/api{}", "/".repeat(60_000))] {
        let _ = server.get(&path).json_error(404);
    }
    let _ = server.get("/api").json_error(404);
    let long = server.get(&format!("/api/v1{}", "/x".repeat(30_000)));
    assert_eq!(long.status, 200, "{}", long.text());
    assert_eq!(server.get_json("/api/v1"), json!({"subpath": null}));
}

#[test]
fn a_file_whose_name_is_no_text_is_told_and_left_out() {
    let setup = Setup::new().handler("Good", "return {'good': True}");
    let bad = OsStr::from_bytes(b"bad\xff.py");
    let code = std::fs::read_to_string(setup.path().join("plugins/good.py")).unwrap();
    std::fs::write(setup.path().join("plugins").join(bad), code.replace("Good", "Bad")).unwrap();
    let server = setup.start();
    let _ = server.log().wait_for(&["bad"]);
    assert_eq!(server.get_json("/good"), json!({"good": true}));
    let _ = server.get("/bad").json_error(404);
    server.reload_all();
    assert_eq!(server.get_json("/good"), json!({"good": true}));
}
