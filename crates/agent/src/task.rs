//! A task as the server offers it, its fields, and what comes of it.
//!
//! Invariant: a [`TaskId`] is digits alone, so that it can stand in a path and in a query.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::digest::sha256;

/// How long a path may be, in bytes.
const PATH_BYTES_MAX: usize = 4096;
/// How long the number of a claim may be, in bytes.
const CLAIM_BYTES_MAX: usize = 128;

/// The server's number of a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TaskId(String);

impl TaskId {
    /// The id that `text` is: 1 to 20 digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let good = (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        good.then(|| Self(text.to_owned()))
    }

    /// The digits.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A task that was offered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Offer {
    pub(crate) id: TaskId,
    /// Shows the server that this agent holds the task; none from a server without leases.
    pub(crate) claim: Option<String>,
    pub(crate) body: Value,
}

impl Offer {
    /// The checksum by which a task is known again. A server that was set up anew counts its tasks
    /// from one again; the number alone would give an old task's result for a new task.
    pub(crate) fn digest(&self) -> String {
        sha256(self.body.to_string().as_bytes())
    }

    /// Reads the answer to a poll. What cannot be a task is left out and named.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub(crate) fn read(answer: &[u8]) -> Result<Offers, serde_json::Error> {
        let Answer { events, claims, lease } = serde_json::from_slice(answer)?;
        let mut read = Offers { lease_secs: lease.as_u64(), ..Offers::default() };
        // A server without tasks may say `[]`, as the oldest ones did.
        let events: Option<BTreeMap<String, &RawValue>> =
            events.and_then(|events| serde_json::from_str(events.get()).ok());
        for (id, body) in events.unwrap_or_default() {
            let Some(task_id) = TaskId::parse(&id) else {
                read.odd.push(id.chars().take(40).collect());
                continue;
            };
            let claim = claims.get(&id).and_then(claim);
            read.offers.push(Self { id: task_id, claim, body: value(body) });
        }
        // An object has no order; the numbers do.
        read.offers.sort_by_key(|offer| (offer.id.0.len(), offer.id.0.clone()));
        Ok(read)
    }
}

/// What the answer to a poll holds.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Offers {
    /// Tasks, in order.
    pub(crate) offers: Vec<Offer>,
    /// Numbers of what cannot be a task.
    pub(crate) odd: Vec<String>,
    /// The lease that the server gives, in seconds.
    pub(crate) lease_secs: Option<u64>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    events: Option<&'a RawValue>,
    #[serde(default)]
    claims: Value,
    #[serde(default)]
    lease: Value,
}

/// A task's body. One that is JSON and yet more than can be held here (a number like `1e999`, lists in lists a hundred
/// deep) is a text: of no type that is known, so that it is answered as such and holds up no other task.
fn value(body: &RawValue) -> Value {
    serde_json::from_str(body.get()).unwrap_or_else(|_| Value::String(body.get().to_owned()))
}

fn claim(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (text.len() <= CLAIM_BYTES_MAX).then_some(text)
}

/// Why a task brought nothing, in words for the operator, and what else there is to tell.
#[derive(Debug, PartialEq)]
pub(crate) struct Failure {
    msg: String,
    more: Map<String, Value>,
}

impl Failure {
    /// A failure with a message alone.
    pub(crate) fn new(msg: impl Into<String>) -> Self {
        Self { msg: msg.into(), more: Map::new() }
    }

    /// The same with one more field.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.more.insert(key.to_owned(), value.into());
        self
    }

    /// The result that the server gets.
    pub(crate) fn into_result(self) -> Value {
        let mut result = self.more;
        result.insert("error".to_owned(), true.into());
        result.insert("msg".to_owned(), self.msg.into());
        Value::Object(result)
    }
}

/// A failed call of the system, with what was being done.
pub(crate) fn failed(what: impl fmt::Display) -> impl FnOnce(std::io::Error) -> Failure {
    move |error| Failure::new(format!("{what}: {error}"))
}

/// What a task brings.
pub(crate) type Outcome = Result<Value, Failure>;

/// The fields of a task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a Value);

