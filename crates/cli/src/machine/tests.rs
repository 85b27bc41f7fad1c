//! Commands about machines against a scripted server: what they ask, print, keep and start.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::kept::Kept;
use super::key_line::KeyLine;
use crate::Outcome;
use crate::scripted::{Noted, PUBLIC_KEY, Ran, Scripted, User, serve};

/// Entering by `ssh`.
mod entering;

const OK: &str = "200 OK";
const A: &str = "0123abcd-0000-4000-8000-000000000001";
const B: &str = "0123ffff-0000-4000-8000-000000000002";

/// A machine as the server shows it.
fn machine(id: &str) -> Value {
    let key = KeyLine::parse(PUBLIC_KEY).unwrap();
    json!({
        "id": id, "state": "ready", "image": "small", "memory": 512, "vcpus": 1, "port": 12345,
        "username": "user_1", "host_key": PUBLIC_KEY, "host_key_fingerprint": key.fingerprint(),
        "owner": "jo", "labels": {"class": "7b"}, "created_at": "2026-11-22T10:00:00Z",
        "expires_at": "2999-11-22T11:00:00Z",
    })
}

/// The same machine with another end.
fn extended(mut machine: Value) -> Value {
    machine["expires_at"] = "2999-12-24T11:00:00Z".into();
    machine
}

fn created(machine: &Value) -> Value {
    json!({
        "machine": machine, "token": "t0ken", "username": "user_1", "password": "hunter2",
        "host": "lab.example", "port": 12345, "image_sha256": "00", "gateway_port": null,
    })
}

/// The way to A through the gateway, whose key is the same as A's.
fn way() -> Value {
    let key = KeyLine::parse(PUBLIC_KEY).unwrap();
    json!({
        "certificate": PUBLIC_KEY, "valid_until": "2999-11-22T10:00:00Z", "gateway_port": 6122,
        "gateway_fingerprint": key.fingerprint(), "gateway_host_key": PUBLIC_KEY,
    })
}

