//! What a configuration of the older program becomes.

use std::path::Path;

use super::super::{Config, LogRotation, Overrides, Problems, Role};
use super::import;

const CURRENT: &str = r#"
---
# Anweddol server configuration file
container:
  # The ISO
  container_iso_file_path: /etc/anweddol/iso/anweddol_container.iso
  max_allowed_running_container_domains: 6   # at most
  container_memory: 2048
  container_vcpus: 2
  nat_interface_name: virbr0
  domain_type: kvm
  wait_max_tryout: 20
  endpoint_username: endpoint
  endpoint_password: 'a#b$c'
  endpoint_listen_port: 22
server:
  public_rsa_key_file_path: /etc/anweddol/rsa/public.pem
  private_rsa_key_file_path: /etc/anweddol/rsa/private.pem
  log_file_path: /var/log/anweddol/server.txt
  pid_file_path: /etc/anweddol/server.pid
  user: anweddol
  bind_address: 0.0.0.0
  listen_port: 6150
  timeout: null
  enable_onetime_rsa_keys: False
web_server:
  log_file_path: /var/log/anweddol/web.txt
  user: web
  listen_port: 8081
  enable_ssl: False
  ssl_pem_private_key_file_path:
port_forwarding:
  port_range: [10000, 20000]
log_rotation:
  enabled: True
  log_archive_folder_path: /var/log/anweddol/archive
  max_log_lines_amount: 3000
  action: archive
ip_filter:
  enabled: True
  denied_ip_list:
    - any
  allowed_ip_list:
    - 10.0.0.1
    - "10.0.0.2"
access_token:
  enabled: False
  access_token_database_file_path: /etc/anweddol/credentials/access_token.db
"#;

fn load(page: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f.toml");
    std::fs::write(&file, page).unwrap();
    Config::load(&file, &Overrides::default(), &|_| None).unwrap()
}

#[test]
fn a_file_of_today_means_the_same() {
    let page = import("config.yaml", CURRENT).unwrap();
    let config = load(&page);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.log.file.as_deref(), Some(Path::new("/var/log/anweddol/server.txt")));
    assert_eq!(config.paths.pidfile.as_deref(), Some(Path::new("/etc/anweddol/server.pid")));
    let containers = config.containers.unwrap();
    assert_eq!(containers.machines.memory_mb, 2048);
    assert_eq!(containers.machines.endpoint_password.expose(), "a#b$c");
    assert_eq!(containers.classic.unwrap().client_timeout, None);
    assert_eq!(containers.key_files.public, Path::new("/etc/anweddol/rsa/public.pem"));
    assert!(containers.web_server.is_none());
    let filter = containers.machines.ip_filter.unwrap();
    assert!(filter.admits("10.0.0.2".parse().unwrap()));
    assert!(!filter.admits("10.0.0.3".parse().unwrap()));
    for left_out in ["nat_interface_name", "server.user", "wait_max_"] {
        assert!(page.contains(left_out), "{left_out} is named\n{page}");
    }
}

#[test]
fn a_file_of_the_first_versions_means_the_same() {
    let page = import(
        "c",
        "container:\n  container_iso_path: /a.iso\n  max_allowed_running_containers: null\n  \
         bridge_interface_name: anwdlbr0\nserver:\n  rsa_keys_root_path: /etc/anweddol/rsa/\n\
         access_token:\n  enabled: true\n  access_tokens_database_path: /t.db\nother:\n  x: 1\n",
    )
    .unwrap();
    let containers = load(&page).containers.unwrap();
    assert_eq!(containers.machines.iso.as_deref(), Some(Path::new("/a.iso")));
    assert_eq!(containers.key_files.private, Path::new("/etc/anweddol/rsa/private_key.pem"));
    assert_eq!(containers.access_tokens.as_deref(), Some(Path::new("/t.db")));
    assert!(page.contains("other.x is left out"), "{page}");
}

#[test]
fn what_is_not_understood_is_refused_with_its_line() {
    let check = |text: &str, expected: &str| {
        let problems = import("c", text).unwrap_err().to_string();
        assert!(problems.starts_with(expected), "{problems}");
    };
    check("a: 1\n", "c:1: expected a section");
    check("  a: 1\n", "c:1: a key before");
    check("a:\n  b\n", "c:2: expected `key: value`");
    check("a:\n  b: {x: 1}\n", "c:2: a value that is not understood");
    check("a:\n  b: |\n", "c:2: a value that is not understood");
    check("a:\n  b: [1\n", "c:2: a value that is not understood");
    check("a:\n  b: \"x\n", "c:2: a value that is not understood");
    check("a:\n  b: 1\n  - 2\n", "c:3: a list item");
    check("- 2\n", "c:1: a list item");
    check("a:\n  b: 1\nc:\n  b: 1\na:\n  b: 2\n", "c:6: given twice, first in line 2");
    assert!(import("c", &"#".repeat(super::BYTES_MAX + 1)).is_err());
}

/// What a process of this part makes of a file.
fn of_process(text: &str, role: Role) -> Result<Config, Problems> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, text).unwrap();
    let overrides = Overrides { role, ..Overrides::default() };
    Config::load(&file, &overrides, &|_| None)
}

