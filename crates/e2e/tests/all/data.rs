//! What a handler finds in `data`: where each value comes from and which one wins.

use e2e::{Request, Server, Setup};
use serde_json::{Value, json};

/// Answers with every plain value of `data`.
const ECHO: &str = r#"
plain = (str, int, float, bool, list, dict, type(None))
return {k: v for k, v in data.items() if isinstance(v, plain) and k not in ("request_headers", "client_ip", "subpath")}
"#;

fn echo() -> Server {
    Setup::new().handler("Echo", ECHO).start()
}

/// Sends a request and compares the variables the handler was given.
fn check(request: impl FnOnce(&Server) -> Request, wanted: &Value) {
    let server = echo();
    let reply = request(&server).send();
    assert_eq!((reply.status, &reply.json()), (200, wanted));
}

#[test]
fn members_of_a_json_object_keep_their_types() {
    let body = json!({"s": "ä", "i": 1, "f": 2.5, "b": true, "n": null, "l": [1, {"x": 2}], "d": {"k": "v"}});
    check(|server| server.post("/echo").json(&body), &body);
}

#[test]
fn a_json_type_with_parameters_or_a_suffix_is_json() {
    let body = json!({"a": 1});
    let typed = |kind: &'static str| {
        let text = body.to_string();
        move |server: &Server| server.post("/echo").body(kind, text)
    };
    check(typed("application/json; charset=utf-8"), &body);
    check(typed("Application/JSON"), &body);
}

#[test]
fn fields_of_an_urlencoded_form() {
    check(
        |server| server.post("/echo").form("a=1&b=x+y%26z&c=%C3%A4&empty=&flag"),
        &json!({"a": "1", "b": "x y&z", "c": "ä", "empty": "", "flag": ""}),
    );
}

fn multipart(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut body = String::new();
    for (disposition, value) in parts {
        body +=
            &format!("--XyZ\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n");
    }
    (body + "--XyZ--\r\n").into_bytes()
}

const MULTIPART: &str = "multipart/form-data; boundary=XyZ";

#[test]
fn fields_of_a_multipart_form() {
    let body = multipart(&[("name=\"a\"", "1"), ("name=\"b\"", "line\r\nline ä")]);
    check(
        |server| server.post("/echo").body(MULTIPART, body),
        &json!({"a": "1", "b": "line\r\nline ä"}),
    );
}

#[test]
fn a_file_in_a_multipart_form_does_not_hide_its_fields() {
    let server = echo();
    let body = multipart(&[("name=\"f\"; filename=\"x.bin\"", "\u{1}\u{2}"), ("name=\"a\"", "1")]);
    let reply = server.post("/echo").body(MULTIPART, body).send();
    assert_eq!((reply.status, &reply.json()["a"]), (200, &json!("1")));
}

#[test]
fn query_variables_are_decoded_texts() {
    check(
        |server| server.request("GET", "/echo?a=1&b=x+y&c=%C3%A4%26&d=a%2Bb&e"),
        &json!({"a": "1", "b": "x y", "c": "ä&", "d": "a+b", "e": ""}),
    );
}

#[test]
fn the_first_of_repeated_variables_counts() {
    check(|server| server.request("GET", "/echo?a=1&a=2&a=3"), &json!({"a": "1"}));
    check(|server| server.post("/echo").form("a=1&a=2"), &json!({"a": "1"}));
    let body = multipart(&[("name=\"a\"", "1"), ("name=\"a\"", "2")]);
    check(|server| server.post("/echo").body(MULTIPART, body), &json!({"a": "1"}));
}

#[test]
fn query_variables_win_over_the_body() {
    let both = json!({"a": "query", "b": "body"});
    let body = json!({"a": "body", "b": "body"});
    check(|server| server.post("/echo?a=query").json(&body), &both);
    check(|server| server.post("/echo?a=query").form("a=body&b=body"), &both);
    let parts = multipart(&[("name=\"a\"", "body"), ("name=\"b\"", "body")]);
    check(|server| server.post("/echo?a=query").body(MULTIPART, parts), &both);
}

#[test]
fn a_post_without_a_body_has_no_variables_but_those_of_its_query() {
    check(|server| server.post("/echo?x=1"), &json!({"x": "1"}));
}

