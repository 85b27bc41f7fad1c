//! Checks and builds the repository: `cargo xtask ci` is all of CI.
//!
//! Invariant: knows no crate of the workspace, so that it builds when they do not.
//! Not here: how a step's process is kept within its time ([`process`]), what the steps are
//! ([`steps`]), and the repository's own rules ([`tidy`], [`commits`]).
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command for people at a terminal"
)]

mod commits;
mod fuzz;
mod process;
mod report;
mod steps;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use steps::Step;

const USAGE: &str = "\
usage: cargo xtask <command>

  ci [--keep-going]      every check, in the order in which they fail fastest
  fmt                    formatting (repair: cargo fmt)
  tidy                   the repository's own rules
  clippy                 lints; a warning is a failure
  docs                   the documentation builds without a warning
  deny                   licences, advisories and sources of dependencies (needs cargo-deny)
  test                   programs built, then Rust tests and doctests
  fuzz [--secs N]        every fuzz target, N seconds altogether (default: 60)
  python                 tests of the Python side, the example plugins and the scripts
  commit-check [RANGE]   messages of the commits in RANGE (default: since the main branch)
";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    /// Run these steps, in order; go on after a failure or not.
    Steps { steps: Vec<Step>, keep_going: bool },
    /// Run the fuzz targets for so many seconds altogether.
    Fuzz(u64),
    /// Check commit messages of a range, or since the main branch.
    Commits(Option<String>),
    /// Show the usage text.
    Help,
}

/// Reads the arguments; an error is the complaint to print above the usage.
fn parse(arguments: &[&str]) -> Result<Request, String> {
    let steps = |steps: &[Step]| Request::Steps { steps: steps.to_vec(), keep_going: false };
    match arguments {
        [] | ["help" | "--help" | "-h"] => Ok(Request::Help),
        ["ci"] => Ok(steps(&Step::ALL)),
        ["ci", "--keep-going"] => {
            Ok(Request::Steps { steps: Step::ALL.to_vec(), keep_going: true })
        }
        ["test"] => Ok(steps(&[Step::Build, Step::Test, Step::Doctest])),
        ["fuzz", "--secs", secs] => match secs.parse() {
            Ok(secs @ 1..=86_400) => Ok(Request::Fuzz(secs)),
            _ => Err(format!("`{secs}` is no number of seconds from 1 to 86400")),
        },
        ["commit-check"] => Ok(Request::Commits(None)),
        ["commit-check", range] => Ok(Request::Commits(Some((*range).to_owned()))),
        [name] => match Step::ALL.into_iter().find(|step| step.name() == *name) {
            Some(step) => Ok(steps(&[step])),
            None => Err(format!("unknown command `{name}`")),
        },
        [name, ..] => Err(format!("`{name}` does not take these arguments")),
    }
}

/// The repository's root, two above this crate: where `cargo run` says that it is now, else where it
/// was compiled (one target directory may serve several checkouts).
fn root() -> PathBuf {
    let compiled = || Path::new(env!("CARGO_MANIFEST_DIR")).to_owned();
    let crate_directory =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(compiled, PathBuf::from);
    crate_directory.ancestors().nth(2).unwrap_or(&crate_directory).to_owned()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match parse(&arguments) {
        Ok(Request::Help) => {
            print!("{USAGE}");
            true
        }
        Ok(Request::Fuzz(secs)) => report::fuzz(&root(), secs),
        Ok(Request::Commits(range)) => commits::run(&root(), range.as_deref()),
        Ok(Request::Steps { steps, keep_going }) => report::run(&root(), &steps, keep_going),
        Err(complaint) => {
            eprint!("{complaint}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::{Request, Step, parse};

    #[test]
    fn every_step_of_ci_can_be_asked_for_alone() {
        for step in Step::ALL {
            assert!(matches!(parse(&[step.name()]), Ok(Request::Steps { .. })), "{step:?}");
        }
    }

    #[test]
    fn tests_alone_still_build_the_programs_first() {
        let steps = vec![Step::Build, Step::Test, Step::Doctest];
        assert_eq!(parse(&["test"]), Ok(Request::Steps { steps, keep_going: false }));
    }

    #[test]
    fn fuzzing_takes_a_time_within_limits() {
        assert_eq!(parse(&["fuzz", "--secs", "600"]), Ok(Request::Fuzz(600)));
        for wrong in ["0", "-1", "86401", "x"] {
            assert!(parse(&["fuzz", "--secs", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_misspelt_command_is_refused() {
        assert!(parse(&["tset"]).is_err() && parse(&["ci", "--keepgoing"]).is_err());
    }
}
