//! The program through a link named `anwdlserver`, with that program's `config.yaml`.

mod older;
mod web;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::time::Duration;

use e2e::lending::signal;
use e2e::{Process, Signal, program, run, run_reading, wait_until};
use older::{Older, is_server, own_name, stat};
use serde_json::{Value, json};

#[test]
fn start_returns_when_the_server_is_ready_and_stop_when_it_has_ended() {
    let older = Older::new();
    older.fails("stop", &["does not run", "server.pid"]);
    let started = older.succeeds("start");
    let pid = older.pid("server.pid").expect("a pid file");
    assert!(started.stdout.contains(&pid.to_string()) && is_server(pid), "{started:?}");
    assert!(Older::answers(older.port), "{}", older.log());
    // A session of its own, without a terminal.
    assert_eq!((stat(pid, 6), stat(pid, 7)), (pid.to_string(), "0".to_owned()));
    older.fails("start", &["runs already", &pid.to_string()]);
    let stopped = older.succeeds("stop");
    assert!(stopped.stdout.contains(&pid.to_string()), "{stopped:?}");
    assert!(!is_server(pid) && !Older::answers(older.port));
    assert_eq!(older.pid("server.pid"), None);
    assert!(older.log().contains("ended"), "{}", older.log());
}

#[test]
fn clients_of_the_older_program_are_answered() {
    let older = Older::new();
    let _ = older.succeeds("start");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let client = root.join("crates/e2e/tests/all/machines_classic.py");
    let requests = [1, 3, 4].map(|generation| {
        json!({ "generation": generation, "request": { "verb": "STAT", "parameters": {} } })
    });
    let order = json!({ "port": older.port, "requests": requests, "at_once": false });
    let python = root.join(".venv/bin/python3");
    let exit = run_reading(&python, &[client], older.setup.path(), order.to_string());
    let answers: Vec<Value> =
        exit.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 3, "{exit:?}");
    for answer in answers {
        assert_eq!(answer["response"]["data"]["available"], 3, "{answer}");
    }
}

#[test]
fn json_is_one_object_for_every_command() {
    let older = Older::new();
    assert_eq!(older.json("start -c", 0)["data"]["errors"], json!([]));
    let started = older.json("start", 0);
    assert_eq!(started["data"]["pid"], older.pid("server.pid").unwrap());
    assert!(older.json("start", 255)["message"].as_str().unwrap().contains("runs already"));
    let restarted = older.json("restart", 0);
    assert_eq!(restarted["data"]["pid"], older.pid("server.pid").unwrap());
    assert_ne!(restarted["data"]["pid"], started["data"]["pid"]);
    assert_eq!(older.json("stop", 0)["data"]["pids"], json!([restarted["data"]["pid"]]));
    let _ = older.json("stop", 255);
    assert_eq!(older.json("access-tk -a", 0)["data"]["entry_id"], 1);
    let _ = older.json("access-tk -d 7", 255);
    assert!(older.json("regen-rsa -b 2048", 0)["data"]["fingerprint"].is_string());
    let _ = older.json("regen-rsa -b 512", 255);
    let _ = older.json("start -x", 255);
}

#[test]
fn the_foreground_serves_until_a_signal_and_logs_where_it_is_told() {
    let lines = [
        ("start -d", false, false),
        ("start -d --enable-stdout-log", true, false),
        ("start -d --enable-traceback-log", false, true),
    ];
    for (line, on_stdout, more) in lines {
        let older = Older::new();
        let mut process = older.begin(line);
        let _ = process.stdout.wait_for(&["the server runs"]);
        assert_eq!(older.pid("server.pid"), Some(process.pid()));
        assert!(Older::answers(older.port));
        process.signal(Signal::TERM);
        let exit = process.wait();
        assert_eq!(exit.code, Some(0), "{exit:?}");
        assert_eq!(exit.stdout.contains(" INFO "), on_stdout, "{exit:?}");
        let log = older.log();
        assert!(log.contains(" INFO ") && log.contains("DEBUG") == more, "{line}: {log}");
    }
}