#[test]
fn a_json_body_that_is_no_object_adds_no_variables() {
    check(|server| server.post("/echo?x=1").json(&json!([1, 2])), &json!({"x": "1"}));
    check(|server| server.post("/echo?x=1").json(&json!("text")), &json!({"x": "1"}));
}

/// A body that is not what its type says: 400 in JSON, and the plugin is not asked.
fn check_refused(kind: &str, body: impl Into<Vec<u8>>) {
    let server = Setup::new().handler("Echo", "self.log('was asked')\nreturn {}").start();
    let _ = server.post("/echo").body(kind, body).send().json_error(400);
    assert!(!server.stop().stderr.contains("was asked"), "{kind}");
}

#[test]
fn json_that_is_none_is_refused() {
    for body in ["{", "{\"a\":1", "nonsense", "{'a': 1}", "{\"a\":1} trailing"] {
        check_refused("application/json", body);
    }
}

#[test]
fn json_that_is_no_utf8_is_refused() {
    check_refused("application/json", b"{\"a\": \"\xff\xfe\"}".to_vec());
}

#[test]
fn json_nested_without_end_is_refused_or_served_but_never_a_crash() {
    let server = echo();
    let reply = server.post("/echo").body("application/json", "[".repeat(200_000)).send();
    let _ = reply.json_error(400);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let reply = server.post("/echo").body("application/json", deep).send();
    assert!(matches!(reply.status, 200 | 400), "{}", reply.status);
    assert_eq!(server.get_json("/echo?x=1"), json!({"x": "1"}));
}

#[test]
fn a_multipart_body_without_its_boundary_is_refused() {
    check_refused(MULTIPART, "no boundary anywhere");
    check_refused("multipart/form-data", "--a\r\n\r\n--a--");
    check_refused(MULTIPART, "--XyZ\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\ncut o");
}

#[test]
fn a_body_of_another_type_is_left_to_the_handler() {
    let server = Setup::new()
        .async_handler(
            "Raw",
            "body = await data['request'].read()\nreturn {'n': len(body), 'first': body[0]}",
        )
        .start();
    let reply = server.post("/raw").body("application/octet-stream", vec![200; 70_000]).send();
    assert_eq!((reply.status, reply.json()), (200, json!({"n": 70_000, "first": 200})));
}

#[test]
fn the_subpath_is_none_or_empty_or_decoded() {
    let server = Setup::new().handler("Sub", "return {'v': data['subpath']}").start();
    let subpath = |path: &str| server.get_json(path)["v"].clone();
    assert_eq!(subpath("/sub"), Value::Null);
    assert_eq!(subpath("/sub?x=1"), Value::Null);
    assert_eq!(subpath("/sub/"), json!(""));
    assert_eq!(subpath("/sub/a"), json!("a"));
    assert_eq!(subpath("/sub/a/b/"), json!("a/b/"));
    assert_eq!(subpath("/sub/a%20b/%C3%A4"), json!("a b/ä"));
    assert_eq!(subpath("/sub/a%2Fb"), json!("a/b"));
    assert_eq!(subpath("/sub/a+b"), json!("a+b"));
    assert_eq!(subpath("/sub/x?y=/z"), json!("x"));
    let _ = server.get("/subs").json_error(404);
}

const HEADERS: &str = r#"
headers = data['request_headers']
return {'item': headers['x-thing'], 'get': headers.get('X-THING'), 'in': 'X-thing' in headers,
        'missing': headers.get('X-Missing', 'none'), 'names': [name.lower() for name in headers],
        'items': {k.lower(): v for k, v in headers.items()}.get('x-thing'), 'dict': len(dict(headers)) > 0}
"#;

#[test]
fn the_headers_are_a_dictionary_without_case() {
    let server = Setup::new().handler("Head", HEADERS).start();
    let reply = server.request("GET", "/head").header("X-Thing", "value").send();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let seen = reply.json();
    assert_eq!(seen["item"], "value");
    assert_eq!(seen["get"], "value");
    assert_eq!(seen["in"], true);
    assert_eq!(seen["missing"], "none");
    assert_eq!(seen["items"], "value");
    assert_eq!(seen["dict"], true);
    assert!(seen["names"].as_array().unwrap().contains(&json!("x-thing")));
}

