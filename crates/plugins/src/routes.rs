//! Which path belongs to which endpoint. Pure.
//!
//! Invariant: every name in a table is free of the server's own names and belongs to one endpoint.

use std::collections::HashMap;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

/// The longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 200;

/// Endpoints by name.
#[derive(Debug)]
pub struct Routes<T> {
    by_name: HashMap<String, Arc<T>>,
    order: Vec<String>,
    /// Whether some name has more than one segment: only then longer prefixes are tried.
    deep: bool,
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self { by_name: HashMap::new(), order: Vec::new(), deep: false }
    }
}

/// Why a name cannot be a route.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// The server answers there itself.
    #[error("the name {0:?} is the server's own")]
    Reserved(String),
    /// Another plugin has it.
    #[error("the name {0:?} is taken by another plugin")]
    Taken(String),
    /// No path can hold it.
    #[error("{0:?} cannot be part of a path")]
    Unfit(String),
}

/// A path that belongs to an endpoint.
#[derive(Debug)]
pub struct Match<'a, T> {
    /// The endpoint.
    pub endpoint: &'a Arc<T>,
    /// What follows its name: `None` for `/name`, else decoded.
    pub subpath: Option<String>,
}

impl<T> Routes<T> {
    /// Adds `endpoint` under `name` (a leading slash is dropped).
    ///
    /// # Errors
    /// When the name is reserved, taken, or unfit.
    pub fn add(&mut self, name: &str, endpoint: T, reserved: &[&str]) -> Result<(), NameError> {
        let name = check_name(name, reserved)?;
        if self.by_name.contains_key(name) {
            return Err(NameError::Taken(name.to_owned()));
        }
        self.deep |= name.contains('/');
        self.order.push(name.to_owned());
        self.by_name.insert(name.to_owned(), Arc::new(endpoint));
        Ok(())
    }

    /// The endpoint called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<T>> {
        self.by_name.get(name)
    }

    /// All names, in the order in which they were added.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.order
    }

    /// The endpoint of `path` (as it came: percent-encoded, with its leading slash).
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Match<'_, T>> {
        let path = path.strip_prefix('/')?;
        let end = path.find('/').unwrap_or(path.len());
        if let Some(found) = self.at(path, end) {
            return Some(found);
        }
        if !self.deep {
            return None;
        }
        // A name that is wholly percent-encoded is three times as long; beyond that no prefix can be one.
        let longest = 3 * NAME_BYTES_MAX;
        let slashes = path.match_indices('/').map(|(at, _)| at).skip(1);
        let ends: Vec<usize> =
            slashes.chain([path.len()]).take_while(|end| *end <= longest).collect();
        ends.into_iter().rev().find_map(|end| self.at(path, end))
    }

    fn at(&self, path: &str, end: usize) -> Option<Match<'_, T>> {
        let name = &path[..end];
        let endpoint = match self.by_name.get(name) {
            Some(endpoint) => endpoint,
            None if name.contains('%') => {
                self.by_name.get(&*percent_decode_str(name).decode_utf8().ok()?)?
            }
            None => return None,
        };
        let subpath = path[end..].strip_prefix('/').map(decode);
        Some(Match { endpoint, subpath })
    }
}

fn check_name<'a>(name: &'a str, reserved: &[&str]) -> Result<&'a str, NameError> {
    let name = name.trim_matches('/');
    let first = name.split('/').next().unwrap_or_default();
    if name.is_empty()
        || name.len() > NAME_BYTES_MAX
        || name.chars().any(|c| c.is_control() || c.is_whitespace() || "?#%\\".contains(c))
        || name.split('/').any(|part| matches!(part, "" | "." | ".."))
    {
        return Err(NameError::Unfit(name.chars().take(NAME_BYTES_MAX).collect()));
    }
    if reserved.contains(&first) {
        return Err(NameError::Reserved(name.to_owned()));
    }
    Ok(name)
}

/// Bytes that are not UTF-8 become U+FFFD: a plugin gets text, whatever was sent.
fn decode(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Option<(&str, Option<&str>)>) {
        let mut routes = Routes::default();
        for name in ["hello", "café", "api/v1"] {
            routes.add(name, name, &["plugins"]).unwrap();
        }
        let found = routes.find(path);
        let found = found.as_ref().map(|m| (**m.endpoint, m.subpath.as_deref()));
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn a_path_is_split_behind_the_name() {
        check("/hello", Some(("hello", None)));
        check("/hello/", Some(("hello", Some(""))));
        check("/hello/a/b", Some(("hello", Some("a/b"))));
        check("/hello/a%2Fb%20c%FF", Some(("hello", Some("a/b c\u{fffd}"))));
        check("/hellos", None);
        check("/", None);
        check("hello", None);
        check("//hello", None);
    }

    #[test]
    fn a_name_may_be_encoded_and_may_have_segments() {
        check("/caf%C3%A9", Some(("café", None)));
        check("/h%65llo/x", Some(("hello", Some("x"))));
        check("/api/v1", Some(("api/v1", None)));
        check("/api/v1/x/y", Some(("api/v1", Some("x/y"))));
        check("/api/v2", None);
        check(&"/x".repeat(30_000), None);
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        let mut routes = Routes::default();
        routes.add("/mine/", (), &["plugins"]).unwrap();
        let mut check = |name: &str| routes.add(name, (), &["plugins"]).unwrap_err().to_string();
        assert!(check("plugins").contains("server's own"));
        assert!(check("plugins/x").contains("server's own"));
        assert!(check("mine").contains("taken"));
        for unfit in ["", "/", "a b", "a?b", "..", "a/../b", "a//b", "a\nb", &"x".repeat(201)] {
            assert!(check(unfit).contains("cannot be part"), "{unfit}");
        }
    }
}
