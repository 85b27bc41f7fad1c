//! Shows the values in force and where each comes from.
//!
//! Invariant: no secret is shown, wherever its text occurs.
//! Not here: how values were found.

use serde_json::{Map, Value, json};

use super::Config;
use super::expansion::plain_text;
use super::mask::{self, MASK};
use super::raw::{Effective, Origin};

/// For people: INI with the origin of each value behind it.
#[must_use]
pub fn show(config: &Config) -> String {
    let secrets = secrets(config);
    let mut text = String::new();
    let mut section = None;
    for effective in &config.effective {
        if section != Some(&effective.section) {
            let space = if section.is_some() { "\n" } else { "" };
            text.push_str(&format!("{space}[{}]\n", effective.section));
            section = Some(&effective.section);
        }
        let value = one_line(&shown(effective, &secrets));
        let assignment = format!("{} = {value}", effective.key);
        text.push_str(&format!("{assignment:<44}  # {}\n", origin(&effective.origin)));
    }
    text
}

/// For programs: section → key → `{"value": …, "from": …}`; `null` is not set.
#[must_use]
pub fn show_json(config: &Config) -> Value {
    let secrets = secrets(config);
    let mut sections = Map::new();
    for effective in &config.effective {
        let section =
            sections.entry(effective.section.clone()).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(keys) = section {
            let value = shown(effective, &secrets);
            let from = origin(&effective.origin);
            keys.insert(effective.key.clone(), json!({ "value": value, "from": from }));
        }
    }
    Value::Object(sections)
}

/// Every text that must not be shown, the longest first: one may hold another.
fn secrets(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    // A default is in the documentation; hiding its text would hide it elsewhere, too.
    let is_secret = |known: &&Effective| known.secret && known.origin != Origin::Default;
    for effective in config.effective.iter().filter(is_secret) {
        mask::collect(&effective.value, &mut found);
    }
    let parameters = config.plugin_parameters.values().flatten();
    for (_, value) in parameters.filter(|(name, _)| mask::sounds_secret(name)) {
        mask::collect(value, &mut found);
    }
    found.retain(|text| !text.is_empty());
    found.sort_by_key(|text| std::cmp::Reverse(text.len()));
    found.dedup();
    found
}

fn shown(effective: &Effective, secrets: &[String]) -> Value {
    match &effective.value {
        Value::Null => Value::Null,
        _ if effective.secret => MASK.into(),
        value => mask::masked(value, secrets),
    }
}

/// In the dialect, on one line.
fn one_line(value: &Value) -> String {
    let text = match value {
        Value::Array(items) if items.is_empty() => String::new(),
        Value::Array(_) => format!("list:{}", plain_text(value)),
        _ => plain_text(value),
    };
    text.replace('\n', " ")
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        Origin::File { file, line } => format!("{file}:{line}"),
        Origin::CommandLine => "command line".to_owned(),
    }
}
