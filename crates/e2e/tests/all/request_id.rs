//! The name that each request gets: in its answer, and in its line of the log.

use std::collections::BTreeSet;

use e2e::{Request, Server, Setup};

fn server() -> Server {
    Setup::new()
        .handler("Fine", "return {}")
        .handler("Empty", "return (204, '')")
        .handler("Failing", "raise ValueError('x')")
        .async_handler("Piecewise", "yield 'a'")
        .handler("Safe", "return {}")
        .parameters("safe", "auth_type=plugin&apikey=k")
        .set("limits", "body_bytes_max", "1000")
        .set("log", "access", "all")
        .set("paths", "documents", "docs:{dir}/www")
        .file("www/a.txt", "text")
        .start()
}

/// The answer has this status and a name that the request's line in the log has as well.
fn check(server: &Server, request: Request, status: u16) -> String {
    let said = format!("{request:?}");
    let reply = request.send();
    assert_eq!(reply.status, status, "{said}");
    let ids = reply.all("x-request-id");
    assert_eq!(ids.len(), 1, "{said}: {:?}", reply.headers);
    let id = ids[0].to_owned();
    assert!(id.len() >= 8, "{id:?}");
    let _ = server.log().wait_for(&["access", &id, &format!("status={status}")]);
    id
}

#[test]
fn every_answer_has_a_name_of_its_own_that_stands_in_the_log() {
    let server = server();
    let long = "x".repeat(2000);
    let requests = [
        (server.request("GET", "/fine"), 200),
        (server.request("GET", "/fine"), 200),
        (server.post("/fine").form("a=1"), 200),
        (server.request("HEAD", "/fine"), 200),
        (server.request("GET", "/empty"), 204),
        (server.request("GET", "/piecewise"), 200),
        (server.request("GET", "/docs/a.txt"), 200),
        (server.request("GET", "/docs/none.txt"), 404),
        (server.request("GET", "/systeminfo/uptime"), 200),
        (server.request("GET", "/plugins"), 200),
        (server.request("GET", "/reload/nothing"), 404),
        (server.request("GET", "/nothing"), 404),
        (server.request("GET", "/"), 404),
        (server.request("DELETE", "/fine"), 405),
        (server.request("GET", "/safe"), 403),
        (server.post("/fine").body("application/json", "{"), 400),
        (server.post("/fine").form(&long), 413),
        (server.request("GET", "/failing"), 500),
    ];
    let count = requests.len();
    let ids: BTreeSet<_> =
        requests.into_iter().map(|(request, status)| check(&server, request, status)).collect();
    assert_eq!(ids.len(), count, "{ids:?}");
}

#[test]
fn a_name_that_the_client_sends_is_not_taken_over() {
    let server = server();
    let id =
        check(&server, server.request("GET", "/fine").header("X-Request-Id", "chosen-one"), 200);
    assert_ne!(id, "chosen-one");
}
