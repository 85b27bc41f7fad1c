//! The settings as written: each read by its row of the table, or reported.
//!
//! Invariant: what is read is remembered with its origin, so that `show` shows what is in force.
//! Not here: what settings mean together (`meant`).

use std::path::Path;

use serde_json::Value;

use super::containers;
use super::kinds::{Door, Shown};
use super::mask;
use super::problem::{Problem, Problems};
use super::source::{Node, canonical};
use super::spelling;
use super::table::{self, ROWS, Row, Setting};
use super::value::Resolver;

/// A value in force and where it comes from. No `Debug`: it may be a secret.
#[derive(Clone)]
pub struct Effective {
    /// Section, in the table's spelling or as written.
    pub section: String,
    /// Key, lower-case.
    pub key: String,
    /// `Null`: not set.
    pub value: Value,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether it must never be shown.
    pub secret: bool,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A line of the configuration file.
    File {
        /// As it was named.
        file: String,
        /// From 1.
        line: usize,
    },
    /// An option of the program.
    CommandLine,
}

/// Reads settings out of a resolved document.
pub(super) struct Raw<'a> {
    pub(super) resolver: &'a Resolver<'a>,
    /// The file's directory.
    pub(super) directory: Option<&'a Path>,
    pub(super) problems: &'a mut Problems,
    pub(super) warnings: Problems,
    pub(super) effective: Vec<Effective>,
}

