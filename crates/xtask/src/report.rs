//! Runs steps in order and tells what came of each.
//!
//! Invariant: every step that was asked for has a line in the summary, run or not.
//! Not here: what a step is ([`crate::steps`]).

use std::path::Path;
use std::time::{Duration, Instant};

use crate::fuzz;
use crate::process::{End, run as run_job};
use crate::steps::{Have, Plan, Step, is_closing_line, plan};
use crate::tidy;

/// What came of a step.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed(String),
    Skipped(&'static str),
    NotReached,
    Interrupted,
}

/// One line of the summary, and the closing lines of its tests.
struct Row {
    step: Step,
    outcome: Outcome,
    took: Duration,
    closing: Vec<String>,
}

/// Runs `steps`, prints the summary, and says whether nothing failed.
pub(crate) fn run(root: &Path, steps: &[Step], keep_going: bool) -> bool {
    let have = Have::look(root);
    let mut rows: Vec<Row> = Vec::with_capacity(steps.len());
    for &step in steps {
        let stop = rows.iter().any(|row| match row.outcome {
            Outcome::Failed(_) => !keep_going,
            Outcome::Interrupted => true,
            Outcome::Passed | Outcome::Skipped(_) | Outcome::NotReached => false,
        });
        let begun = Instant::now();
        let (outcome, closing) = if stop {
            (Outcome::NotReached, Vec::new())
        } else {
            println!("\n==> {}", step.name());
            perform(root, plan(step, &have))
        };
        rows.push(Row { step, outcome, took: begun.elapsed(), closing });
    }
    print!("\n{}", summary(&rows));
    rows.iter().all(|row| matches!(row.outcome, Outcome::Passed | Outcome::Skipped(_)))
}

fn perform(root: &Path, plan: Plan) -> (Outcome, Vec<String>) {
    let jobs = match plan {
        Plan::Skip(reason) => {
            println!("skipped: {reason}");
            return (Outcome::Skipped(reason), Vec::new());
        }
        Plan::Fuzz => {
            let (end, closing) = fuzz::run(root, fuzz::SECS);
            return (outcome(end), closing);
        }
        Plan::Tidy => return (tidied(tidy::run(root)), Vec::new()),
        Plan::Run(jobs) => jobs,
    };
    let mut closing = Vec::new();
    for job in jobs {
        let line = job.argv.join(" ");
        println!("$ {line}");
        let (end, lines) = run_job(root, &job, is_closing_line);
        closing.extend(lines);
        match outcome(end) {
            Outcome::Failed(why) => return (Outcome::Failed(format!("{why}: {line}")), closing),
            Outcome::Interrupted => return (Outcome::Interrupted, closing),
            Outcome::Passed | Outcome::Skipped(_) | Outcome::NotReached => {}
        }
    }
    (Outcome::Passed, closing)
}

/// Runs the fuzz targets for so long, prints what came of them, and says whether nothing failed.
pub(crate) fn fuzz(root: &Path, secs: u64) -> bool {
    let begun = Instant::now();
    let (end, closing) = fuzz::run(root, secs);
    let row = Row { step: Step::Fuzz, outcome: outcome(end), took: begun.elapsed(), closing };
    print!("\n{}", summary(std::slice::from_ref(&row)));
    row.outcome == Outcome::Passed
}

fn tidied(found: Result<Vec<tidy::Problem>, String>) -> Outcome {
    match found {
        Ok(problems) if problems.is_empty() => Outcome::Passed,
        Ok(problems) => {
            for problem in &problems {
                println!("{problem}");
            }
            Outcome::Failed(format!("{} problems", problems.len()))
        }
        Err(why) => Outcome::Failed(why),
    }
}

fn outcome(end: End) -> Outcome {
    match end {
        End::Passed => Outcome::Passed,
        End::Failed(status) => Outcome::Failed(status),
        End::TimedOut(limit) => Outcome::Failed(format!("not done within {} s", limit.as_secs())),
        End::Interrupted => Outcome::Interrupted,
        End::NotStarted(why) => Outcome::Failed(format!("cannot be started ({why})")),
    }
}

fn summary(rows: &[Row]) -> String {
    let mut text = String::from("summary\n");
    for Row { step, outcome, took, closing } in rows {
        let (word, detail) = match outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Failed(why) => ("FAILED", why.as_str()),
            Outcome::Skipped(why) => ("skipped", *why),
            Outcome::NotReached => ("not run", "an earlier step failed"),
            Outcome::Interrupted => ("broken off", ""),
        };
        let line =
            format!("  {:<8} {word:<10} {:>6.1} s  {detail}", step.name(), took.as_secs_f64());
        text += line.trim_end();
        text.push('\n');
        for line in closing {
            text += &format!("           {line}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Outcome, Row, Step, outcome, summary};
    use crate::process::End;

    #[test]
    fn the_summary_has_a_line_for_each_step_and_the_closing_lines_of_tests() {
        let row = |step, outcome, closing: &[&str]| Row {
            step,
            outcome,
            took: Duration::from_millis(1250),
            closing: closing.iter().map(|line| (*line).to_owned()).collect(),
        };
        let rows = [
            row(Step::Fmt, Outcome::Passed, &[]),
            row(Step::Test, Outcome::Failed("exit status: 100".into()), &["Summary 3 failed"]),
            row(Step::Doctest, Outcome::NotReached, &[]),
        ];
        let expected = "\
summary
  fmt      passed        1.2 s
  test     FAILED        1.2 s  exit status: 100
           Summary 3 failed
  doctest  not run       1.2 s  an earlier step failed
";
        assert_eq!(summary(&rows), expected);
    }

    #[test]
    fn a_step_over_its_limit_has_failed() {
        let limit = Duration::from_secs(60);
        assert_eq!(
            outcome(End::TimedOut(limit)),
            Outcome::Failed("not done within 60 s".to_owned())
        );
    }
}
