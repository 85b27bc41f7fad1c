//! `start --web`: the documented routes, beside the other server.

use std::fs;

use e2e::lending::{images, text};
use e2e::{Guest, program, run};
use serde_json::{Value, json};

use super::older::{Older, is_server};

#[test]
fn the_web_server_runs_beside_the_other_on_folders_of_its_own() {
    let older = Older::new();
    let _ = older.succeeds("start");
    assert!(!Older::answers(older.web_port));
    let _ = older.succeeds("start --web");
    let (classic, web) = (older.pid("server.pid").unwrap(), older.pid("web_server.pid").unwrap());
    assert!(classic != web && Older::answers(older.port));
    let (status, stat) = older.get("/stat");
    assert_eq!(
        (status, &stat["success"], &stat["data"]["available"]),
        (200, &json!(true), &json!(3))
    );
    let (status, refused) = older.get("/nonsense");
    assert_eq!((status, &refused["message"]), (200, &json!("Bad request")));
    assert!(older.path("log/web_server.txt").exists());
    let _ = older.succeeds("restart --web");
    assert_ne!(older.pid("web_server.pid"), Some(web));
    let _ = older.succeeds("stop --web");
    assert!(is_server(classic) && !Older::answers(older.web_port));
    let _ = older.succeeds("start --web");
    let web = older.pid("web_server.pid").unwrap();
    let ended = older.json("stop", 0);
    assert_eq!(ended["data"]["pids"], json!([classic, web]));
}

#[test]
fn machines_of_the_web_server_outlive_it_and_are_given_back() {
    let older = Older::new();
    // What the older program does not know may stand in its file.
    let images = format!("container:\n  images: {}\n  default_image: small\n", images().display());
    older.replace("container:\n", &images);
    older.replace("container_memory: 256", "container_memory: 128");
    older.replace("  wait_max_tryout: 20\n", "");
    assert_eq!(
        run(&program(), &["config", "check", "config.yaml"], older.setup.path()).code,
        Some(0)
    );
    let _ = older.succeeds("start --web");
    let created = older.post("/create", &json!({}));
    assert_eq!(created["success"], true, "{created}");
    let lent = &created["data"];
    let port = u16::try_from(lent["container_listen_port"].as_u64().unwrap()).unwrap();
    let enter = || {
        Guest::enter(port, &text(&lent["container_username"]), &text(&lent["container_password"]))
    };
    assert!(enter().is_some());
    let _ = older.succeeds("restart --web");
    assert_eq!(older.get("/stat").1["data"]["available"], 2);
    assert!(enter().is_some());
    let pair =
        json!({ "container_uuid": lent["container_uuid"], "client_token": lent["client_token"] });
    assert_eq!(older.post("/destroy", &pair)["success"], true);
    assert_eq!(older.get("/stat").1["data"]["available"], 3);
    let _ = older.succeeds("stop");
}

#[test]
fn the_web_server_speaks_tls_where_that_is_configured() {
    let older = Older::new();
    let (cert, key, _) = crate::tls::certificate();
    fs::write(older.path("cert.pem"), cert).unwrap();
    fs::write(older.path("key.pem"), key).unwrap();
    older.replace("enable_ssl: False", "enable_ssl: True");
    let _ = older.succeeds("start --web");
    let tls = ureq::tls::TlsConfig::builder().disable_verification(true).build();
    let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(tls).build().into();
    let url = format!("https://127.0.0.1:{}/stat", older.web_port);
    let stat: Value = agent.get(&url).call().unwrap().body_mut().read_json().unwrap();
    assert_eq!(stat["success"], true, "{stat}");
}