#[test]
fn json_in_the_foreground_is_one_object_when_the_server_is_ready() {
    let older = Older::new();
    let mut process = older.begin("start -d --json");
    let _ = process.stdout.wait_for(&["status"]);
    process.signal(Signal::TERM);
    let exit = process.wait();
    let said: Value = serde_json::from_str(&exit.stdout).expect("one object");
    assert_eq!(said["data"]["pid"], process.pid());
}

#[test]
fn a_check_tells_every_fault_with_its_key_and_starts_nothing() {
    let older = Older::new();
    let _ = older.succeeds("start -c");
    let _taken = TcpListener::bind(("127.0.0.1", older.port)).unwrap();
    fs::remove_file(older.path("anweddol_container.iso")).unwrap();
    fs::remove_dir(older.path("log")).unwrap();
    fs::rename(older.path("rsa/private.pem"), older.path("rsa/public.pem")).unwrap();
    older.replace(&format!("user: {}\n", own_name()), "user: no_such_user\n");
    let taken = older.port.to_string();
    let parts = [
        "config.yaml: listen_port: ",
        &taken,
        "container_iso_file_path: ",
        "anweddol_container.iso is not there",
        "log_file_path: there is no folder",
        "private_rsa_key_file_path: ",
        "user: there is no user no_such_user",
    ];
    older.fails("start -c", &parts);
    let said = older.json("start -c", 255);
    assert_eq!(said["data"]["errors"].as_array().unwrap().len(), 5, "{said}");
    assert!(!older.path("log").exists() && older.pid("server.pid").is_none());
    older.fails("start --web -c", &["user: there is no user", "container_iso_file_path"]);
    older.replace("enable_ssl: False", "enable_ssl: True");
    older.fails("start --web -c", &["ssl_pem_certificate_file_path", "cert.pem"]);
}

#[test]
fn a_start_that_fails_is_told_with_its_reason_also_from_the_background() {
    let older = Older::new();
    let taken = TcpListener::bind(("127.0.0.1", older.port)).unwrap();
    let port = older.port.to_string();
    older.fails("start", &["config.yaml: listen_port", &port]);
    // Unchecked, the server itself finds out, in the background.
    older.fails("start --skip-check", &["cannot listen on", &port]);
    older.fails("start --skip-check -d", &["cannot listen on", &port]);
    let said = older.json("start --skip-check", 255);
    assert!(said["message"].as_str().unwrap().contains(&port), "{said}");
    drop(taken);
    fs::remove_dir_all(older.path("run")).unwrap();
    older.fails("start --skip-check", &["server.pid_file_path", "server.pid"]);
    fs::remove_dir_all(older.path("log")).unwrap();
    older.fails("start --skip-check", &["server.txt"]);
    older.replace("container_memory: 256", "container_memory: much");
    older.fails("start", &["config.yaml:6: [container] container_memory: found `much`"]);
    older.fails("stop", &["config.yaml:6: [container] container_memory"]);
}

#[test]
fn what_is_missing_is_made_when_that_is_assumed() {
    let older = Older::new();
    fs::remove_dir(older.path("run")).unwrap();
    fs::rename(older.path("rsa/private.pem"), older.path("rsa/public.pem")).unwrap();
    for line in ["start", "start -n", "start --assume-no"] {
        older.fails(line, &["pid_file_path: there is no folder", "private_rsa_key_file_path"]);
        assert!(!older.path("run").exists());
    }
    let _ = older.succeeds("start --assume-yes");
    assert!(older.pid("server.pid").is_some() && older.path("rsa/private.pem").exists());
}

