//! Reloading one plugin: the whole configuration and directory are looked at, as by every reload.

use e2e::{Server, Setup};
use serde_json::json;

use crate::naming::names;

fn setup() -> Setup {
    Setup::new()
        .handler("A", "return {'a': 1}")
        .handler("B", "return {'b': 1}")
        .set("auth", "apikey", "global")
}

fn reload(server: &Server, name: &str) {
    let reply = server.get(&format!("/reload/{name}?apikey=global"));
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[test]
fn a_key_that_another_plugin_got_closes_it_too() {
    for parameters in ["auth_type=global", "auth_type=plugin&apikey=own", "auth_type=misspelt"] {
        let mut server = setup().start();
        assert_eq!(server.get_json("/b"), json!({"b": 1}));
        server.configure(|setup| setup.parameters("b", parameters));
        reload(&server, "a");
        let reply = server.get("/b");
        assert!(reply.status >= 400, "{parameters}: {} {}", reply.status, reply.text());
        assert_eq!(server.get_json("/a"), json!({"a": 1}));
    }
}

#[test]
fn an_added_file_answers() {
    let server = setup().start();
    server.write_handler("C", "return {'c': 1}");
    reload(&server, "a");
    assert_eq!(server.get_json("/c"), json!({"c": 1}));
}

#[test]
fn a_removed_file_is_gone() {
    let server = setup().start();
    server.remove("plugins/b.py");
    reload(&server, "a");
    let _ = server.get("/b").json_error(404);
    assert_eq!(server.get_json("/a"), json!({"a": 1}));
}

/// A new version whose code claims a name that is the server's.
const CLAIMING: &str = "from plugincore.baseplugin import BasePlugin\nclass X(BasePlugin):\n    def __init__(self, **kwargs):\n        super().__init__(**kwargs)\n        self._plugin_id = 'plugins'\n    def request_handler(self, **data):\n        return {'x': 2}\n";

/// The reload fails and says why, and the old version goes on under its own name.
fn check_claim(path: &str, claim: impl Fn(&mut Server)) {
    let mut server = Setup::new().handler("X", "return {'x': 1}").start();
    claim(&mut server);
    let why = server.get(path).json_error(500);
    assert!(why.contains("plugins"), "{why}");
    assert_eq!(server.get_json("/x"), json!({"x": 1}));
    assert!(names(&server).contains(&"x".to_owned()));
}

#[test]
fn a_new_version_that_claims_a_name_of_the_server_changes_nothing() {
    check_claim("/reload/x", |server| server.write("plugins/x.py", CLAIMING));
}

#[test]
fn a_new_version_that_claims_a_name_of_the_server_changes_nothing_among_all() {
    check_claim("/reload/all", |server| server.write("plugins/x.py", CLAIMING));
}

fn claim_by_parameters(server: &mut Server) {
    server.configure(|setup| setup.parameters("x", "route_path=plugins"));
}

#[test]
fn parameters_that_claim_a_name_of_the_server_change_nothing() {
    check_claim("/reload/x", claim_by_parameters);
}

#[test]
fn parameters_that_claim_a_name_of_the_server_change_nothing_among_all() {
    check_claim("/reload/all", claim_by_parameters);
}
