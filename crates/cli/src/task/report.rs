//! Prints what is heard of tasks that are waited for.
//!
//! Invariant: with several tasks, every line says whose it is; with JSON, each answer is one line.

use serde::Serialize;
use serde_json::json;
use wire::dispatch::{Json, Task};

use super::result;
use super::watch::News;
use crate::screen::Screen;
use crate::{CliError, Outcome, shown};

/// A line without an end is printed in pieces when it gets this long.
const LINE_BYTES_MAX: usize = 64 << 10;

/// The answers so far.
pub(super) struct Report<'a, 's> {
    screen: &'a mut Screen<'s>,
    entries: Vec<Entry>,
    outcome: Outcome,
}

/// One task.
struct Entry {
    /// Its agent; until that is known, its number.
    name: String,
    id: u64,
    has_ended: bool,
    /// It will not be asked about again.
    is_told: bool,
    /// Its output was printed while it ran.
    has_printed: bool,
    text: Text,
}

/// One answer as JSON. The fields are always the same ones; those without a value are left out.
#[derive(Serialize)]
struct Answer<'a> {
    target: &'a str,
    id: String,
    error: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    msg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a Json>,
}

impl<'a, 's> Report<'a, 's> {
    pub(super) fn new(
        tasks: impl Iterator<Item = (Option<String>, u64)>,
        screen: &'a mut Screen<'s>,
    ) -> Self {
        let entries = tasks.map(|(target, id)| Entry {
            name: target.unwrap_or_else(|| id.to_string()),
            id,
            has_ended: false,
            is_told: false,
            has_printed: false,
            text: Text::default(),
        });
        Self { entries: entries.collect(), screen, outcome: Outcome::Fine }
    }

    /// Whether nothing more is to be heard.
    pub(super) fn is_complete(&self) -> bool {
        self.entries.iter().all(|entry| entry.is_told)
    }

    /// Says how far it is.
    pub(super) fn progress(&mut self) {
        let all = self.entries.len();
        if all > 1 && !self.is_complete() {
            let answered = self.entries.iter().filter(|entry| entry.has_ended).count();
            self.screen.progress(&format!("{answered} of {all} answered"));
        }
    }

    /// Prints what was heard of a task.
    pub(super) fn tell(&mut self, index: usize, news: News) -> Result<(), CliError> {
        match news {
            News::Output { offset, bytes } => self.output(index, offset, &bytes)?,
            News::Ended(task) => self.ended(index, &task)?,
            News::TimedOut => {
                self.flush(index)?;
                self.entries[index].is_told = true;
                self.outcome = self.outcome.max(Outcome::TimedOut);
                if self.screen.json {
                    let answer = self.answer(index);
                    let msg = Some("no result yet".to_owned());
                    self.screen.value(&Answer {
                        timeout: Some(true),
                        error: true,
                        msg,
                        ..answer.of()
                    })?;
                }
            }
            News::Failed(error) => {
                self.flush(index)?;
                self.entries[index].is_told = true;
                if self.entries.len() == 1 {
                    return Err(error.into());
                }
                self.outcome = self.outcome.max(Outcome::Failed);
                if self.screen.json {
                    let answer = self.answer(index);
                    let msg = Some(error.to_string());
                    self.screen.value(&Answer { error: true, msg, ..answer.of() })?;
                } else {
                    let entry = &self.entries[index];
                    self.screen.note(&format!("task {}: {error}", entry.id));
                }
            }
        }
        self.progress();
        Ok(())
    }

    fn answer(&self, index: usize) -> Named {
        let entry = &self.entries[index];
        Named { target: entry.name.clone(), id: entry.id.to_string() }
    }

    fn output(&mut self, index: usize, offset: u64, bytes: &[u8]) -> Result<(), CliError> {
        let many = self.entries.len() > 1;
        let entry = &mut self.entries[index];
        entry.has_printed = true;
        if self.screen.json {
            let output = String::from_utf8_lossy(bytes);
            return self.screen.value(&json!({
                "target": entry.name, "id": entry.id.to_string(), "offset": offset, "output": output,
            }));
        }
        if many {
            let lines = entry.text.lines(bytes);
            self.named(index, &lines)
        } else {
            let text = entry.text.push(bytes);
            self.screen.foreign(&text)
        }
    }

    /// Prints what is left of output that ended in the middle of a line.
    fn flush(&mut self, index: usize) -> Result<(), CliError> {
        let mut rest = self.entries[index].text.rest();
        if self.screen.json || rest.is_empty() {
            return Ok(());
        }
        if self.entries.len() > 1 {
            rest.push(b'\n');
            return self.named(index, &rest);
        }
        self.screen.foreign(&rest)
    }

