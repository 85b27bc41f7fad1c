//! Becoming known to a server, and mistakes in a configuration.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use serde_json::json;

use crate::agent::command;
use crate::server::{Answer, Server};

fn call(arguments: &[&str], config: &Path) -> Output {
    let program = env!("CARGO_BIN_EXE_gatehouse-agent");
    command(program.as_ref()).args(arguments).arg("-c").arg(config).output().unwrap()
}

fn errors(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn an_agent_enrols_with_a_token_and_its_configuration_works() {
    let server = Server::scripted(|request, _| {
        let answer = json!({"error": false, "name": "a1", "secret": "s3cret"});
        (request.path == "/enroll").then(|| Answer::json(200, &answer))
    });
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    let arguments = ["enroll", "--url", &server.url, "--name", "a1", "--token", "t0ken"];
    let output = call(&arguments, &config);
    assert!(output.status.success(), "{output:?}");
    let asked = server.change(|books| books.requests[0].clone());
    assert_eq!(asked.json(), json!({"token": "t0ken", "name": "a1"}));
    assert!(!asked.headers.contains_key("authorization"));
    assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&config).unwrap().contains("secret = \"s3cret\""));
    assert!(call(&["check"], &config).status.success());
    // A second time would replace the identity by mistake.
    assert!(errors(&call(&arguments, &config)).contains("--force"));
    assert_eq!(server.change(|books| books.requests.len()), 1);
}

#[test]
fn a_token_that_is_refused_leaves_no_configuration_and_is_not_shown() {
    let server = Server::scripted(|_, _| {
        Some(Answer::json(403, &json!({"error": true, "msg": "Bad token"})))
    });
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    let arguments = ["enroll", "--url", &server.url, "--name", "a1", "--token", "t0ken"];
    let errors = errors(&call(&arguments, &config));
    assert!(errors.contains("Bad token (status 403)") && !errors.contains("t0ken"), "{errors}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn an_agent_registers_itself_with_a_secret_of_its_own() {
    let server =
        Server::scripted(|request, _| (request.path == "/agents").then(|| Answer::bytes(200, "")));
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    let output = call(&["register", "--url", &server.url, "--name", "a1"], &config);
    assert!(output.status.success(), "{output:?}");
    let query = server.change(|books| books.requests[0].clone()).query;
    assert_eq!((query["user"].as_str(), query["pass"].len()), ("a1", 64));
    assert!(fs::read_to_string(&config).unwrap().contains(&query["pass"]));
}

#[test]
fn a_server_where_agents_may_not_register_says_so() {
    let msg = "Agents self-registration is disabled";
    let server =
        Server::scripted(move |_, _| Some(Answer::json(405, &json!({"error": true, "msg": msg}))));
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    let output = call(&["register", "--url", &server.url, "--name", "a1"], &config);
    assert!(errors(&output).contains(msg));
    assert!(!config.exists());
}

#[test]
fn a_mistake_in_the_configuration_is_told_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    let check = |text: &str, part: &str| {
        fs::write(&config, text).unwrap();
        fs::set_permissions(&config, Permissions::from_mode(0o600)).unwrap();
        for command in ["check", "run"] {
            let errors = errors(&call(&[command], &config));
            assert!(errors.contains("agent.toml") || errors.contains(part), "{errors}");
            assert!(errors.contains(part) && !errors.contains("hunter2"), "{errors}");
        }
    };
    check("url='http://g'\nname='a'\nsecret='hunter2'\nallow='x'", "invalid type");
    check("url='g'\nname='a'\nsecret='hunter2'\nstate_dir='/s'", "`g` is not the address");
    check("name='a'\nsecret='hunter2'", "`url` is missing");
    let errors = errors(&call(&["run"], &dir.path().join("absent.toml")));
    assert!(errors.contains("absent.toml: No such file"), "{errors}");
}
