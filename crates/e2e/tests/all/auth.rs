//! Who may ask: keys in four places, of two kinds, and the routes of the server itself.

use e2e::{Reply, Request, Server, Setup};
use serde_json::json;

const OPEN: &str = "return {'open': True}";

fn with_plugin_key() -> Server {
    Setup::new().handler("Safe", OPEN).parameters("safe", "auth_type=plugin&apikey=right").start()
}

fn check(request: Request, wanted: u16) {
    let said = format!("{request:?}");
    let reply = request.send();
    assert_eq!(reply.status, wanted, "{said}");
    match wanted {
        403 => assert_eq!(reply.json(), json!({"error": "unauthorized"})),
        _ => assert!(reply.text().len() > 2, "{said}"),
    }
}

/// The key in each of the places it may be in.
fn everywhere(server: &Server, path: &str, key: &str) -> Vec<Request> {
    let multipart =
        format!("--B\r\nContent-Disposition: form-data; name=\"apikey\"\r\n\r\n{key}\r\n--B--\r\n");
    vec![
        server.request("GET", path).header("Authorization", format!("Bearer {key}")),
        server.post(path).header("AUTHORIZATION", format!("Bearer {key}")),
        server.request("GET", path).header("X-Custom-Auth", key),
        server.request("GET", path).header("x-custom-auth", key),
        server.post(path).json(&json!({"apikey": key})),
        server.post(path).form(&format!("apikey={key}")),
        server.post(path).body("multipart/form-data; boundary=B", multipart),
        server.request("GET", &format!("{path}?apikey={key}")),
        server.post(&format!("{path}?apikey={key}")),
    ]
}

fn check_everywhere(server: &Server, path: &str, right: &str, wrong: &[&str]) {
    check(server.request("GET", path), 403);
    check(server.post(path), 403);
    for request in everywhere(server, path, right) {
        check(request, 200);
    }
    for key in wrong {
        for request in everywhere(server, path, key) {
            check(request, 403);
        }
    }
}

#[test]
fn a_plugin_with_its_own_key_wants_that_key() {
    let server = Setup::new()
        .handler("Safe", OPEN)
        .parameters("safe", "auth_type=plugin&apikey=right")
        .set("auth", "apikey", "global")
        .start();
    check_everywhere(
        &server,
        "/safe",
        "right",
        &["wrong", "global", "righ", "rightt", "RIGHT", ""],
    );
}

#[test]
fn a_plugin_with_the_global_key_wants_that_key() {
    let server = Setup::new()
        .handler("Safe", OPEN)
        .parameters("safe", "auth_type=global")
        .set("auth", "apikey", "global")
        .handler("Free", OPEN)
        .start();
    check_everywhere(&server, "/safe", "global", &["wrong", ""]);
    check(server.request("GET", "/free"), 200);
}

#[test]
fn both_spellings_of_the_parameter_work_in_any_case() {
    for parameters in
        ["auth=plugin&apikey=right", "auth_type=Plugin&apikey=right", "auth=PLUGIN&apikey=right"]
    {
        let server = Setup::new().handler("Safe", OPEN).parameters("safe", parameters).start();
        check(server.request("GET", "/safe"), 403);
        check(server.request("GET", "/safe?apikey=right"), 200);
    }
}

#[test]
fn every_path_and_method_of_the_plugin_is_closed() {
    let server = with_plugin_key();
    for path in ["/safe", "/safe/", "/safe/deep/er"] {
        check(server.request("GET", path), 403);
        assert!(!server.request("HEAD", path).send().status.eq(&200));
    }
}

type Put = fn(Request, &str) -> Request;

#[test]
fn the_first_key_present_decides() {
    let server = with_plugin_key();
    let mut places: [(&str, Put); 3] = [
        ("bearer", |request, key| request.header("Authorization", format!("Bearer {key}"))),
        ("custom", |request, key| request.header("X-Custom-Auth", key)),
        ("body", |request, key| request.json(&json!({"apikey": key}))),
    ];
    places.reverse();
    // From the last place to the first: each overrules all those after it.
    for (count, (name, _)) in places.iter().enumerate() {
        for (early, late, wanted) in [("right", "wrong", 200), ("wrong", "right", 403)] {
            let mut request = server.post(&format!("/safe?apikey={late}"));
            for (_, put) in &places[..count] {
                request = put(request, late);
            }
            let request = places[count].1(request, early);
            assert_eq!(request.send().status, wanted, "{name} {early}");
        }
    }
}

#[test]
fn a_form_key_comes_before_a_query_key() {
    let server = with_plugin_key();
    check(server.post("/safe?apikey=right").form("apikey=wrong"), 403);
    check(server.post("/safe?apikey=wrong").form("apikey=right"), 200);
}

#[test]
fn another_scheme_is_no_bearer() {
    let server = with_plugin_key();
    check(server.request("GET", "/safe").header("Authorization", "Basic right"), 403);
    check(server.request("GET", "/safe").header("Authorization", "right"), 403);
    let both = server
        .request("GET", "/safe")
        .header("Authorization", "Basic x")
        .header("X-Custom-Auth", "right");
    check(both, 200);
}

