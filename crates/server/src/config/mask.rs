//! Hides secrets in what is shown to people.
//!
//! Invariant: a value whose name sounds secret is never shown, nor a part of a value that equals it.
//! Not here: where a value comes from (`show`).

use serde_json::Value;

/// What stands for a secret.
pub(super) const MASK: &str = "********";
/// Shorter secrets are not looked for inside other values: too much would be hidden by chance.
const SECRET_BYTES_MIN: usize = 4;
const SECRET_WORDS: [&str; 6] = ["key", "secret", "passw", "passphrase", "token", "credential"];

/// Whether a key of that name holds something that must not be shown.
pub(super) fn sounds_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// `value` with every secret hidden: `secrets` wherever they occur, members that sound secret,
/// parameters inside a query string, the password of a URL.
pub(super) fn masked(value: &Value, secrets: &[String]) -> Value {
    match value {
        Value::String(text) => Value::String(masked_text(text, secrets)),
        Value::Array(items) => items.iter().map(|item| masked(item, secrets)).collect(),
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| {
                let hidden = sounds_secret(name);
                let value = if hidden { MASK.into() } else { masked(value, secrets) };
                (name.clone(), value)
            };
            Value::Object(members.iter().map(member).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            let shown = value.to_string();
            if secrets.contains(&shown) { MASK.into() } else { value.clone() }
        }
    }
}

fn masked_text(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| secret.len() >= SECRET_BYTES_MIN) {
        text = text.replace(secret.as_str(), MASK);
    }
    let parameters: Vec<String> = text.split('&').map(masked_parameter).collect();
    masked_password(&parameters.join("&"))
}

/// `name=value`, the value hidden when the name (after a `?` or white space) sounds secret.
fn masked_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, value)) if !value.is_empty() => {
            let decoded = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
            let last = decoded.rsplit(|c: char| c == '?' || c.is_whitespace()).next();
            let hidden = last.is_some_and(sounds_secret);
            format!("{name}={}", if hidden { MASK } else { value })
        }
        _ => parameter.to_owned(),
    }
}

/// `scheme://user:password@host` without the password.
fn masked_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':')) {
        Some((user, password)) => {
            let after = &rest[user.len() + 1 + password.len()..];
            format!("{scheme}://{user}:{MASK}{after}")
        }
        None => text.to_owned(),
    }
}

/// Every text inside `value`, to be hidden wherever it occurs.
pub(super) fn collect(value: &Value, secrets: &mut Vec<String>) {
    match value {
        Value::String(text) => secrets.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, secrets)),
        Value::Object(members) => members.values().for_each(|value| collect(value, secrets)),
        Value::Number(number) => secrets.push(number.to_string()),
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::masked;

    fn check(value: Value, expected: Value) {
        assert_eq!(masked(&value, &["hunter2".to_owned()]), expected);
    }

    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        check(json!("a=1&apikey=abc&b=2"), json!("a=1&apikey=********&b=2"));
        check(json!("http://h/?x=1&Api%4bey=abc"), json!("http://h/?x=1&Api%4bey=********"));
        check(json!("http://h/?token=abc"), json!("http://h/?token=********"));
        check(json!("Bearer hunter2"), json!("Bearer ********"));
        check(json!("db://me:pw@h:1/x"), json!("db://me:********@h:1/x"));
        check(
            json!({"password": "x", "n": [1, "hunter2"]}),
            json!({"password": "********", "n": [1, "********"]}),
        );
        check(json!("http://h:80/a@b"), json!("http://h:80/a@b"));
    }
}