/// Says whether everything the server itself puts into `data` is still what it should be.
const RESERVED: &str = r#"
request = data['request']
data['log']('still a log')
return {'method': request.method, 'headers': data['request_headers'].get('x-thing'),
        'ip': data['client_ip'], 'subpath': data['subpath'], 'data': data.get('data'), 'args': data.get('args'),
        'own': [self.args is not None, callable(self.log), self.config is not None], 'other': data.get('other')}
"#;

#[test]
fn variables_with_the_names_of_the_servers_own_break_nothing() {
    let server = Setup::new().handler("Res", RESERVED).start();
    let names = [
        "self",
        "request",
        "log",
        "subpath",
        "client_ip",
        "request_headers",
        "data",
        "args",
        "other",
    ];
    let pairs: Vec<_> = names.iter().map(|name| format!("{name}=evil")).collect();
    let pairs = pairs.join("&");
    let members: serde_json::Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), json!("evil"))).collect();
    let requests = [
        ("GET", server.request("GET", &format!("/res?{pairs}"))),
        ("POST", server.post("/res").form(&pairs)),
        ("POST", server.post("/res").json(&Value::Object(members))),
    ];
    for (method, request) in requests {
        let reply = request.header("X-Thing", "true one").send();
        assert_eq!(reply.status, 200, "{}", reply.text());
        let wanted = json!({
            "method": method, "headers": "true one", "ip": "127.0.0.1", "subpath": null,
            "data": "evil", "args": "evil", "own": [true, true, true], "other": "evil",
        });
        assert_eq!(reply.json(), wanted);
    }
}

#[test]
fn names_that_are_no_identifiers_are_variables_too() {
    check(
        |server| {
            server.post("/echo?class=1&a-b=2&=3x").json(&json!({"1": 1, "for": 2, "": 3, "ä b": 4}))
        },
        &json!({"class": "1", "a-b": "2", "": "3x", "1": 1, "for": 2, "ä b": 4}),
    );
}

#[test]
fn a_handler_may_name_the_variables_it_wants() {
    let code = "class Named(BasePlugin):\n    def request_handler(self, name='nobody', *, subpath=None, **rest):\n        return {'name': name, 'subpath': subpath}\n";
    let server = Setup::new().plugin("named.py", code).start();
    assert_eq!(server.get_json("/named/x?name=ann"), json!({"name": "ann", "subpath": "x"}));
    assert_eq!(server.get_json("/named"), json!({"name": "nobody", "subpath": null}));
}

/// Asks with this X-Forwarded-For and compares the address the handler is told, in both places.
fn check_address(proxies: Option<&str>, forwarded: Option<&str>, wanted: &str) {
    let body = "return {'ip': data['client_ip'], 'remote': data['request'].remote}";
    let mut setup = Setup::new().handler("Who", body);
    if let Some(proxies) = proxies {
        setup = setup.set("network", "trusted_proxies", proxies);
    }
    let server = setup.start();
    let mut request = server.request("GET", "/who");
    if let Some(forwarded) = forwarded {
        request = request.header("X-Forwarded-For", forwarded);
    }
    let reply = request.send();
    assert_eq!(reply.json(), json!({"ip": wanted, "remote": wanted}), "{proxies:?} {forwarded:?}");
}

#[test]
fn a_forwarded_address_counts_from_a_trusted_proxy_alone() {
    check_address(None, None, "127.0.0.1");
    check_address(None, Some("203.0.113.7"), "127.0.0.1");
    check_address(Some("10.0.0.0/8"), Some("203.0.113.7"), "127.0.0.1");
    check_address(Some("127.0.0.1"), Some("203.0.113.7"), "203.0.113.7");
    check_address(Some("127.0.0.0/8"), Some("2001:db8::1"), "2001:db8::1");
    check_address(Some("127.0.0.1"), None, "127.0.0.1");
}

#[test]
fn what_a_client_claims_before_the_proxies_is_not_believed() {
    check_address(Some("127.0.0.1"), Some("198.51.100.1, 203.0.113.7"), "203.0.113.7");
    check_address(
        Some("list:127.0.0.1 10.0.0.0/8"),
        Some("198.51.100.1, 203.0.113.7, 10.1.2.3"),
        "203.0.113.7",
    );
    check_address(Some("127.0.0.1"), Some("not an address"), "127.0.0.1");
}
