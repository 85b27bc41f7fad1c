//! What the checks are: each step as a plan that a test can read.
//!
//! Invariant: [`plan`] does nothing; what the machine has is asked once, in [`Have::look`].
//! Not here: running a plan and telling about it ([`crate::report`]).

use std::io::IsTerminal;
use std::path::Path;

use crate::process::Job;

/// One line of the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Fmt,
    Tidy,
    Python,
    Deny,
    Clippy,
    Docs,
    Build,
    Test,
    Doctest,
    Fuzz,
}

impl Step {
    /// All of CI: what fails within seconds comes before what compiles for minutes.
    pub(crate) const ALL: [Self; 10] = [
        Self::Fmt,
        Self::Tidy,
        Self::Python,
        Self::Deny,
        Self::Clippy,
        Self::Docs,
        Self::Build,
        Self::Doctest,
        Self::Test,
        Self::Fuzz,
    ];

    /// The word for it on the command line and in the summary.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Tidy => "tidy",
            Self::Python => "python",
            Self::Deny => "deny",
            Self::Clippy => "clippy",
            Self::Docs => "docs",
            Self::Build => "build",
            Self::Test => "test",
            Self::Doctest => "doctest",
            Self::Fuzz => "fuzz",
        }
    }
}

/// What is there to work with.
#[derive(Debug, Default)]
pub(crate) struct Have {
    pub(crate) nextest: bool,
    pub(crate) deny: bool,
    /// The virtual environment of `scripts/setup test` was made.
    pub(crate) venv: bool,
    /// Those of [`PYTHON_SUITES`] that exist.
    pub(crate) python_suites: Vec<&'static str>,
    /// Somebody watches: colours are wanted though the output goes through a pipe.
    pub(crate) terminal: bool,
}

/// Directories of Python tests.
const PYTHON_SUITES: [&str; 3] = ["python/tests", "examples/plugins/tests", "scripts/tests"];

impl Have {
    /// Looks at the machine and at the repository.
    pub(crate) fn look(root: &Path) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = |program: &str| {
            std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
        };
        Self {
            nextest: found("cargo-nextest"),
            deny: found("cargo-deny"),
            venv: root.join(VENV_PYTHON).is_file(),
            python_suites: PYTHON_SUITES.into_iter().filter(|s| root.join(s).is_dir()).collect(),
            terminal: std::io::stderr().is_terminal(),
        }
    }
}

const VENV_PYTHON: &str = ".venv/bin/python3";

/// What a step comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Programs, one after the other, until one fails.
    Run(Vec<Job>),
    /// The rules that live in this program.
    Tidy,
    /// The fuzz targets, two at a time.
    Fuzz,
    /// Nothing, for this reason.
    Skip(&'static str),
}

