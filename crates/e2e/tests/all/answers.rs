//! What a handler returns, and what the client gets for it.

use e2e::{Reply, Server, Setup};
use serde_json::{Value, json};

/// The answer of one handler, with a body of statements.
fn answer(statements: &str) -> (Server, Reply) {
    let server = Setup::new().handler("Give", statements).start();
    let reply = server.get("/give");
    (server, reply)
}

fn check_json(statements: &str, status: u16, body: &Value) {
    let (_server, reply) = answer(statements);
    assert_eq!((reply.status, &reply.json()), (status, body), "{statements}");
    let kind = reply.header("content-type").unwrap();
    assert!(kind.starts_with("application/json"), "{statements}: {kind}");
}

fn check_text(statements: &str, status: u16, kind: &str, body: &str) {
    let (_server, reply) = answer(statements);
    assert_eq!((reply.status, reply.text().as_str()), (status, body), "{statements}");
    let found = reply.header("content-type").unwrap_or_default();
    assert!(found.starts_with(kind), "{statements}: {found}");
}

/// A handler that fails: 500 in JSON without where and how, which is in the log and nowhere else.
fn check_failure(statements: &str, in_log: &[&str]) {
    let (server, reply) = answer(statements);
    let _ = reply.json_error(500);
    assert!(!reply.text().contains("Traceback"), "{}", reply.text());
    assert!(!reply.text().contains(".py"), "{}", reply.text());
    for part in in_log {
        let _ = server.log().wait_for(&[part]);
    }
    assert_eq!(server.get("/give").status, 500, "it goes on answering");
}

#[test]
fn a_code_and_a_dictionary() {
    check_json(
        "return (201, {'a': [1, 2.5, None, True, 'ä']})",
        201,
        &json!({"a": [1, 2.5, null, true, "ä"]}),
    );
}

#[test]
fn a_code_of_failure_is_passed_on() {
    check_json("return (404, {'why': 'not here'})", 404, &json!({"why": "not here"}));
    check_json("return 503, {'why': 'later'}", 503, &json!({"why": "later"}));
}

#[test]
fn a_bare_dictionary_is_200() {
    check_json("return {'a': 1}", 200, &json!({"a": 1}));
}

#[test]
fn a_bare_list_is_200_even_when_it_looks_like_a_code_and_a_body() {
    check_json("return [1, 'two', {'three': 3}]", 200, &json!([1, "two", {"three": 3}]));
    check_json("return [404, {'x': 1}]", 200, &json!([404, {"x": 1}]));
}

#[test]
fn a_list_with_a_code() {
    check_json("return (200, ['a', 'b'])", 200, &json!(["a", "b"]));
}

#[test]
fn a_text_is_html() {
    check_text("return (200, '<h1>ünï</h1>')", 200, "text/html", "<h1>ünï</h1>");
    check_text("return '<p>bare</p>'", 200, "text/html", "<p>bare</p>");
}

#[test]
fn a_text_that_is_json_stays_as_it_is() {
    let text = r#"{"b":  1, "a":[1,2 ]}"#;
    let (_server, reply) = answer(&format!("return (200, '{text}')"));
    assert_eq!((reply.status, reply.text().as_str()), (200, text));
}

#[test]
fn json_by_the_plugins_own_hand() {
    let (_server, reply) = answer("import json\nreturn 202, json.dumps({'x': 'y'})");
    assert_eq!((reply.status, reply.json()), (202, json!({"x": "y"})));
}

#[test]
fn bytes_arrive_as_they_are() {
    let (_server, reply) = answer("return (200, bytes(range(256)) * 40)");
    let wanted: Vec<u8> = (0..40).flat_map(|_| 0..=255).collect();
    assert_eq!((reply.status, reply.body), (200, wanted));
}

#[test]
fn empty_bodies_are_empty() {
    check_text("return (200, '')", 200, "", "");
    check_text("return (200, b'')", 200, "", "");
    check_text("return (204, '')", 204, "", "");
    check_json("return {}", 200, &json!({}));
    check_json("return []", 200, &json!([]));
}

#[test]
fn a_large_answer_arrives_whole() {
    let (_server, reply) = answer("return (200, {'big': 'x' * 20_000_000})");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["big"].as_str().map(str::len), Some(20_000_000));
}

#[test]
fn what_cannot_be_serialised_is_a_500_without_traceback() {
    check_failure("return (200, {'x': object()})", &["give", "type object"]);
}

#[test]
fn an_exception_is_a_500_without_traceback() {
    check_failure(
        "raise KeyError('the-secret-detail')",
        &["give", "the-secret-detail", "Traceback"],
    );
}

#[test]
fn a_recursion_without_end_is_a_500() {
    check_failure("f = lambda n: f(n + 1)\nreturn f(0)", &["RecursionError", "Traceback"]);
}

#[test]
fn a_dictionary_that_contains_itself_is_a_500() {
    let (_server, reply) = answer("x = {}\nx['x'] = x\nreturn x");
    let _ = reply.json_error(500);
}

#[test]
fn a_code_that_is_none_is_a_500() {
    for code in ["99", "1000", "-5", "0"] {
        let (_server, reply) = answer(&format!("return ({code}, {{'x': 1}})"));
        let status = reply.status;
        assert_eq!(status, 500, "{code}: {}", reply.text());
        assert!(reply.json()["error"].is_string());
    }
}

#[test]
fn what_is_no_number_in_json_never_makes_invalid_json() {
    let (_server, reply) = answer("return {'x': float('nan'), 'y': float('inf')}");
    let _ = reply.json();
}

