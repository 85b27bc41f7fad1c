//! Reads the INI dialect: sections, keys, comments, continued lines.
//!
//! Invariant: every key keeps its line, and a line that is none of these is a problem.
//! Not here: what a value means (`value`).

use super::problem::{Problem, Problems};
use super::source::{Document, Entry, Written};

/// Reads `text`; mistakes go to `problems`, and what could be read is returned all the same.
pub(super) fn parse(file: &str, text: &str, problems: &mut Problems) -> Document {
    let mut reader = Reader { document: Document::new(file), section: None, open: None, problems };
    for (index, line) in text.split('\n').enumerate() {
        if reader.problems.is_full() {
            break;
        }
        reader.line(index + 1, line);
    }
    reader.close();
    reader.document
}

struct Reader<'a> {
    document: Document,
    section: Option<usize>,
    open: Option<Open>,
    problems: &'a mut Problems,
}

/// The key whose value may go on in the next line.
struct Open {
    section: usize,
    key: String,
    line: usize,
    indent: usize,
    lines: Vec<String>,
}

impl Reader<'_> {
    fn line(&mut self, number: usize, line: &str) {
        let content = line.trim();
        if content.starts_with(['#', ';']) {
            return;
        }
        let indent = line.len() - line.trim_start().len();
        if let Some(open) = &mut self.open {
            // An empty line belongs to the value only when the value goes on after it.
            if content.is_empty() || indent > open.indent {
                open.lines.push(content.to_owned());
                return;
            }
        }
        if content.is_empty() {
            return;
        }
        self.close();
        if content.starts_with('[') {
            self.header(number, content);
        } else {
            self.key(number, indent, content);
        }
    }

    fn header(&mut self, number: usize, content: &str) {
        let parts = content[1..].split_once(']').map(|(name, rest)| (name.trim(), rest.trim()));
        self.section = None;
        let message = match parts {
            None => "a section begins with `[` and ends with `]`".to_owned(),
            Some(("", _)) => "a section needs a name between `[` and `]`".to_owned(),
            Some((name, rest)) if !rest.is_empty() && !rest.starts_with(['#', ';']) => {
                format!("nothing may follow `[{name}]` in its line, found `{rest}`")
            }
            Some((name, _)) => {
                self.section = Some(self.document.open(name, number));
                return;
            }
        };
        self.problem(number, message);
    }

    fn key(&mut self, number: usize, indent: usize, content: &str) {
        let Some(at) = content.find(['=', ':']) else {
            return self.problem(
                number,
                format!("expected `key = value` or `[section]`, found `{}`", brief(content)),
            );
        };
        let (key, value) = (content[..at].trim().to_lowercase(), content[at + 1..].trim());
        if key.is_empty() {
            return self.problem(number, "a key must stand before the `=`");
        }
        // After a broken header its keys have no home; the header is what was reported.
        if let Some(section) = self.section {
            let lines = vec![value.to_owned()];
            self.open = Some(Open { section, key, line: number, indent, lines });
        } else if self.problems.is_empty() {
            self.problem(number, format!("`{key}` stands before the first `[section]`"));
        }
    }

    /// Puts the open key into the document: its value is whole now.
    fn close(&mut self) {
        let Some(Open { section, key, line, lines, .. }) = self.open.take() else {
            return;
        };
        let written = Written::Text(lines.join("\n").trim_end().to_owned());
        if let Err(first) = self.document.put(section, Entry { key: key.clone(), line, written }) {
            self.problems.push(Problem {
                section: Some(self.document.sections[section].name.clone()),
                key: Some(key),
                ..Problem::of_line(
                    &self.document.file,
                    line,
                    format!("given twice, first in line {first}; keep one"),
                )
            });
        }
    }

    fn problem(&mut self, line: usize, message: impl Into<String>) {
        self.problems.push(Problem::of_line(&self.document.file, line, message));
    }
}

/// The first word of a line that could not be read: `apikey hush` must not show its second.
fn brief(content: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 24;
    let word = content.split_whitespace().next().unwrap_or_default();
    let mut shown: String = word.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < content.len() {
        shown.push_str(if shown.len() < word.len() { "…" } else { " …" });
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::{Problems, Written, parse};

    /// Compares with `section.key@line=value` per key, or with the problems.
    fn check(text: &str, expected: Result<&[&str], &str>) {
        let mut problems = Problems::default();
        let document = parse("f", text, &mut problems);
        let mut found = Vec::new();
        for section in &document.sections {
            for entry in &section.entries {
                let Written::Text(value) = &entry.written else { panic!("INI has text alone") };
                found.push(format!("{}.{}@{}={value}", section.name, entry.key, entry.line));
            }
        }
        match expected {
            Ok(expected) => {
                assert_eq!(problems.to_string(), "");
                assert_eq!(found, expected);
            }
            Err(expected) => assert_eq!(problems.to_string(), expected),
        }
    }

    #[test]
    fn keys_are_lower_case_and_either_sign_separates() {
        check(
            "[Net]\r\nPort = 1\r\nA:b=c\r\nId=\r\n",
            Ok(&["Net.port@2=1", "Net.a@3=b=c", "Net.id@4="]),
        );
    }

    #[test]
    fn sections_of_one_name_are_one_section_in_any_case() {
        check("[A]\nx=1\n[b]\ny=2\n[a]\nz=3", Ok(&["A.x@2=1", "A.z@6=3", "b.y@4=2"]));
        check(
            "[pluginparms]\nx=1\n[plugin_parms]\ny=1",
            Ok(&["pluginparms.x@2=1", "pluginparms.y@4=1"]),
        );
    }

    #[test]
    fn comments_are_whole_lines_alone() {
        check("# c\n[a] ; c\n ; c\nx = 1 # stays\n#y=2", Ok(&["a.x@4=1 # stays"]));
    }

    #[test]
    fn an_indented_line_goes_on_with_the_value_above() {
        check(
            "[a]\nx = list:\n  1\n  # c\n\n  [2]=3\n\ny=4",
            Ok(&["a.x@2=list:\n1\n\n[2]=3", "a.y@8=4"]),
        );
        check("[a]\n  x=1\n  y=2\n   more\n z=3", Ok(&["a.x@2=1", "a.y@3=2\nmore", "a.z@5=3"]));
    }

    #[test]
    fn a_percent_sign_and_an_empty_section_are_fine() {
        check("[empty]\n[a]\nx=100%(y)s", Ok(&["a.x@3=100%(y)s"]));
    }

    #[test]
    fn a_key_given_twice_names_both_lines() {
        check("[a]\nx=1\n[A]\nX=2", Err("f:4: [a] x: given twice, first in line 2; keep one"));
    }

    #[test]
    fn a_line_that_is_nothing_is_a_problem() {
        check("[a]\nword", Err("f:2: expected `key = value` or `[section]`, found `word`"));
        check("[a]\nkey hush", Err("f:2: expected `key = value` or `[section]`, found `key …`"));
        check("[a]\n=1", Err("f:2: a key must stand before the `=`"));
        check("x=1", Err("f:1: `x` stands before the first `[section]`"));
        check("[a\nx=1", Err("f:1: a section begins with `[` and ends with `]`"));
        check("[]", Err("f:1: a section needs a name between `[` and `]`"));
        check("[a] b", Err("f:1: nothing may follow `[a]` in its line, found `b`"));
    }
}
