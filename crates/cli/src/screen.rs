//! Where a command prints: results on one side, remarks and progress on the other.
//!
//! Invariant: with JSON asked for, the result side holds JSON values, one a line, and nothing else;
//! a line of progress is gone before anything else is printed.

use std::io::Write;

use serde::Serialize;

use crate::table::Table;
use crate::{CliError, shown};

/// Both sides, and who looks at them.
pub struct Screen<'a> {
    /// Results.
    pub out: &'a mut dyn Write,
    /// Remarks and progress.
    pub err: &'a mut dyn Write,
    /// Somebody looks at the results.
    pub out_is_terminal: bool,
    /// Somebody looks at the remarks.
    pub err_is_terminal: bool,
    /// Results are JSON.
    pub json: bool,
    /// A line of progress stands there.
    pub in_progress: bool,
}

impl Screen<'_> {
    /// One value as JSON, one line.
    pub(crate) fn value(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        self.clear();
        let text = serde_json::to_string(value).map_err(std::io::Error::other)?;
        writeln!(self.out, "{text}")?;
        Ok(self.out.flush()?)
    }

    /// A result, either as JSON or in words.
    pub(crate) fn say(
        &mut self,
        value: &impl Serialize,
        words: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        if self.json { self.value(value) } else { self.line(&words()) }
    }

    /// A result, either as JSON or as a table.
    pub(crate) fn list(&mut self, value: &impl Serialize, table: &Table) -> Result<(), CliError> {
        if self.json { self.value(value) } else { self.table(table) }
    }

    /// A table.
    pub(crate) fn table(&mut self, table: &Table) -> Result<(), CliError> {
        let text = if self.out_is_terminal { table.aligned() } else { table.tabbed() };
        self.clear();
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }

    /// A line of our own words; foreign ones in it are escaped.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), CliError> {
        self.clear();
        writeln!(self.out, "{}", shown::lines(text))?;
        Ok(self.out.flush()?)
    }

    /// Foreign text: as it is for a program, escaped where somebody looks.
    pub(crate) fn foreign(&mut self, text: &[u8]) -> Result<(), CliError> {
        self.clear();
        if self.out_is_terminal {
            let text = shown::lines(&String::from_utf8_lossy(text));
            self.out.write_all(text.as_bytes())?;
        } else {
            self.out.write_all(text)?;
        }
        Ok(self.out.flush()?)
    }

    /// A remark. That nobody can read it is no reason to fail.
    pub(crate) fn note(&mut self, text: &str) {
        self.clear();
        let _ = writeln!(self.err, "{}", shown::lines(text));
    }

    /// How far it is, where somebody looks; it replaces what was said before.
    pub(crate) fn progress(&mut self, text: &str) {
        if self.err_is_terminal {
            let _ = write!(self.err, "\r{text}\x1b[K");
            let _ = self.err.flush();
            self.in_progress = true;
        }
    }

    /// Takes the progress away.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.in_progress) {
            let _ = write!(self.err, "\r\x1b[K");
            let _ = self.err.flush();
        }
    }
}
