//! Reads what the older program's `config.yaml` is made of: sections, and in them keys with one scalar or a list.
//!
//! Invariant: a key keeps its line and is there once; what is anything else is a problem with its line.
//! Not here: YAML at large, and what a key means.

use super::super::problem::{Problem, Problems};

/// A value as it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scalar {
    Null,
    Switch(bool),
    Number(i64),
    Text(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    One(Scalar),
    List(Vec<Scalar>),
}

/// One key of the file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) section: String,
    pub(super) key: String,
    pub(super) value: Value,
    /// Where the key stands, from 1.
    pub(super) line: usize,
}

/// Every key of `text`, shown as `name` in messages; what is not understood goes to `problems`.
pub(super) fn read(name: &str, text: &str, problems: &mut Problems) -> Vec<Entry> {
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
                let is_it = |entry: &&Entry| (&entry.section, &entry.key) == (section, &key);
                match entries.iter().find(is_it) {
                    Some(first) => {
                        wrong(&format!("given twice, first in line {}; keep one", first.line));
                    }
                    None => {
                        entries.push(Entry {
                            section: section.clone(),
                            key,
                            value,
                            line: index + 1,
                        });
                    }
                }
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
