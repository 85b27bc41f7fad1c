//! How `ssh` is started for a machine, and when it is not.

use serde_json::Value;

use super::{A, failed, fine, lab, machine, somebody, value};
use crate::scripted::{PUBLIC_KEY, Ran, Scripted, User};

/// Runs `machine ssh` for A after it was created; gives how `ssh` was called.
fn entered(user: &User, server: &Scripted, command: &[&str]) -> Vec<String> {
    fine(user.run(server, &["machine", "create", "--json"]));
    fine(run_ssh(user, server, command));
    user.programs.calls().pop().unwrap()
}

fn run_ssh(user: &User, server: &Scripted, command: &[&str]) -> Ran {
    user.run(server, &[&["machine", "ssh", "0123a"], command].concat())
}

#[test]
fn a_machine_is_entered_with_its_host_key_and_without_a_question() {
    let (home, user) = somebody();
    let call = entered(&user, &lab(machine(A)), &[]);
    let directory = home.path().join("state dir/gatehouse/machines");
    let directory = directory.display();
    let expected = [
        "ssh",
        "-p",
        "12345",
        "-o",
        &format!("HostKeyAlias=gatehouse-{A}"),
        "-o",
        &format!("UserKnownHostsFile=\"{directory}/{A}.known_hosts\""),
        "-o",
        "GlobalKnownHostsFile=/dev/null",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "UpdateHostKeys=no",
        "-o",
        &format!("IdentityFile=\"{directory}/id_ed25519\""),
        "-o",
        "IdentitiesOnly=yes",
        "user_1@lab.example",
    ];
    assert_eq!(call, expected);
    let pinned = std::fs::read_to_string(format!("{directory}/{A}.known_hosts")).unwrap();
    assert_eq!(pinned, format!("gatehouse-{A} {PUBLIC_KEY}\n"));
}

#[test]
fn a_command_goes_along_word_by_word() {
    let (_home, user) = somebody();
    let server = lab(machine(A));
    let call = entered(&user, &server, &["--", "ls", "-l", "a b"]);
    assert_eq!(call[call.len() - 4..], ["user_1@lab.example", "ls", "-l", "a b"]);
    // As rsync calls what it takes for ssh.
    let call = entered(&user, &server, &["rsync", "--server", "--json", ".", "to"]);
    assert_eq!(call[call.len() - 5..], ["rsync", "--server", "--json", ".", "to"]);
}

#[test]
fn a_machine_from_elsewhere_is_entered_too_and_json_only_tells_how() {
    let (_home, user) = somebody();
    let ran = user.run(&lab(machine(A)), &["machine", "ssh", "0123a", "--json"]);
    let told = value(ran);
    let ssh = told["ssh"].as_array().unwrap();
    assert_eq!(ssh.last().unwrap(), "user_1@127.0.0.1");
    assert!(!ssh.iter().any(|word| word.as_str().unwrap().starts_with("Identit")), "{ssh:?}");
    assert_eq!(user.programs.calls().len(), 0);
}

#[test]
fn a_host_key_that_nobody_knows_is_asked_about() {
    let mut unknown = machine(A);
    unknown["host_key"] = Value::Null;
    unknown["host_key_fingerprint"] = "SHA256:x".into();
    let (_home, user) = somebody();
    let server = lab(unknown);
    let call = entered(&user, &server, &[]);
    assert!(call.contains(&"StrictHostKeyChecking=ask".to_owned()), "{call:?}");
    let ran = run_ssh(&user, &server, &[]);
    assert!(ran.err.contains("must be SHA256:x"), "{}", ran.err);
}

#[test]
fn the_gateway_is_entered_by_a_certificate_with_its_host_key_pinned() {
    let (home, user) = somebody();
    let server = lab(machine(A));
    let call = entered(&user, &server, &["--gateway", "uname", "-a"]);
    let directory = home.path().join("state dir/gatehouse/machines");
    let directory = directory.display();
    for option in [
        "HostKeyAlias=gatehouse-gateway",
        "StrictHostKeyChecking=yes",
        &format!("UserKnownHostsFile=\"{directory}/{A}.gateway_known_hosts\""),
        &format!("CertificateFile=\"{directory}/{A}.cert.pub\""),
        &format!("IdentityFile=\"{directory}/id_ed25519\""),
    ] {
        assert!(call.iter().any(|word| word == option), "{option}: {call:?}");
    }
    assert_eq!(call[1..3], ["-p", "6122"]);
    assert_eq!(call[call.len() - 3..], [&format!("{A}@lab.example"), "uname", "-a"]);
    let pinned = std::fs::read_to_string(format!("{directory}/{A}.gateway_known_hosts")).unwrap();
    assert_eq!(pinned, format!("gatehouse-gateway {PUBLIC_KEY}\n"));
    fine(user.run(&server, &["machine", "destroy", A]));
    assert!(!std::path::Path::new(&format!("{directory}/{A}.cert.pub")).exists());
}

/// `ssh` must not be started for A when the server changes these fields after its creation.
#[track_caller]
fn check_not_entered(changes: &[(&str, Value)], words: &str) {
    check_change(machine(A), changes, words);
}

#[track_caller]
fn check_change(a: Value, changes: &[(&str, Value)], words: &str) {
    let (_home, user) = somebody();
    fine(user.run(&lab(a.clone()), &["machine", "create", "--no-ssh-key", "--json"]));
    let mut changed = a;
    for (field, value) in changes {
        changed[*field] = value.clone();
    }
    // Another port of the same server would be another server: what is kept must be found.
    let server = lab(changed);
    let directory = user.home.as_ref().unwrap().join("state dir/gatehouse/machines");
    let file = directory.join(format!("{A}.json"));
    let mut record: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    record["url"] = server.url.clone().into();
    std::fs::write(&file, record.to_string()).unwrap();
    let error = failed(run_ssh(&user, &server, &[]));
    assert!(error.contains(words), "{error}");
    assert_eq!(user.programs.calls().len(), 0);
}

#[test]
fn a_machine_that_is_not_itself_any_more_is_not_entered() {
    check_not_entered(&[("host_key_fingerprint", "SHA256:x".into())], "do not log in");
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    check_not_entered(
        &[("host_key", other.into()), ("host_key_fingerprint", Value::Null)],
        "do not log in",
    );
    check_not_entered(&[("host_key", "ssh-ed25519 AAAA\nx y z".into())], "is none");
    check_not_entered(&[("username", "-oProxyCommand=x".into())], "which is none");
    let mut unpinned = machine(A);
    unpinned["host_key"] = Value::Null;
    check_change(unpinned, &[("host_key_fingerprint", "SHA256:x".into())], "says now");
    let starting = [("state", "starting".into()), ("port", Value::Null)];
    check_not_entered(&starting, "not ready: it is starting");
}
