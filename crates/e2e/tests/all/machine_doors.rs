//! The documented routes of containers and the SSH gateway, with real machines and the system's `ssh`.

use std::fs;
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use e2e::{Exit, Server, Setup, free_port, run_reading, wait_until};
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};

use super::tls::{certificate, connect_to};

/// A server of machines, which ends them when it ends.
struct Lender {
    server: Option<Server>,
    /// The documented routes' own port.
    web: u16,
}

/// Where the images are that `make test` builds.
fn images() -> PathBuf {
    let given = std::env::var_os("GATEHOUSE_TEST_IMAGES").map(PathBuf::from);
    let folder = given.unwrap_or(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.images"));
    assert!(folder.join("small/image.toml").exists(), "no image: `make test` builds it");
    folder
}

impl Lender {
    fn start(change: impl FnOnce(Setup) -> Setup) -> Self {
        let first = free_port();
        let setup = Setup::new()
            .set("containers", "bind_address", "127.0.0.1")
            .set("containers", "classic", "false")
            .set("containers", "state", "{dir}/state")
            .set("containers", "images", &images().display().to_string())
            .set("containers", "domain_type", "qemu")
            .set("containers", "container_memory", "256")
            .set("containers", "max_allowed_running_container_domains", "2")
            .set("containers", "on_shutdown", "stop")
            .set("containers", "ssh_gateway_port", "0")
            .set("containers.web_server", "listen_port", "0")
            .set("containers.port_forwarding", "port_range", &format!("{first} {}", first + 100));
        let server = change(setup).start();
        let line = server.log().wait_for(&["the documented routes of containers are on"]);
        let web = line.rsplit(':').next().unwrap().parse().unwrap();
        Self { server: Some(server), web }
    }

    fn ask(&self, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
        let mut request = self.request_by(self.web, method, path);
        if let Some(body) = body {
            request = request.body("application/json", body);
        }
        let reply = request.send();
        (reply.status, reply.json())
    }

    #[track_caller]
    fn check(&self, method: &str, path: &str, body: Option<&str>, expected: &str) {
        let (status, answer) = self.ask(method, path, body);
        assert_eq!(
            (status, &answer["message"]),
            (200, &json!(expected)),
            "{method} {path} {body:?}"
        );
        assert_eq!(answer["success"], expected == "OK");
    }

    fn available(&self) -> u64 {
        self.ask("GET", "/stat", None).1["data"]["available"].as_u64().unwrap()
    }
}

impl Deref for Lender {
    type Target = Server;

    fn deref(&self) -> &Server {
        self.server.as_ref().expect("until it is dropped")
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        drop(self.server.take().map(Server::stop));
    }
}

#[test]
fn documented_routes_answer_200_in_the_words_of_the_documents() {
    let lender = Lender::start(|setup| setup.handler("Stat", "return {'a': 'plugin'}"));
    let (status, home) = lender.ask("GET", "/", None);
    assert_eq!((status, &home["success"]), (200, &json!(true)));
    assert!(home["data"]["links"].is_array());
    for path in ["/stat", "/STAT", "/Stat?x=1"] {
        lender.check("GET", path, None, "OK");
        lender.check("POST", path, Some("{}"), "OK");
    }
    assert_eq!(lender.request_by(lender.web, "HEAD", "/stat").send().status, 200);
    for path in ["/stat/", "/stat/x", "/nothing", "/st4t", "/destroy"] {
        lender.check("GET", path, None, "Bad request");
    }
    for body in ["", "{", "x"] {
        lender.check("POST", "/stat", Some(body), "Internal error");
    }
    lender.check("POST", "/stat", Some("[]"), "Bad request");
    lender.check("POST", "/create", Some(r#"{"memory": "much"}"#), "Bad request");
    let token = "t".repeat(255);
    let stranger =
        json!({ "container_uuid": "0123abcd-0123-4567-89ab-0123456789ab", "client_token": token });
    lender.check("POST", "/destroy", Some(&stranger.to_string()), "Bad authentication");
    for method in ["PUT", "DELETE", "BREW"] {
        assert_eq!(lender.ask(method, "/stat", None).0, 501, "{method}");
    }
    let of_a_page = lender.request_by(lender.web, "GET", "/stat");
    let refused = of_a_page.header("sec-fetch-site", "cross-site").send().json();
    assert_eq!(refused["message"], "Refused request");
    // Plugins are on the main port alone, and documented paths come before theirs.
    lender.check("GET", "/systeminfo", None, "Bad request");
    assert_eq!(lender.get_json("/stat")["data"]["available"], 2);
    let foreign = lender.request("GET", "/stat").header("origin", "http://evil.example").send();
    assert_eq!(foreign.json()["message"], "Refused request");
}

#[test]
fn access_tokens_and_the_filter_of_addresses_hold_for_documented_routes() {
    let lender = Lender::start(|setup| setup.set("containers.access_token", "enabled", "true"));
    let file = lender.path("gatehouse.ini");
    let arguments = ["access-token", "add", "--json", "-i", file.to_str().unwrap()];
    let made = e2e::run(&e2e::program(), &arguments, &lender.path("."));
    let made: Value = serde_json::from_str(&made.stdout).unwrap_or_else(|_| panic!("{made:?}"));
    let token = made["data"]["access_token"].as_str().unwrap();
    let with = |token: &str| json!({ "access_token": token }).to_string();
    lender.check("GET", "/stat", None, "Bad request (Access token is required)");
    lender.check("POST", "/nothing", Some("{}"), "Bad request (Access token is required)");
    lender.check("POST", "/stat", Some(&with("x")), "Bad authentication (Invalid access token)");
    lender.check("POST", "/stat", Some(&with(token)), "OK");
    let by_main = lender.get("/stat");
    assert_eq!(by_main.json()["message"], "Bad request (Access token is required)");
    let by_main = lender.post("/stat").body("application/json", with(token)).send();
    assert_eq!((by_main.status, by_main.json()["message"].as_str()), (200, Some("OK")));
    drop(lender);

    let lender = Lender::start(|setup| {
        setup.set("containers.ip_filter", "enabled", "true").set(
            "containers.ip_filter",
            "denied_ip_list",
            "127.0.0.1",
        )
    });
    lender.check("GET", "/stat", None, "Refused request");
    assert_eq!(lender.get("/stat").json()["message"], "Refused request");
}

#[test]
fn the_own_port_of_documented_routes_speaks_tls() {
    let (cert, key, der) = certificate();
    let lender = Lender::start(|setup| {
        setup
            .set("containers.web_server", "enable_ssl", "yes")
            .set("containers.web_server", "ssl_pem_certificate_file_path", "{dir}/cert.pem")
            .set("containers.web_server", "ssl_pem_private_key_file_path", "{dir}/key.pem")
            .file("cert.pem", cert)
            .file("key.pem", key)
    });
    let own_port = SocketAddr::from(([127, 0, 0, 1], lender.web));
    let request = "GET /stat HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for version in [&TLS12, &TLS13] {
        let mut connection = connect_to(own_port, &der, &[version]).unwrap();
        let reply = connection.write(request).read_reply();
        assert_eq!((reply.status, &reply.json()["data"]["available"]), (200, &json!(2)));
    }
    let (_, _, foreign) = certificate();
    assert!(connect_to(own_port, &foreign, &[&TLS13]).is_err());
    let answer = e2e::Connection::open(own_port).write(request).read_to_close();
    assert!(!String::from_utf8_lossy(&answer).contains("available"));
    assert_eq!(lender.get_json("/stat")["success"], true, "the main port has its own setting");
}

#[test]
fn a_machine_of_a_documented_route_is_given_back_by_its_token_or_when_nobody_is_told() {
    let lender = Lender::start(|setup| setup);
    let (_, created) = lender.ask("POST", "/create", Some("{}"));
    let data = &created["data"];
    assert_eq!(data["client_token"].as_str().unwrap().len(), 255, "{created}");
    assert_eq!(lender.available(), 1);
    let credentials = |token: &str| {
        json!({ "container_uuid": data["container_uuid"], "client_token": token }).to_string()
    };
    lender.check("POST", "/destroy", Some(&credentials(&"t".repeat(255))), "Bad authentication");
    let own = credentials(data["client_token"].as_str().unwrap());
    lender.check("POST", "/destroy", Some(&own), "OK");
    lender.check("POST", "/destroy", Some(&own), "Bad authentication");
    // Somebody asks and leaves.
    let mut gone = e2e::Connection::open(([127, 0, 0, 1], lender.web).into());
    gone.write("POST /create HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}");
    wait_until("its place is taken", || (lender.available() == 1).then_some(()));
    drop(gone);
    wait_until("its place is free", || (lender.available() == 2).then_some(()));
    // A machine that only HEAD would tell of is told to nobody.
    assert_eq!(lender.request_by(lender.web, "HEAD", "/create").send().status, 200);
    wait_until("its place is free", || (lender.available() == 2).then_some(()));
}

/// Runs `ssh` with the lender's configuration.
fn ssh(lender: &Lender, arguments: &[&str]) -> Exit {
    let arguments = [&["-F", "ssh_config"], arguments].concat();
    run_reading(Path::new("ssh"), &arguments, &lender.path("."), "from stdin\n")
}

/// A machine that lets in the key `own`, called `web`.
fn machine(lender: &Lender) -> Value {
    let own = fs::read_to_string(lender.path("own.pub")).unwrap();
    let order = json!({ "ssh_public_key": own, "labels": { "name": "web" } });
    let reply = lender.post("/machines").json(&order).send();
    assert_eq!(reply.status, 201, "{}", reply.text());
    reply.json()
}

fn make_key(lender: &Lender, name: &str) {
    let arguments = ["-q", "-t", "ed25519", "-N", "", "-f", name];
    let made = e2e::run(Path::new("ssh-keygen"), &arguments, &lender.path("."));
    assert_eq!(made.code, Some(0), "{made:?}");
}

/// The way to the machine by certificate (`gateway`), by its own key (`web`), and through the gateway (`machine`).
fn write_ways(lender: &Lender, created: &Value) {
    let id = created["machine"]["id"].as_str().unwrap();
    let public_key = fs::read_to_string(lender.path("other.pub")).unwrap();
    let path = format!("/machines/{id}/certificate");
    let way = lender.post(&path).json(&json!({ "public_key": public_key })).send();
    assert_eq!(way.status, 200, "{}", way.text());
    let way = way.json();
    assert_eq!(way["gateway_port"], created["gateway_port"]);
    lender.write("other-cert.pub", way["certificate"].as_str().unwrap());
    let known = format!(
        "gateway {}\nmachine {}\n",
        way["gateway_host_key"].as_str().unwrap(),
        created["machine"]["host_key"].as_str().unwrap()
    );
    lender.write("known_hosts", known);
    let (port, user) = (&created["gateway_port"], created["username"].as_str().unwrap());
    let folder = lender.path(".").canonicalize().unwrap();
    let folder = folder.display();
    let config = format!(
        "Host gateway foreign\n HostName 127.0.0.1\n Port {port}\n HostKeyAlias gateway\n IdentityFile {folder}/other\n \
         CertificateFile {folder}/other-cert.pub\n\
         Host web\n HostName 127.0.0.1\n Port {port}\n User web\n HostKeyAlias gateway\n IdentityFile {folder}/own\n\
         Host machine\n User {user}\n HostKeyAlias machine\n IdentityFile {folder}/own\n\
         Host gateway\n User {id}\n\
         Host *\n IdentitiesOnly yes\n IdentityAgent none\n BatchMode yes\n UserKnownHostsFile {folder}/known_hosts\n \
         GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n UpdateHostKeys no\n"
    );
    lender.write("ssh_config", config);
}

/// Sends a file to the machine and fetches it, by `scp` and by `sftp`, each by another way.
fn copy_both_ways(lender: &Lender) {
    // More than a packet or a window of SSH holds, and bytes of every value.
    let content: Vec<u8> = (0..150_000_u32).flat_map(u32::to_le_bytes).collect();
    lender.write("sent", &content);
    let folder = lender.path(".");
    let there = ["-F", "ssh_config", "-J", "gateway", "sent", "machine:kept"];
    let copied = e2e::run(Path::new("scp"), &there, &folder);
    assert_eq!(copied.code, Some(0), "{copied:?}");
    let back = ["-F", "ssh_config", "gateway:kept", "by_scp"];
    let copied = e2e::run(Path::new("scp"), &back, &folder);
    assert_eq!(copied.code, Some(0), "{copied:?}");
    let batch = "put sent also\nrename also moved\nget moved by_sftp\n";
    let arguments = ["-F", "ssh_config", "-b", "-", "gateway"];
    let copied = run_reading(Path::new("sftp"), &arguments, &folder, batch);
    assert_eq!(copied.code, Some(0), "{copied:?}");
    for name in ["by_scp", "by_sftp"] {
        assert!(fs::read(lender.path(name)).unwrap() == content, "{name} is another file");
    }
}

#[test]
fn openssh_enters_a_machine_through_the_gateway() {
    let lender = Lender::start(|setup| setup);
    make_key(&lender, "own");
    make_key(&lender, "other");
    let (created, foreign) = (machine(&lender), machine(&lender));
    let id = created["machine"]["id"].as_str().unwrap();
    write_ways(&lender, &created);
    let user = format!("{}\n", created["username"].as_str().unwrap());

    let ran = ssh(&lender, &["gateway", "id -un; echo wrong >&2; exit 7"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(7), user.as_str()), "{ran:?}");
    assert!(ran.stderr.contains("wrong"));
    assert_eq!(ssh(&lender, &["gateway", "cat"]).stdout, "from stdin\n");
    let terminal = ssh(&lender, &["-tt", "gateway", "tty; exit 3"]);
    assert!(terminal.stdout.contains("/dev/pts/"), "{terminal:?}");
    assert_eq!(terminal.code, Some(3));
    let beginning = ssh(&lender, &["-l", &id[..8], "gateway", "id -un"]);
    assert_eq!(beginning.stdout, user, "{beginning:?}");

    let jump = ssh(&lender, &["-J", "gateway", "machine", "id -un"]);
    assert_eq!((jump.code, jump.stdout.as_str()), (Some(0), user.as_str()), "{jump:?}");
    copy_both_ways(&lender);

    // The certificate is for one machine; two are called `web`, so that nobody is meant.
    let other = foreign["machine"]["id"].as_str().unwrap();
    let refused = ssh(&lender, &["-l", other, "foreign", "id -un"]);
    assert_eq!(refused.code, Some(255), "{refused:?}");
    assert!(refused.stderr.contains("Permission denied"), "{refused:?}");
    assert_eq!(ssh(&lender, &["web", "id -un"]).code, Some(255));
    let gone = lender.request("DELETE", &format!("/machines/{other}")).send();
    assert_eq!(gone.status, 200);
    assert_eq!(ssh(&lender, &["web", "id -un"]).stdout, user);

    for name in ["gateway_host_key", "gateway_authority_key", "gateway_key"] {
        let file = lender.path(&format!("state/{name}"));
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let nobody = lender.post(&format!("/machines/{other}/certificate")).json(&json!({})).send();
    assert_eq!(nobody.status, 404);
    let path = format!("/machines/{id}/certificate");
    let none = lender.post(&path).json(&json!({ "public_key": "ssh-rsa x" })).send();
    assert_eq!(none.status, 400, "{}", none.text());
}
