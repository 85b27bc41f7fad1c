//! Runs the program that builds an image. The only place of this module that makes a process.
//!
//! Invariant: when [`build`] returns, the process has ended.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

/// The longest line that is passed on, in bytes.
const LINE_BYTES_MAX: u64 = 4096;
/// How many of the last lines an error tells.
const LINES_TOLD: usize = 12;

/// Runs `build NAME --output DIRECTORY`, with `--if-changed` where that is asked for, and passes on what it says, line by line. The error is the end of that.
pub(super) fn build(
    sources: &Path,
    name: &str,
    output: &Path,
    if_changed: bool,
    progress: &mut dyn FnMut(&str),
) -> Result<(), String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where the process that builds an image is made"
    )]
    let mut child = Command::new("/bin/sh")
        .arg(sources.join("build"))
        .args([name, "--output"])
        .arg(output)
        .args(if_changed.then_some("--if-changed"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("starting /bin/sh: {error}"))?;
    let mut last = VecDeque::with_capacity(LINES_TOLD);
    if let Some(stderr) = child.stderr.take() {
        let mut lines = BufReader::new(stderr);
        let mut line = Vec::new();
        while lines
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .is_ok_and(|length| length > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            progress(&text);
            if last.len() == LINES_TOLD {
                last.pop_front();
            }
            last.push_back(text);
            line.clear();
        }
    }
    let status = child.wait().map_err(|error| format!("waiting for it: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let said: Vec<String> = last.into();
    Err(if said.is_empty() { status.to_string() } else { said.join("\n") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(script: &str, expected: Result<(), &str>, told: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("build"), script).unwrap();
        let mut lines = Vec::new();
        let done = build(folder.path(), "small", Path::new("/out"), true, &mut |line| {
            lines.push(line.to_owned());
        });
        assert_eq!(done.as_ref().map_err(String::as_str).copied(), expected);
        assert_eq!(lines, told);
    }

    #[test]
    fn what_it_says_is_passed_on() {
        check(
            "echo \"$*\" >&2; echo result; echo done >&2",
            Ok(()),
            &["small --output /out --if-changed", "done"],
        );
    }

    #[test]
    fn a_failure_is_told_by_its_last_words() {
        check("echo no network >&2; exit 1", Err("no network"), &["no network"]);
        check("exit 3", Err("exit status: 3"), &[]);
    }
}
