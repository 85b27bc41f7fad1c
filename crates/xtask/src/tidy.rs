//! The repository's own rules, which no compiler knows.
//!
//! Invariant: a rule is data in, data out: it sees a [`Tree`] and gives [`Problem`]s, so that its
//! test needs no files. [`run`] alone reads the repository.

mod lines;
mod paths;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::commits::git;

/// All files of the repository by their path from its root; `None` for those that are not text.
pub(crate) struct Tree(BTreeMap<String, Option<String>>);

impl Tree {
    fn texts(&self) -> impl Iterator<Item = File<'_>> {
        self.0.iter().filter_map(|(path, text)| Some(File { path, text: text.as_deref()? }))
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.0.get(path)?.as_deref()
    }

    /// Whether there is such a file or directory.
    fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        path.is_empty() || self.0.keys().any(|file| is_at_or_below(file, path))
    }
}

fn is_at_or_below(file: &str, path: &str) -> bool {
    file.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// One file of text.
#[derive(Clone, Copy)]
struct File<'a> {
    path: &'a str,
    text: &'a str,
}

impl File<'_> {
    fn is(&self, ending: &str) -> bool {
        Path::new(self.path).extension().is_some_and(|found| found == ending)
    }

    fn problem(&self, line: usize, what: impl Into<String>) -> Problem {
        Problem { path: self.path.to_owned(), line, what: what.into() }
    }
}

/// A rule broken at a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    path: String,
    /// From 1; 0 means the file as a whole.
    line: usize,
    what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// Reads what git tracks, or would if it were added, and checks it.
pub(crate) fn run(root: &Path) -> Result<Vec<Problem>, String> {
    let listed = git(root, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
    let mut files = BTreeMap::new();
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        // Deleted but not yet from the index, or a link to a directory: nothing to read.
        let full = root.join(path);
        if full.is_file() {
            let bytes = std::fs::read(&full).map_err(|error| format!("{path}: {error}"))?;
            files.insert(path.to_owned(), String::from_utf8(bytes).ok());
        }
    }
    Ok(check(&Tree(files)))
}

/// All rules over all files.
fn check(tree: &Tree) -> Vec<Problem> {
    let of_files = tree.texts().flat_map(|file| lines::check(&file));
    of_files.chain(paths::check(tree)).collect()
}
