//! Makes our configuration of the older program's `config.yaml`.
//!
//! Invariant: what is understood is said in our words, what has no meaning here is named in a comment, and what is not
//! understood is refused with its line; nothing is dropped in silence.
//! Not here: how that file is read (`yaml`).

#[cfg(test)]
mod tests;
mod yaml;

use super::Role;
use super::containers;
use super::problem::{Problem, Problems};
use super::source::Document;
use yaml::{Entry, Scalar, Value};

/// The longest file.
const BYTES_MAX: usize = 1 << 20;
/// The port of the documented routes where the file names none.
const WEB_PORT_DEFAULT: i64 = 8080;
/// Lines of the log, where it is rotated and the file does not say when.
const LOG_LINES_DEFAULT: i64 = 4000;

/// Converts `text`, shown as `name` in messages, to a configuration in TOML.
///
/// # Errors
/// Everything that is not understood, with its line.
pub fn import(name: &str, text: &str) -> Result<String, Problems> {
    Ok(convert(name, text, Role::Whole)?.page)
}

/// Such a file in our words.
#[derive(Debug)]
pub(super) struct Imported {
    /// As TOML.
    pub(super) page: String,
    /// `user`: whom the older program ran as when root started it.
    pub(super) user: Option<String>,
    /// For each line of the page, what it was made of.
    origins: Vec<Option<Place>>,
}

/// A key of the older program's file.
#[derive(Debug, Clone)]
struct Place {
    section: String,
    key: String,
    line: usize,
}

impl Imported {
    /// Gives what was read of the page the lines of the file that the page was made of.
    pub(super) fn give_lines(&self, document: &mut Document) {
        for section in &mut document.sections {
            let mut first = usize::MAX;
            for entry in &mut section.entries {
                entry.line = self.place(entry.line).map_or(0, |place| place.line);
                first = first.min(entry.line);
            }
            section.line = first;
        }
    }

    /// The same problems in the words of that file.
    pub(super) fn in_its_words(&self, problems: Problems) -> Problems {
        let mut told = Problems::default();
        for mut problem in problems.into_vec() {
            let known = self.origins.iter().flatten().find(|it| Some(it.line) == problem.line);
            if let Some(place) = known {
                problem.section = Some(place.section.clone());
                problem.key = Some(place.key.clone());
            }
            told.push(problem);
        }
        told
    }

    fn place(&self, line: usize) -> Option<&Place> {
        self.origins.get(line.checked_sub(1)?)?.as_ref()
    }
}