#[test]
fn a_key_that_is_no_text_is_no_key() {
    let server = with_plugin_key();
    for value in [json!(null), json!(true), json!(1), json!(["right"]), json!({"right": 1})] {
        check(server.post("/safe").json(&json!({"apikey": value})), 403);
    }
}

#[test]
fn a_key_with_other_letters_than_ascii_works() {
    let server = Setup::new()
        .handler("Safe", OPEN)
        .parameters("safe", "auth_type=plugin&apikey=schl%C3%BCssel")
        .start();
    check(server.request("GET", "/safe?apikey=schl%C3%BCssel"), 200);
    check(server.post("/safe").json(&json!({"apikey": "schlüssel"})), 200);
    check(server.post("/safe").json(&json!({"apikey": "schlussel"})), 403);
}

/// Settings that are wrong must close the plugin, whatever is sent.
fn check_never_open(setup: Setup) {
    let server = setup.handler("Safe", OPEN).handler("Free", OPEN).start();
    check(server.request("GET", "/free"), 200);
    let mut requests = vec![server.request("GET", "/safe"), server.post("/safe")];
    for key in ["", "None", "null", "plugin", "global"] {
        requests.extend(everywhere(&server, "/safe", key));
    }
    for request in requests {
        let said = format!("{request:?}");
        let reply = request.send();
        assert!(reply.status >= 400 && !reply.text().contains("open"), "{said}: {}", reply.text());
    }
    let _ = server.log().wait_for(&["safe"]);
}

#[test]
fn a_misspelt_kind_of_authentication_is_never_open() {
    for kind in ["plugn", "Globel", "true", "none-of-these"] {
        check_never_open(Setup::new().parameters("safe", &format!("auth_type={kind}&apikey=k")));
        check_never_open(Setup::new().parameters("safe", &format!("auth={kind}&apikey=k")));
    }
}

#[test]
fn a_missing_key_is_never_open() {
    check_never_open(Setup::new().parameters("safe", "auth_type=plugin"));
    check_never_open(Setup::new().parameters("safe", "auth_type=plugin&apikey="));
    check_never_open(Setup::new().parameters("safe", "auth_type=global"));
    check_never_open(Setup::new().parameters("safe", "auth_type=global&apikey=k"));
}

#[test]
fn control_routes_want_the_global_key_where_one_is_set() {
    let server = Setup::new()
        .handler("Safe", OPEN)
        .parameters("safe", "auth_type=plugin&apikey=own")
        .set("auth", "apikey", "global")
        .start();
    for path in ["/plugins", "/reload/safe", "/reload/all"] {
        check_everywhere(&server, path, "global", &["wrong", "own"]);
    }
    for path in ["/load/safe", "/unload/safe"] {
        check(server.request("GET", path), 403);
        check(server.request("GET", &format!("{path}?apikey=own")), 403);
    }
    // A stranger does not learn which plugins there are.
    check(server.request("GET", "/reload/nothing"), 403);
    assert_eq!(server.get("/unload/safe?apikey=global").status, 200);
    assert_eq!(server.get("/load/safe?apikey=global").status, 200);
}

#[test]
fn control_routes_without_a_key_answer_loopback_clients_alone() {
    let server =
        Setup::new().handler("Free", OPEN).set("network", "trusted_proxies", "127.0.0.1").start();
    for path in ["/plugins", "/reload/free", "/reload/all", "/load/free", "/unload/free"] {
        let from_far = server.request("GET", path).header("X-Forwarded-For", "203.0.113.7");
        assert_eq!(from_far.send().status, 403, "{path}");
    }
    check(server.request("GET", "/free").header("X-Forwarded-For", "203.0.113.7"), 200);
    for near in ["127.0.0.1", "127.8.9.1", "::1"] {
        check(server.request("GET", "/plugins").header("X-Forwarded-For", near), 200);
    }
}

#[test]
fn a_claim_to_be_loopback_is_not_believed() {
    let server =
        Setup::new().handler("Free", OPEN).set("network", "trusted_proxies", "127.0.0.1").start();
    let request =
        server.request("GET", "/plugins").header("X-Forwarded-For", "127.0.0.1, 203.0.113.7");
    assert_eq!(request.send().status, 403);
}

#[test]
fn keys_are_never_written_down() {
    let mut server = Setup::new()
        .handler("Safe", "raise ValueError('x')")
        .parameters("safe", "auth_type=plugin&apikey=plugin-key-4711")
        .set("auth", "apikey", "global-key-4711")
        .set("log", "access", "all")
        .start();
    for (path, key) in [
        ("/safe", "plugin-key-4711"),
        ("/plugins", "global-key-4711"),
        ("/nothing", "global-key-4711"),
        ("/safe", "guessed-key-4711"),
    ] {
        for request in everywhere(&server, path, key) {
            let reply = request.send();
            assert!(!reply.text().contains("key-4711"), "{}", reply.text());
        }
    }
    server.configure(|setup| setup.whole("[auth]\napikey=other-key-4711\nunknown=1\n"));
    let said = server.get("/reload/all?apikey=global-key-4711").text();
    assert!(!said.contains("key-4711"), "{said}");
    let exit = server.stop();
    assert!(!exit.stderr.contains("key-4711"), "{}", exit.stderr);
    assert!(!exit.stdout.contains("key-4711"), "{}", exit.stdout);
}

