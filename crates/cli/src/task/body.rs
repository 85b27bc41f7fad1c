//! What is sent: a task's JSON from what was typed, and a few words from its JSON.
//!
//! Invariant: JSON that was typed is sent as it was typed, apart from a type put at its beginning.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::SendArgs;
use crate::CliError;

/// What a body may be long; the server's own limit is usually lower.
const BODY_BYTES_MAX: u64 = 64 << 20;

/// The task that `args` mean, as JSON text.
pub(super) fn of(args: &SendArgs) -> Result<String, CliError> {
    let refused = |why: &str| CliError::Refused(why.to_owned());
    if let Some(cmd) = &args.cmd {
        let kind = args.kind.as_deref().unwrap_or("execute_cmd");
        return Ok(json!({ "type": kind, "cmd": cmd }).to_string());
    }
    let typed = match (&args.json_body, &args.body_file) {
        (Some(typed), _) => typed.clone(),
        (None, Some(file)) => read(file)?,
        (None, None) => match &args.kind {
            Some(_) => "{}".to_owned(),
            None => {
                return Err(refused("say what to do: --cmd, --type, --json-body or --body-file"));
            }
        },
    };
    let typed = typed.trim();
    serde_json::from_str::<&RawValue>(typed)
        .map_err(|error| CliError::Refused(format!("the task is not JSON: {error}")))?;
    let Some(kind) = &args.kind else { return Ok(typed.to_owned()) };
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(typed)
        .map_err(|_| refused("the task is no JSON object, so it can have no --type"))?;
    if fields.contains_key("type") {
        return Err(refused("the task has a `type` of its own; leave --type out"));
    }
    let comma = if fields.is_empty() { "" } else { "," };
    Ok(format!("{{\"type\":{}{comma}{}", json!(kind), &typed[1..]))
}

fn read(file: &Path) -> Result<String, CliError> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(BODY_BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(file)
            .and_then(|opened| opened.take(BODY_BYTES_MAX + 1).read_to_string(&mut text))
    };
    match read {
        Ok(length) if length as u64 > BODY_BYTES_MAX => {
            Err(CliError::Refused(format!("{}: more than 64 MiB", file.display())))
        }
        Ok(_) => Ok(text),
        Err(source) => Err(CliError::File { file: file.to_owned(), source }),
    }
}

/// A task in a few words: its type and its command or, without a type, all of it.
pub(super) fn summary(body: &str) -> String {
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |field| value.get(field).and_then(Value::as_str);
    match (text("type"), text("cmd")) {
        (Some("execute_cmd"), Some(cmd)) => cmd.to_owned(),
        (Some(kind), Some(cmd)) => format!("{kind}: {cmd}"),
        (Some(kind), None) => kind.to_owned(),
        (None, _) => body.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{of, summary};
    use crate::task::SendArgs;

    fn args(kind: Option<&str>, cmd: Option<&str>, json_body: Option<&str>) -> SendArgs {
        let text = |text: Option<&str>| text.map(str::to_owned);
        SendArgs {
            targets: vec!["a".into()],
            kind: text(kind),
            cmd: text(cmd),
            json_body: text(json_body),
            body_file: None,
            no_wait: false,
            timeout: None,
            priority: None,
            ttl: None,
            retries: None,
            follow: false,
        }
    }

    #[track_caller]
    fn check(args: &SendArgs, body: &str) {
        assert_eq!(of(args).unwrap(), body);
    }

    #[test]
    fn a_command_becomes_a_task() {
        check(&args(None, Some("a \"b\""), None), r#"{"cmd":"a \"b\"","type":"execute_cmd"}"#);
        check(&args(Some("mine"), Some("x"), None), r#"{"cmd":"x","type":"mine"}"#);
        check(&args(Some("proclist"), None, None), r#"{"type":"proclist"}"#);
    }

    #[test]
    fn typed_json_is_sent_as_typed() {
        check(&args(None, None, Some(" [1.0] ")), "[1.0]");
        let typed = r#"{"z":18446744073709551617, "a":1}"#;
        check(&args(None, None, Some(typed)), typed);
        let with_type = r#"{"type":"t","z":18446744073709551617, "a":1}"#;
        check(&args(Some("t"), None, Some(typed)), with_type);
    }

    #[test]
    fn what_is_no_task_is_refused_before_it_is_sent() {
        for args in [
            args(None, None, None),
            args(None, None, Some("{")),
            args(None, None, Some("{} {}")),
            args(Some("t"), None, Some("[]")),
            args(Some("t"), None, Some(r#"{"type":"u"}"#)),
        ] {
            assert!(of(&args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn a_body_file_is_read_whole_and_named_when_it_cannot_be() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"a\": 1}\n").unwrap();
        let with = |file: &std::path::Path| SendArgs {
            body_file: Some(file.to_owned()),
            ..args(None, None, None)
        };
        check(&with(file.path()), "{\"a\": 1}");
        let error = of(&with("gone.json".as_ref())).unwrap_err();
        assert!(error.to_string().contains("gone.json"), "{error}");
    }

    #[test]
    fn a_task_is_told_in_a_few_words() {
        assert_eq!(summary(r#"{"type":"execute_cmd","cmd":"uptime"}"#), "uptime");
        assert_eq!(summary(r#"{"type":"proclist"}"#), "proclist");
        assert_eq!(summary("[1]"), "[1]");
    }
}