impl Raw<'_> {
    /// The setting's value: the file's, else the default; `None` when unset, or reported.
    pub(super) fn read<T: Shown>(&mut self, setting: &Setting<T>) -> Option<T> {
        let (value, origin) = self.file_or_default(setting);
        self.remember(&setting.row, value.as_ref(), origin);
        value
    }

    /// The same with a value from the command line, which wins when there is one.
    pub(super) fn read_or<T: Shown>(
        &mut self,
        setting: &Setting<T>,
        forced: Option<T>,
    ) -> Option<T> {
        // The file's value is read all the same: its mistakes count.
        let (value, origin) = self.file_or_default(setting);
        let (value, origin) = match forced {
            Some(forced) => (Some(forced), Origin::CommandLine),
            None => (value, origin),
        };
        self.remember(&setting.row, value.as_ref(), origin);
        value
    }

    fn file_or_default<T>(&mut self, setting: &Setting<T>) -> (Option<T>, Origin) {
        let row = &setting.row;
        let door = Door { range: row.range, directory: self.directory };
        let default = || {
            let text = row.default.map(|text| Value::String(text.to_owned()));
            (text.and_then(|text| (setting.kind.read)(&text, &door)), Origin::Default)
        };
        let Some(node) = self.given(row) else {
            return default();
        };
        let Some(resolved) = self.resolver.value(node) else {
            return (None, Origin::Default);
        };
        let is_empty = resolved.value.as_str().is_some_and(str::is_empty);
        if is_empty && row.default.is_none() && !row.secret {
            return default();
        }
        let entry = self.resolver.document.entry(node);
        let origin = Origin::File { file: self.resolver.document.file.clone(), line: entry.line };
        match (setting.kind.read)(&resolved.value, &door) {
            Some(value) if resolved.notes.is_empty() => (Some(value), origin),
            Some(_) => {
                self.problems.push(self.resolver.problem(node, resolved.notes.join("; ")));
                (None, origin)
            }
            None => {
                let found = found(&resolved.value, row.secret);
                let excuse = if is_empty { resolved.excuse() } else { String::new() };
                let message = format!("found {found}{excuse}, expected {}", row.expected());
                self.problems.push(self.resolver.problem(node, message));
                (None, origin)
            }
        }
    }

    /// Where the setting is given, in whatever spelling; two spellings at once are reported.
    pub(super) fn given(&mut self, row: &Row) -> Option<Node> {
        let document = self.resolver.document;
        let section = document.find(row.section)?;
        let keys = || row.aliases.iter().copied().chain([row.key]);
        let mut own: Vec<Node> = keys().filter_map(|key| document.own(section, key)).collect();
        own.sort_by_key(|&node| document.entry(node).line);
        if let [first, others @ ..] = own.as_slice() {
            let entry = document.entry(*first);
            for other in others {
                let message =
                    format!("means the same as `{}` in line {}; keep one", entry.key, entry.line);
                self.problems.push(self.resolver.problem(*other, message));
            }
            return Some(*first);
        }
        keys().find_map(|key| document.lookup(section, key))
    }

    fn remember<T: Shown>(&mut self, row: &Row, value: Option<&T>, origin: Origin) {
        self.effective.push(Effective {
            section: row.section.to_owned(),
            key: row.key.to_owned(),
            value: value.map_or(Value::Null, Shown::shown),
            origin,
            secret: row.secret,
        });
    }

    /// Shows `value` for a setting whose default depends on other settings.
    pub(super) fn amend(&mut self, row: &Row, value: &impl Shown) {
        let is_it = |known: &&mut Effective| known.section == row.section && known.key == row.key;
        if let Some(known) = self.effective.iter_mut().find(is_it) {
            known.value = value.shown();
        }
    }

    /// Reports that `missing` is needed because of `reason`.
    pub(super) fn needs(&mut self, missing: &Row, reason: &Row) {
        let message = format!("needs `{}`: {}", missing.key, missing.expected());
        if let Some(node) = self.given(reason) {
            self.problems.push(self.resolver.problem(node, message));
        }
    }

    /// Reports keys that no row knows in sections the server owns, and doubtful section names.
    pub(super) fn check_names(&mut self) {
        let document = self.resolver.document;
        for (index, section) in document.sections.iter().enumerate() {
            let name = canonical(&section.name);
            if !table::owns(&name) && !containers::is_passed_over(&name) {
                self.check_section(&section.name, section.line);
                self.pass_notes(index);
                continue;
            }
            if document.holds_parameters(index) {
                continue;
            }
            for node in document.own_nodes(index) {
                let key = &document.entry(node).key;
                if self.problems.is_full() {
                    return;
                }
                if table::rows_of(&name).any(|row| row.is_called(key)) {
                    continue;
                }
                if let Some(instead) = containers::passed_over(&name, key) {
                    let message = format!("has no meaning here and is passed over: {instead}");
                    self.warnings.push(self.resolver.problem(node, message));
                } else {
                    let message = unknown(&name, key);
                    self.problems.push(self.resolver.problem(node, message));
                }
            }
        }
    }

    /// A section of a plugin may have any name, but one letter off is more likely a mistake.
    fn check_section(&mut self, name: &str, line: usize) {
        // Two letters changed places in a long name; short names are near to everything.
        let distance_max = match name.chars().count() {
            0..4 => return,
            4..7 => 1,
            _ => 2,
        };
        let rooms = table::ROOMS.iter().map(|room| room.name);
        let near = spelling::nearest(name, rooms, distance_max);
        if let Some(room) = near.filter(|_| canonical(name) != "default") {
            let message =
                format!("not a section of the server, so left to plugins; did you mean [{room}]?");
            let problem = Problem::of_line(&self.resolver.document.file, line, message);
            self.warnings.push(Problem { section: Some(name.to_owned()), ..problem });
        }
    }

    /// What is odd in a plugin's section is its plugin's affair: a warning.
    fn pass_notes(&mut self, section: usize) {
        for node in self.resolver.document.own_nodes(section) {
            for note in self.resolver.value(node).map_or(&[][..], |resolved| &resolved.notes) {
                self.warnings.push(self.resolver.problem(node, note.clone()));
            }
        }
    }
}

fn unknown(section: &str, key: &str) -> String {
    let keys =
        || table::rows_of(section).flat_map(|row| row.aliases.iter().copied().chain([row.key]));
    let hint = spelling::hint(key, keys());
    let elsewhere = ROWS.iter().find(|row| row.is_called(key)).map(|row| row.section);
    match elsewhere {
        _ if !hint.is_empty() => format!("unknown key{hint}"),
        Some(home) => format!("unknown key; `{key}` belongs to [{home}]"),
        None => {
            let known: Vec<&str> = table::rows_of(section).map(|row| row.key).collect();
            format!("unknown key; [{section}] has {}", known.join(", "))
        }
    }
}

/// A value for a message.
fn found(value: &Value, secret: bool) -> String {
    const SHOWN_CHARS_MAX: usize = 60;
    let text = match value {
        Value::String(text) if text.is_empty() => return "nothing".to_owned(),
        _ if secret => return "a value that is not shown here".to_owned(),
        Value::String(text) if text.contains('\n') => {
            return "several lines (an indented line goes on with the value above)".to_owned();
        }
        Value::String(text) => text.clone(),
        other => mask::masked(other, &[]).to_string(),
    };
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("`{shown}`")
}