impl<'a> Fields<'a> {
    /// The text of a field that must be there.
    pub(crate) fn text(&self, key: &str) -> Result<&'a str, Failure> {
        let text = self.0.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.ok_or_else(|| Failure::new(format!("field '{key}' is missing, empty or not text")))
    }

    /// The text of a field that may be absent.
    pub(crate) fn text_if_any(&self, key: &str) -> Result<Option<&'a str>, Failure> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.text(key).map(Some),
        }
    }

    /// The absolute path in a field that must be there.
    pub(crate) fn path(&self, key: &str) -> Result<PathBuf, Failure> {
        let text = self.text(key)?;
        let path = PathBuf::from(text);
        if !path.is_absolute() || text.len() > PATH_BYTES_MAX || text.contains('\0') {
            let msg = format!("field '{key}' must be an absolute path of {PATH_BYTES_MAX} bytes");
            return Err(Failure::new(format!("{msg} at most")));
        }
        Ok(path)
    }

    /// The seconds in a field that may be absent; more than 0 and at most `max`, which stands in for
    /// an absent or larger number.
    pub(crate) fn secs(&self, key: &str, max: f64) -> Result<f64, Failure> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(max),
            Some(value) => match value.as_f64().filter(|secs| *secs > 0.0) {
                Some(secs) => Ok(secs.min(max)),
                None => Err(Failure::new(format!("field '{key}' must be a number above 0"))),
            },
        }
    }
}

/// The result for a task of a type that is not known here.
pub(crate) fn unsupported() -> Failure {
    Failure::new("unsupported task type")
}

/// `{}`: done, and nothing to say.
pub(crate) fn nothing() -> Value {
    json!({})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_come_in_the_order_of_their_numbers_with_their_claims() {
        let answer = json!({
            "events": {"10": {"a": 1}, "9": 7, "../x": {}, "": {}, "123456789012345678901": {}},
            "claims": {"10": "c", "9": 5},
        });
        let Offers { offers, odd, lease_secs } =
            Offer::read(answer.to_string().as_bytes()).unwrap();
        let seen: Vec<_> = offers.iter().map(|o| (o.id.as_str(), o.claim.as_deref())).collect();
        assert_eq!(seen, [("9", Some("5")), ("10", Some("c"))]);
        assert_eq!((odd.len(), lease_secs), (3, None));
        for none in ["{\"events\": []}", "{}", "{\"events\": null}"] {
            assert_eq!(Offer::read(none.as_bytes()).unwrap(), Offers::default());
        }
        let wrong = ["", "3", "{", "<html>"];
        assert!(wrong.iter().all(|answer| Offer::read(answer.as_bytes()).is_err()));
    }

    #[test]
    fn a_task_that_cannot_be_held_does_not_hold_up_others() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for odd in ["{\"type\":\"x\",\"n\":1e999}", &deep] {
            let answer = format!("{{\"events\":{{\"1\":{odd},\"2\":{{\"a\":1}}}},\"lease\":9}}");
            let read = Offer::read(answer.as_bytes()).unwrap();
            let bodies: Vec<_> = read.offers.iter().map(|offer| &offer.body).collect();
            assert_eq!(bodies, [&json!(odd), &json!({"a": 1})]);
            assert_eq!(read.lease_secs, Some(9));
        }
    }

    #[test]
    fn the_same_number_with_another_body_is_another_task() {
        let offer = |body| Offer { id: TaskId::parse("1").unwrap(), claim: None, body };
        let first = offer(json!({"a": 1, "b": 2}));
        assert_eq!(first.digest(), offer(json!({"b": 2, "a": 1})).digest());
        assert_ne!(first.digest(), offer(json!({"a": 1, "b": 3})).digest());
    }

    #[test]
    fn fields_are_what_they_must_be_or_are_named() {
        let body = json!({"path": "a/b", "n": 3, "abs": "/a", "nul": "/a\0", "secs": 2.5, "no": 0});
        let fields = Fields(&body);
        assert_eq!(fields.path("abs").unwrap(), PathBuf::from("/a"));
        for key in ["path", "n", "nul", "absent"] {
            assert!(fields.path(key).unwrap_err().msg.contains(&format!("'{key}'")));
        }
        assert_eq!(fields.secs("secs", 10.0), Ok(2.5));
        assert_eq!(fields.secs("secs", 1.0), Ok(1.0));
        assert_eq!(fields.secs("absent", 10.0), Ok(10.0));
        assert!(fields.secs("no", 1.0).is_err() && fields.secs("path", 1.0).is_err());
        assert_eq!(fields.text_if_any("absent"), Ok(None));
        assert!(fields.text_if_any("n").is_err());
    }

    #[test]
    fn a_failure_is_an_object_with_error_and_msg() {
        let result = Failure::new("no").with("output", "x").into_result();
        assert_eq!(result, json!({"error": true, "msg": "no", "output": "x"}));
    }
}
