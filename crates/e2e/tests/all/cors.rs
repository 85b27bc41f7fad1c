//! Pages of other origins: who may ask, and what browsers are told.

use e2e::{Reply, Server, Setup};

const LISTED: [&str; 2] = ["https://a.example", "http://b.example:8080"];
const FOREIGN: [&str; 6] = [
    "https://evil.example",
    "http://a.example",
    "https://a.example:444",
    "https://a.example.evil.com",
    "https://xa.example",
    "null",
];

fn server() -> Server {
    Setup::new()
        .set("cors", "enabled", "bool:true")
        .set("cors", "origin_url", &format!("list:{} {}", LISTED[0], LISTED[1]))
        .handler("Open", "return {'ok': True}")
        .handler("Bad", "raise ValueError")
        .handler("Safe", "return {}")
        .parameters("safe", "auth_type=plugin&apikey=k")
        .set("limits", "body_bytes_max", "100")
        .start()
}

fn varies(reply: &Reply) -> bool {
    reply.all("vary").iter().any(|value| value.to_lowercase().contains("origin"))
}

fn check_allowed(reply: &Reply, origin: &str) {
    assert_eq!(reply.all("access-control-allow-origin"), [origin]);
    assert_eq!(reply.all("access-control-allow-credentials"), ["true"]);
    assert!(varies(reply), "no Vary");
}

fn check_foreign(reply: &Reply) {
    let names = reply.headers.iter().map(|(name, _)| name.to_lowercase());
    let told: Vec<_> = names.filter(|name| name.starts_with("access-control-")).collect();
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn a_request_of_a_listed_origin_is_answered_with_it() {
    let server = server();
    for origin in LISTED {
        for method in ["GET", "POST"] {
            let reply = server.request(method, "/open").header("Origin", origin).send();
            assert_eq!(reply.status, 200);
            check_allowed(&reply, origin);
        }
    }
}

#[test]
fn a_foreign_origin_is_told_nothing() {
    let server = server();
    for origin in FOREIGN {
        let reply = server.request("GET", "/open").header("Origin", origin).send();
        check_foreign(&reply);
        let reply = server
            .request("OPTIONS", "/open")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "GET")
            .send();
        assert_eq!(reply.status, 403, "{origin}");
        check_foreign(&reply);
    }
}

#[test]
fn an_answer_may_be_cached_for_its_origin_only() {
    let server = server();
    assert!(varies(&server.get("/open")), "an answer without Origin is cached for those with one");
    assert!(varies(&server.request("GET", "/open").header("Origin", FOREIGN[0]).send()));
}

#[test]
fn a_preflight_of_a_listed_origin_is_told_what_is_open() {
    let server = server();
    for path in ["/open", "/open/deep", "/safe", "/plugins", "/reload/all"] {
        let reply = server
            .request("OPTIONS", path)
            .header("Origin", LISTED[0])
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "content-type, x-custom-auth")
            .send();
        assert!(matches!(reply.status, 200 | 204), "{path}: {}", reply.status);
        check_allowed(&reply, LISTED[0]);
        assert_eq!(reply.header("access-control-max-age"), Some("3600"));
        let methods = reply.header("access-control-allow-methods").unwrap();
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
            assert!(methods.contains(method), "{methods}");
        }
        let headers = reply.header("access-control-allow-headers").unwrap().to_lowercase();
        for name in ["content-type", "authorization", "x-requested-with", "x-custom-auth", "accept"]
        {
            assert!(headers.contains(name), "{headers}");
        }
    }
}

#[test]
fn errors_carry_the_headers_too() {
    let server = server();
    for (path, status) in [("/nothing", 404), ("/bad", 500), ("/safe", 403)] {
        let reply = server.request("GET", path).header("Origin", LISTED[0]).send();
        assert_eq!(reply.status, status);
        check_allowed(&reply, LISTED[0]);
    }
    let reply = server.request("PUT", "/open").header("Origin", LISTED[0]).send();
    assert_eq!(reply.status, 405);
    check_allowed(&reply, LISTED[0]);
    let reply =
        server.post("/open").header("Origin", LISTED[0]).body("application/json", "{").send();
    assert_eq!(reply.status, 400);
    check_allowed(&reply, LISTED[0]);
    let reply = server.post("/open").header("Origin", LISTED[0]).form(&"x".repeat(200)).send();
    assert_eq!(reply.status, 413);
    check_allowed(&reply, LISTED[0]);
}

#[test]
fn one_origin_needs_no_list() {
    let server = Setup::new()
        .set("cors", "enabled", "true")
        .set("cors", "origin_url", LISTED[0])
        .handler("Open", "return {}")
        .start();
    check_allowed(&server.request("GET", "/open").header("Origin", LISTED[0]).send(), LISTED[0]);
    check_foreign(&server.request("GET", "/open").header("Origin", LISTED[1]).send());
}

#[test]
fn what_is_not_enabled_is_off() {
    for enabled in [Some("bool:false"), Some("false"), None] {
        let mut setup =
            Setup::new().set("cors", "origin_url", LISTED[0]).handler("Open", "return {}");
        if let Some(enabled) = enabled {
            setup = setup.set("cors", "enabled", enabled);
        }
        let reply = setup.start().request("GET", "/open").header("Origin", LISTED[0]).send();
        assert_eq!(reply.status, 200);
        check_foreign(&reply);
    }
}

#[test]
fn changed_origins_are_in_force_after_a_reload() {
    let mut server = server();
    server.configure(|setup| setup.set("cors", "origin_url", "https://new.example"));
    server.reload_all();
    check_foreign(&server.request("GET", "/open").header("Origin", LISTED[0]).send());
    let reply = server.request("GET", "/open").header("Origin", "https://new.example").send();
    check_allowed(&reply, "https://new.example");
}
