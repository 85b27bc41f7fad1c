//! Makes our configuration of the older program's `config.yaml`.
//!
//! Invariant: what is understood is said in our words, what has no meaning here is named in a comment, and what is not
//! understood is refused with its line; nothing is dropped in silence.
//! Not here: YAML at large. That file has two levels and lists; this reads no more.

use super::containers;
use super::problem::{Problem, Problems};

/// The longest file.
const BYTES_MAX: usize = 1 << 20;

/// A value as it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scalar {
    Null,
    Switch(bool),
    Number(i64),
    Text(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    One(Scalar),
    List(Vec<Scalar>),
}

/// One key of the file.
#[derive(Debug)]
struct Entry {
    section: String,
    key: String,
    value: Value,
}

/// Converts `text`, shown as `name` in messages, to a configuration in TOML.
///
/// # Errors
/// Everything that is not understood, with its line.
pub fn import(name: &str, text: &str) -> Result<String, Problems> {
    if text.len() > BYTES_MAX {
        return Err(Problem::of_file(name, format!("longer than {BYTES_MAX} bytes")).into());
    }
    let mut problems = Problems::default();
    let entries = read(name, text, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let is_on = Value::One(Scalar::Switch(true));
    let rotates = entries.iter().any(|entry| {
        entry.section == "log_rotation" && entry.key == "enabled" && entry.value == is_on
    });
    let mut made = Made { rotates, ..Made::default() };
    for entry in &entries {
        made.take(entry);
    }
    Ok(made.page(name))
}

fn read(name: &str, text: &str, problems: &mut Problems) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut section = None;
    for (index, line) in text.lines().enumerate() {
        let mut wrong = |message: &str| problems.push(Problem::of_line(name, index + 1, message));
        let content = without_comment(line);
        let trimmed = content.trim();
        if trimmed.is_empty() || trimmed == "---" {
            continue;
        }
        if let Some(item) = trimmed.strip_prefix("- ") {
            match (entries.last_mut().map(|entry| &mut entry.value), scalar(item)) {
                (Some(Value::List(items)), Some(item)) => items.push(item),
                (Some(value @ Value::One(Scalar::Null)), Some(item)) => {
                    *value = Value::List(vec![item]);
                }
                _ => wrong("a list item that belongs to no key, or is none"),
            }
            continue;
        }
        let Some((key, value)) = trimmed.split_once(':') else {
            wrong("expected `key: value`");
            continue;
        };
        let (key, value) = (key.trim().to_owned(), value.trim());
        let is_indented = content.starts_with([' ', '\t']);
        match (&section, is_indented, self::value(value)) {
            (_, false, Some(Value::One(Scalar::Null))) if value.is_empty() => section = Some(key),
            (Some(section), true, Some(value)) => {
                entries.push(Entry { section: section.clone(), key, value });
            }
            (_, false, _) => wrong("expected a section: a name and `:` alone"),
            (None, true, _) => wrong("a key before the first section"),
            (_, true, None) => {
                wrong("a value that is not understood: one scalar, or a list of them");
            }
        }
    }
    entries
}

/// The line up to a `#` that begins a comment.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') if before.is_whitespace() => return &line[..at],
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
        before = c;
    }
    line
}

fn value(text: &str) -> Option<Value> {
    let Some(inner) = text.strip_prefix('[') else { return scalar(text).map(Value::One) };
    let inner = inner.strip_suffix(']')?;
    let items = inner.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(scalar).collect::<Option<Vec<_>>>().map(Value::List)
}

fn scalar(text: &str) -> Option<Scalar> {
    let text = text.trim();
    for quote in ['"', '\''] {
        if let Some(rest) = text.strip_prefix(quote) {
            let inner = rest.strip_suffix(quote)?;
            let is_plain = !inner.contains(quote) && !inner.contains('\\');
            return is_plain.then(|| Scalar::Text(inner.to_owned()));
        }
    }
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "on" | "On" => Scalar::Switch(true),
        "false" | "False" | "FALSE" | "no" | "No" | "off" | "Off" => Scalar::Switch(false),
        _ if text.starts_with(['{', '[', '&', '*', '!', '|', '>', '%', '@', '`']) => return None,
        _ => text.parse().map_or_else(|_| Scalar::Text(text.to_owned()), Scalar::Number),
    })
}

/// The sections that come of it, in this order.
const SECTIONS: [&str; 7] = [
    "paths",
    "log",
    "containers",
    "containers.web_server",
    "containers.port_forwarding",
    "containers.ip_filter",
    "containers.access_token",
];

