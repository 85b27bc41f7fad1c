//! What a query says, and what a body is.

use std::borrow::Cow;
use std::time::Duration;

use ::tasks::{Claim, TaskId};
use bytes::Bytes;
use serde::de::IgnoredAny;

use super::refusal::Refusal;

/// More parameters than any endpoint knows.
const PARAMETERS_MAX: usize = 32;

/// The parameters of a query; each stands there once.
#[derive(Debug)]
pub(super) struct Parameters<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Parameters<'a> {
    pub(super) fn parse(query: Option<&'a str>) -> Result<Self, Refusal> {
        let mut all: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        let Some(query) = query else { return Ok(Self(all)) };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if all.iter().any(|(known, _)| *known == name) {
                let name: String = name.chars().take(100).collect();
                return Err(Refusal::bad(format!("Duplicate parameter '{name}'")));
            }
            if all.len() == PARAMETERS_MAX {
                return Err(Refusal::bad("Too many parameters"));
            }
            all.push((name, value));
        }
        Ok(Self(all))
    }

    /// The value of a parameter; one that is there but empty counts.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// The value of a parameter that must be there.
    pub(super) fn need(&self, name: &str) -> Result<&str, Refusal> {
        let given = self.get(name).filter(|value| !value.is_empty());
        given.ok_or_else(|| Refusal::bad(format!("Missing {name} parameter")))
    }

    /// Whether a switch is on: `1` is, everything else is not.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.get(name) == Some("1")
    }

    /// A whole number from `least` to `greatest`.
    pub(super) fn number<T>(&self, name: &str, least: T, greatest: T) -> Result<Option<T>, Refusal>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (&least..=&greatest).contains(&number));
        let wrong =
            || Refusal::bad(format!("'{name}' must be a whole number from {least} to {greatest}"));
        number.map(Some).ok_or_else(wrong)
    }

    /// A time in whole seconds.
    pub(super) fn secs(
        &self,
        name: &str,
        least: u64,
        greatest: u64,
    ) -> Result<Option<Duration>, Refusal> {
        Ok(self.number(name, least, greatest)?.map(Duration::from_secs))
    }

    /// The task that a result, or something else of an agent, is about.
    pub(super) fn task(&self) -> Result<TaskId, Refusal> {
        let id = self.need("id").map_err(|_| Refusal::bad("Missing id parameter"))?;
        TaskId::parse(id).ok_or_else(|| Refusal::bad("Non-numeric task id"))
    }

    pub(super) fn claim(&self) -> Result<Option<Claim>, Refusal> {
        let Some(claim) = self.get("claim") else { return Ok(None) };
        let claim = Claim::parse(claim).ok_or_else(|| Refusal::bad("Non-numeric claim"))?;
        Ok(Some(claim))
    }
}

/// `body` if it is one JSON value, on one line. White space around it is dropped; the rest stays as it came, big
/// numbers and the order of keys among it.
pub(super) fn json(body: &Bytes) -> Option<Bytes> {
    let text = std::str::from_utf8(body).ok()?.trim_ascii();
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let is_line_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if !text.bytes().any(|byte| is_line_end(&byte)) {
        return Some(body.slice_ref(text.as_bytes()));
    }
    // In JSON a bare line end can only stand between tokens.
    Some(text.bytes().map(|byte| if is_line_end(&byte) { b' ' } else { byte }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_stands_there_once() {
        let parsed = Parameters::parse(Some("a=1&b=%20x&c")).unwrap();
        assert_eq!((parsed.get("a"), parsed.get("b")), (Some("1"), Some(" x")));
        assert_eq!((parsed.get("c"), parsed.get("d")), (Some(""), None));
        let refused = Parameters::parse(Some("a=1&b=2&%61=3")).unwrap_err();
        assert_eq!(refused.message(), "Duplicate parameter 'a'");
        let many: Vec<String> = (0..=PARAMETERS_MAX).map(|n| n.to_string()).collect();
        assert!(Parameters::parse(Some(&many.join("&"))).is_err());
    }

    #[test]
    fn numbers_have_limits() {
        let parsed = Parameters::parse(Some("n=5&x=five&m=-1&e=")).unwrap();
        assert_eq!(parsed.number("n", 1, 5).unwrap(), Some(5));
        assert_eq!(parsed.number::<u64>("absent", 1, 5).unwrap(), None);
        for (name, greatest) in [("n", 4_u64), ("x", 9), ("m", 9), ("e", 9)] {
            assert!(parsed.number(name, 0, greatest).is_err(), "{name}");
        }
    }

    #[test]
    fn a_body_is_one_json_value_of_any_kind() {
        let check = |body: &'static str, expected: Option<&str>| {
            let found = json(&Bytes::from_static(body.as_bytes()));
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{body}");
        };
        check(
            " {\"a\": 1.50, \"a\": 12345678901234567890}\r\n",
            Some("{\"a\": 1.50, \"a\": 12345678901234567890}"),
        );
        check("{\n\"a\":\n1}", Some("{ \"a\": 1}"));
        for value in ["null", "true", "\"x\"", "[]", "0", "\"\\u2028\""] {
            check(value, Some(value));
        }
        for wrong in ["", " ", "{", "{} {}", "nope", "\"a\nb\"", "01", "[1,]"] {
            check(wrong, None);
        }
        assert!(json(&Bytes::from_static(b"\"\xff\"")).is_none());
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(json(&Bytes::from(deep)).is_some());
    }
}