/// Converts `text` for a process that has this part.
///
/// # Errors
/// Everything that is not understood, with its line.
pub(super) fn convert(name: &str, text: &str, role: Role) -> Result<Imported, Problems> {
    if text.len() > BYTES_MAX {
        return Err(Problem::of_file(name, format!("longer than {BYTES_MAX} bytes")).into());
    }
    let mut problems = Problems::default();
    let entries = yaml::read(name, text, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut made = Made::new(role == Role::Web, &entries);
    for entry in &entries {
        made.take(entry);
    }
    if made.is_web {
        made.put_default(WEB, "listen_port", WEB_PORT_DEFAULT);
    }
    if made.rotates {
        made.put_default("log", "lines_max", LOG_LINES_DEFAULT);
    }
    Ok(made.page(name))
}

const NO_VALUE: &str = "it has no value, so the default counts";
/// The section of the documented routes' own port.
const WEB: &str = "containers.web_server";

/// The most machines that there may be.
const MACHINES_MAX: i64 = 10_000;
/// The sections that come of it, in this order.
const SECTIONS: [&str; 7] = [
    "paths",
    "log",
    "containers",
    WEB,
    "containers.port_forwarding",
    "containers.ip_filter",
    "containers.access_token",
];

/// A line to be.
#[derive(Debug)]
struct Line {
    section: &'static str,
    text: String,
    place: Option<Place>,
}

#[derive(Debug)]
struct Made {
    /// Whether the documented routes' own port is what the process is for.
    is_web: bool,
    /// How many ports machines may have; as many machines there may be at the most.
    ports: i64,
    /// Whether the log is rotated.
    rotates: bool,
    lines: Vec<Line>,
    notes: Vec<String>,
    user: Option<String>,
}

impl Made {
    fn new(is_web: bool, entries: &[Entry]) -> Self {
        let range = entries.iter().find(|entry| entry.key == "port_range");
        let ports = match range.map(|entry| &entry.value) {
            Some(Value::List(ends)) => match ends[..] {
                [Scalar::Number(first), Scalar::Number(last)] => last.saturating_sub(first),
                _ => 0,
            },
            _ => MACHINES_MAX,
        };
        let ports = ports.saturating_add(1).clamp(1, MACHINES_MAX);
        let is_on = Value::One(Scalar::Switch(true));
        let rotates = entries.iter().any(|entry| {
            entry.section == "log_rotation" && entry.key == "enabled" && entry.value == is_on
        });
        Self { is_web, ports, rotates, lines: Vec::new(), notes: Vec::new(), user: None }
    }

    fn take(&mut self, entry: &Entry) {
        let Entry { section, key, value, .. } = entry;
        let home = match section.as_str() {
            "container" | "server" => "containers",
            "web_server" => WEB,
            "port_forwarding" => "containers.port_forwarding",
            "ip_filter" => "containers.ip_filter",
            "access_token" => "containers.access_token",
            "log_rotation" => return self.take_rotation(entry),
            _ => return self.note(entry, "nothing is known of this section"),
        };
        let own = if self.is_web { "web_server" } else { "server" };
        match (section.as_str(), key.as_str(), value) {
            (_, "timeout", Value::One(Scalar::Null)) => self.put(entry, home, key, &number(0)),
            (
                _,
                "max_allowed_running_container_domains" | "max_allowed_running_containers",
                Value::One(Scalar::Null),
            ) => {
                self.put(entry, home, key, &number(self.ports));
            }
            (_, _, Value::One(Scalar::Null)) => {
                self.note(entry, NO_VALUE);
            }
            (section, "log_file_path", _) if section == own => {
                self.put(entry, "log", "file", value);
            }
            (section, "pid_file_path", _) if section == own => {
                self.put(entry, "paths", "pidfile", value);
            }
            (section, "user", Value::One(Scalar::Text(user))) if section == own => {
                self.user = Some(user.clone());
                self.pass_over(entry, home);
            }
            ("server", "rsa_keys_root_path", Value::One(Scalar::Text(folder))) => {
                for half in ["public", "private"] {
                    let path = format!("{}/{half}_key.pem", folder.trim_end_matches('/'));
                    self.put(entry, home, &format!("{half}_rsa_key_file_path"), &text(path));
                }
            }
            // Both mean every address.
            ("server", "bind_address", Value::One(Scalar::Text(address))) if address.is_empty() => {
                self.put(entry, home, key, &text("0.0.0.0".to_owned()));
            }
            // The older program ran this as a process of its own, which may not have been wanted.
            ("web_server", "listen_port", Value::One(Scalar::Number(port))) if !self.is_web => {
                let text =
                    format!("# Take the `#` away to have this port:\n# listen_port = {port}");
                self.lines.push(Line { section: home, text, place: None });
            }
            (_, "domain_type", Value::One(Scalar::Text(kind))) if kind == "kvm" => {
                self.put(entry, home, key, &text("auto".to_owned()));
            }
            (_, "wait_max_tryout", Value::One(Scalar::Number(20))) => {
                self.note(entry, "this was the default, and is too short without KVM");
            }
            _ => self.pass_over(entry, home),
        }
    }

    /// The settings of the log's rotation, which there is when it is switched on.
    fn take_rotation(&mut self, entry: &Entry) {
        let ours = match entry.key.as_str() {
            // Said by the number of lines.
            "enabled" if self.rotates => return,
            "enabled" => return self.note(entry, "the log is not rotated without it"),
            "max_log_lines_amount" => "lines_max",
            "action" => "rotation",
            "log_archive_folder_path" => "archive",
            _ => return self.note(entry, "nothing is known of this key"),
        };
        match &entry.value {
            _ if !self.rotates => self.note(entry, "log_rotation.enabled is off"),
            Value::One(Scalar::Null) => self.note(entry, NO_VALUE),
            value => self.put(entry, "log", ours, value),
        }
    }

    /// Takes a key as it is, where it means the same here.
    fn pass_over(&mut self, entry: &Entry, home: &'static str) {
        let Entry { key, value, .. } = entry;
        match containers::passed_over(home, key) {
            Some(instead) => self.note(entry, instead),
            None if !super::table::rows_of(home).any(|row| row.is_called(key)) => {
                self.note(entry, "nothing is known of this key");
            }
            None => self.put(entry, home, key, value),
        }
    }

    fn note(&mut self, entry: &Entry, why: &str) {
        self.notes.push(format!("# {}.{} is left out: {why}.", entry.section, entry.key));
    }

    fn put(&mut self, entry: &Entry, section: &'static str, key: &str, value: &Value) {
        let text = match value {
            Value::One(one) => shown(one),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(shown).collect();
                format!("[{}]", items.join(", "))
            }
        };
        let Entry { section: of, key: named, line, .. } = entry;
        let place = Place { section: of.clone(), key: named.clone(), line: *line };
        self.lines.push(Line { section, text: format!("{key} = {text}"), place: Some(place) });
    }

    /// What the older program takes where its file does not say.
    fn put_default(&mut self, section: &'static str, key: &str, number: i64) {
        let begins = format!("{key} = ");
        let is_it = |line: &Line| line.section == section && line.text.starts_with(&begins);
        if !self.lines.iter().any(is_it) {
            self.lines.push(Line { section, text: format!("{begins}{number}"), place: None });
        }
    }

    fn page(self, name: &str) -> Imported {
        let mut page = format!("# Made of {name} by `gatehouse config import`.\n");
        let mut origins = vec![None];
        let mut add = |text: &str, place: Option<&Place>| {
            page.push_str(text);
            page.push('\n');
            origins.extend(text.split('\n').map(|_| place.cloned()));
        };
        for note in &self.notes {
            add(note, None);
        }
        for section in SECTIONS {
            let mut lines = self.lines.iter().filter(|line| line.section == section).peekable();
            if section != "containers" && lines.peek().is_none() {
                continue;
            }
            add(&format!("\n[{section}]"), None);
            for line in lines {
                add(&line.text, line.place.as_ref());
            }
        }
        Imported { page, user: self.user, origins }
    }
}

fn number(number: i64) -> Value {
    Value::One(Scalar::Number(number))
}

fn text(text: String) -> Value {
    Value::One(Scalar::Text(text))
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
