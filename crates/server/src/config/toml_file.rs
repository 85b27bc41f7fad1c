//! Reads the TOML form: the same sections and keys.
//!
//! Invariant: as for INI, a key keeps its line and is there once.
//! Not here: what a value means (`value`).

use serde_json::{Map, Number, Value};
use toml::de::{DeTable, DeValue};

use super::containers;
use super::problem::{Problem, Problems};
use super::source::{Document, Entry, Written, canonical};

/// Reads `text`; mistakes go to `problems`, and what could be read is returned all the same.
pub(super) fn parse(file: &str, text: &str, problems: &mut Problems) -> Document {
    let mut document = Document::new(file);
    let lines = Lines::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let message = error.message().replace('\n', ", ");
        problems.push(match error.span() {
            Some(span) => Problem::of_line(file, lines.of(span.start), message),
            None => Problem::of_file(file, message),
        });
    }
    // The parser sorts by name; people expect the order in which they wrote.
    let mut sections: Vec<_> = table.get_ref().iter().collect();
    sections.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in sections {
        let line = lines.of(name.span().start);
        let name: &str = name.get_ref();
        let DeValue::Table(table) = value.get_ref() else {
            let message = format!(
                "`{name}` stands outside of a section, or is not one; expected `[section]`"
            );
            problems.push(Problem::of_line(file, line, message));
            continue;
        };
        let section = document.open(name, line);
        put_all(&mut document, section, table, &lines, problems);
    }
    document
}

fn put_all(
    document: &mut Document,
    section: usize,
    table: &DeTable<'_>,
    lines: &Lines,
    problems: &mut Problems,
) {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let line = lines.of(key.span().start);
        let key = key.get_ref().trim().to_lowercase();
        let inner = format!("{}.{key}", document.sections[section].name);
        if let DeValue::Table(table) = value.get_ref()
            && containers::is_sub_section(&canonical(&inner))
        {
            let inner = document.open(&inner, line);
            put_all(document, inner, table, lines, problems);
            continue;
        }
        let outcome = match value.get_ref() {
            DeValue::String(text) => Ok(Written::Text(text.clone().into_owned())),
            other => converted(other).map(Written::Tree),
        };
        let outcome = outcome.and_then(|written| {
            let entry = Entry { key: key.clone(), line, written };
            document
                .put(section, entry)
                .map_err(|first| format!("given twice, first in line {first}; keep one"))
        });
        if let Err(message) = outcome {
            problems.push(Problem {
                section: Some(document.sections[section].name.clone()),
                key: Some(key),
                ..Problem::of_line(&document.file, line, message)
            });
        }
    }
}

/// The value as JSON; dates are text.
fn converted(value: &DeValue<'_>) -> Result<Value, String> {
    Ok(match value {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(date) => Value::String(date.to_string()),
        DeValue::Integer(number) => {
            let (digits, radix) = (number.as_str(), number.radix());
            i64::from_str_radix(digits, radix)
                .map(Value::from)
                .or_else(|_| u64::from_str_radix(digits, radix).map(Value::from))
                .map_err(|_| format!("found `{digits}`, expected a whole number of 64 bits"))?
        }
        DeValue::Float(number) => {
            let finite = number.as_str().parse().ok().and_then(Number::from_f64);
            Value::Number(
                finite.ok_or_else(|| {
                    format!("found `{}`, expected a finite number", number.as_str())
                })?,
            )
        }
        DeValue::Array(items) => {
            items.iter().map(|item| converted(item.get_ref())).collect::<Result<Value, _>>()?
        }
        DeValue::Table(members) => members
            .iter()
            .map(|(name, value)| Ok((name.get_ref().to_string(), converted(value.get_ref())?)))
            .collect::<Result<Map<_, _>, String>>()
            .map(Value::Object)?,
    })
}

/// Where lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line of a byte offset, from 1.
    fn of(&self, offset: usize) -> usize {
        self.0.partition_point(|&end| end < offset) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::Written;
    use super::{Problems, parse};

    fn check(text: &str, expected: &[&str], problems_expected: &str) {
        let mut problems = Problems::default();
        let document = parse("f", text, &mut problems);
        let mut found = Vec::new();
        for section in &document.sections {
            for entry in &section.entries {
                let value = match &entry.written {
                    Written::Text(text) => text.clone(),
                    Written::Tree(tree) => tree.to_string(),
                };
                found.push(format!("{}.{}@{}={value}", section.name, entry.key, entry.line));
            }
        }
        assert_eq!(problems.to_string(), problems_expected);
        assert_eq!(found, expected);
    }

    #[test]
    fn tables_are_sections_with_lines() {
        check(
            "[SSL]\nEnabled = true\n[b]\nx = [1, 'a', 1.5]\ny.z = 0xff\n",
            &["SSL.enabled@2=true", "b.x@4=[1,\"a\",1.5]", "b.y@5={\"z\":255}"],
            "",
        );
    }

    #[test]
    fn several_mistakes_are_named_with_their_lines() {
        check(
            "a = 1\n[s]\nx = nan\n[t]\ny = 1\nY = 2\n",
            &["t.y@5=1"],
            "f:1: `a` stands outside of a section, or is not one; expected `[section]`\n\
             f:3: [s] x: found `nan`, expected a finite number\n\
             f:6: [t] y: given twice, first in line 5; keep one",
        );
    }

    #[test]
    fn broken_toml_names_the_line() {
        let mut problems = Problems::default();
        parse("f", "[s]\n\nx = \n", &mut problems);
        assert!(problems.to_string().starts_with("f:3: "), "{problems}");
    }
}