#[test]
fn a_pid_file_that_nobody_holds_ends_nobody() {
    let older = Older::new();
    let bystander = Process::start(Path::new("/bin/sleep"), &["60"], older.setup.path(), &[]);
    let file = older.path("run/server.pid");
    fs::write(&file, format!("{}\n", bystander.pid())).unwrap();
    older.fails("stop", &["does not run", "is removed", &bystander.pid().to_string()]);
    assert!(!file.exists());
    assert!(!bystander.ends_within(Duration::ZERO));
    // A server that was killed leaves such a file, which keeps no other from starting.
    let _ = older.succeeds("start");
    let killed = older.pid("server.pid").unwrap();
    signal(killed, Signal::KILL);
    wait_until("its end", || (!Older::answers(older.port)).then_some(()));
    assert_eq!(older.pid("server.pid"), Some(killed));
    older.fails("stop", &["is removed", &killed.to_string()]);
    fs::write(&file, format!("{}\n", bystander.pid())).unwrap();
    let _ = older.succeeds("start");
    assert!(!bystander.ends_within(Duration::ZERO));
}

#[test]
fn the_log_is_archived_when_it_has_the_lines_of_the_file() {
    let older = Older::new();
    older.replace("enabled: False\n  log_archive", "enabled: True\n  log_archive");
    older.replace("max_log_lines_amount: 4000", "max_log_lines_amount: 10");
    fs::write(older.path("log/server.txt"), "an old line\n".repeat(10)).unwrap();
    let _ = older.succeeds("start");
    let archive = wait_until("an archive", || {
        let mut files = fs::read_dir(older.path("log/archive")).ok()?.flatten().map(|it| it.path());
        files.find(|file| file.extension().is_some_and(|end| end == "zip"))
    });
    let _ = older.succeeds("stop");
    assert!(!older.log().contains("an old line"), "{}", older.log());
    // By a program that did not write it.
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/python3");
    let script =
        "import sys, zipfile; print(zipfile.ZipFile(sys.argv[1]).read('server.txt').decode())";
    let arguments = [Path::new("-c"), Path::new(script), &archive];
    let exit = run(&python, &arguments, older.setup.path());
    assert_eq!(exit.stdout.matches("an old line").count(), 10, "{exit:?}");
}

#[test]
fn a_process_that_is_not_this_program_is_never_ended() {
    let older = Older::new();
    let file = older.path("run/server.pid");
    let shown = file.display();
    // Another program that holds such a file, as this one does.
    let script = format!("echo $$ > {shown}; exec flock {shown} sleep 60");
    let other = Process::start(Path::new("/bin/sh"), &["-c", &script], older.setup.path(), &[]);
    wait_until("its lock", || {
        let held = fs::File::open(&file).is_ok_and(|file| file.try_lock_shared().is_err());
        held.then_some(())
    });
    older.fails("stop", &["is not this program", "nothing was ended"]);
    assert!(!other.ends_within(Duration::ZERO) && file.exists());
}

#[test]
fn a_restart_that_cannot_succeed_leaves_the_server_running() {
    let older = Older::new();
    let _ = older.succeeds("restart");
    let pid = older.pid("server.pid").unwrap();
    fs::remove_file(older.path("anweddol_container.iso")).unwrap();
    older.fails("restart", &["container_iso_file_path"]);
    let _ = older.run("restart -c");
    assert!(is_server(pid) && older.pid("server.pid") == Some(pid));
}

