//! Tables: aligned with a header for people, tabs alone for programs.
//!
//! Invariant: a cell is one line without control characters, whoever supplied it.

use crate::shown;

/// What a cell may be wide where people look.
const CELL_CHARS_MAX: usize = 80;

/// Rows below a header.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(header: [&'static str; N]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as the header.
    pub(crate) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        debug_assert_eq!(N, self.header.len(), "a row of another table");
        self.rows.push(cells.iter().map(|cell| shown::line(cell)).collect());
    }

    /// For a terminal.
    pub(crate) fn aligned(&self) -> String {
        let header = self.header.iter().map(|title| (*title).to_owned()).collect();
        let cut = |row: &Vec<String>| -> Vec<String> {
            row.iter().map(|cell| shown::start(cell, CELL_CHARS_MAX)).collect()
        };
        let lines: Vec<Vec<String>> =
            std::iter::once(header).chain(self.rows.iter().map(cut)).collect();
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for line in lines {
            let cells = line.iter().zip(&widths);
            let padded: Vec<String> =
                cells.map(|(cell, width)| format!("{cell:<width$}")).collect();
            text.push_str(padded.join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    /// For a program: cells whole, tabs between, no header.
    pub(crate) fn tabbed(&self) -> String {
        self.rows.iter().map(|row| row.join("\t") + "\n").collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    fn table() -> Table {
        let mut table = Table::new(["AGENT", "NOW"]);
        table.row(["é\x1b", "online"]);
        table.row(["longer-name", ""]);
        table
    }

    #[test]
    fn people_see_columns() {
        let seen = "AGENT        NOW\né\\u{1b}      online\nlonger-name\n";
        assert_eq!(table().aligned(), seen);
    }

    #[test]
    fn programs_read_tabs() {
        assert_eq!(table().tabbed(), "é\\u{1b}\tonline\nlonger-name\t\n");
    }
}