    fn ended(&mut self, index: usize, task: &Task) -> Result<(), CliError> {
        self.flush(index)?;
        let many = self.entries.len() > 1;
        let entry = &mut self.entries[index];
        (entry.is_told, entry.has_ended) = (true, true);
        entry.name.clone_from(&task.agent);
        let failure = result::failure(task);
        if failure.is_some() {
            self.outcome = self.outcome.max(Outcome::Failed);
        }
        if self.screen.json {
            return self.screen.value(&Answer {
                target: &task.agent,
                id: task.id.clone(),
                error: failure.is_some(),
                state: Some(task.state.name()),
                timeout: None,
                msg: failure,
                result: task.result.as_ref(),
            });
        }
        let printed = entry.has_printed;
        let words = task.result.as_ref().and_then(|result| result::words(result.get()));
        match &words {
            Some(_) if printed => {}
            Some(words) if many => self.named(index, words.as_bytes())?,
            Some(words) => self.screen.foreign(words.as_bytes())?,
            None if failure.is_none() => self.named(index, b"done\n")?,
            None => {}
        }
        if let Some(failure) = failure {
            self.screen.note(&format!("{}: task {}: {failure}", task.agent, task.id));
        } else if many && words.as_deref() == Some("") {
            self.named(index, b"done\n")?;
        }
        Ok(())
    }

    /// Prints lines with the name of their task before each.
    fn named(&mut self, index: usize, text: &[u8]) -> Result<(), CliError> {
        let name = shown::line(&self.entries[index].name);
        let mut lines = Vec::with_capacity(text.len());
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            lines.extend_from_slice(name.as_bytes());
            lines.extend_from_slice(b": ");
            lines.extend_from_slice(line);
        }
        self.screen.foreign(&lines)
    }

    /// The operator had enough.
    pub(super) fn interrupt(&mut self) {
        self.outcome = Outcome::Interrupted;
    }

    /// Says what goes on without us, and how all of it ended.
    pub(super) fn end(self) -> Result<Outcome, CliError> {
        let running: Vec<String> = self
            .entries
            .iter()
            .filter(|entry| !entry.has_ended)
            .map(|entry| entry.id.to_string())
            .collect();
        self.screen.clear();
        if matches!(self.outcome, Outcome::Interrupted | Outcome::TimedOut) && !running.is_empty() {
            let (count, all) = (running.len(), self.entries.len());
            self.screen.note(&format!(
                "{count} of {all} not answered yet; the wait can go on with: gatehouse task wait {}",
                running.join(" ")
            ));
        }
        Ok(self.outcome)
    }
}

/// Whose answer it is, while the screen is written to.
struct Named {
    target: String,
    id: String,
}

impl Named {
    fn of(&self) -> Answer<'_> {
        Answer {
            target: &self.target,
            id: self.id.clone(),
            error: false,
            state: None,
            timeout: None,
            msg: None,
            result: None,
        }
    }
}

/// Output that comes in pieces which may end anywhere.
#[derive(Debug, Default)]
pub(super) struct Text {
    kept: Vec<u8>,
}

impl Text {
    /// All so far, but for a character that is not complete yet.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.kept.extend_from_slice(bytes);
        let incomplete = match std::str::from_utf8(&self.kept) {
            Err(error) if error.error_len().is_none() => self.kept.len() - error.valid_up_to(),
            // Bytes that are no text at all do not get better by waiting; the last few may.
            Err(_) => incomplete_end(&self.kept),
            Ok(_) => 0,
        };
        let kept = self.kept.split_off(self.kept.len() - incomplete);
        std::mem::replace(&mut self.kept, kept)
    }

    /// All complete lines so far.
    fn lines(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.kept.extend_from_slice(bytes);
        let end = self.kept.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let kept = self.kept.split_off(end);
        let mut lines = std::mem::replace(&mut self.kept, kept);
        if self.kept.len() > LINE_BYTES_MAX {
            lines.append(&mut self.kept);
            lines.push(b'\n');
        }
        lines
    }

    /// What is left.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.kept)
    }
}

/// How many bytes at the end may be the beginning of a character.
fn incomplete_end(bytes: &[u8]) -> usize {
    (1..=bytes.len().min(3))
        .find(|length| {
            let end = &bytes[bytes.len() - length..];
            end[0] >= 0xc0 && std::str::from_utf8(end).is_err_and(|e| e.error_len().is_none())
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Text;

    #[test]
    fn a_character_cut_in_two_is_put_together() {
        let mut text = Text::default();
        assert_eq!(text.push(b"a\xc3"), b"a");
        assert_eq!(text.push(b"\xa9b"), "éb".as_bytes());
        assert_eq!(text.push(b"\xff\xe2\x82"), b"\xff");
        assert_eq!(text.rest(), b"\xe2\x82");
    }

    #[test]
    fn lines_come_whole_unless_they_never_end() {
        let mut text = Text::default();
        assert_eq!(text.lines(b"a\nb"), b"a\n");
        assert_eq!(text.lines(b"c\nd"), b"bc\n");
        assert_eq!(text.rest(), b"d");
        let endless = vec![b'x'; (64 << 10) + 1];
        assert_eq!(text.lines(&endless).len(), endless.len() + 1);
    }
}
