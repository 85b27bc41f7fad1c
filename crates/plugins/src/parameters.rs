//! What a plugin's parameters say to the server itself, beside what they say to the plugin.

use serde_json::{Map, Value};
use wire::Secret;

/// The parameters of one plugin file, typed.
pub type Parameters = Map<String, Value>;

/// The most workers that one file may ask for.
pub const WORKERS_MAX: usize = 64;

/// Who may call a plugin.
#[derive(Debug, Clone)]
pub enum Access {
    /// Everybody.
    Open,
    /// Everybody on this machine; others with the global key, if there is one.
    Local,
    /// Who has the global key.
    Global,
    /// Who has the plugin's own key.
    Own(Secret),
    /// Nobody: what was configured cannot be meant, and open is the last thing it means.
    Nobody,
}

/// What `auth_type` (or `auth`) and `apikey` mean; with a text for the log when they mean nothing.
#[must_use]
pub fn access(parameters: &Parameters) -> (Access, Option<String>) {
    let given = parameters.get("auth_type").or_else(|| parameters.get("auth"));
    let Some(given) = given else { return (Access::Open, None) };
    let kind = text(given).to_ascii_lowercase();
    match kind.trim() {
        "global" => (Access::Global, None),
        "plugin" => match parameters.get("apikey").map(text).filter(|key| !key.is_empty()) {
            Some(key) => (Access::Own(Secret::new(key)), None),
            None => refused("auth_type is plugin, but there is no apikey"),
        },
        other => refused(&format!("auth_type {other:?} is neither global nor plugin")),
    }
}

fn refused(why: &str) -> (Access, Option<String>) {
    (Access::Nobody, Some(format!("{why}: every request is refused")))
}

/// How many workers the file asks for (`workers`), at least one.
///
/// # Errors
/// A text that says what is wrong with the number.
pub fn workers(parameters: &Parameters) -> Result<usize, String> {
    let Some(given) = parameters.get("workers") else { return Ok(1) };
    match text(given).trim().parse() {
        Ok(count @ 1..=WORKERS_MAX) => Ok(count),
        _ => Err(format!("workers is {given}, expected a number from 1 to {WORKERS_MAX}")),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(parameters: Value, expected: &str) {
        let Value::Object(parameters) = parameters else { panic!("not an object") };
        let (access, problem) = access(&parameters);
        assert_eq!(format!("{access:?}"), expected, "{problem:?}");
        assert_eq!(matches!(access, Access::Nobody), problem.is_some());
    }

    #[test]
    fn a_plugin_is_open_only_when_nothing_is_said_of_keys() {
        check(json!({"apikey": "x"}), "Open");
        check(json!({"auth_type": "Global"}), "Global");
        check(json!({"auth": "global"}), "Global");
        check(json!({"auth_type": "plugin", "apikey": "x"}), "Own(Secret(…))");
        check(json!({"auth_type": "plugin"}), "Nobody");
        check(json!({"auth_type": "plugin", "apikey": ""}), "Nobody");
        check(json!({"auth_type": "gobal"}), "Nobody");
        check(json!({"auth_type": true}), "Nobody");
        check(json!({"auth_type": "none"}), "Nobody");
        check(json!({"auth_type": ""}), "Nobody");
    }

    #[test]
    fn the_number_of_workers_has_bounds() {
        let of = |value: Value| workers(&Map::from_iter([("workers".to_owned(), value)]));
        assert_eq!(of(json!("2")), Ok(2));
        assert_eq!(of(json!(3)), Ok(3));
        assert!(of(json!(0)).is_err() && of(json!("65")).is_err() && of(json!("many")).is_err());
    }
}
