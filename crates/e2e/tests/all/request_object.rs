//! The `request` object, as far as the specification promises it.

use e2e::{Request, Server, Setup};
use serde_json::{Value, json};

/// Evaluates one expression in an async handler and compares its value.
fn check(expression: &str, request: impl FnOnce(&Server) -> Request, wanted: &Value) {
    let body = format!("request = data['request']\nreturn {{'v': {expression}}}");
    let server = Setup::new().async_handler("Req", &body).start();
    let reply = request(&server).send();
    assert_eq!(reply.status, 200, "{expression}: {}", reply.text());
    assert_eq!(reply.json()["v"], *wanted, "{expression}");
}

fn get(path: &'static str) -> impl FnOnce(&Server) -> Request {
    move |server| server.request("GET", path)
}

#[test]
fn it_knows_method_and_path() {
    check(
        "[request.method, request.path, request.path_qs]",
        get("/req/x?a=1&b=%20"),
        &json!(["GET", "/req/x", "/req/x?a=1&b=%20"]),
    );
    check("request.method", |server| server.post("/req"), &json!("POST"));
}

#[test]
fn it_knows_the_query() {
    check(
        "[request.query['a'], request.query.get('b'), request.query.get('c', 'none'), 'a' in request.query, dict(request.query)['b']]",
        get("/req?a=1&a=2&b=x+y"),
        &json!(["1", "x y", "none", true, "x y"]),
    );
}

#[test]
fn it_knows_the_headers_without_case() {
    check(
        "[request.headers['x-a'], request.headers.get('X-A'), 'x-A' in request.headers]",
        |server| server.request("GET", "/req").header("X-a", "1"),
        &json!(["1", "1", true]),
    );
}

#[test]
fn it_knows_the_cookies() {
    check(
        "[request.cookies['a'], request.cookies.get('b'), request.cookies.get('c')]",
        |server| server.request("GET", "/req").header("Cookie", "a=1; b=two"),
        &json!(["1", "two", null]),
    );
    check("len(request.cookies)", get("/req"), &json!(0));
}

#[test]
fn a_cookie_that_is_none_breaks_nothing() {
    check(
        "request.method",
        |server| server.request("GET", "/req").header("Cookie", "=;;a=\"; b@d=1; x"),
        &json!("GET"),
    );
}

#[test]
fn it_knows_who_asks() {
    check(
        "[request.remote, request.transport.get_extra_info('peername')[0], isinstance(request.transport.get_extra_info('peername')[1], int), request.transport.get_extra_info('nothing')]",
        get("/req"),
        &json!(["127.0.0.1", "127.0.0.1", true, null]),
    );
}

#[test]
fn it_knows_the_type_of_the_body() {
    check(
        "request.content_type",
        |server| server.post("/req").body("application/json; charset=utf-8", "{}"),
        &json!("application/json"),
    );
    check(
        "request.content_type",
        |server| server.post("/req").form("a=1"),
        &json!("application/x-www-form-urlencoded"),
    );
}

#[test]
fn it_reads_the_body_as_often_as_asked() {
    check(
        "[await request.text(), (await request.read()).decode(), await request.json()]",
        |server| server.post("/req").json(&json!({"a": "ä"})),
        &json!(["{\"a\":\"ä\"}", "{\"a\":\"ä\"}", {"a": "ä"}]),
    );
}

#[test]
fn it_reads_json_that_is_no_object() {
    check(
        "await request.json()",
        |server| server.post("/req").json(&json!([1, 2])),
        &json!([1, 2]),
    );
}

#[test]
fn it_reads_a_form() {
    check(
        "[(await request.post())['a'], (await request.post()).get('b')]",
        |server| server.post("/req").form("a=1&b=x+y"),
        &json!(["1", "x y"]),
    );
    let body = "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\n--B--\r\n";
    check(
        "(await request.post())['a']",
        |server| server.post("/req").body("multipart/form-data; boundary=B", body),
        &json!("one"),
    );
}

#[test]
fn an_empty_body_reads_as_empty() {
    check("[await request.text(), len(await request.read())]", get("/req"), &json!(["", 0]));
}
