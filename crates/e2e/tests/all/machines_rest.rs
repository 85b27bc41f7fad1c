//! Machines as resources: lent, shown, extended, taken back, with real guests.

use std::time::{Duration, Instant};

use e2e::lending::{self, id, port, text};
use e2e::{Connection, Lending, wait_until};
use serde_json::{Value, json};

/// Reads the answer to a request for news up to its end.
fn news(lending: &Lending, body: &str) -> Vec<(String, Value)> {
    let reply = lending
        .post("/machines")
        .header("accept", "text/event-stream")
        .body("application/json", body)
        .send();
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let text = reply.text();
    let messages = text.split_terminator("\n\n").map(|block| {
        let (name, data) = block.split_once('\n').expect("two lines");
        let name = name.strip_prefix("event: ").expect("a name").to_owned();
        let data = data.strip_prefix("data: ").expect("data");
        (name, serde_json::from_str(data).expect("JSON"))
    });
    messages.collect()
}

#[test]
fn a_machine_is_lent_shown_entered_extended_and_taken_back() {
    let lending = Lending::start();
    let wish = json!({ "ttl": 600, "memory": 160, "labels": { "class": "7b" } });
    let reply = lending.post("/machines").json(&wish).send();
    assert_eq!(reply.status, 201, "{}\n{}", reply.text(), lending.log().so_far());
    let lent = reply.json();
    let id = id(&lent);
    assert_eq!(reply.header("location"), Some(&*format!("/machines/{id}")));
    assert_eq!(text(&lent["token"]).len(), 255);
    assert_eq!(text(&lent["password"]).len(), 120);
    assert_eq!(text(&lent["image_sha256"]).len(), 64);
    assert!(text(&lent["username"]).starts_with("user_"), "{lent}");
    assert_eq!((&lent["host"], &lent["gateway_port"]), (&json!("127.0.0.1"), &Value::Null));
    let shown = lending.get_json(&format!("/machines/{id}"));
    assert_eq!(shown, lent["machine"]);
    assert_eq!((&shown["state"], &shown["memory"]), (&json!("ready"), &json!(160)));
    assert_eq!(shown["labels"], json!({ "class": "7b" }));
    let list = lending.get_json("/machines");
    assert_eq!((&list["machines"], &list["available"]), (&json!([shown]), &json!(5)));

    let guest = lending.enter(&lent).expect("the user's login");
    assert_eq!(shown["host_key_fingerprint"], guest.fingerprint);
    let (said, exit) = guest.run("id -un; echo kept > file && cat file");
    let user = text(&lent["username"]);
    assert_eq!((said, exit), (format!("{user}\nkept\n"), Some(0)));
    assert!(e2e::Guest::enter(port(&lent), "endpoint", "endpoint").is_none(), "endpoint is open");
    assert!(e2e::Guest::enter(port(&lent), &user, "wrong").is_none(), "any password does");

    let path = format!("/machines/{}", &id[..6]);
    let extended = lending.request("PATCH", &path).json(&json!({ "ttl": 7200 })).send().ok();
    assert!(text(&extended["expires_at"]) > text(&shown["expires_at"]), "{extended}");
    let console = lending.get(&format!("{path}/console?bytes=10"));
    assert_eq!(console.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(console.status == 200 && console.body.len() <= 10, "{}", console.text());

    assert_eq!(lending.request("DELETE", &path).send().ok(), json!({}));
    let _ = lending.request("DELETE", &path).send().refused(404);
    assert!(Connection::try_open(([127, 0, 0, 1], port(&lent)).into()).is_none(), "still open");
    lending.wait_for_nothing();
    assert_eq!(lending.available(), 6);
}

#[test]
fn news_tell_each_step_and_the_machine_last() {
    let lending = Lending::start();
    let messages = news(&lending, "{}");
    let (last, steps) = messages.split_last().unwrap();
    assert_eq!(last.0, "machine", "{messages:?}");
    assert!(steps.iter().all(|(name, _)| name == "step"), "{messages:?}");
    let steps: Vec<String> = steps.iter().map(|(_, data)| text(&data["step"])).collect();
    assert!(steps.ends_with(&["starting".into(), "setting_up".into()]), "{steps:?}");
    assert!(lending.enter(&last.1).is_some());
}

#[test]
fn what_cannot_be_meant_is_refused_by_name_and_takes_no_place() {
    let lending = Lending::start_in(Lending::setup().set("containers", "ttl_max_secs", "3600"));
    let long = "x".repeat(300);
    let many: serde_json::Map<_, _> = (0..99).map(|n| (n.to_string(), json!("v"))).collect();
    for (key, body) in [
        ("image", json!({ "image": "nowhere" })),
        ("image", json!({ "image": "../small" })),
        ("memory", json!({ "memory": 1 })),
        ("memory", json!({ "memory": 4_000_000_000_u32 })),
        ("memory", json!({ "memory": -1 })),
        ("memory", json!({ "memory": "much" })),
        ("vcpus", json!({ "vcpus": 0 })),
        ("vcpus", json!({ "vcpus": 5000 })),
        ("vcpus", json!({ "vcpus": 1.5 })),
        ("ttl", json!({ "ttl": 0 })),
        ("ttl", json!({ "ttl": 3601 })),
        ("ttl", json!({ "ttl": u64::MAX })),
        ("ttl", json!({ "ttl": 1e300 })),
        ("ssh_public_key", json!({ "ssh_public_key": "ssh-ed25519 nonsense" })),
        ("ssh_public_key", json!({ "ssh_public_key": "" })),
        ("ssh_public_key", json!({ "ssh_public_key": 1 })),
        ("labels", json!({ "labels": { "a": long } })),
        ("labels", json!({ "labels": { "a": "b\nc" } })),
        ("labels", json!({ "labels": many })),
        ("labels", json!({ "labels": [] })),
        ("lables", json!({ "lables": {} })),
    ] {
        let said = lending.post("/machines").json(&body).send().refused(400);
        assert!(said.contains(key), "{body}: {said}");
        assert!(said.len() < 500, "{said}");
    }
    for body in ["nonsense", "[]", "1", "{", "\u{0}", "{\"ttl\":1,\"ttl\":2}"] {
        let _ = lending.post("/machines").body("application/json", body).send().refused(400);
    }
    lending.wait_for_nothing();
    assert_eq!(lending.available(), 6);
    let log = lending.log().so_far();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_lifetime_without_a_limit_does_not_run_over() {
    let lending = Lending::start();
    let lent = lending.lend(&json!({ "ttl": 60 }));
    let path = format!("/machines/{}", id(&lent));
    let years = 10 * 366 * 24 * 60 * 60;
    for ttl in [u64::MAX, u64::MAX / 2, 1 << 40, years + 1] {
        let body = json!({ "ttl": ttl });
        for request in [lending.post("/machines"), lending.request("PATCH", &path)] {
            let reply = request.json(&body).send();
            assert!(reply.refused(400).starts_with("ttl: 316224000 seconds at most"), "{ttl}");
        }
    }
    let longest = lending.request("PATCH", &path).json(&json!({ "ttl": years })).send();
    assert!(longest.ok()["expires_at"].is_string());
    let _ = lending.request("DELETE", &path).send().ok();
    let log = lending.log().so_far();
    assert!(!log.contains("panicked"), "{log}");
    lending.wait_for_nothing();
}

#[test]
fn unknown_machines_paths_and_methods_are_told_apart() {
    let lending = Lending::start();
    let strange = "00000000-0000-4000-8000-000000000000";
    for path in [strange, "0000", "%2e%2e%2fx", "ffff0"] {
        let path = format!("/machines/{path}");
        for method in ["GET", "DELETE"] {
            let _ = lending.request(method, &path).send().refused(404);
        }
        let _ = lending.request("PATCH", &path).json(&json!({ "ttl": 5 })).send().refused(404);
        let _ = lending.get(&format!("{path}/console")).refused(404);
    }
    assert!(lending.get("/machines/abc").refused(400).contains("characters"));
    let put = lending.request("PUT", "/machines").send();
    assert_eq!((put.status, put.header("allow")), (405, Some("GET, HEAD, POST")));
    let images = lending.get_json("/images");
    let small = images["images"].as_array().unwrap().iter().find(|it| it["name"] == "small");
    assert_eq!(small.unwrap()["is_default"], true, "{images}");
    assert_eq!(small.unwrap()["problem"], Value::Null, "{images}");
}

#[test]
fn places_run_out_and_come_back() {
    let lending = Lending::start_in(Lending::setup().set(
        "containers",
        "max_allowed_running_container_domains",
        "1",
    ));
    let lent = lending.lend_any();
    let reply = lending.post("/machines").send();
    let _ = reply.refused(503);
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    // Who wants news is told by the status, too.
    let wish = lending.post("/machines").header("accept", "text/event-stream");
    let _ = wish.send().refused(503);
    assert_eq!(lending.available(), 0);
    let _ = lending.request("DELETE", &format!("/machines/{}", id(&lent))).send().ok();
    let again = lending.lend_any();
    assert_ne!(id(&again), id(&lent));
}

#[test]
fn a_machine_is_taken_back_when_its_time_is_over() {
    let lending = Lending::start();
    let lent = lending.lend(&json!({ "ttl": 2 }));
    let begun = Instant::now();
    lending.wait_for_nothing();
    assert!(begun.elapsed() < Duration::from_secs(2) + lending::SOON, "{:?}", begun.elapsed());
    let _ = lending.get(&format!("/machines/{}", id(&lent))).refused(404);
}

/// Leaves a creation when it has come so far: after so many of its steps, or after this long.
fn leave(lending: &Lending, steps: usize, after: Duration) {
    let mut connection = lending.connect();
    let news = if steps > 0 { "Accept: text/event-stream\r\n" } else { "" };
    connection
        .write(format!("POST /machines HTTP/1.1\r\nHost: x\r\n{news}Content-Length: 0\r\n\r\n"));
    if steps > 0 {
        let (status, _) = connection.read_head().expect("an answer");
        assert_eq!(status, 200);
        let mut seen = String::new();
        while seen.matches("event: step").count() < steps {
            seen += &String::from_utf8(connection.read_chunk().expect("a step")).unwrap();
        }
    }
    std::thread::sleep(after);
    drop(connection);
}

#[test]
fn who_hangs_up_during_a_creation_leaves_nothing() {
    let lending = Lending::start();
    // The first one boots and saves; those behind it are clones, and quick.
    leave(&lending, 0, Duration::from_millis(300));
    lending.wait_for_nothing();
    let kept = id(&lending.lend_any());
    for steps in [0, 1, 2, 2, 1, 0] {
        leave(&lending, steps, Duration::from_millis(5));
    }
    wait_until("the machines of those who left to be gone", || {
        let ids: Vec<String> = lending.ids().into_iter().collect();
        (ids == [&*kept] && lending.qemu().len() == 1).then_some(())
    });
    let folders: Vec<String> = lending.folders().into_iter().collect();
    assert_eq!(folders, [&*kept]);
    assert_eq!(lending.ports().len(), 2, "{:?}", lending.ports());
}
