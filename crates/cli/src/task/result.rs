//! What an answer means: whether it is a good one, and how it reads.

use serde_json::Value;
use wire::dispatch::{Task, TaskState};

use crate::shown;
use crate::table::Table;

/// Why `task`, which has ended, did not end well; `None` if it did.
pub(super) fn failure(task: &Task) -> Option<String> {
    let with_reason = |what: &str| match &task.reason {
        Some(reason) => format!("{what}: {reason}"),
        None => what.to_owned(),
    };
    match task.state {
        TaskState::Done => failure_in(task.result.as_ref()?.get()),
        TaskState::Cancelled => Some(with_reason("cancelled")),
        TaskState::Expired => Some(with_reason("expired before the agent took it")),
        TaskState::Dead => Some(with_reason("given up")),
        TaskState::Queued | TaskState::Taken => Some("it has not ended".to_owned()),
    }
}

fn failure_in(result: &str) -> Option<String> {
    let result: Value = serde_json::from_str(result).ok()?;
    if result.get("error") == Some(&Value::Bool(true)) {
        let words = result.get("msg").and_then(Value::as_str);
        return Some(words.unwrap_or("the agent reports an error").to_owned());
    }
    match result.get("status_code") {
        Some(Value::Number(code)) if code.as_i64() != Some(0) => Some(format!("exit code {code}")),
        _ => None,
    }
}

/// A result in words: a command's output as it was, lists as tables, all else as JSON. `None` when
/// there is nothing more to say than that all is well, or than [`failure`] says.
pub(super) fn words(result: &str) -> Option<String> {
    let Ok(Value::Object(fields)) = serde_json::from_str(result) else {
        return Some(shown::json(result) + "\n");
    };
    let list = |field| fields.get(field).and_then(Value::as_array);
    let text = |value: &Value, field: &str| match value.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    if let Some(Value::String(output)) = fields.get("output") {
        let end = if output.is_empty() || output.ends_with('\n') { "" } else { "\n" };
        return Some(format!("{output}{end}"));
    }
    if let Some(processes) = list("procs") {
        let mut table = Table::new(["PID", "NAME"]);
        for process in processes {
            table.row([&text(process, "id"), &text(process, "name")]);
        }
        return Some(table.aligned());
    }
    if let Some(contents) = list("contents") {
        let sign =
            |entry: &Value| if entry.get("dir") == Some(&Value::Bool(true)) { "/" } else { "" };
        let lines = contents
            .iter()
            .map(|entry| format!("{}{}\n", shown::line(&text(entry, "name")), sign(entry)));
        return Some(lines.collect());
    }
    let says_more = fields.keys().any(|field| !matches!(field.as_str(), "error" | "msg"));
    says_more.then(|| shown::json(result) + "\n")
}

#[cfg(test)]
mod tests {
    use super::{failure, failure_in, words};

    #[test]
    fn an_error_of_the_agent_and_of_a_command_are_failures() {
        for (result, expected) in [
            (r#"{"status_code":0,"output":"x"}"#, None),
            (r#"{"status_code":2,"output":"x"}"#, Some("exit code 2")),
            (r#"{"error":true,"msg":"no such file"}"#, Some("no such file")),
            (r#"{"error":true}"#, Some("the agent reports an error")),
            (r#"{"error":false}"#, None),
            ("null", None),
        ] {
            assert_eq!(failure_in(result).as_deref(), expected, "{result}");
        }
    }

    #[test]
    fn a_task_without_a_result_says_why() {
        let task = r#"{"id":"1","agent":"a","state":"dead","reason":"taken 5 times"}"#;
        let task = serde_json::from_str(task).unwrap();
        assert_eq!(failure(&task).as_deref(), Some("given up: taken 5 times"));
    }

    #[test]
    fn known_results_read_well_and_others_are_json() {
        for (result, expected) in [
            (r#"{"status_code":0,"output":"a\nb"}"#, Some("a\nb\n")),
            (r#"{"status_code":0,"output":""}"#, Some("")),
            (r#"{"procs":[{"id":7,"name":"in\nit"}]}"#, Some("PID  NAME\n7    in\\nit\n")),
            (
                r#"{"contents":[{"name":"a","dir":true,"fullpath":"/a"},{"name":"b","dir":false}]}"#,
                Some("a/\nb\n"),
            ),
            ("{}", None),
            (r#"{"error":true,"msg":"x"}"#, None),
            (r#"{"url":"/files/1/a"}"#, Some("{\n  \"url\": \"/files/1/a\"\n}\n")),
            ("null", Some("null\n")),
        ] {
            assert_eq!(words(result).as_deref(), expected, "{result}");
        }
    }
}
