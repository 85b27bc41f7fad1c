//! What the section says, in both languages, and what cannot be meant.

use std::path::Path;
use std::time::Duration;

use super::super::{Config, Overrides};
use super::{Accelerator, Containers, OnShutdown, PortRange};

fn load(text: &str) -> Config {
    Config::embedded("f", text, &Overrides::default(), &|_| None).unwrap()
}

fn read(text: &str) -> Containers {
    load(text).containers.unwrap()
}

#[track_caller]
fn check_problem(text: &str, expected: &str) {
    let problems = Config::embedded("f", text, &Overrides::default(), &|_| None).unwrap_err();
    assert!(problems.to_string().contains(expected), "{problems}");
}

#[test]
fn without_the_section_there_are_no_machines_and_with_it_every_default() {
    assert!(load("").containers.is_none());
    let containers = read("[containers]\nstate = machines");
    let (machines, classic) = (&containers.machines, containers.classic.unwrap());
    assert_eq!((classic.port, classic.client_timeout), (6150, Some(Duration::from_secs(10))));
    assert_eq!((machines.count_max, machines.memory_mb, machines.vcpus), (6, 1024, 2));
    assert_eq!(machines.ports, PortRange { first: 10000, last: 20000 });
    assert_eq!(machines.endpoint_password.expose(), "endpoint");
    assert_eq!(machines.images, Path::new("machines/images"));
    assert_eq!(containers.key_files.private, Path::new("machines/private.pem"));
    assert!(!machines.internet && machines.ttl_default.is_none() && machines.quota.is_none());
    assert_eq!(machines.on_shutdown, OnShutdown::Keep);
    let snapshots = machines.snapshots;
    assert!(snapshots.is_on && !snapshots.is_foreign_on && snapshots.count_max == 8);
    assert!(!read("[containers]\nsnapshot = off").machines.snapshots.is_on);
    assert!(containers.web_server.is_none() && containers.access_tokens.is_none());
    assert!(containers.machines.ip_filter.is_none());
}

const INI: &str = "
    [containers]
    max_allowed_running_containers = 3
    timeout = 0
    domain_type = qemu
    wait_max_tryout = -1
    ttl_max_secs = 60
    [containers.web_server]
    listen_port = 8080
    [Containers.Port_Forwarding]
    port_range = list:int:10000 int:10002
    [containers.ip_filter]
    enabled = yes
    denied_ip_list = any
    allowed_ip_list = 10.0.0.1 10.1.0.0/16
    [containers.access_token]
    enabled = true
    access_token_database_file_path = t.db
";
const TOML: &str = "
    [containers]
    max_allowed_running_container_domains = 3
    timeout = 0
    domain_type = 'qemu'
    wait_max_tryout = -1
    ttl_max_secs = 60
    ip_filter = { enabled = true, denied_ip_list = ['any'], allowed_ip_list = ['10.0.0.1', '10.1.0.0/16'] }
    [containers.web_server]
    listen_port = 8080
    [containers.port_forwarding]
    port_range = [10000, 10002]
    [containers.access_token]
    enabled = true
    access_token_database_file_path = 't.db'
";

#[test]
fn both_languages_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f.toml");
    std::fs::write(&file, TOML).unwrap();
    let toml = Config::load(&file, &Overrides::default(), &|_| None).unwrap();
    for containers in [read(INI), toml.containers.unwrap()] {
        assert_eq!(containers.machines.count_max, 3);
        assert_eq!(containers.classic.unwrap().client_timeout, None);
        assert_eq!(containers.machines.accelerator, Accelerator::Emulation);
        assert_eq!(containers.machines.ready_timeout, None);
        assert_eq!(containers.machines.ttl_max, Some(Duration::from_secs(60)));
        assert_eq!(containers.web_server.unwrap().port, 8080);
        assert_eq!(containers.machines.ports, PortRange { first: 10000, last: 10002 });
        let filter = containers.machines.ip_filter.unwrap();
        assert!(filter.admits("10.1.2.3".parse().unwrap()));
        assert!(!filter.admits("10.2.2.3".parse().unwrap()));
        assert_eq!(containers.access_tokens.unwrap().file_name().unwrap(), "t.db");
    }
}

#[test]
fn an_empty_address_is_the_documented_one() {
    assert_eq!(read("[containers]").bind_to, "0.0.0.0");
    assert_eq!(read("[containers]\nbind_address =").bind_to, "0.0.0.0");
    assert_eq!(read("[containers]\nbind_address = [::1]").bind_to, "::1");
    check_problem("[network]\nbindto =", "an address or a host name");
}

#[test]
fn what_cannot_be_meant_is_told() {
    check_problem(
        "[containers]\nmax_allowed_running_container_domains = 9\n[containers.port_forwarding]\nport_range = 10-17",
        "8 ports are not enough for 9 machines",
    );
    check_problem("[containers.port_forwarding]\nport_range = 20 10", "two port numbers");
    check_problem("[containers.ip_filter]\ndenied_ip_list = nobody", "`any`, addresses");
    check_problem("[containers]\nlisten_prt = 1", "did you mean `listen_port`?");
    check_problem("[containers]\nwait_max_tryout = 0", "above 0, or -1");
    check_problem("[containers.web_server]\nlisten_port = 1\nenable_ssl = on", "needs `ssl_pem");
}

#[test]
fn keys_without_a_meaning_here_are_passed_over_with_a_note() {
    let text = "[containers]\nnat_interface_name = virbr0\nuser = anweddol\n[containers.log_rotation]\naction = delete";
    let warnings: Vec<String> = load(text).warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings[0].contains("machines need no interface of the host"), "{warnings:?}");
    assert!(warnings[2].contains("`lines_max`"), "{warnings:?}");
}

#[test]
fn the_documented_password_is_no_secret_elsewhere() {
    let shown = super::super::show(&load("[containers]"));
    assert!(shown.contains("endpoint_username = endpoint "), "{shown}");
    let shown = super::super::show(&load("[containers]\nendpoint_password = hush"));
    assert!(!shown.contains("hush"), "{shown}");
}
