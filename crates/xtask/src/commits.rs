//! Commit messages: `area: What`, short, with the why apart.
//!
//! Invariant: [`problems`] looks at the message alone; git is asked in [`run`].

use std::path::Path;

use crate::process::command;

const SUBJECT_CHARS_MAX: usize = 72;

/// Checks the commits in `range` (default: those that the main branch lacks; the last one when
/// there is none), prints what is wrong, and says whether nothing was.
pub(crate) fn run(root: &Path, range: Option<&str>) -> bool {
    let range = range.map_or_else(|| since_main(root), str::to_owned);
    // `-1` and the like would otherwise be read as options of git's.
    let log = ["log", "--no-merges", "--format=%h%x00%B%x01", &range, "--"];
    let log = match git(root, &log) {
        Ok(log) => log,
        Err(why) => {
            eprintln!("commit-check: {why}");
            return false;
        }
    };
    let mut count = 0;
    let mut good = true;
    for (id, message) in log.split('\u{1}').filter_map(|commit| commit.trim().split_once('\0')) {
        count += 1;
        for problem in problems(message) {
            good = false;
            println!("{id}: {problem}\n    {}", message.lines().next().unwrap_or_default());
        }
    }
    println!("commit-check: {count} commits in {range}");
    good
}

fn since_main(root: &Path) -> String {
    let exists = |name: &str| git(root, &["rev-parse", "--verify", "--quiet", name]).is_ok();
    match ["origin/main", "main"].into_iter().find(|name| exists(name)) {
        Some(main) => format!("{main}..HEAD"),
        None if exists("HEAD~1") => "HEAD~1..HEAD".to_owned(),
        None => "HEAD".to_owned(),
    }
}

/// What git prints.
pub(crate) fn git(root: &Path, arguments: &[&str]) -> Result<String, String> {
    // Whose files these are does not matter to one who already runs their code (CI often checks out
    // as another user, and git would refuse to look).
    let git = ["git", "-c", "safe.directory=*"];
    let argv: Vec<String> = git.iter().chain(arguments).map(|&word| word.to_owned()).collect();
    let output = command(root, &argv).output().map_err(|error| format!("git: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// What is wrong with a message; empty when nothing is.
fn problems(message: &str) -> Vec<&'static str> {
    let mut lines = message.lines();
    let subject = lines.next().unwrap_or_default();
    let mut found = Vec::new();
    let area_is_word = |area: &str| {
        !area.is_empty()
            && area
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_/.".contains(c))
    };
    match subject.split_once(": ") {
        Some((area, what)) if area_is_word(area) && !what.starts_with(char::is_lowercase) => {}
        Some(_) | None => found.push("the subject is not `area: What was done`"),
    }
    if subject.chars().count() > SUBJECT_CHARS_MAX {
        found.push("the subject is longer than 72 characters");
    }
    if subject.ends_with('.') {
        found.push("the subject ends with a full stop");
    }
    if lines.next().is_some_and(|second| !second.is_empty()) {
        found.push("no empty line between subject and body");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::problems;

    #[track_caller]
    fn check(message: &str, complaint: Option<&str>) {
        let found = problems(message);
        match complaint {
            None => assert!(found.is_empty(), "{found:?}"),
            Some(words) => assert!(found.iter().any(|p| p.contains(words)), "{found:?}"),
        }
    }

    #[test]
    fn an_area_and_a_capital_make_a_subject() {
        check("tasks: Keep a late result\n\nWhy.", None);
        check("server/http: Answer 405 with Allow", None);
        check("Keep a late result", Some("area"));
        check("tasks: keep a late result", Some("area"));
        check("Tasks: Keep a late result", Some("area"));
        check("", Some("area"));
    }

    #[test]
    fn a_subject_has_a_length() {
        check(&format!("tasks: {}", "K".repeat(65)), None);
        check(&format!("tasks: {}", "K".repeat(66)), Some("72"));
        check("tasks: Keep it.", Some("full stop"));
    }

    #[test]
    fn the_body_stands_apart() {
        check("tasks: Keep it\nbecause", Some("empty line"));
    }
}
