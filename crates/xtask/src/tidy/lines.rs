//! Rules that look at one file at a time.
//!
//! Words that a rule forbids are written here and in its tests so that the rule itself passes over
//! them: quoted, or joined from parts.

use super::{File, Problem};

const LINES_MAX: usize = 700;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "helpers", "helper", "common", "misc"];
const UNFINISHED: [&str; 3] = ["TODO", "FIXME", "XXX"];
/// Roots of directories that exist on one machine only.
const MACHINE_ROOTS: [&str; 3] = ["work", "root", "home"];
/// Bytes that other programs wrote, kept as they came.
const VERBATIM: [&str; 3] = ["testdata/", "fuzz/seeds/", "LICENSE-"];

/// Every rule for `file`.
pub(super) fn check(file: &File<'_>) -> Vec<Problem> {
    if VERBATIM.iter().any(|prefix| file.path.starts_with(prefix)) || file.is("lock") {
        return Vec::new();
    }
    let rules: [fn(&File<'_>) -> Vec<Problem>; 8] =
        [length, opening, name, attributes, unfinished, machine_paths, line_ends, last_line];
    rules.iter().flat_map(|rule| rule(file)).collect()
}

fn length(file: &File<'_>) -> Vec<Problem> {
    let count = file.text.lines().count();
    if count <= LINES_MAX || !(file.is("rs") || file.is("py")) {
        return Vec::new();
    }
    vec![file.problem(0, format!("{count} lines; more than {LINES_MAX} are refused: split it"))]
}

fn opening(file: &File<'_>) -> Vec<Problem> {
    let in_source = file.path.starts_with("crates/") && file.path.contains("/src/");
    if !in_source || !file.is("rs") || file.text.starts_with("//!") {
        return Vec::new();
    }
    vec![file.problem(1, "does not open with `//!`: its room, its invariant, what it leaves out")]
}

fn name(file: &File<'_>) -> Vec<Problem> {
    if !(file.is("rs") || file.is("py")) {
        return Vec::new();
    }
    let stem = file.path.rsplit_once('.').map_or(file.path, |(stem, _)| stem);
    let empty = stem.split('/').find(|part| EMPTY_NAMES.contains(part));
    empty
        .map(|part| file.problem(0, format!("`{part}` says nothing about what is inside")))
        .into_iter()
        .collect()
}

/// The part of a line of Rust before its comment.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

/// Where `word` stands in `line` outside a string: an even number of quotes comes before it.
fn stands_in_code(line: &str, word: &str) -> bool {
    code(line).match_indices(word).any(|(at, _)| line[..at].matches('"').count().is_multiple_of(2))
}

fn attributes(file: &File<'_>) -> Vec<Problem> {
    if !file.is("rs") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (number, line) in numbered(file) {
        if ["#[allow(", "#![allow("].iter().any(|word| stands_in_code(line, word)) {
            found.push(file.problem(number, "`allow`: use `#[expect(…, reason = \"…\")]`"));
        }
        if stands_in_code(line, "#[ignore") {
            found.push(file.problem(number, "an ignored test checks nothing"));
        }
    }
    found
}

fn unfinished(file: &File<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for (number, line) in numbered(file) {
        let word = UNFINISHED.iter().find(|word| has_bare_word(line, word));
        if let Some(word) = word.filter(|_| !has_issue_number(line)) {
            found.push(file.problem(number, format!("`{word}` without an issue number")));
        }
    }
    found
}

/// Whether `word` stands in `line` as a word of its own that is not quoted (which speaks *about* it).
fn has_bare_word(line: &str, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || "_\"'`".contains(c);
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(joins) && !line[at + word.len()..].starts_with(joins))
}

fn has_issue_number(line: &str) -> bool {
    line.split('#').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn machine_paths(file: &File<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for (number, line) in numbered(file) {
        let root = MACHINE_ROOTS.iter().find(|root| names_absolute(line, &format!("/{root}/")));
        if let Some(root) = root {
            found.push(file.problem(number, format!("`/{root}/…` exists on one machine only")));
        }
    }
    found
}

/// Whether the path begins in `line`, rather than being the tail of a longer one.
fn names_absolute(line: &str, path: &str) -> bool {
    let longer = |c: char| c.is_alphanumeric() || "._-*}>)~".contains(c);
    line.match_indices(path).any(|(at, _)| !line[..at].ends_with(longer))
}

fn line_ends(file: &File<'_>) -> Vec<Problem> {
    let lines = file.text.split('\n').enumerate();
    let ragged = lines.filter(|(_, line)| line.ends_with([' ', '\t', '\r']));
    ragged.map(|(index, _)| file.problem(index + 1, "white space at the end of the line")).collect()
}

fn last_line(file: &File<'_>) -> Vec<Problem> {
    if file.text.is_empty() || (file.text.ends_with('\n') && !file.text.ends_with("\n\n")) {
        return Vec::new();
    }
    let count = file.text.lines().count();
    vec![file.problem(count, "the file does not end with exactly one line end")]
}

fn numbered<'a>(file: &File<'a>) -> impl Iterator<Item = (usize, &'a str)> {
    file.text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

#[cfg(test)]
mod tests {
    use super::{File, UNFINISHED};

    /// Checks one file; `complaints` are the lines complained about, and a word of each complaint.
    #[track_caller]
    fn check(path: &str, text: &str, complaints: &[(usize, &str)]) {
        let found = super::check(&File { path, text });
        assert_eq!(found.len(), complaints.len(), "{found:?}");
        for (problem, (line, word)) in found.iter().zip(complaints) {
            assert!(problem.line == *line && problem.what.contains(word), "{found:?}");
        }
    }

    const SOURCE: &str = "crates/a/src/b.rs";

    #[test]
    fn a_file_of_source_has_at_most_700_lines() {
        check("python/a.py", &"x = 1\n".repeat(700), &[]);
        check("python/a.py", &"x = 1\n".repeat(701), &[(0, "701 lines")]);
        check("docs/a.md", &"text\n".repeat(701), &[]);
    }

    #[test]
    fn source_opens_by_saying_what_it_is() {
        check(SOURCE, "//! The room.\n", &[]);
        check(SOURCE, "use std::fmt;\n", &[(1, "open")]);
        check("crates/a/tests/b.rs", "use std::fmt;\n", &[]);
    }

    #[test]
    fn a_name_says_something() {
        check("crates/a/src/utils.rs", "//! A.\n", &[(0, "`utils`")]);
        check("crates/a/src/common/pool.rs", "//! A.\n", &[(0, "`common`")]);
        check("python/helpers.py", "\"\"\"A.\"\"\"\n", &[(0, "`helpers`")]);
        check("crates/a/src/common_log.rs", "//! A.\n", &[]);
    }

    #[test]
    fn an_exception_to_a_rule_is_expected_with_a_reason() {
        check(SOURCE, "//! A.\n    #[allow(dead_code)]\n", &[(2, "expect")]);
        check(SOURCE, "//! A.\nfn f(#[allow(unused)] a: u8) {}\n", &[(2, "expect")]);
        check(SOURCE, "//! A.\nlet a = \"#[allow(x)]\"; // not #[allow(x)]\n", &[]);
    }

    #[test]
    fn no_test_is_ignored() {
        check(SOURCE, "//! A.\n#[ignore = \"slow\"]\n", &[(2, "ignored")]);
    }

    #[test]
    fn what_is_unfinished_has_an_issue() {
        for word in UNFINISHED {
            check("Makefile", &format!("# {word}: later\n"), &[(1, word)]);
            check("Makefile", &format!("# {word} #12: later\n"), &[]);
            check("a.md", &format!("No `{word}` here; {word}X is another word.\n"), &[]);
        }
    }

    #[test]
    fn no_path_of_one_machine_is_named() {
        for root in super::MACHINE_ROOTS {
            check("a.sh", &format!("cd /{root}/me\n"), &[(1, root)]);
            check("a.sh", &format!("cd build/{root}/me\n"), &[]);
        }
    }

    #[test]
    fn lines_end_where_their_text_ends() {
        check("a.md", "one \ntwo\t\nthree\r\n", &[(1, "white"), (2, "white"), (3, "white")]);
        check("a.md", "one", &[(1, "line end")]);
        check("a.md", "one\n\n", &[(2, "line end")]);
        check("a.md", "", &[]);
    }

    #[test]
    fn golden_bytes_are_left_alone() {
        check("testdata/frame.txt", "one ", &[]);
    }
}
