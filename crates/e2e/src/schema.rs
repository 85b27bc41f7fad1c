//! JSON Schema, as much of it as our own description uses.
//!
//! Invariant: strict both ways: a field that the schema does not name is as wrong as one that is missing, and so is a
//! rule that is not known here.

use serde_json::{Map, Value};

/// Checks `value` against `schema`; the error says where and why not.
///
/// # Errors
/// When it does not fit.
pub fn fits(schema: &Value, value: &Value) -> Result<(), String> {
    let rules = schema.as_object().ok_or("the schema is no object")?;
    for (rule, wanted) in rules {
        let is_kept = match rule.as_str() {
            "description" | "required" | "examples" => true,
            "type" => wanted.as_str().is_some_and(|kind| is_of_type(kind, value)),
            "const" => wanted == value,
            "enum" => wanted.as_array().is_some_and(|all| all.contains(value)),
            "minimum" => number(value) >= number(wanted),
            "maximum" => number(value) <= number(wanted),
            "minLength" => value.as_str().map(|text| text.len() as u64) >= wanted.as_u64(),
            "maxLength" => value.as_str().map(|text| text.len() as u64) <= wanted.as_u64(),
            "pattern" => matches_pattern(wanted, value)?,
            "anyOf" => form(schema, value)?.is_some(),
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    fits(wanted, item).map_err(|error| format!("[]: {error}"))?;
                }
                true
            }
            "properties" | "additionalProperties" => {
                value.as_object().map_or(Ok(()), |object| fields(rules, object))?;
                true
            }
            other => return Err(format!("nobody knows the rule {other}")),
        };
        if !is_kept {
            return Err(format!("{value} is against {rule} {wanted}"));
        }
    }
    Ok(())
}

/// Which of the forms beside each other fits, counted from 0; `None` when none does.
///
/// # Errors
/// When the schema has no forms.
pub fn form(schema: &Value, value: &Value) -> Result<Option<usize>, String> {
    let forms = schema["anyOf"].as_array().ok_or("anyOf is no array")?;
    Ok(forms.iter().position(|form| fits(form, value).is_ok()))
}

fn is_of_type(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        _ => false,
    }
}

fn number(value: &Value) -> Option<i128> {
    value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))
}

/// The two kinds of patterns that there are: digits, and so many hexadecimal ones.
fn matches_pattern(pattern: &Value, value: &Value) -> Result<bool, String> {
    let text = value.as_str().unwrap_or_default();
    let pattern = pattern.as_str().unwrap_or_default();
    if pattern == "^[0-9]+$" {
        return Ok(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    }
    let count = pattern.strip_prefix("^[0-9a-f]{").and_then(|rest| rest.strip_suffix("}$"));
    let count: usize = count
        .and_then(|count| count.parse().ok())
        .ok_or_else(|| format!("nobody knows the pattern {pattern}"))?;
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    Ok(text.len() == count && text.bytes().all(is_digit))
}

fn fields(rules: &Map<String, Value>, object: &Map<String, Value>) -> Result<(), String> {
    let required = rules.get("required").and_then(Value::as_array).into_iter().flatten();
    for name in required.filter_map(Value::as_str) {
        if !object.contains_key(name) {
            return Err(format!("{name} is missing"));
        }
    }
    for (name, value) in object {
        let property = rules.get("properties").and_then(|all| all.get(name));
        match (property, rules.get("additionalProperties")) {
            (Some(schema), _) => fits(schema, value).map_err(|error| format!("{name}: {error}"))?,
            (None, Some(Value::Bool(true))) => {}
            (None, Some(schema)) => {
                fits(schema, value).map_err(|error| format!("{name}: {error}"))?;
            }
            (None, None) => return Err(format!("{name} is not described")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_fits_or_does_not() {
        let check = |schema: Value, good: Value, bad: Value| {
            assert_eq!(fits(&schema, &good), Ok(()), "{good}");
            assert!(fits(&schema, &bad).is_err(), "{bad}");
        };
        check(json!({"type": "integer", "minimum": 1, "maximum": 3}), json!(3), json!(4));
        check(json!({"type": "string", "pattern": "^[0-9a-f]{2}$"}), json!("0f"), json!("0g"));
        check(json!({"type": "string", "pattern": "^[0-9]+$"}), json!("12"), json!(""));
        check(json!({"anyOf": [{"type": "null"}, {"const": true}]}), json!(null), json!(false));
        check(json!({"type": "array", "items": {"type": "string"}}), json!(["a"]), json!([1]));
        let object = json!({"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a"]});
        check(object.clone(), json!({"a": 1}), json!({"b": 1}));
        check(object, json!({"a": 1, "b": 2}), json!({"a": 1, "c": 2}));
        let map = json!({"type": "object", "additionalProperties": {"type": "boolean"}});
        check(map, json!({"x": true}), json!({"x": 1}));
        assert!(fits(&json!({"format": "x"}), &json!("x")).is_err());
    }
}