#[test]
fn half_a_surrogate_does_not_break_the_connection() {
    let (server, reply) = answer("return {'x': '\\ud800'}");
    assert!(reply.status == 200 || reply.status == 500, "{}", reply.status);
    let reply = server.get("/give");
    assert!(reply.status == 200 || reply.status == 500, "{}", reply.status);
}

#[test]
fn an_aiohttp_response_keeps_status_headers_and_body() {
    let body = r#"
from aiohttp import web
kind = data.get('kind')
if kind == 'json':
    return web.json_response({'tea': True}, status=202)
if kind == 'pair':
    return (200, web.Response(status=418, text='inside a pair'))
if kind == 'bytes':
    return web.Response(body=b'\x00\x01\xff', content_type='application/x-odd')
reply = web.Response(status=418, text='tée', headers={'X-One': '1'}, content_type='text/plain')
reply.set_cookie('a', '1')
reply.set_cookie('b', '2')
return reply
"#;
    let server = Setup::new().with_python_packages().async_handler("Give", body).start();
    let reply = server.get("/give");
    assert_eq!((reply.status, reply.text().as_str()), (418, "tée"));
    assert_eq!(reply.header("x-one"), Some("1"));
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    let cookies = reply.all("set-cookie");
    assert_eq!(cookies.len(), 2, "{cookies:?}");
    assert!(cookies[0].starts_with("a=1") && cookies[1].starts_with("b=2"), "{cookies:?}");
    let reply = server.get("/give?kind=json");
    assert_eq!((reply.status, reply.json()), (202, json!({"tea": true})));
    assert!(reply.header("content-type").unwrap().starts_with("application/json"));
    let reply = server.get("/give?kind=pair");
    assert_eq!((reply.status, reply.text().as_str()), (418, "inside a pair"));
    let reply = server.get("/give?kind=bytes");
    assert_eq!((reply.status, reply.body.as_slice()), (200, [0u8, 1, 255].as_slice()));
    assert_eq!(reply.header("content-type"), Some("application/x-odd"));
}

#[test]
fn a_raised_aiohttp_answer_is_an_answer_or_an_error_but_no_hang() {
    let body = "from aiohttp import web\nraise web.HTTPNotFound(text='raised')";
    let server = Setup::new().with_python_packages().async_handler("Give", body).start();
    let reply = server.get("/give");
    assert!(reply.status == 404 || reply.status == 500, "{}", reply.status);
}

#[test]
fn the_servers_own_response_sets_headers_and_cookies() {
    let body = "from plugincore import Response\nif data.get('short'):\n    return Response(202, {'s': 1})\n\
                return Response(status=201, body={'a': 1}, headers={'X-Made': 'here', 'Cache-Control': 'no-store'}, cookies={'id': 'v1'})";
    let (server, reply) = answer(body);
    assert_eq!((reply.status, reply.json()), (201, json!({"a": 1})));
    assert_eq!(reply.header("x-made"), Some("here"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert!(reply.header("set-cookie").unwrap().starts_with("id=v1"));
    let reply = server.get("/give?short=1");
    assert_eq!((reply.status, reply.json()), (202, json!({"s": 1})));
}

#[test]
fn the_servers_own_response_chooses_the_type_of_its_body() {
    let body = "from plugincore import Response\nreturn Response(status=200, body='a,b', headers={'Content-Type': 'text/csv'})";
    let (_server, reply) = answer(body);
    assert_eq!(reply.text(), "a,b");
    assert_eq!(reply.all("content-type").len(), 1);
    assert!(reply.header("content-type").unwrap().starts_with("text/csv"));
}

#[test]
fn a_header_with_a_line_break_cannot_split_the_answer() {
    let body = "from plugincore import Response\nreturn Response(status=200, body='x', headers={'X-Bad': 'a\\r\\nX-Evil: 1'})";
    let (_server, reply) = answer(body);
    assert_eq!(reply.header("x-evil"), None);
    assert!(reply.status == 200 || reply.status == 500, "{}", reply.status);
}

#[test]
fn headers_of_the_transport_are_not_the_plugins() {
    let body = "from plugincore import Response\nreturn Response(status=200, body='four', headers={'Content-Length': '1', 'Transfer-Encoding': 'chunked', 'Connection': 'upgrade'})";
    let (server, reply) = answer(body);
    assert!(reply.status == 500 || reply.text() == "four", "{} {}", reply.status, reply.text());
    let _ = server.get("/give");
}

#[test]
fn a_204_has_no_body_whatever_the_plugin_gives() {
    for body in ["{}", "{'a': 1}", "[]", "''", "'text'", "b'bytes'"] {
        let server = Setup::new().handler("Give", &format!("return (204, {body})")).start();
        let mut connection = server.connect();
        for _ in 0..3 {
            connection.write("GET /give HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let reply = connection.read_reply();
            assert_eq!(reply.status, 204, "{body}");
            for name in ["content-type", "content-length", "transfer-encoding"] {
                assert_eq!(reply.header(name), None, "{body}");
            }
        }
        connection.write("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let _ = connection.read_reply().json_error(404);
    }
}

#[test]
fn a_code_that_ends_no_answer_is_a_500() {
    for code in ["100", "101", "103", "199"] {
        for statements in [
            format!("return ({code}, {{'x': 1}})"),
            format!("from plugincore import Response\nreturn Response(status={code}, body='x')"),
        ] {
            let (server, reply) = answer(&statements);
            let _ = reply.json_error(500);
            let _ = server.get("/give").json_error(500);
        }
    }
}
