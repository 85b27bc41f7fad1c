//! A JSON object whose members are taken apart and put together as they came.
//!
//! Invariant: the order of members and the text of their values are kept: no number loses a digit.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::answer::Text;

/// The members of an object.
#[derive(Debug)]
pub(super) struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Object<'a> {
    /// `body` as an object, if it is one.
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// The value of a member, as it came.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.get())
    }

    /// Adds the members, each with a comma before it; those called `instead` are left out.
    pub(super) fn put(&self, text: &mut Text, instead: &str) {
        for (name, value) in self.0.iter().filter(|(name, _)| name != instead) {
            text.put(",").string(name).put(":").put(value.get());
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Members).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_stay_as_they_came_and_one_is_left_out() {
        let body =
            br#"{ "b" : 1.50, "id": {"id": 3}, "a\"": 12345678901234567890123, "b": [ 1 ] }"#;
        let object = Object::parse(body).unwrap();
        let mut text = Text::new("", 0);
        object.put(&mut text, "id");
        assert_eq!(text.take(), r#","b":1.50,"a\"":12345678901234567890123,"b":[ 1 ]"#);
        assert_eq!(object.get("id"), Some(r#"{"id": 3}"#));
        assert_eq!(object.get("c"), None);
    }

    #[test]
    fn what_is_no_object_is_none() {
        for other in ["[]", "1", "null", "\"{}\"", "{", ""] {
            assert!(Object::parse(other.as_bytes()).is_none(), "{other}");
        }
    }
}
