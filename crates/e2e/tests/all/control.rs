//! The routes of the server itself: what is loaded, loading, unloading.

use e2e::Setup;
use serde_json::json;

use crate::naming::names;

#[test]
fn the_list_of_plugins_answers_get_and_post() {
    let server = Setup::new().handler("One", "return {}").handler("Two", "return {}").start();
    for reply in [
        server.get("/plugins"),
        server.post("/plugins").send(),
        server.post("/plugins").json(&json!({})).send(),
    ] {
        assert_eq!(reply.status, 200);
        let list = reply.json();
        let list = list["loaded_plugins"].as_array().unwrap();
        assert!(list.contains(&json!("one")) && list.contains(&json!("two")), "{list:?}");
    }
}

#[test]
fn a_reload_of_one_plugin_says_so() {
    let server = Setup::new().handler("One", "return {}").start();
    for reply in [server.get("/reload/one"), server.post("/reload/one").send()] {
        assert_eq!(
            (reply.status, reply.json()),
            (200, json!({"reloaded": "one", "success": true}))
        );
    }
}

#[test]
fn a_reload_of_all_lists_them() {
    let server = Setup::new().handler("One", "return {}").handler("Two", "return {}").start();
    for reply in [server.get("/reload/all"), server.post("/reload/all").send()] {
        assert_eq!(reply.status, 200);
        let said = reply.json();
        assert_eq!(said["status"], "All plugins reloaded");
        let list = said["loaded_plugins"].as_array().unwrap();
        assert!(list.contains(&json!("one")) && list.contains(&json!("two")), "{list:?}");
    }
}

#[test]
fn what_is_unknown_is_not_found_in_json() {
    let server = Setup::new().handler("One", "return {}").start();
    for path in [
        "/",
        "/nothing",
        "/nothing/deep?x=1",
        "/reload/nothing",
        "/reload",
        "/reload/",
        "/load/nothing",
        "/load/nothing.py",
        "/unload/nothing",
        "/plugins/one",
    ] {
        let _ = server.get(path).json_error(404);
        let _ = server.post(path).send().json_error(404);
    }
}

#[test]
fn a_method_that_is_not_open_is_a_405_with_allow() {
    let server = Setup::new().handler("One", "return {}").start();
    for path in ["/one", "/one/x", "/plugins", "/reload/one", "/reload/all"] {
        for method in ["PUT", "DELETE", "PATCH"] {
            let reply = server.request(method, path).send();
            let _ = reply.json_error(405);
            let allow =
                reply.header("allow").unwrap_or_else(|| panic!("{method} {path}: no Allow"));
            assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
        }
    }
}

#[test]
fn head_is_get_without_a_body() {
    let server = Setup::new().handler("One", "return {'a': 'some text'}").start();
    for path in ["/one", "/plugins"] {
        let wanted = server.get(path);
        let mut connection = server.connect();
        connection.write(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let (status, headers) = connection.read_head().unwrap();
        assert_eq!(status, 200, "{path}");
        let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        if let Some((_, length)) = length {
            assert_eq!(*length, wanted.body.len().to_string(), "{path}");
        }
        connection.write(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(connection.read_reply().status, 200, "{path}: no byte of a body was sent");
    }
}

#[test]
fn options_names_the_methods() {
    let server = Setup::new().handler("One", "return {}").start();
    let reply = server.request("OPTIONS", "/one").send();
    assert!(matches!(reply.status, 200 | 204 | 405), "{}", reply.status);
    let allow = reply.header("allow").expect("Allow");
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
}

#[test]
fn a_file_added_while_the_server_runs_is_loaded_by_its_name() {
    for name in ["late", "late.py"] {
        let server = Setup::new().handler("Early", "return {'early': True}").start();
        server.write_handler("Late", "return {'late': True}");
        let _ = server.get("/late").json_error(404);
        let reply = server.get(&format!("/load/{name}"));
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        assert_eq!(server.get_json("/late"), json!({"late": true}));
        assert_eq!(server.get_json("/early"), json!({"early": true}));
        assert!(names(&server).contains(&"late".to_owned()));
    }
}

#[test]
fn a_loaded_file_gets_its_parameters_from_the_file_as_it_is_now() {
    let mut server = Setup::new().start();
    server.write_handler("Late", "return {'p': self.args.get('p')}");
    server.configure(|setup| setup.parameters("late", "p=new"));
    let reply = server.post("/load/late").send();
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(server.get_json("/late"), json!({"p": "new"}));
}

#[test]
fn a_file_that_does_not_load_is_a_500_that_says_why() {
    let server = Setup::new().handler("Early", "return {'early': True}").start();
    server.write("plugins/late.py", "import no_such_module_here\n");
    let why = server.get("/load/late").json_error(500);
    assert!(why.contains("no_such_module_here"), "{why}");
    assert_eq!(server.get_json("/early"), json!({"early": true}));
}

#[test]
fn loading_never_leaves_the_directory_of_plugins() {
    let code = "open('{dir}/was-run', 'w')\n";
    let setup = Setup::new();
    let code = code.replace("{dir}", &setup.path().display().to_string());
    let server = setup.file("outside.py", code).start();
    for path in [
        "/load/..%2Foutside",
        "/load/..%2Foutside.py",
        "/load/../outside",
        "/load/%2e%2e/outside.py",
        "/load/plugins/../../outside",
    ] {
        let mut connection = server.connect();
        connection
            .write(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        let reply = connection.read_reply();
        assert!((400..500).contains(&reply.status), "{path}: {}", reply.status);
    }
    let absolute = server.path("outside.py").display().to_string().replace('/', "%2F");
    assert!((400..500).contains(&server.get(&format!("/load/{absolute}")).status));
    assert!(!server.path("was-run").exists());
}

#[test]
fn an_unloaded_plugin_is_gone_until_it_is_loaded_again() {
    let code = "class Gone(BasePlugin):\n    def terminate_plugin(self):\n        self.log('gone was told')\n    def request_handler(self, **data):\n        return {'here': True}\n";
    let server =
        Setup::new().plugin("gone.py", code).handler("Stays", "return {'stays': True}").start();
    assert_eq!(server.get_json("/gone"), json!({"here": true}));
    let reply = server.post("/unload/gone").send();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let _ = reply.json();
    let _ = server.get("/gone").json_error(404);
    assert!(!names(&server).contains(&"gone".to_owned()));
    assert_eq!(server.get_json("/stays"), json!({"stays": true}));
    let _ = server.log().wait_for(&["gone was told"]);
    let _ = server.get("/unload/gone").json_error(404);
    assert_eq!(server.get("/load/gone").status, 200);
    assert_eq!(server.get_json("/gone"), json!({"here": true}));
}

#[test]
fn unloading_one_plugin_of_a_file_leaves_the_other() {
    let code = "class Left(BasePlugin):\n    def request_handler(self, **data):\n        return {'l': 1}\nclass Right(Left):\n    pass\n";
    let server = Setup::new().plugin("both.py", code).start();
    assert_eq!(server.get("/unload/left").status, 200);
    let _ = server.get("/left").json_error(404);
    assert_eq!(server.get_json("/right"), json!({"l": 1}));
}