#[test]
fn a_server_that_root_starts_is_the_user_of_the_file() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let older = Older::new();
    let root = own_name();
    older.replace(&format!("user: {root}\n"), "user: nobody\n");
    // It must reach its files, and the program itself.
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(older.setup.path(), open).unwrap();
    fs::remove_file(&older.link).unwrap();
    fs::copy(program(), older.path("gatehouse")).unwrap();
    symlink("gatehouse", &older.link).unwrap();
    for name in ["rsa", "rsa/private.pem", "log", "run", "credentials"] {
        chown(older.path(name), Some(65_534), Some(65_534)).unwrap();
    }
    let _ = older.succeeds("access-tk -a");
    let _ = older.succeeds("regen-rsa -b 2048");
    let _ = older.succeeds("start");
    let pid = older.pid("server.pid").unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let ids = "65534\t65534\t65534\t65534";
    assert!(status.contains(&format!("Uid:\t{ids}")) && status.contains(&format!("Gid:\t{ids}")));
    for name in ["credentials/access_token.db", "rsa/private.pem", "rsa/public.pem", "m"] {
        assert_eq!(fs::metadata(older.path(name)).unwrap().uid(), 65_534, "{name}");
    }
    let _ = older.succeeds("stop");
    fs::set_permissions(older.path("rsa/private.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    chown(older.path("rsa/private.pem"), Some(0), Some(0)).unwrap();
    older.fails("start", &["rsa/private.pem", "Permission denied"]);
}

#[test]
fn keys_and_tokens_are_those_that_the_file_names() {
    let older = Older::new();
    let _ = older.succeeds("access-tk -a");
    assert!(older.path("credentials/access_token.db").exists());
    for (line, word) in [
        ("access-tk --disable 1", "disabled"),
        ("access-tk -l", "disabled"),
        ("access-tk --enable 1", "enabled"),
        ("access-tk -e 1", "enabled"),
        ("access-tk -d 1", "deleted"),
    ] {
        let exit = older.succeeds(line);
        assert!(exit.stdout.contains(word), "{line}: {exit:?}");
    }
    let _ = older.succeeds("access-tk -a --disabled");
    // No number is used again.
    let _ = older.succeeds("access-tk -r 2");
    older.fails("access-tk -r 2", &["there is no access token 2"]);
    let old = fs::read(older.path("rsa/private.pem")).unwrap();
    let _ = older.succeeds("regen-rsa -b 2048");
    assert_ne!(fs::read(older.path("rsa/private.pem")).unwrap(), old);
    assert!(older.path("rsa/public.pem").exists());
}

#[test]
fn a_file_of_the_first_versions_starts_a_server() {
    let older = Older::of(
        "container:\n  state: {dir}/m\n  container_iso_path: {dir}/anweddol_container.iso\n  \
         max_allowed_running_containers: 3\n  bridge_interface_name: anwdlbr0\nserver:\n  \
         rsa_keys_root_path: {dir}/rsa\n  log_file_path: {dir}/log/server.txt\n  \
         pid_file_path: {dir}/run/server.pid\n  bind_address: 127.0.0.1\n  listen_port: {port}\n",
    );
    fs::rename(older.path("rsa/private.pem"), older.path("rsa/private_key.pem")).unwrap();
    let _ = older.succeeds("start");
    assert!(Older::answers(older.port) && older.path("rsa/public_key.pem").exists());
    let _ = older.succeeds("restart");
    let _ = older.succeeds("stop");
}

#[test]
fn without_the_older_file_that_of_this_directory_counts() {
    let older = Older::new();
    let port = older.port;
    let text = format!(
        "[network]\nport=0\n[containers]\nbind_address=127.0.0.1\nlisten_port={port}\nstate=m\n\
         container_iso_file_path=anweddol_container.iso\nprivate_rsa_key_file_path=rsa/private.pem\n"
    );
    fs::write(older.path("gatehouse.ini"), text).unwrap();
    let called = |line: &str| {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        run(&older.link, &arguments, older.setup.path())
    };
    if Path::new("/etc/anweddol/config.yaml").exists() {
        return;
    }
    let exit = called("start");
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(Older::answers(port));
    assert_eq!(called("stop").code, Some(0));
    assert!(!Older::answers(port));
    fs::remove_file(older.path("gatehouse.ini")).unwrap();
    let exit = called("start");
    assert!(
        exit.code == Some(255) && exit.stderr.contains("/etc/anweddol/config.yaml"),
        "{exit:?}"
    );
}
