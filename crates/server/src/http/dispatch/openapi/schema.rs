//! Kinds of values as JSON Schema.

use serde_json::{Map, Value, json};

use super::shapes::{Field, Kind};

/// The schema of a kind.
pub(super) fn of(kind: Kind) -> Value {
    match kind {
        Kind::Any => json!({}),
        Kind::Null => json!({ "type": "null" }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Is(value) => json!({ "type": "boolean", "const": value }),
        Kind::Text => json!({ "type": "string" }),
        // Bytes are counted, and a character has one at least.
        Kind::Short(bytes) => json!({ "type": "string", "minLength": 1, "maxLength": bytes }),
        Kind::Hex(digits) => {
            json!({ "type": "string", "pattern": format!("^[0-9a-f]{{{digits}}}$") })
        }
        Kind::Id => json!({ "type": "string", "pattern": "^[0-9]+$" }),
        Kind::Whole(least, greatest) => {
            json!({ "type": "integer", "minimum": least, "maximum": greatest })
        }
        Kind::AtLeast(least) => json!({ "type": "integer", "minimum": least }),
        Kind::Time => json!({ "type": "integer", "description": "Milliseconds since 1970." }),
        Kind::Switch => json!({ "type": "string", "examples": ["1"] }),
        Kind::OneOf(words) => json!({ "type": "string", "enum": words }),
        Kind::Nullable(kind) => json!({ "anyOf": [of(*kind), { "type": "null" }] }),
        Kind::List(kind) => json!({ "type": "array", "items": of(*kind) }),
        Kind::Map(kind) => json!({ "type": "object", "additionalProperties": of(*kind) }),
        Kind::Object(fields) => object(fields),
        Kind::Open(fields) => {
            let mut schema = object(fields);
            schema["additionalProperties"] = true.into();
            schema
        }
    }
}

fn object(fields: &[Field]) -> Value {
    let properties: Map<String, Value> =
        fields.iter().map(|it| (it.name.to_owned(), described(it.kind, it.about))).collect();
    let required: Vec<&str> = fields.iter().filter(|it| it.is_always).map(|it| it.name).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

/// The schema of a kind, with what it means here.
pub(super) fn described(kind: Kind, about: &str) -> Value {
    let mut schema = of(kind);
    if !about.is_empty() {
        schema["description"] = about.into();
    }
    schema
}

/// What a kind is called on the page.
pub(super) fn name(kind: Kind) -> String {
    match kind {
        Kind::Any => "any JSON".to_owned(),
        Kind::Null => "`null`".to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::Is(value) => format!("`{value}`"),
        Kind::Text => "text".to_owned(),
        Kind::Short(bytes) => format!("text of 1 to {bytes} bytes"),
        Kind::Hex(digits) => format!("{digits} hex digits"),
        Kind::Id => "digits".to_owned(),
        Kind::Whole(least, greatest) if greatest == i64::MAX as u64 => format!("{least} or more"),
        Kind::Whole(least, greatest) => format!("{least} to {greatest}"),
        Kind::AtLeast(least) => format!("{least} or more"),
        Kind::Time => "ms since 1970".to_owned(),
        Kind::Switch => "`1`".to_owned(),
        Kind::OneOf(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            words.join(", ")
        }
        Kind::Nullable(kind) => format!("{} or `null`", name(*kind)),
        Kind::List(kind) => format!("array of {}", name(*kind)),
        Kind::Map(kind) => format!("object of {}", name(*kind)),
        Kind::Object(_) | Kind::Open(_) => "object".to_owned(),
    }
}