/// A server with the machines A (as given) and B, which creates A.
fn lab(a: Value) -> Scripted {
    serve(move |request| {
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let (a, b) = (a.clone(), machine(B));
        match (method, path.strip_prefix("/machines").unwrap()) {
            ("POST", "") => (
                format!("{OK}\r\nContent-Type: text/event-stream"),
                format!(
                    "event: step\ndata: {{\"step\":\"starting\"}}\n\n\
                     event: machine\ndata: {}\n\n",
                    created(&a)
                ),
            ),
            ("POST", id) if id[1..] == format!("{A}/certificate") => (OK.into(), way().to_string()),
            ("GET", "") => {
                (OK.into(), json!({"machines": [a, b], "available": 4, "uptime": 1}).to_string())
            }
            ("GET", id) if id[1..] == *A => (OK.into(), a.to_string()),
            ("PATCH", id) if id[1..] == *A => (OK.into(), extended(a).to_string()),
            ("DELETE", id) if id[1..] == *A || id[1..] == *B => (OK.into(), "{}".into()),
            ("GET", id) if id[1..].starts_with(&format!("{A}/console")) => {
                (OK.into(), "boot\r\n\u{1b}[1mlogin:".into())
            }
            _ => ("404 Not Found".into(), r#"{"error":true,"msg":"no such machine"}"#.into()),
        }
    })
}

/// Somebody with a home and a place for what is kept.
fn somebody() -> (TempDir, User) {
    let home = tempfile::tempdir().unwrap();
    let kept = Some(Kept::below(&home.path().join("state dir")));
    let programs = Noted { has_keygen: true, ..Noted::default() };
    let user = User { kept, home: Some(home.path().to_owned()), programs, ..User::default() };
    (home, user)
}

#[track_caller]
fn fine(ran: Ran) -> Ran {
    assert_eq!(ran.outcome, Ok(Outcome::Fine), "{}", ran.err);
    ran
}

#[track_caller]
fn failed(ran: Ran) -> String {
    ran.outcome.unwrap_err()
}

/// The JSON that a command prints, which is one line.
#[track_caller]
fn value(ran: Ran) -> Value {
    let ran = fine(ran);
    assert_eq!(ran.out.lines().count(), 1, "{}", ran.out);
    serde_json::from_str(&ran.out).unwrap()
}

/// The body of the order that `create` with these arguments sends.
fn ordered(user: &User, server: &Scripted, arguments: &[&str]) -> Value {
    fine(user.run(server, &[&["machine", "create"], arguments].concat()));
    let requests = server.requests();
    let order = requests.iter().rfind(|request| request.starts_with("POST")).unwrap();
    serde_json::from_str(order.split("\r\n\r\n").nth(1).unwrap()).unwrap()
}

#[test]
fn a_creation_says_how_to_enter_and_the_password_once() {
    let (home, user) = somebody();
    let server = lab(machine(A));
    let ran = fine(user.run(&server, &["machine", "create", "--ttl", "2h"]));
    let key = home.path().join("state dir/gatehouse/machines/id_ed25519");
    let key = key.display();
    let until = crate::shown::written_time("2999-11-22T11:00:00Z");
    let fingerprint = KeyLine::parse(PUBLIC_KEY).unwrap().fingerprint();
    let expected = format!(
        "machine:  {A}\nimage:    small\nssh:      ssh -i '{key}' -p 12345 user_1@lab.example\n\
         or:       gatehouse machine ssh 0123abcd\npassword: hunter2\nhost key: {fingerprint}\n\
         until:    {until}\n"
    );
    assert_eq!(ran.out, expected);
    assert!(ran.err.contains("told this once") && ran.err.contains("ready in"), "{}", ran.err);
    let shown = failed(user.run(&server, &["machine", "show", A, "--password"]));
    assert!(shown.contains("--save-password"), "{shown}");
}

#[test]
fn steps_and_time_are_told_where_somebody_looks() {
    let (_home, mut user) = somebody();
    user.looks = true;
    let err = fine(user.run(&lab(machine(A)), &["machine", "create"])).err;
    assert!(err.contains("\rasking … 0.0 s") && err.contains("\rstarting … "), "{err:?}");
    user.looks = false;
    let err = fine(user.run(&lab(machine(A)), &["machine", "create"])).err;
    assert!(!err.contains('\r'), "{err:?}");
}

#[test]
fn an_order_has_what_was_asked_for() {
    let (_home, user) = somebody();
    let server = lab(machine(A));
    let arguments = ["--image=full", "--memory=256", "--vcpus=2", "--ttl=1h30m", "--no-ssh-key"];
    let labels = ["--label", "a=b=c", "--label", "d="];
    let order = ordered(&user, &server, &[&arguments[..], &labels].concat());
    let expected = json!({
        "image": "full", "memory": 256, "vcpus": 2, "ttl": 5400, "labels": {"a": "b=c", "d": ""},
    });
    assert_eq!(order, expected);
    assert_eq!(user.programs.calls().len(), 0);
}

#[test]
fn the_users_own_key_is_taken_the_best_first() {
    let (home, user) = somebody();
    let server = lab(machine(A));
    let ssh = home.path().join(".ssh");
    std::fs::create_dir(&ssh).unwrap();
    std::fs::write(ssh.join("id_ed25519.pub"), "garbage").unwrap();
    std::fs::write(ssh.join("id_rsa.pub"), format!("{PUBLIC_KEY} jo@lab\n")).unwrap();
    let key = format!("{PUBLIC_KEY} jo@lab");
    assert_eq!(ordered(&user, &server, &[]), json!({"ssh_public_key": key}));
    let ran = user.run(&server, &["machine", "create", "--json"]);
    assert!(ran.err.contains("id_rsa.pub"), "{}", ran.err);
    assert_eq!(user.programs.calls().len(), 0);
    // Without the private key beside it, it is an agent's.
    assert_eq!(value(ran)["identity_file"], ssh.join("id_rsa.pub").to_str().unwrap());
}

#[test]
fn who_has_no_key_gets_one_that_stays() {
    let (_home, user) = somebody();
    let server = lab(machine(A));
    let key = json!({"ssh_public_key": format!("{PUBLIC_KEY} made")});
    assert_eq!(ordered(&user, &server, &[]), key);
    assert_eq!(ordered(&user, &server, &[]), key);
    assert_eq!(user.programs.calls().len(), 1);
    let nothing = User { programs: Noted::default(), ..somebody().1 };
    let ran = fine(nothing.run(&server, &["machine", "create"]));
    assert!(ran.err.contains("password alone"), "{}", ran.err);
    assert!(ran.out.contains("ssh:      ssh -p 12345"), "{}", ran.out);
}

#[test]
fn a_named_key_is_the_public_one_or_beside_it() {
    let (home, user) = somebody();
    let server = lab(machine(A));
    let file = home.path().join("mine");
    std::fs::write(&file, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
    let name = file.to_str().unwrap();
    let refused = failed(user.run(&server, &["machine", "create", "--ssh-key", name]));
    assert!(refused.contains("no public SSH key"), "{refused}");
    assert_eq!(server.asked(), [""; 0]);
    std::fs::write(file.with_extension("pub"), format!("# mine\n{PUBLIC_KEY}\n")).unwrap();
    for name in [name, &format!("{name}.pub")] {
        let order = ordered(&user, &server, &["--ssh-key", name]);
        assert_eq!(order, json!({"ssh_public_key": PUBLIC_KEY}));
    }
}

#[test]
fn json_of_a_creation_has_all_in_one_object() {
    let (home, user) = somebody();
    let server = lab(machine(A));
    let arguments = ["machine", "create", "--json", "--save-password"];
    let shown = value(user.run(&server, &arguments));
    let directory = home.path().join("state dir/gatehouse/machines");
    let expected = created(&machine(A));
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(shown[field], *value, "{field}");
    }
    assert_eq!(shown["kept_in"], directory.join(format!("{A}.json")).to_str().unwrap());
    assert_eq!((&shown["ssh"][0], &shown["ssh"][1]), (&json!("ssh"), &json!("-p")));
    let password = value(user.run(&server, &["machine", "show", A, "--password", "--json"]));
    assert_eq!((&password["password"], &password["id"]), (&json!("hunter2"), &json!(A)));
    let plain = value(user.run(&server, &["machine", "show", A, "--json"]));
    assert_eq!(plain, machine(A));
}

#[test]
fn machines_are_listed_for_people_and_programs() {
    let server = lab(machine(A));
    let until = crate::shown::written_time("2999-11-22T11:00:00Z");
    let row = |id| format!("{id}\tready\tsmall\t512\t1\t12345\tuser_1\tjo\t{until}\tclass=7b\n");
    let ran = fine(User::default().run(&server, &["machine", "list"]));
    assert_eq!(ran.out, row(A) + &row(B));
    assert_eq!(ran.err, "places left: 4\n");
    let looking = User { looks: true, ..User::default() };
    let out = fine(looking.run(&server, &["machine", "list"])).out;
    assert!(out.starts_with("ID        STATE  ") && out.contains("\n0123ffff  ready"), "{out}");
    let all = value(User::default().run(&server, &["machine", "list", "--json"]));
    assert_eq!(all, json!({"machines": [machine(A), machine(B)], "available": 4, "uptime": 1}));
}

#[test]
fn the_beginning_of_an_id_is_enough_if_it_is_one_machines() {
    let server = lab(machine(A));
    let ran = fine(User::default().run(&server, &["machine", "show", "0123a"]));
    assert!(ran.out.starts_with(&format!("machine:  {A}\nstate:    ready\n")), "{}", ran.out);
    let several = failed(User::default().run(&server, &["machine", "show", "0123"]));
    assert!(several.contains(A) && several.contains(B), "{several}");
    for nothing in ["9", ""] {
        let error = failed(User::default().run(&server, &["machine", "show", nothing]));
        assert!(error.contains("machine list"), "{error}");
    }
    let gone = failed(User::default().run(&server, &["machine", "show", &A.replace('1', "9")]));
    assert!(gone.contains("no such machine"), "{gone}");
}

#[test]
fn an_extension_tells_the_new_end_and_keeps_it() {
    let (home, user) = somebody();
    let server = lab(machine(A));
    fine(user.run(&server, &["machine", "create", "--json"]));
    let ran = fine(user.run(&server, &["machine", "extend", "0123a", "2h"]));
    assert!(server.last().ends_with("\r\n\r\n{\"ttl\":7200}"), "{}", server.last());
    assert!(ran.out.starts_with(&format!("{A} until 2999-12-24 ")), "{}", ran.out);
    let file = home.path().join(format!("state dir/gatehouse/machines/{A}.json"));
    let kept: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(
        (&kept["expires_at"], &kept["token"]),
        (&extended(machine(A))["expires_at"], &json!("t0ken"))
    );
    assert_eq!(
        value(user.run(&server, &["machine", "extend", A, "9", "--json"])),
        extended(machine(A))
    );
}

#[test]
fn a_destroyed_machine_is_forgotten_and_others_are_tried() {
    let (home, user) = somebody();
    let server = lab(machine(A));
    fine(user.run(&server, &["machine", "create", "--no-ssh-key"]));
    let directory = home.path().join("state dir/gatehouse/machines");
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 2);
    let unknown = A.replace('1', "0");
    let ran = user.run(&server, &["machine", "destroy", &unknown, "0123a", "0123abc"]);
    assert_eq!(ran.outcome, Ok(Outcome::Failed));
    assert_eq!(ran.out, format!("destroyed {A}\n"));
    assert!(ran.err.contains("no such machine"), "{}", ran.err);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    let done = value(user.run(&server, &["machine", "destroy", "--all", "--json"]));
    assert_eq!(done, json!({"destroyed": [A, B], "failed": {}}));
}