#[derive(Debug, Default)]
struct Made {
    /// Whether the log is rotated.
    rotates: bool,
    lines: Vec<(&'static str, String)>,
    notes: Vec<String>,
}

impl Made {
    fn take(&mut self, entry: &Entry) {
        let Entry { section, key, value } = entry;
        let home = match section.as_str() {
            "container" | "server" => "containers",
            "web_server" => "containers.web_server",
            "port_forwarding" => "containers.port_forwarding",
            "ip_filter" => "containers.ip_filter",
            "access_token" => "containers.access_token",
            "log_rotation" => "containers.log_rotation",
            _ => return self.note(entry, "nothing is known of this section"),
        };
        match (section.as_str(), key.as_str(), value) {
            ("log_rotation", "max_log_lines_amount", _) if self.rotates => {
                self.put("log", "lines_max", value);
            }
            ("log_rotation", "action", _) if self.rotates => self.put("log", "rotation", value),
            ("log_rotation", "log_archive_folder_path", _) if self.rotates => {
                self.put("log", "archive", value);
            }
            ("log_rotation", "enabled", _) if self.rotates => {}
            ("log_rotation", ..) => self.note(entry, "the log is not rotated"),
            ("server", "log_file_path", _) => self.put("log", "file", value),
            ("server", "pid_file_path", _) => self.put("paths", "pidfile", value),
            ("server", "rsa_keys_root_path", Value::One(Scalar::Text(folder))) => {
                for half in ["public", "private"] {
                    let path = format!("{}/{half}_key.pem", folder.trim_end_matches('/'));
                    let path = Value::One(Scalar::Text(path));
                    self.put(home, &format!("{half}_rsa_key_file_path"), &path);
                }
            }
            ("server", "timeout", Value::One(Scalar::Null)) => {
                self.put(home, key, &Value::One(Scalar::Number(0)));
            }
            (_, "max_allowed_running_container_domains", Value::One(Scalar::Null)) => {
                self.put(home, key, &Value::One(Scalar::Number(10_000)));
            }
            // The older program ran this as a process of its own, which may not have been wanted.
            ("web_server", "listen_port", Value::One(Scalar::Number(port))) => {
                self.lines.push((
                    home,
                    format!("# Take the `#` away to have this port:\n# listen_port = {port}"),
                ));
            }
            (_, "domain_type", Value::One(Scalar::Text(kind))) if kind == "kvm" => {
                self.put(home, key, &Value::One(Scalar::Text("auto".to_owned())));
            }
            (_, "wait_max_tryout", Value::One(Scalar::Number(20))) => {
                self.note(entry, "this was the default, and is too short without KVM");
            }
            _ => match containers::passed_over(home, key) {
                Some(instead) => self.note(entry, instead),
                None if !super::table::rows_of(home).any(|row| row.is_called(key)) => {
                    self.note(entry, "nothing is known of this key");
                }
                None => self.put(home, key, value),
            },
        }
    }

    fn note(&mut self, entry: &Entry, why: &str) {
        self.notes.push(format!("# {}.{} is left out: {why}.", entry.section, entry.key));
    }

    fn put(&mut self, section: &'static str, key: &str, value: &Value) {
        let text = match value {
            Value::One(Scalar::Null) => return,
            Value::One(one) => shown(one),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(shown).collect();
                format!("[{}]", items.join(", "))
            }
        };
        self.lines.push((section, format!("{key} = {text}")));
    }

    fn page(&self, name: &str) -> String {
        let mut page = format!("# Made of {name} by `gatehouse config import`.\n");
        for note in &self.notes {
            page.push_str(note);
            page.push('\n');
        }
        for section in SECTIONS {
            let mut lines = self.lines.iter().filter(|line| line.0 == section).peekable();
            if section != "containers" && lines.peek().is_none() {
                continue;
            }
            page.push_str(&format!("\n[{section}]\n"));
            for (_, line) in lines {
                page.push_str(line);
                page.push('\n');
            }
        }
        page
    }
}

/// As TOML. A `$` would begin a reference.
fn shown(value: &Scalar) -> String {
    match value {
        Scalar::Null => "''".to_owned(),
        Scalar::Switch(on) => on.to_string(),
        Scalar::Number(number) => number.to_string(),
        Scalar::Text(text) => toml::Value::String(text.replace('$', "$$")).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Overrides};
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
  listen_port: 8080
  enable_ssl: False
  ssl_pem_private_key_file_path:
port_forwarding:
  port_range: [10000, 20000]
log_rotation:
  enabled: True
  max_log_lines_amount: 3000
  action: delete
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
        let rotation = config.log.rotation.unwrap();
        assert_eq!((rotation.lines_max, rotation.archive), (3000, None));
        let containers = config.containers.unwrap();
        assert_eq!(containers.machines.memory_mb, 2048);
        assert_eq!(containers.machines.endpoint_password.expose(), "a#b$c");
        assert_eq!(containers.classic.unwrap().client_timeout, None);
        assert_eq!(containers.key_files.public, Path::new("/etc/anweddol/rsa/public.pem"));
        assert!(containers.web_server.is_none());
        let filter = containers.ip_filter.unwrap();
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
        assert!(import("c", &"#".repeat(super::BYTES_MAX + 1)).is_err());
    }
}
