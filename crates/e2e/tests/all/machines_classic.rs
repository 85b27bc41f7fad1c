//! The door of existing clients, by a client that knows none of our code (`machines_classic.py`).

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::lending::text;
use e2e::{Connection, Guest, Lending, Setup, Signal, program, run, run_reading, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/all/machines_classic.py");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A server with the door, and a key that is made already.
fn setup() -> Setup {
    let key = std::fs::read(root().join("testdata/containers/private4096.pem")).unwrap();
    Lending::setup()
        .set("containers", "classic", "on")
        .set("containers", "listen_port", "0")
        .file("m/private.pem", key)
}

/// A server with the door, and where that is.
struct Door {
    lending: Lending,
    port: u16,
}

fn port_of_door(lending: &Lending) -> u16 {
    let main = lending.address().port();
    wait_until("the door", || lending.ports().into_iter().find(|port| *port != main))
}

impl Door {
    fn open(setup: Setup) -> Self {
        let lending = Lending::start_in(setup);
        Self { port: port_of_door(&lending), lending }
    }

    fn restart(&mut self) {
        self.lending.restart(Signal::TERM);
        self.port = port_of_door(&self.lending);
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// The answers to these requests, one after the other or all at once.
    fn ask_all(&self, requests: &[Value], at_once: bool) -> Vec<Value> {
        let order = json!({ "port": self.port, "requests": requests, "at_once": at_once });
        let python = root().join(".venv/bin/python3");
        let exit = run_reading(&python, &[CLIENT], &self.lending.path(""), order.to_string());
        assert_eq!(exit.code, Some(0), "{}\n{}", exit.stderr, self.lending.log().so_far());
        let answers: Vec<Value> =
            exit.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(answers.len(), requests.len());
        answers
    }

    /// The response to one request, which must come.
    #[track_caller]
    fn ask(&self, generation: u8, verb: &str, parameters: &Value) -> Value {
        let answer = self.ask_all(&[entry(generation, verb, parameters)], false).remove(0);
        assert!(answer["response"].is_object(), "{verb} of {generation}: {answer}");
        answer["response"].clone()
    }

    #[track_caller]
    fn check(&self, generation: u8, verb: &str, parameters: &Value, message: &str) {
        let response = self.ask(generation, verb, parameters);
        assert_eq!(response["success"], message == "OK", "{verb}: {response}");
        let said = text(&response["message"]);
        assert!(said.starts_with(message), "{verb} of generation {generation}: {said}");
        if message != "OK" {
            assert_eq!(response["data"], json!({}));
        }
    }
}

fn entry(generation: u8, verb: &str, parameters: &Value) -> Value {
    let request = json!({ "verb": verb, "parameters": parameters });
    json!({ "generation": generation, "request": request })
}

fn credentials(lent: &Value) -> Value {
    json!({ "container_uuid": lent["container_uuid"], "client_token": lent["client_token"] })
}

#[test]
fn clients_of_all_generations_borrow_machines_and_give_them_back() {
    let door = Door::open(setup());
    for generation in [1, 3, 4] {
        let stat = door.ask(generation, "STAT", &json!({}));
        let data = &stat["data"];
        assert!(data["version"].is_string() && data["uptime"].is_u64(), "{stat}");
        assert_eq!((&stat["message"], &data["available"]), (&json!("OK"), &json!(6)), "{stat}");

        let created = door.ask(generation, "CREATE", &json!({}));
        assert_eq!((&created["success"], &created["message"]), (&json!(true), &json!("OK")));
        let lent = &created["data"];
        assert_eq!(text(&lent["client_token"]).len(), 255);
        assert_eq!(text(&lent["container_iso_sha256"]).len(), 64);
        let (user, password) =
            (text(&lent["container_username"]), text(&lent["container_password"]));
        assert_eq!(password.len(), 120);
        let port = u16::try_from(lent["container_listen_port"].as_u64().unwrap()).unwrap();
        let guest = Guest::enter(port, &user, &password).expect("the user's login");
        // What the newest client does first of all.
        assert_eq!(guest.run(&format!("echo {password} > PASSWD.txt")), (String::new(), Some(0)));
        assert!(Guest::enter(port, "endpoint", "endpoint").is_none(), "endpoint is open");
        assert_eq!(door.ask(generation, "STAT", &json!({}))["data"]["available"], 5);

        door.check(generation, "DESTROY", &credentials(lent), "OK");
        door.check(generation, "DESTROY", &credentials(lent), "Bad authentication");
        assert!(Connection::try_open(([127, 0, 0, 1], port).into()).is_none());
    }
    assert!(door.lending.ids().is_empty() && door.lending.qemu().is_empty());
}

#[test]
fn a_machine_is_destroyed_by_its_own_token_alone() {
    let door = Door::open(setup());
    let [one, other] = [4, 1].map(|generation| door.ask(generation, "CREATE", &json!({})));
    let (one, other) = (&one["data"], &other["data"]);
    let pair = |lent: &Value, token: &Value| json!({ "container_uuid": lent["container_uuid"], "client_token": token });
    let strange = json!({ "container_uuid": "00000000-0000-1000-8000-000000000000" });
    let refused = "Bad authentication";
    door.check(4, "DESTROY", &pair(one, &json!("x".repeat(255))), refused);
    door.check(1, "DESTROY", &pair(one, &other["client_token"]), refused);
    door.check(3, "DESTROY", &pair(&strange, &one["client_token"]), refused);
    assert_eq!(door.lending.ids().len(), 2);
    for lent in [one, other] {
        door.check(4, "DESTROY", &credentials(lent), "OK");
    }
}

#[test]
fn requests_that_break_a_rule_are_told_which() {
    let door = Door::open(setup());
    door.check(1, "JUMP", &json!({}), "Bad request (Unknown verb)");
    door.check(4, "JUMP", &json!({}), "Bad request (Unhandled verb)");
    for (verb, parameters) in [
        ("stat", json!({})),
        ("", json!({})),
        ("STAT", json!(null)),
        ("STAT", json!([])),
        ("DESTROY", json!({})),
        ("DESTROY", json!({ "container_uuid": "00000000-0000-1000-8000-000000000000" })),
        ("DESTROY", json!({ "container_uuid": 5, "client_token": "x".repeat(255) })),
        ("DESTROY", json!({ "container_uuid": "x", "client_token": "x" })),
        ("CREATE", json!({ "memory": "much" })),
    ] {
        door.check(4, verb, &parameters, "Bad request");
    }
    let nowhere = json!({ "image": "nowhere" });
    door.check(4, "CREATE", &nowhere, "Bad request (image: there is none called \"nowhere\")");
    for text in ["", "nonsense", "[]", "1", "{\"verb\":\"STAT\""] {
        let answers =
            door.ask_all(&[1, 3, 4].map(|it| json!({ "generation": it, "request": text })), false);
        for answer in answers {
            let is_refused = answer["response"]["success"] == false || answer["ended"].is_string();
            assert!(is_refused, "{text:?}: {answer}");
        }
    }
    // Bytes that come one after the other are a request like any other.
    let split = json!({ "generation": 4, "pieces": true,
        "request": { "verb": "STAT", "parameters": {} } });
    assert_eq!(door.ask_all(&[split], false)[0]["response"]["success"], true);
    door.check(4, "STAT", &json!({}), "OK");
}

#[test]
fn garbage_and_what_breaks_off_is_closed_and_harms_nobody() {
    let door = Door::open(setup().set("containers", "timeout", "2"));
    let pem = std::fs::read(door.lending.path("m/public.pem")).unwrap();
    let length = format!("{:=<8}", pem.len()).into_bytes();
    let noise: Vec<u8> =
        (0..2000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    let mut greetings = vec![
        b"-1======".to_vec(),
        b"0=======".to_vec(),
        b"99999999".to_vec(),
        b"=10=====".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        noise.clone(),
        Vec::new(),
    ];
    let whole = [&length[..], &pem, b"1", b"1", &noise[..512], b"1", &noise[512..]].concat();
    // Cut at every step, and once inside of each.
    greetings
        .extend([3, 8, 300, 808, 809, 810, 900, 1322, 1323, 1500].map(|at| whole[..at].to_vec()));
    for greeting in greetings {
        let mut connection = Connection::open(door.address());
        connection.write(&greeting).finish_writing();
        let said = connection.read_to_close();
        assert!(said.len() <= 1 + 1 + 8 + 800 + 1 + 512, "{} bytes", said.len());
        // Who closes at once, or resets, is no different.
        Connection::open(door.address()).write(&greeting).reset_now();
    }
    door.check(4, "STAT", &json!({}), "OK");
    let log = door.lending.log().so_far();
    assert!(!log.contains("panicked"), "{log}");
}

/// Ends a connection by a reset.
trait ResetNow {
    fn reset_now(&mut self);
}

impl ResetNow for Connection {
    fn reset_now(&mut self) {
        let _ = rustix::net::sockopt::set_socket_linger(self.stream(), Some(Duration::ZERO));
        let _ = self.stream().shutdown(std::net::Shutdown::Both);
    }
}

#[test]
fn a_hundred_clients_at_once_are_all_answered() {
    let door = Door::open(setup());
    let requests: Vec<Value> =
        (0..100).map(|n| entry([1, 3, 4][n % 3], "STAT", &json!({}))).collect();
    for answer in door.ask_all(&requests, true) {
        assert_eq!(answer["response"]["success"], true, "{answer}");
    }
}

/// As many connections from as many addresses as the limit of open files lets this process have, 10,000 at the most.
/// Some have begun to speak.
#[expect(clippy::print_stderr, reason = "a test of fewer connections says so")]
fn silent_ones(port: u16) -> Vec<Connection> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    // Some are left for the test itself.
    let most = limit.maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap() - 500);
    if most < 10_000 {
        eprintln!("no more than {most} silent connections: the limit of open files is low");
    }
    (0..most.min(10_000))
        .map(|n| {
            let host = 2 + u8::try_from(n % 20).unwrap();
            let mut silent = Connection::open_from([127, 0, 0, host].into(), port);
            // Who had to give way already takes nothing.
            let _ = silent.stream().write_all(&b"800=====-----BEGIN"[..n % 18]);
            silent
        })
        .collect()
}

#[test]
fn ten_thousand_who_stay_silent_stop_nobody() {
    let _alone = crate::MANY_FILES.lock();
    let door = Door::open(setup().set("containers", "timeout", "60"));
    let silent = silent_ones(door.port);
    let stats = [1, 3, 4].map(|generation| entry(generation, "STAT", &json!({})));
    let answers = std::thread::scope(|scope| {
        let creating = scope.spawn(|| door.ask(4, "CREATE", &json!({})));
        let mut answers = Vec::new();
        while !creating.is_finished() || answers.len() < 30 {
            answers.extend(door.ask_all(&stats, false));
        }
        let created = creating.join().unwrap();
        assert_eq!(created["success"], true, "{created}");
        answers
    });
    let mut worst = 0.0_f64;
    for answer in &answers {
        let data = &answer["response"]["data"];
        assert!(answer["response"]["success"] == true && data["uptime"].is_u64(), "{answer}");
        worst = worst.max(answer["seconds"].as_f64().unwrap());
    }
    println!("{} silent, {} STATs, the slowest {worst:.3} s", silent.len(), answers.len());
    assert!(worst < 5.0, "{worst} s");
    drop(silent);
    door.check(4, "STAT", &json!({}), "OK");
}

#[test]
fn access_tokens_work_from_their_making_to_their_end() {
    let setup =
        setup().set("containers.access_token", "enabled", "true").set("containers", "quota", "1");
    let door = Door::open(setup);
    let file = door.lending.path("gatehouse.ini");
    let manage = |arguments: &[&str]| {
        let arguments = [&["access-token"], arguments, &["-i", file.to_str().unwrap()]].concat();
        let exit = run(&program(), &arguments, &door.lending.path(""));
        assert_eq!(exit.code, Some(0), "{exit:?}");
        exit.stdout
    };
    door.check(4, "STAT", &json!({}), "Bad request (Access token is required)");
    let unknown = json!({ "access_token": "x".repeat(124) });
    door.check(4, "STAT", &unknown, "Bad authentication (Invalid access token)");
    door.check(4, "STAT", &json!({ "access_token": 5 }), "Bad request");
    let printed = manage(&["add"]);
    let token = printed.split_whitespace().find(|word| word.len() == 124).expect("a token");
    let with = json!({ "access_token": token });
    door.check(1, "STAT", &with, "OK");
    let created = door.ask(4, "CREATE", &with);
    assert_eq!(created["success"], true, "{created}");
    door.check(4, "CREATE", &with, "Unavailable");
    let mut pair = credentials(&created["data"]);
    door.check(4, "DESTROY", &pair, "Bad request (Access token is required)");
    let _ = manage(&["disable", "1"]);
    door.check(4, "STAT", &with, "Bad authentication (Invalid access token)");
    let _ = manage(&["enable", "1"]);
    pair["access_token"] = json!(token);
    door.check(4, "DESTROY", &pair, "OK");
}

#[test]
fn a_client_that_leaves_during_create_leaves_nothing() {
    let door = Door::open(setup());
    // The first makes the snapshot, for which a client can be waited for long.
    let lent = door.ask(4, "CREATE", &json!({}));
    door.check(4, "DESTROY", &credentials(&lent["data"]), "OK");
    let leaving = json!({ "generation": 4, "request": { "verb": "CREATE", "parameters": {} },
        "leave": true });
    for answer in door.ask_all(&vec![leaving; 4], false) {
        assert_eq!(answer["ended"], "left");
    }
    wait_until("the machines of those who left to be gone", || {
        let stat = door.ask(4, "STAT", &json!({}));
        let is_free = stat["data"]["available"] == 6 && door.lending.qemu().is_empty();
        (is_free && door.lending.folders().is_empty()).then_some(())
    });
}

#[test]
fn a_server_that_ends_still_tells_of_machines_that_are_lent() {
    let mut door = Door::open(setup().set("limits", "drain_timeout_secs", "3"));
    let (folder, address) = (door.lending.path(""), door.address());
    let (holding, silent) = (folder.join("holding"), folder.join("silent"));
    // Both know that an answer is there. One takes it when the server has been told to end, the other never does.
    let asks = |held: &Path| {
        let create = json!({ "generation": 4, "request": { "verb": "CREATE", "parameters": {} },
            "held": held });
        let order = json!({ "port": door.port, "requests": [create] }).to_string();
        let (python, folder) = (root().join(".venv/bin/python3"), folder.clone());
        std::thread::spawn(move || run_reading(&python, &[CLIENT], &folder, order))
    };
    let asking = [asks(&holding), asks(&silent)];
    wait_until("both answers", || (holding.exists() && silent.exists()).then_some(()));
    let held = holding.clone();
    let going_on = std::thread::spawn(move || {
        wait_until("the door to close", || TcpStream::connect(address).is_err().then_some(()));
        std::fs::remove_file(held).unwrap();
    });
    door.lending.restart(Signal::TERM);
    going_on.join().unwrap();
    std::fs::remove_file(&silent).unwrap();
    let [told, untold] = asking.map(|client| client.join().unwrap().stdout);
    let untold: Value = serde_json::from_str(&untold).unwrap();
    assert!(untold["ended"].is_string(), "{untold}");
    let told: Value = serde_json::from_str(&told).unwrap();
    let lent = &told["response"]["data"];
    let id = text(&lent["container_uuid"]);
    assert_eq!(door.lending.ids().into_iter().collect::<Vec<_>>(), [id], "{told}");
    let port = u16::try_from(lent["container_listen_port"].as_u64().unwrap()).unwrap();
    let user = (text(&lent["container_username"]), text(&lent["container_password"]));
    assert!(Guest::enter(port, &user.0, &user.1).is_some(), "lent, and nobody gets in");
}

/// `gatehouse keys …` for the server of this door.
fn keys(door: &Door, arguments: &[&str]) -> String {
    let file = door.lending.path("gatehouse.ini").display().to_string();
    let arguments = [&["keys"], arguments, &["-i", &file]].concat();
    let exit = run(&program(), &arguments, &door.lending.path(""));
    assert_eq!(exit.code, Some(0), "{exit:?}");
    exit.stdout.trim().to_owned()
}

/// The SHA-256 of the file that clients are sent, by another program.
fn sum_of_key(door: &Door) -> String {
    let exit = run(Path::new("sha256sum"), &["m/public.pem"], &door.lending.path(""));
    exit.stdout.split_whitespace().next().unwrap_or_default().to_owned()
}

#[test]
fn the_fingerprint_is_that_of_the_key_in_force_and_a_new_key_is_in_force_after_a_restart() {
    let mut door = Door::open(setup());
    let told =
        |door: &Door| text(&door.ask_all(&[entry(4, "STAT", &json!({}))], false)[0]["fingerprint"]);
    let first = keys(&door, &["fingerprint"]);
    assert_eq!((&first, &first), (&sum_of_key(&door), &told(&door)));

    let second = keys(&door, &["regenerate", "--bits", "2048"]);
    assert_ne!(second, first);
    assert_eq!((&second, &second), (&sum_of_key(&door), &keys(&door, &["fingerprint"])));
    assert_eq!(told(&door), first, "until the server starts anew");
    door.restart();
    assert_eq!(told(&door), second);
}
