//! The part of a request's path that names a document.
//!
//! Invariant: a [`DocPath`] has no empty, hidden, `.` or `..` component and no NUL, so it can be
//! joined to anything.
//! Not here: links on disk (`root` sees to those).

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// What is encoded in a path that goes into a header.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A document's path below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DocPath<'a> {
    /// Components with one slash between, none at either end.
    pub(super) text: Cow<'a, str>,
    /// Was there a slash at the end? Then only a directory is meant.
    pub(super) slash: bool,
}

impl<'a> DocPath<'a> {
    /// Reads the path after the route, percent-decoded *once*: what still looks encoded is a name.
    ///
    /// Repeated slashes count as one. `None` for what is never served: `..` and `.`, names that
    /// begin with a dot (`.git`, `.htpasswd`; but `.well-known` is meant to be public), and NUL.
    pub(super) fn parse(subpath: &'a str) -> Option<Self> {
        let slash = subpath.is_empty() || subpath.ends_with('/');
        let trimmed = subpath.trim_matches('/');
        if trimmed.contains('\0') || trimmed.split('/').any(is_hidden) {
            return None;
        }
        let text = if trimmed.contains("//") {
            let names: Vec<&str> = trimmed.split('/').filter(|name| !name.is_empty()).collect();
            Cow::Owned(names.join("/"))
        } else {
            Cow::Borrowed(trimmed)
        };
        Some(Self { text, slash })
    }

    /// The root itself.
    pub(super) const fn root() -> Self {
        Self { text: Cow::Borrowed(""), slash: true }
    }

    /// The path of what is called `name` in this directory.
    pub(super) fn join(&self, name: &str) -> String {
        if self.text.is_empty() { name.to_owned() } else { format!("{}/{name}", self.text) }
    }

    /// The same with its own text, for another thread.
    pub(super) fn into_owned(self) -> DocPath<'static> {
        DocPath { text: Cow::Owned(self.text.into_owned()), slash: self.slash }
    }

    /// `/route/path` as it stands in a URL.
    pub(super) fn url(&self, route: &str) -> String {
        let route = utf8_percent_encode(route, ENCODED);
        format!("/{route}/{}", utf8_percent_encode(&self.text, ENCODED))
    }
}

fn is_hidden(name: &str) -> bool {
    name.starts_with('.') && name != ".well-known"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(subpath: &str, expected: Option<(&str, bool)>) {
        let parsed = DocPath::parse(subpath);
        let parsed = parsed.as_ref().map(|path| (path.text.as_ref(), path.slash));
        assert_eq!(parsed, expected, "{subpath:?}");
    }

    #[test]
    fn ordinary_paths_are_taken_as_they_are() {
        check("", Some(("", true)));
        check("a/b.html", Some(("a/b.html", false)));
        check("a/", Some(("a", true)));
        check("a b/ü.html", Some(("a b/ü.html", false)));
        check(".well-known/x", Some((".well-known/x", false)));
    }

    #[test]
    fn repeated_and_leading_slashes_are_no_way_to_the_root_of_the_disk() {
        check("/etc/passwd", Some(("etc/passwd", false)));
        check("//a///b", Some(("a/b", false)));
        check("///", Some(("", true)));
    }

    #[test]
    fn what_is_never_served_is_refused() {
        for subpath in ["..", "../x", "a/../b", "a/..", ".", "a/./b", ".git/config", "x/.htpasswd"]
        {
            check(subpath, None);
        }
        check("a\0.html", None);
    }

    #[test]
    fn what_still_looks_encoded_is_only_a_name() {
        check("%2e%2e/x", Some(("%2e%2e/x", false)));
        check("..\\x", None);
        check("a\\..\\x", Some(("a\\..\\x", false)));
        check("C:/x", Some(("C:/x", false)));
    }

    #[test]
    fn a_url_has_nothing_a_header_refuses() {
        let path = DocPath::parse("a b/ü\r\nX: y").unwrap();
        assert_eq!(path.url("doc"), "/doc/a%20b/%C3%BC%0D%0AX:%20y");
    }
}
