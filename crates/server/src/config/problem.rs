//! What is wrong with a configuration, and where.
//!
//! Invariant: a message names what was found and what is expected, and never a secret's text.
//! Not here: who finds the problems.

use std::fmt;

/// So many are kept; a file that is no configuration at all must not fill a screen.
const KEPT_MAX: usize = 50;

/// One mistake (or one doubt) and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file as it was named, or `command line`.
    pub file: String,
    /// Line in the file, from 1.
    pub line: Option<usize>,
    /// The section, as written.
    pub section: Option<String>,
    /// The key, lower-case.
    pub key: Option<String>,
    /// What was found and what is expected.
    pub message: String,
}

impl Problem {
    /// A problem of the whole file.
    pub(super) fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
            section: None,
            key: None,
            message: message.into(),
        }
    }

    /// A problem of one line.
    pub(super) fn of_line(file: &str, line: usize, message: impl Into<String>) -> Self {
        Self { line: Some(line), ..Self::of_file(file, message) }
    }

    /// Whether both say the same about the same line: an inherited key is seen by every section.
    fn repeats(&self, other: &Self) -> bool {
        self.line.is_some()
            && (self.line, &self.key, &self.message) == (other.line, &other.key, &other.message)
    }
}

impl fmt::Display for Problem {
    /// `FILE:LINE: [section] key: message`, without the parts that are not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        match (&self.section, &self.key) {
            (Some(section), Some(key)) => write!(f, "[{section}] {key}: ")?,
            (Some(section), None) => write!(f, "[{section}]: ")?,
            (None, Some(key)) => write!(f, "{key}: ")?,
            (None, None) => {}
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with a configuration, in the order it was found (at most 50 are kept).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    kept: Vec<Problem>,
    left_out: usize,
}

impl Problems {
    /// Adds one, unless the same was said about the same line.
    pub(super) fn push(&mut self, problem: Problem) {
        if self.kept.iter().any(|known| known.repeats(&problem)) {
            return;
        }
        if self.kept.len() < KEPT_MAX {
            self.kept.push(problem);
        } else {
            self.left_out += 1;
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether so many are known that looking on is of no use.
    pub(super) fn is_full(&self) -> bool {
        self.kept.len() == KEPT_MAX
    }

    /// Each of those that were kept.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.kept.iter()
    }

    /// Those that were kept, in the order of their lines.
    pub(super) fn into_vec(mut self) -> Vec<Problem> {
        self.kept.sort_by_key(|problem| problem.line);
        self.kept
    }

    /// The same in the order of their lines, as a reader meets them.
    pub(super) fn sorted(mut self) -> Self {
        self.kept.sort_by_key(|problem| problem.line);
        self
    }
}

impl fmt::Display for Problems {
    /// One line per problem, no line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.kept.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{problem}")?;
        }
        match self.left_out {
            0 => Ok(()),
            count => write!(f, "\nand {count} more"),
        }
    }
}

impl std::error::Error for Problems {}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self { kept: vec![problem], left_out: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT_MAX, Problem, Problems};

    #[test]
    fn a_problem_names_its_place() {
        let problem = Problem {
            section: Some("SSL".to_owned()),
            key: Some("port".to_owned()),
            ..Problem::of_line("g.ini", 7, "bad")
        };
        assert_eq!(problem.to_string(), "g.ini:7: [SSL] port: bad");
        assert_eq!(Problem::of_file("g.ini", "missing").to_string(), "g.ini: missing");
    }

    #[test]
    fn more_than_a_screenful_is_counted() {
        let mut problems = Problems::default();
        for line in 0..KEPT_MAX + 3 {
            problems.push(Problem::of_line("f", line, "x"));
            problems.push(Problem::of_line("f", 0, "x"));
        }
        assert!(problems.is_full());
        assert!(problems.to_string().ends_with("\nand 3 more"), "{problems}");
    }
}