/// Sends a request line and exactly these headers.
fn send_raw(server: &Server, line: &str, headers: &[u8]) -> Reply {
    let mut connection = server.connect();
    let start = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
    connection.write([start.as_bytes(), headers, b"\r\n"].concat());
    connection.read_reply()
}

/// What a browser of this machine sends when a page of somebody else makes it ask.
const OF_A_FOREIGN_PAGE: [&str; 10] = [
    "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
    "Host: localhost\r\nSec-Fetch-Site: same-site\r\n",
    "Host: 127.0.0.1\r\nOrigin: http://evil.example\r\n",
    "Host: 127.0.0.1\r\nOrigin: null\r\n",
    "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nOrigin: https://evil.example\r\n",
    // A name of theirs that has come to mean this machine.
    "Host: evil.example\r\n",
    "Host: evil.example:9192\r\n",
    "Host: evil.example\r\nSec-Fetch-Site: same-origin\r\n",
    "Host: localhost.evil.example\r\n",
    "Host: 127.0.0.1.evil.example\r\n",
];

#[test]
fn a_foreign_web_page_cannot_use_control_routes_that_want_no_key() {
    let server = Setup::new().handler("Free", OPEN).start();
    server.write_handler("Late", OPEN);
    for headers in OF_A_FOREIGN_PAGE {
        for line in [
            "GET /plugins",
            "GET /reload/free",
            "POST /reload/all",
            "GET /load/late",
            "POST /load/late",
            "GET /unload/free",
            "POST /unload/free",
        ] {
            let reply = send_raw(&server, line, headers.as_bytes());
            assert_eq!(reply.status, 403, "{line} {headers:?}: {}", reply.text());
            assert!(reply.json()["error"].is_string(), "{line} {headers:?}");
        }
        let reply = send_raw(&server, "GET /free", headers.as_bytes());
        assert_eq!(reply.status, 200, "an open plugin is open to all: {headers:?}");
        check(server.request("GET", "/free"), 200);
    }
    assert_eq!(server.get("/late").status, 404);
}

#[test]
fn people_and_programs_of_this_machine_can_use_control_routes_that_want_no_key() {
    let server = Setup::new().handler("Free", OPEN).start();
    for host in ["localhost", "localhost:9192", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:65535"]
    {
        for more in ["", "Sec-Fetch-Site: none\r\n", "Sec-Fetch-Site: same-origin\r\n"] {
            let headers = format!("Host: {host}\r\n{more}");
            for line in ["GET /plugins", "POST /reload/free"] {
                let reply = send_raw(&server, line, headers.as_bytes());
                assert_eq!(reply.status, 200, "{line} {headers:?}: {}", reply.text());
            }
        }
    }
}

#[test]
fn the_global_key_opens_control_routes_to_every_page_and_name() {
    let server = Setup::new().handler("Free", OPEN).set("auth", "apikey", "global").start();
    for headers in OF_A_FOREIGN_PAGE {
        for (key, wanted) in [("global", 200), ("wrong", 403)] {
            let headers = format!("{headers}X-Custom-Auth: {key}\r\n");
            for line in ["GET /plugins", "POST /reload/free"] {
                let reply = send_raw(&server, line, headers.as_bytes());
                assert_eq!(reply.status, wanted, "{line} {headers:?}: {}", reply.text());
            }
        }
    }
}

#[test]
fn head_changes_nothing() {
    let server = Setup::new().handler("Free", OPEN).start();
    server.write_handler("Late", OPEN);
    for path in ["/unload/free", "/load/late", "/reload/free", "/reload/all"] {
        let reply = server.request("HEAD", path).send();
        assert_eq!(reply.status, 405, "{path}");
        assert_eq!(reply.header("allow"), Some("GET, POST"), "{path}");
    }
    check(server.request("GET", "/free"), 200);
    assert_eq!(server.get("/late").status, 404);
}

#[test]
fn a_client_that_a_proxy_names_unclearly_is_a_stranger() {
    let server =
        Setup::new().handler("Free", OPEN).set("network", "trusted_proxies", "127.0.0.1").start();
    let cases: [&[u8]; 7] = [
        b"\xe9, 1.2.3.4",
        b"1.2.3.4, \xe9",
        b"\xff",
        b"nonsense",
        b"nonsense, 127.0.0.1",
        b"127.0.0.1, unknown",
        b"127.0.0.1, 999.0.0.1",
    ];
    for case in cases {
        let headers = [b"Host: localhost\r\nX-Forwarded-For: ", case, b"\r\n"].concat();
        for line in ["GET /plugins", "POST /reload/all", "GET /unload/free"] {
            let reply = send_raw(&server, line, &headers);
            assert_eq!(reply.status, 403, "{line} {case:?}: {}", reply.text());
        }
        assert_eq!(send_raw(&server, "GET /free", &headers).status, 200, "{case:?}");
    }
}
