//! Who may ask for machines, and whose they are.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use e2e::lending::{Ends, id, port, text};
use e2e::{Caller, Connection, Dispatch, Exit, Lending, Reply, Setup, Signal, program, run};
use serde_json::json;

const WHOLE: &str = "/machines";

fn token(setup: &Setup, file: &std::path::Path) -> String {
    let exit = access_token(setup.path(), &["add", "-i", file.to_str().unwrap(), "--json"]);
    token_of(&exit)
}

fn access_token(directory: &std::path::Path, arguments: &[&str]) -> Exit {
    let arguments = [&["access-token"], arguments].concat();
    let exit = run(&program(), &arguments, directory);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    exit
}

/// The token in what `access-token add` printed, however it is told.
fn token_of(exit: &Exit) -> String {
    let is_one = |word: &&str| {
        word.len() == 124
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let mut words = exit.stdout.split(|c: char| c.is_whitespace() || "\":,{}".contains(c));
    words.find(is_one).unwrap_or_else(|| panic!("no token in {exit:?}")).to_owned()
}

fn asked(lending: &Lending, method: &str, path: &str, bearer: &str) -> Reply {
    lending.request(method, path).header("authorization", format!("Bearer {bearer}")).send()
}

/// An address of this computer that is not loopback, if it has one.
fn elsewhere() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the system only chooses by which address it would be.
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[test]
fn without_any_credential_configured_this_computer_alone_may_ask() {
    let lending = Lending::start_in(Lending::setup().set("network", "bindto", "0.0.0.0"));
    assert_eq!(lending.get(WHOLE).status, 200);
    // A page of somebody else's, which a browser on this computer shows.
    for (name, value) in [("host", "lab.example"), ("origin", "https://lab.example")] {
        let _ = lending.post(WHOLE).header(name, value).send().refused(401);
    }
    let Some(ip) = elsewhere() else { return };
    let mut connection = Connection::open((ip, lending.address().port()).into());
    for line in ["GET /machines", "POST /machines", "GET /images", "DELETE /machines/0000"] {
        connection.write(format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
        let _ = connection.read_reply().refused(401);
    }
}

#[test]
fn with_the_global_key_only_its_holder_may_ask() {
    let lending = Lending::start_in(Lending::setup().set("auth", "apikey", "global-secret"));
    let _ = lending.get(WHOLE).refused(401);
    let _ = lending.post(WHOLE).send().refused(401);
    let _ = asked(&lending, "GET", WHOLE, "other").refused(401);
    assert_eq!(asked(&lending, "GET", WHOLE, "global-secret").status, 200);
}

#[test]
fn access_tokens_have_machines_of_their_own_and_no_more_than_their_quota() {
    let setup = Lending::setup().set("containers", "quota", "1").set(
        "containers.access_token",
        "enabled",
        "true",
    );
    let file = setup.write_configuration("gatehouse.ini");
    let first = token(&setup, &file);
    let lending = Lending::start_in(setup);
    // One that is made while the server runs works at once.
    let added = access_token(&lending.path(""), &["add", "-i", file.to_str().unwrap(), "--json"]);
    let second = token_of(&added);
    let _ = lending.get(WHOLE).refused(401);
    let _ = lending.post(WHOLE).send().refused(401);
    let _ = asked(&lending, "POST", WHOLE, &"x".repeat(124)).refused(401);
    let reply = asked(&lending, "POST", WHOLE, &first);
    assert_eq!(reply.status, 201, "{}", reply.text());
    let lent = reply.json();
    let said = asked(&lending, "POST", WHOLE, &first).refused(429);
    assert!(said.contains('1'), "{said}");
    assert!(lending.enter(&lent).is_some());

    let path = format!("/machines/{}", id(&lent));
    for method in ["GET", "DELETE"] {
        let _ = asked(&lending, method, &path, &second).refused(404);
    }
    let _ = asked(&lending, "GET", &format!("{path}/console"), &second).refused(404);
    assert_eq!(asked(&lending, "GET", WHOLE, &second).ok()["machines"], json!([]));
    assert_eq!(asked(&lending, "POST", WHOLE, &second).status, 201, "a quota is one token's");
    assert_eq!(asked(&lending, "GET", WHOLE, &first).ok()["machines"].as_array().unwrap().len(), 1);

    let _ = access_token(&lending.path(""), &["disable", "1", "-i", file.to_str().unwrap()]);
    let _ = asked(&lending, "GET", WHOLE, &first).refused(401);
    let _ = access_token(&lending.path(""), &["enable", "1", "-i", file.to_str().unwrap()]);
    assert_eq!(asked(&lending, "DELETE", &path, &first).ok(), json!({}));
    let log = lending.log().so_far();
    for secret in [&first, &second, &text(&lent["password"]), &text(&lent["token"])] {
        assert!(!log.contains(secret.as_str()), "a secret is in the log");
    }
}

#[test]
fn with_accounts_nobody_asks_without_one_and_admins_see_all() {
    let setup = Lending::setup();
    let _ends = Ends::of(&setup);
    let server = Dispatch::serve(setup);
    let _ = server.get(WHOLE).refused(401);
    let _ = server.post(WHOLE).send().refused(401);
    let _ = server.agent("a").get(WHOLE).refused(401);
    let admin = server.admin();
    let reply = admin.post(WHOLE, &json!({}));
    assert_eq!(reply.status, 201, "{}", reply.text());
    let lent = reply.json();
    assert_eq!(lent["machine"]["owner"], "account root");
    let path = format!("/machines/{}", id(&lent));
    let _ = server.request("DELETE", &path).send().refused(401);
    assert_eq!(admin.delete(&path).ok(), json!({}));
}

#[test]
fn operators_have_their_own_machines_and_viewers_only_look() {
    let setup = Lending::setup();
    let _ends = Ends::of(&setup);
    let server = Dispatch::serve(setup);
    let (one, other) = (server.role("one", "operator"), server.role("other", "operator"));
    let viewer = server.role("view", "viewer");
    let reply = one.post(WHOLE, &json!({}));
    assert_eq!(reply.status, 201, "{}", reply.text());
    let lent = reply.json();
    assert_eq!(lent["machine"]["owner"], "account one");
    let path = format!("/machines/{}", id(&lent));
    let seen = |caller: &Caller| {
        caller.get(WHOLE).ok()["machines"].as_array().map(Vec::len).expect("a list")
    };
    let all = [&one, &other, &viewer, &server.admin()].map(seen);
    assert_eq!(all, [1, 0, 1, 1]);

    let change = json!({ "ttl": 60 });
    for path in [path.clone(), format!("{path}/console")] {
        assert_eq!(viewer.get(&path).status, 200, "{path}");
        let _ = other.get(&path).refused(404);
    }
    for (caller, status) in [(&other, 404), (&viewer, 403)] {
        let _ = caller.request("PATCH", &path).json(&change).send().refused(status);
        let _ = caller.post(&format!("{path}/certificate"), &json!({})).refused(status);
        let _ = caller.delete(&path).refused(status);
    }
    let _ = viewer.post(WHOLE, &json!({})).refused(403);
    assert_eq!(seen(&one), 1, "nobody has changed it");
    assert_eq!(one.request("PATCH", &path).json(&change).send().status, 200);
    assert_eq!(one.delete(&path).ok(), json!({}));
}

/// One request by a connection from `from`.
fn ask_from(from: Ipv4Addr, port: u16, request: &str, header: &str) -> Reply {
    let mut connection = Connection::open_from(from, port);
    connection.write(format!("{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{header}\r\n"));
    connection.read_reply()
}

#[track_caller]
fn check_ssh(port: u16) {
    let mut greeting = [0; 4];
    let mut admitted = Connection::open_from(Ipv4Addr::LOCALHOST, port);
    admitted.stream().read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"SSH-");
    assert!(Connection::open_from(KEPT_OUT, port).read_to_close().is_empty());
}

const KEPT_OUT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

#[test]
fn who_is_filtered_has_no_machine_and_reaches_none() {
    let setup = Lending::setup()
        .set("containers", "ssh_gateway_port", "0")
        .set("containers.web_server", "listen_port", "0")
        .set("containers.ip_filter", "enabled", "yes")
        .set("containers.ip_filter", "denied_ip_list", "127.0.0.2")
        .set("network", "trusted_proxies", "127.0.0.3");
    let mut lending = Lending::start_in(setup);
    let line = lending.log().wait_for(&["the documented routes of containers are on"]);
    let (main, web) = (lending.address().port(), line.rsplit(':').next().unwrap());
    let lent = lending.lend_any();
    let delete = format!("DELETE /machines/{}", id(&lent));
    for request in ["GET /machines", "POST /machines", "GET /images", &delete] {
        let said = ask_from(KEPT_OUT, main, request, "").refused(403);
        assert!(said.contains("127.0.0.2"), "{said}");
    }
    for port in [main, web.parse().unwrap()] {
        let said = ask_from(KEPT_OUT, port, "GET /stat", "").json();
        assert_eq!(said["message"], "Refused request");
    }
    // Whom a trusted proxy names is who asks, and whom it cannot name might be anybody.
    for (named, status) in [("127.0.0.2", 403), ("nonsense", 403), ("192.0.2.1", 401)] {
        let header = format!("X-Forwarded-For: {named}\r\n");
        let _ = ask_from(PROXY, main, "GET /machines", &header).refused(status);
    }
    let said = ask_from(PROXY, main, "GET /stat", "X-Forwarded-For: nonsense\r\n").json();
    assert_eq!(said["message"], "Refused request");

    check_ssh(port(&lent));
    check_ssh(u16::try_from(lent["gateway_port"].as_u64().unwrap()).unwrap());
    lending.restart(Signal::TERM);
    check_ssh(port(&lent));
    assert!(lending.enter(&lent).is_some());
}