#[test]
fn every_key_of_all_versions_is_converted_or_named() {
    let with_values = [
        ("container_iso_path", "/a"),
        ("max_allowed_running_containers", "3"),
        ("bridge_interface_name", "anwdlbr0"),
    ];
    for line in CURRENT.lines().filter(|line| line.starts_with("  ") && line.contains(':')) {
        let key = line.trim().split(':').next().unwrap();
        let page = import("c", CURRENT).unwrap();
        let of_ours = match key {
            "log_file_path" => "[log]\nfile = ",
            "pid_file_path" => "[paths]\npidfile = ",
            // Of the rotation, whose lines say it.
            "enabled" => "lines_max = 3000",
            "max_log_lines_amount" => "lines_max = 3000",
            "action" => "rotation = \"archive\"",
            "log_archive_folder_path" => "archive = \"/var/log/anweddol/archive\"",
            key => key,
        };
        assert!(page.contains(of_ours), "{key}: {page}");
    }
    for (key, value) in with_values {
        let page = import("c", &format!("container:\n  {key}: {value}\n")).unwrap();
        assert!(page.contains(key), "{key}: {page}");
    }
    let page =
        import("c", "container:\n  container_vcpus:\nserver:\n  bind_address: ''\n").unwrap();
    assert!(page.contains("container.container_vcpus is left out: it has no value"), "{page}");
    assert!(page.contains("bind_address = \"0.0.0.0\""), "{page}");
}

#[test]
fn the_rotation_of_the_log_is_kept() {
    let rotation = |text: &str| {
        let text = format!("server:\n  log_file_path: /l/s.txt\nlog_rotation:\n{text}");
        of_process(&text, Role::Classic).unwrap().log.rotation
    };
    let rotated = |lines_max: u64, archive: Option<&str>| {
        Some(LogRotation { lines_max, archive: archive.map(Into::into) })
    };
    assert_eq!(rotation("  enabled: True\n"), rotated(4000, Some("/l")));
    assert_eq!(
        rotation("  max_log_lines_amount: 7\n  log_archive_folder_path: /a\n  enabled: True\n"),
        rotated(7, Some("/a"))
    );
    assert_eq!(rotation("  enabled: True\n  action: delete\n"), rotated(4000, None));
    assert_eq!(rotation("  enabled: False\n  max_log_lines_amount: 7\n"), None);
    let page = import("c", "log_rotation:\n  enabled: False\n  action: delete\n").unwrap();
    assert!(
        page.contains("log_rotation.action is left out: log_rotation.enabled is off"),
        "{page}"
    );
}

#[test]
fn without_a_limit_there_are_as_many_machines_as_ports() {
    let text = "container:\n  max_allowed_running_container_domains: null\nport_forwarding:\n  \
                port_range: [10000, 10019]\n";
    let containers = of_process(text, Role::Whole).unwrap().containers.unwrap();
    assert_eq!(containers.machines.count_max, 20);
}

#[test]
fn a_file_that_is_read_means_what_its_import_means() {
    let config = of_process(CURRENT, Role::Whole).unwrap();
    let of_page = load(&import("config.yaml", CURRENT).unwrap());
    assert!(config.opens_http && config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.run_as.as_deref(), Some("anweddol"));
    let machines = |config: &Config| format!("{:?}", config.containers.as_ref().unwrap().machines);
    assert_eq!(machines(&config), machines(&of_page));
    assert!(config.containers.unwrap().classic.is_some());
}

#[test]
fn each_process_has_its_own_part_of_the_file() {
    let classic = of_process(CURRENT, Role::Classic).unwrap();
    let web = of_process(CURRENT, Role::Web).unwrap();
    assert!(!classic.opens_http && !web.opens_http);
    assert_eq!(web.run_as.as_deref(), Some("web"));
    assert_eq!(web.log.file.as_deref(), Some(Path::new("/var/log/anweddol/web.txt")));
    let (of_classic, of_web) = (classic.containers.unwrap(), web.containers.unwrap());
    assert!(of_classic.classic.is_some() && of_classic.web_server.is_none());
    assert!(of_web.classic.is_none() && of_web.web_server.is_some_and(|web| web.port == 8081));
    assert_ne!(of_classic.machines.state, of_web.machines.state);
    assert_eq!(of_classic.machines.images, of_web.machines.images);
    // Where the file names none, the two have a pid file each all the same.
    assert_ne!(classic.paths.pidfile, web.paths.pidfile);
    assert_eq!(web.paths.pidfile, Some(of_web.machines.state.join("server.pid")));
}

#[test]
fn a_mistake_is_told_in_the_words_of_the_file() {
    let check = |text: &str, expected: &str| {
        let problems = of_process(text, Role::Classic).unwrap_err().to_string();
        assert!(problems.contains(expected), "{problems}");
    };
    check(
        "server:\n  timeout: 5\n\ncontainer:\n  container_memory: much\n",
        "config.yaml:5: [container] container_memory: found `much`",
    );
    check(
        "container:\n  container_iso_path: /a\n  container_iso_file_path: /b\n",
        "config.yaml:3: [container] container_iso_file_path: means the same as `container_iso_path` in line 2",
    );
    check(
        "web_server:\n  enable_ssl: True\n  listen_port: 1\ncontainer:\n  b: {}\n",
        "config.yaml:5: a value that is not understood",
    );
}
