//! What is wrong with a request, in the shape that the programs around the protocol know.
//!
//! Invariant: a field has at least one complaint; fields keep their alphabetical order.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Fields and what is wrong with each: `{"verb": ["required field"]}`, and one level below
/// `{"parameters": [{"client_token": ["must be of string type"]}]}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Errors {
    /// Of the request itself.
    pub fields: BTreeMap<String, Vec<String>>,
    /// Of its parameters.
    pub parameters: BTreeMap<String, Vec<String>>,
}

impl Errors {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.parameters.is_empty()
    }

    /// Notes what is wrong with a field of the request.
    pub(super) fn field(&mut self, name: &str, complaint: impl Into<String>) {
        self.fields.entry(name.to_owned()).or_default().push(complaint.into());
    }

    /// Notes what is wrong with a parameter.
    pub(super) fn parameter(&mut self, name: &str, complaint: impl Into<String>) {
        self.parameters.entry(name.to_owned()).or_default().push(complaint.into());
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let list = |complaints: &[String]| complaints.iter().cloned().collect::<Value>();
        let object = |all: &BTreeMap<String, Vec<String>>| -> Map<String, Value> {
            all.iter().map(|(name, complaints)| (name.clone(), list(complaints))).collect()
        };
        let mut all = object(&self.fields);
        if !self.parameters.is_empty() {
            let of_field = all.remove("parameters");
            let mut items = match of_field {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            };
            items.push(Value::Object(object(&self.parameters)));
            all.insert("parameters".to_owned(), Value::Array(items));
        }
        Value::Object(all)
    }
}

/// As the programs 1.x print it: like JSON, with single quotes where that is possible.
impl std::fmt::Display for Errors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_value(f, &self.to_json())
    }
}

fn write_value(f: &mut std::fmt::Formatter<'_>, value: &Value) -> std::fmt::Result {
    match value {
        Value::Object(members) => {
            f.write_str("{")?;
            for (index, (name, value)) in members.iter().enumerate() {
                f.write_str(if index > 0 { ", " } else { "" })?;
                write_text(f, name)?;
                f.write_str(": ")?;
                write_value(f, value)?;
            }
            f.write_str("}")
        }
        Value::Array(items) => {
            f.write_str("[")?;
            for (index, item) in items.iter().enumerate() {
                f.write_str(if index > 0 { ", " } else { "" })?;
                write_value(f, item)?;
            }
            f.write_str("]")
        }
        Value::String(text) => write_text(f, text),
        other => write!(f, "{other}"),
    }
}

fn write_text(f: &mut std::fmt::Formatter<'_>, text: &str) -> std::fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let text = text.replace('\\', "\\\\");
    let text = if quote == '\'' { text.replace('\'', "\\'") } else { text };
    write!(f, "{quote}{text}{quote}")
}

#[cfg(test)]
mod tests {
    use super::Errors;

    #[test]
    fn errors_are_shown_in_both_forms() {
        let mut errors = Errors::default();
        errors.field("verb", "value does not match regex '^[A-Z]{1,}$'");
        errors.parameter("container_uuid", "must be of string type");
        assert_eq!(
            errors.to_json().to_string(),
            r#"{"parameters":[{"container_uuid":["must be of string type"]}],"verb":["value does not match regex '^[A-Z]{1,}$'"]}"#
        );
        assert_eq!(
            errors.to_string(),
            r#"{'parameters': [{'container_uuid': ['must be of string type']}], 'verb': ["value does not match regex '^[A-Z]{1,}$'"]}"#
        );
    }
}
