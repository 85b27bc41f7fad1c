//! A directory with the link, the older program's file and all that it names.
//!
//! Invariant: a server that a test leaves in the background is ended with its test, by the number in its pid file.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use e2e::lending::{Ends, signal};
use e2e::{Exit, Process, Setup, Signal, free_port, program};
use serde_json::Value;

/// As that program ships it, but for its paths and ports, and a `state`, which that program does not know.
const YAML: &str = "
container:
  state: {dir}/m
  container_iso_file_path: {dir}/anweddol_container.iso
  max_allowed_running_container_domains: 3
  container_memory: 256
  container_vcpus: 1
  nat_interface_name: virbr0
  domain_type: qemu
  wait_max_tryout: 20
  endpoint_username: endpoint
  endpoint_password: endpoint
  endpoint_listen_port: 22
server:
  public_rsa_key_file_path: {dir}/rsa/public.pem
  private_rsa_key_file_path: {dir}/rsa/private.pem
  log_file_path: {dir}/log/server.txt
  pid_file_path: {dir}/run/server.pid
  user: {user}
  bind_address: 127.0.0.1
  listen_port: {port}
  timeout: 10
  enable_onetime_rsa_keys: False
web_server:
  log_file_path: {dir}/log/web_server.txt
  pid_file_path: {dir}/run/web_server.pid
  user: {user}
  listen_port: {web_port}
  enable_ssl: False
  ssl_pem_private_key_file_path: {dir}/key.pem
  ssl_pem_certificate_file_path: {dir}/cert.pem
port_forwarding:
  port_range: [10000, 20000]
log_rotation:
  enabled: False
  log_archive_folder_path: {dir}/log/archive
  max_log_lines_amount: 4000
  action: archive
ip_filter:
  enabled: False
  denied_ip_list: []
  allowed_ip_list:
    - any
access_token:
  enabled: False
  access_token_database_file_path: {dir}/credentials/access_token.db
";

/// A directory with the link, the older program's file and what it names.
pub(super) struct Older {
    pub(super) setup: Setup,
    pub(super) link: PathBuf,
    pub(super) port: u16,
    pub(super) web_port: u16,
    _ends: Ends,
}

impl Older {
    pub(super) fn new() -> Self {
        Self::of(YAML)
    }

    /// With this file; its ports, paths and user are put in.
    pub(super) fn of(yaml: &str) -> Self {
        let (port, web_port) = (free_port(), free_port());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let key = fs::read(root.join("testdata/containers/private4096.pem")).unwrap();
        let setup = Setup::new().file("rsa/private.pem", key).file("anweddol_container.iso", "iso");
        for folder in ["log", "run", "credentials"] {
            fs::create_dir(setup.path().join(folder)).unwrap();
        }
        let link = setup.path().join("anwdlserver");
        symlink(program(), &link).unwrap();
        let older = Self { _ends: Ends::of(&setup), setup, link, port, web_port };
        older.write_yaml(yaml);
        older
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.setup.path().join(name)
    }

    pub(super) fn write_yaml(&self, yaml: &str) {
        let text = yaml
            .replace("{dir}", &self.setup.path().display().to_string())
            .replace("{port}", &self.port.to_string())
            .replace("{web_port}", &self.web_port.to_string())
            .replace("{user}", &own_name());
        fs::write(self.path("config.yaml"), text).unwrap();
    }

    /// Changes lines of the file.
    pub(super) fn replace(&self, from: &str, to: &str) {
        let file = self.path("config.yaml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "no {from} in {text}");
        fs::write(file, text.replace(from, to)).unwrap();
    }

    pub(super) fn begin(&self, line: &str) -> Process {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let environment = [
            ("ANWDLSERVER_CONFIG", self.path("config.yaml")),
            ("XDG_CACHE_HOME", self.path("cache")),
        ];
        let environment =
            environment.map(|(name, path)| (name.to_owned(), path.display().to_string()));
        Process::start(&self.link, &arguments, self.setup.path(), &environment)
    }

    pub(super) fn run(&self, line: &str) -> Exit {
        self.begin(line).wait()
    }

    #[track_caller]
    pub(super) fn succeeds(&self, line: &str) -> Exit {
        let exit = self.run(line);
        assert_eq!(exit.code, Some(0), "{line}: {exit:?}\n{}", self.log());
        exit
    }

    /// It fails as the older program does, and what it says has all of these parts.
    #[track_caller]
    pub(super) fn fails(&self, line: &str, parts: &[&str]) -> Exit {
        let exit = self.run(line);
        assert_eq!(exit.code, Some(255), "{line}: {exit:?}");
        for part in parts {
            assert!(exit.stderr.contains(part), "{line}: no {part} in {exit:?}");
        }
        exit
    }

    /// The one object that is printed with `--json`.
    #[track_caller]
    pub(super) fn json(&self, line: &str, code: i32) -> Value {
        let exit = self.run(&format!("{line} --json"));
        assert_eq!(exit.code, Some(code), "{line}: {exit:?}");
        assert_eq!(exit.stderr, "", "{line}");
        let said: Value = serde_json::from_str(&exit.stdout).expect("one object");
        let status = if code == 0 { "OK" } else { "ERROR" };
        assert_eq!(said["status"], status, "{line}: {said}");
        assert!(said["message"].is_string() && said["data"].is_object(), "{line}: {said}");
        assert_eq!(said.as_object().unwrap().len(), 3, "{line}: {said}");
        said
    }

    pub(super) fn pid(&self, file: &str) -> Option<u32> {
        fs::read_to_string(self.path("run").join(file)).ok()?.trim().parse().ok()
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.path("log/server.txt")).unwrap_or_default()
    }

    pub(super) fn answers(port: u16) -> bool {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    }

    /// The answer of the documented routes' own port.
    pub(super) fn get(&self, path: &str) -> (u16, Value) {
        let url = format!("http://127.0.0.1:{}{path}", self.web_port);
        let mut answer = ureq::get(&url).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
    }

    pub(super) fn post(&self, path: &str, parameters: &Value) -> Value {
        let url = format!("http://127.0.0.1:{}{path}", self.web_port);
        let mut answer = ureq::post(&url).send_json(parameters).unwrap();
        answer.body_mut().read_json().unwrap()
    }
}

impl Drop for Older {
    fn drop(&mut self) {
        for pid in ["server.pid", "web_server.pid"].iter().filter_map(|file| self.pid(file)) {
            if is_server(pid) {
                signal(pid, Signal::KILL);
            }
        }
    }
}

pub(super) fn own_name() -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let uid = rustix::process::geteuid().as_raw().to_string();
    let is_own = |line: &&str| line.split(':').nth(2) == Some(uid.as_str());
    users.lines().find(is_own).unwrap().split(':').next().unwrap().to_owned()
}

pub(super) fn words_of(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

pub(super) fn is_server(pid: u32) -> bool {
    words_of(pid).starts_with("anwdlserver start")
}

/// The number behind the process's name in its line of `/proc`, counted from 3.
pub(super) fn stat(pid: u32, field: usize) -> String {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, behind) = line.rsplit_once(')').unwrap();
    behind.split_whitespace().nth(field - 3).unwrap().to_owned()
}
