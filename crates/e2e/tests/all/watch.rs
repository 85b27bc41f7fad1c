//! `serve --watch`: what is edited is in force by itself.

use std::time::Duration;

use e2e::{Server, Setup, Signal, program, wait_until};
use serde_json::{Value, json};

fn start(setup: Setup) -> Server {
    let file = setup.write_configuration("gatehouse.ini");
    let arguments = ["serve".into(), "-i".into(), file.into_os_string(), "--watch".into()];
    setup.start_with(&program(), &arguments)
}

fn thing() -> Setup {
    Setup::new().handler("Thing", "return {'version': 1, 'p': self.args.get('p')}")
}

/// Asks until the answer is this one; every answer before it must be one as well.
fn check_comes(server: &Server, path: &str, key: &str, wanted: &Value) {
    wait_until(&format!("{path} answers {wanted}"), || {
        (server.get_json(path)[key] == *wanted).then_some(())
    });
}

/// How often the log tells of a change.
fn changes(server: &Server) -> usize {
    server.log().so_far().matches("has changed").count()
}

#[test]
fn an_edited_plugin_runs_its_new_code_by_itself() {
    let server = start(thing());
    for version in 2..5 {
        server.write_handler("Thing", &format!("return {{'version': {version}}}"));
        check_comes(&server, "/thing", "version", &json!(version));
    }
}

#[test]
fn a_changed_configuration_is_in_force_by_itself() {
    let mut server = start(thing().parameters("thing", "p=old"));
    check_comes(&server, "/thing", "p", &json!("old"));
    server.configure(|setup| setup.parameters("thing", "p=new"));
    check_comes(&server, "/thing", "p", &json!("new"));
}

#[test]
fn an_added_file_answers_and_a_removed_one_does_not() {
    let server = start(thing());
    server.write_handler("Late", "return {'late': True}");
    wait_until("the added plugin", || (server.get("/late").status == 200).then_some(()));
    server.remove("plugins/late.py");
    wait_until("its end", || (server.get("/late").status == 404).then_some(()));
    check_comes(&server, "/thing", "version", &json!(1));
}

#[test]
fn a_broken_edit_leaves_the_old_version_until_it_is_mended() {
    let server = start(thing());
    server.write("plugins/thing.py", "class Thing(\n");
    let _ = server.log().wait_for(&["thing", "SyntaxError"]);
    assert_eq!(server.get_json("/thing")["version"], 1);
    server.write_handler("Thing", "return {'version': 2}");
    check_comes(&server, "/thing", "version", &json!(2));
}

/// Says that it has begun, in a file, and is not ready before another file exists.
const SLOW: &str = r#"from plugincore.baseplugin import BasePlugin
import asyncio, os
class ZSlow(BasePlugin):
    async def initialize(self, **kwargs):
        open("{dir}/entered", "w").close()
        while not os.path.exists("{dir}/gate"):
            await asyncio.sleep(0.02)
    def request_handler(self, **data):
        return {"slow": True}
"#;

/// Adds a plugin that does not become ready, and waits until the reload meets it.
fn begin_slow_reload(server: &Server) {
    let directory = server.path("").display().to_string();
    server.write("plugins/zslow.py", SLOW.replace("{dir}", directory.trim_end_matches('/')));
    wait_until("the reload begins", || server.path("entered").exists().then_some(()));
}

#[test]
fn the_end_does_not_wait_for_a_reload() {
    let mut server = start(thing());
    begin_slow_reload(&server);
    assert_eq!(server.get_json("/thing")["version"], 1, "it serves while it reloads");
    server.signal(Signal::TERM);
    let in_time = server.process.ends_within(Duration::from_secs(10));
    assert!(in_time, "{}", server.log().so_far());
    assert_eq!(server.process.wait().code, Some(0));
}

#[test]
fn an_edit_during_a_reload_is_not_lost() {
    let server = start(thing());
    begin_slow_reload(&server);
    server.write_handler("Thing", "return {'version': 2}");
    server.write("gate", "");
    check_comes(&server, "/thing", "version", &json!(2));
    wait_until("the slow one", || (server.get("/zslow").status == 200).then_some(()));
}

#[test]
fn a_plugin_that_writes_beside_itself_when_it_starts_does_not_reload_without_end() {
    let code = "import json, time\nwith open('{dir}/plugins/state.json', 'w') as file:\n    json.dump({'at': time.time()}, file)\nclass Keeper(BasePlugin):\n    def request_handler(self, **data):\n        return {}\n";
    let server = start(thing().plugin("keeper.py", code));
    server.write_handler("Thing", "return {'version': 2}");
    check_comes(&server, "/thing", "version", &json!(2));
    let mut seen = (0, 0);
    // Longer than several reloads take: what goes round never stands still for so long.
    wait_until("no more changes are told", || {
        let now = changes(&server);
        seen = if now == seen.0 { (now, seen.1 + 1) } else { (now, 0) };
        (seen.1 == 100).then_some(())
    });
    assert!((1..=3).contains(&seen.0), "{} reloads for one edit", seen.0);
    server.write_handler("Thing", "return {'version': 3}");
    check_comes(&server, "/thing", "version", &json!(3));
}