#[test]
fn nothing_is_destroyed_when_one_is_mistyped() {
    let server = lab(machine(A));
    let error = failed(User::default().run(&server, &["machine", "destroy", A, "99"]));
    assert!(error.contains("`99`"), "{error}");
    assert!(!server.asked().iter().any(|line| line.starts_with("DELETE")));
}

#[test]
fn a_console_cannot_command_the_terminal() {
    let server = lab(machine(A));
    let logs = ["machine", "logs", "0123a", "--bytes", "99"];
    assert_eq!(fine(User::default().run(&server, &logs)).out, "boot\r\n\u{1b}[1mlogin:");
    assert!(server.last().starts_with(&format!("GET /machines/{A}/console?bytes=99 ")));
    let looking = User { looks: true, ..User::default() };
    assert_eq!(fine(looking.run(&server, &logs)).out, "boot\n\\u{1b}[1mlogin:");
    let logs = value(User::default().run(&server, &[&logs[..], &["--json"]].concat()));
    assert_eq!(logs, json!({"id": A, "console": "boot\r\n\u{1b}[1mlogin:"}));
}

#[test]
fn a_full_server_tells_who_holds_the_places() {
    let create = ["machine", "create", "--no-ssh-key"];
    let server = serve(|request| {
        if request.starts_with("POST") {
            return ("503 Service Unavailable", json!({"error": true, "msg": "full"}).to_string());
        }
        (OK, json!({"machines": [machine(A)], "available": 0}).to_string())
    });
    let error = failed(User::default().run(&server, &create));
    let until = crate::shown::written_time("2999-11-22T11:00:00Z");
    assert!(error.starts_with("full (status 503)\nthe places are held by:\n"), "{error}");
    assert!(error.contains(&format!("\n  0123abcd  jo, until {until}\n")), "{error}");
    let closing = serve(|request| {
        if request.starts_with("POST") {
            return ("503 Service Unavailable", json!({"error": true, "msg": "ends"}).to_string());
        }
        (OK, json!({"machines": [machine(A)], "available": 3}).to_string())
    });
    assert_eq!(failed(User::default().run(&closing, &create)), "ends (status 503)");
}

#[test]
fn strangers_and_servers_without_machines_are_told_what_to_do() {
    let stranger = serve(|_| ("401 Unauthorized", r#"{"error":true,"msg":"who are you?"}"#));
    for command in ["create", "list"] {
        let error = failed(User::default().run(&stranger, &["machine", command]));
        assert!(error.contains("gatehouse login"), "{error}");
    }
    let other = serve(|_| ("404 Not Found", r#"{"error":"not found"}"#));
    for command in ["create", "list"] {
        let error = failed(User::default().run(&other, &["machine", command]));
        assert!(error.contains("[containers]"), "{error}");
    }
}
