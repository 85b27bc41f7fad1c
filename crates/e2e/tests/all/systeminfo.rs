//! What `/systeminfo` tells of the machine.

use e2e::{Server, Setup};
use serde_json::{Value, json};

const KEYS: [&str; 7] = ["net", "cpu", "uptime", "disk", "upgrades", "ram", "info"];

fn server() -> Server {
    Setup::new().start()
}

#[test]
fn all_of_it_is_told_at_once() {
    let all = server().get_json("/systeminfo");
    let mut found: Vec<_> =
        all.as_object().expect("an object").keys().map(String::as_str).collect();
    found.sort_unstable();
    let mut wanted = KEYS;
    wanted.sort_unstable();
    assert_eq!(found, wanted);
}

#[test]
fn each_part_is_told_alone() {
    let server = server();
    for key in KEYS {
        let reply = server.get(&format!("/systeminfo/{key}"));
        assert_eq!(reply.status, 200, "{key}: {}", reply.text());
        assert!(!reply.json().is_null(), "{key}");
    }
}

#[test]
fn an_unknown_part_is_not_found() {
    let server = server();
    for path in ["/systeminfo/nothing", "/systeminfo/net/x", "/systeminfo/..", "/systeminfo/CPU"] {
        let _ = server.get(path).json_error(404);
    }
}

/// The part, whether it is told bare or under its own name.
fn part(server: &Server, key: &str) -> Value {
    let told = server.get_json(&format!("/systeminfo/{key}"));
    told.get(key).cloned().unwrap_or(told)
}

#[test]
fn interfaces_are_told_with_address_and_rates() {
    let net = part(&server(), "net");
    let list: Vec<Value> = match net {
        Value::Array(list) => list,
        other => other.as_object().expect("interfaces").values().cloned().collect(),
    };
    let lo = list.iter().find(|entry| entry["address"] == "127.0.0.1/8").expect("a loopback");
    assert_eq!(lo["iface"], "lo");
    assert!(lo.get("tx").is_some() && lo.get("rx").is_some(), "{lo}");
}

#[test]
fn uptime_is_that_of_the_machine() {
    let told = part(&server(), "uptime");
    let seconds = told["seconds"].as_f64().expect("seconds");
    let proc = std::fs::read_to_string("/proc/uptime").unwrap();
    let real: f64 = proc.split(' ').next().unwrap().parse().unwrap();
    assert!((seconds - real).abs() < 60.0, "{seconds} {real}");
    assert!(!told["pretty"].as_str().expect("pretty").is_empty());
}

#[test]
fn the_system_is_named() {
    let told = part(&server(), "info").to_string();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(told.contains(release.trim()) && told.contains("Linux"), "{told}");
}

#[test]
fn memory_is_that_of_the_machine() {
    let told = part(&server(), "ram").to_string();
    assert!(told.chars().any(|c| c.is_ascii_digit()), "{told}");
}

#[test]
fn it_listens_to_keys_as_other_plugins_do() {
    let server = Setup::new()
        .parameters("systeminfo", "auth_type=global")
        .set("auth", "apikey", "global")
        .start();
    assert_eq!(server.get("/systeminfo").status, 403);
    assert_eq!(server.get("/systeminfo/cpu?apikey=global").status, 200);
}

#[test]
fn it_is_listed_and_reloaded_as_other_plugins_are() {
    let server = server();
    assert!(crate::naming::names(&server).contains(&"systeminfo".to_owned()));
    assert_eq!(server.get("/reload/systeminfo").status, 200);
    assert_eq!(server.get("/systeminfo").status, 200);
}

#[test]
fn many_may_ask_at_once() {
    let server = server();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(server.get("/systeminfo").status, 200);
                }
            });
        }
    });
}

/// A plugin of the same name.
fn own(version: u32) -> String {
    format!(
        "from plugincore.baseplugin import BasePlugin\nclass SystemInfo(BasePlugin):\n    def request_handler(self, **data):\n        return {{'own': {version}}}\n"
    )
}

#[test]
fn a_plugin_of_its_name_takes_its_place_and_lives_as_other_plugins_do() {
    let server = Setup::new().file("plugins/systeminfo.py", own(1)).start();
    assert_eq!(server.get_json("/systeminfo"), json!({"own": 1}));
    let listed = crate::naming::names(&server);
    assert_eq!(listed.iter().filter(|name| *name == "systeminfo").count(), 1, "{listed:?}");
    server.write("plugins/systeminfo.py", own(2));
    let reply = server.get("/reload/systeminfo");
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(server.get_json("/systeminfo"), json!({"own": 2}));
    server.write("plugins/systeminfo.py", own(3));
    let said = server.get_json("/reload/all");
    assert!(said.get("failed").is_none() && said.get("error").is_none(), "{said}");
    assert_eq!(server.get_json("/systeminfo"), json!({"own": 3}));
    let reply = server.get("/unload/systeminfo");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let _ = server.get("/systeminfo").json_error(404);
}

#[test]
fn a_plugin_of_its_name_may_come_while_the_server_runs() {
    let server = server();
    assert!(server.get_json("/systeminfo").get("cpu").is_some());
    server.write("plugins/systeminfo.py", own(1));
    let said = server.get_json("/reload/all");
    assert!(said.get("failed").is_none() && said.get("error").is_none(), "{said}");
    assert_eq!(server.get_json("/systeminfo"), json!({"own": 1}));
}