/// What `step` does on a machine that has `have`. Limits allow for two cores and an empty cache.
pub(crate) fn plan(step: Step, have: &Have) -> Plan {
    let cargo = |limit_secs, arguments: &[&str]| {
        let argv: Vec<&str> = [&["cargo"], arguments].concat();
        let job = Job::new(limit_secs, &argv);
        let job = if have.terminal { job.env("CARGO_TERM_COLOR", "always") } else { job };
        Plan::Run(vec![job])
    };
    match step {
        Step::Fmt => Plan::Run(vec![
            Job::new(60, &["cargo", "fmt", "--all", "--check"]),
            Job::new(60, &["cargo", "fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]),
        ]),
        Step::Tidy => Plan::Tidy,
        Step::Python if have.python_suites.is_empty() => Plan::Skip("there are no Python tests"),
        Step::Python => Plan::Run(have.python_suites.iter().map(|s| python(s, have)).collect()),
        Step::Deny if have.deny => cargo(300, &["deny", "check"]),
        Step::Deny => Plan::Skip("cargo-deny is not installed; deny.toml was not checked"),
        Step::Clippy => cargo(
            1200,
            &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
        ),
        Step::Docs => match cargo(600, &["doc", "--workspace", "--no-deps", "--locked"]) {
            Plan::Run(jobs) => Plan::Run(
                jobs.into_iter().map(|job| job.env("RUSTDOCFLAGS", "-D warnings")).collect(),
            ),
            other => other,
        },
        // The tests in `e2e` start the program, those in `server` its examples: they expect to find them built.
        Step::Build => cargo(1200, &["build", "--workspace", "--bins", "--examples", "--locked"]),
        Step::Test if have.nextest => cargo(1800, &["nextest", "run", "--workspace", "--locked"]),
        Step::Test => {
            cargo(1800, &["test", "--workspace", "--lib", "--bins", "--tests", "--locked"])
        }
        Step::Doctest => cargo(600, &["test", "--workspace", "--doc", "--locked"]),
        Step::Fuzz => Plan::Fuzz,
    }
}

fn python(suite: &str, have: &Have) -> Job {
    let python = if have.venv { VENV_PYTHON } else { "python3" };
    Job::new(300, &[python, "-m", "unittest", "discover", "-s", suite])
        .env("PYTHONPATH", "python:examples/plugins")
        .env("PYTHONDONTWRITEBYTECODE", "1")
}

/// Whether a line is one with which a test runner closes: repeated in the summary.
pub(crate) fn is_closing_line(line: &str) -> bool {
    let ran = |line: &str| {
        line.strip_prefix("Ran ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    line.starts_with("Summary [")
        || ran(line)
        || (line.starts_with("test result:") && !line.contains(" 0 passed; 0 failed"))
}

#[cfg(test)]
mod tests {
    use super::{Have, Plan, Step, is_closing_line, plan};

    #[track_caller]
    fn check(step: Step, have: &Have, expected: &[&str]) {
        let Plan::Run(jobs) = plan(step, have) else { panic!("{step:?} runs nothing") };
        let lines: Vec<String> = jobs.iter().map(|job| job.argv.join(" ")).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn nextest_is_used_where_it_is_installed() {
        let have = Have { nextest: true, ..Have::default() };
        check(Step::Test, &have, &["cargo nextest run --workspace --locked"]);
        let without = "cargo test --workspace --lib --bins --tests --locked";
        check(Step::Test, &Have::default(), &[without]);
    }

    #[test]
    fn a_check_that_cannot_run_says_so() {
        assert!(
            matches!(plan(Step::Deny, &Have::default()), Plan::Skip(why) if why.contains("not"))
        );
        assert!(matches!(plan(Step::Python, &Have::default()), Plan::Skip(_)));
    }

    #[test]
    fn python_tests_run_in_the_virtual_environment_when_there_is_one() {
        let suites = vec!["python/tests"];
        let have = Have { venv: true, python_suites: suites.clone(), ..Have::default() };
        let tail = "-m unittest discover -s python/tests";
        check(Step::Python, &have, &[&format!(".venv/bin/python3 {tail}")]);
        let have = Have { python_suites: suites, ..Have::default() };
        check(Step::Python, &have, &[&format!("python3 {tail}")]);
    }

    #[test]
    fn warnings_fail_the_documentation() {
        let Plan::Run(jobs) = plan(Step::Docs, &Have::default()) else { panic!("runs nothing") };
        assert_eq!(jobs[0].env, [("RUSTDOCFLAGS", "-D warnings".to_owned())]);
    }

    #[test]
    fn the_programs_are_built_before_the_tests_that_start_them() {
        let at = |wanted| Step::ALL.iter().position(|step| *step == wanted);
        assert!(at(Step::Build) < at(Step::Test));
    }

    #[test]
    fn closing_lines_are_known() {
        assert!(is_closing_line("Summary [   0.5s] 3 tests run: 3 passed, 0 skipped"));
        assert!(is_closing_line("test result: ok. 2 passed; 0 failed; 0 ignored"));
        assert!(is_closing_line("Ran 12 tests in 0.1s"));
        assert!(!is_closing_line("test result: ok. 0 passed; 0 failed; 0 ignored"));
        assert!(!is_closing_line("Ran away"));
    }
}
