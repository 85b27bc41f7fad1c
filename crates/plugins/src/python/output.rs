//! What a worker prints: lines for the server's log, with the plugin's name.
//!
//! A line may begin with `<severity|name>` (from `self.log`) or `<severity>` (systemd's habit). Reading
//! has a pace: a plugin that floods its output waits for the pipe, and nobody else does.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::time::Instant;

/// The longest line; what is longer becomes several.
const LINE_BYTES_MAX: usize = 8 << 10;
/// Lines that may come in one go.
const BURST_LINES: u32 = 2_000;
/// Lines a second beyond that.
const LINES_PER_SEC: u32 = 500;

/// Reads `output` to its end and logs it under `label`.
pub async fn log_lines(output: impl AsyncRead + Unpin, label: String) {
    let mut output = BufReader::with_capacity(LINE_BYTES_MAX, output);
    let mut pace = Pace { lines: BURST_LINES, since: Instant::now() };
    let mut line = Vec::new();
    loop {
        match next_line(&mut output, &mut line).await {
            Ok(true) => {
                pace.wait().await;
                log_line(&line, &label);
                line.clear();
            }
            Ok(false) | Err(_) => return,
        }
    }
}

async fn next_line(
    output: &mut (impl AsyncBufReadExt + Unpin),
    line: &mut Vec<u8>,
) -> std::io::Result<bool> {
    loop {
        let ready = output.fill_buf().await?;
        if ready.is_empty() {
            return Ok(!line.is_empty());
        }
        let room = LINE_BYTES_MAX - line.len();
        let end = ready.iter().take(room).position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(ready.len().min(room));
        line.extend_from_slice(&ready[..taken]);
        let whole = end.is_some() || line.len() == LINE_BYTES_MAX;
        output.consume(taken + usize::from(end.is_some()));
        if whole {
            return Ok(true);
        }
    }
}

struct Pace {
    lines: u32,
    since: Instant,
}

impl Pace {
    async fn wait(&mut self) {
        if self.lines == 0 {
            let step = Duration::from_millis(100);
            let rest = step.saturating_sub(self.since.elapsed());
            tokio::time::sleep(rest).await;
            self.lines = LINES_PER_SEC / 10;
            self.since = Instant::now();
        } else if self.since.elapsed() >= Duration::from_secs(5) {
            self.lines = BURST_LINES;
            self.since = Instant::now();
        }
        self.lines -= 1;
    }
}

fn log_line(line: &[u8], label: &str) {
    let text = String::from_utf8_lossy(line);
    let (severity, name, text) = parse(&text);
    let plugin = name.unwrap_or(label);
    let text = without_controls(text);
    match severity {
        0..=3 => tracing::error!(target: "plugin", plugin, "{text}"),
        4 => tracing::warn!(target: "plugin", plugin, "{text}"),
        5 | 6 => tracing::info!(target: "plugin", plugin, "{text}"),
        _ => tracing::debug!(target: "plugin", plugin, "{text}"),
    }
}

/// A terminal's control sequences have no place in a log.
fn without_controls(text: &str) -> std::borrow::Cow<'_, str> {
    if text.chars().any(|c| c.is_control() && c != '\t') {
        text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
    } else {
        text.into()
    }
}

fn parse(line: &str) -> (u8, Option<&str>, &str) {
    let plain = (6, None, line);
    let Some((mark, text)) = line.strip_prefix('<').and_then(|rest| rest.split_once('>')) else {
        return plain;
    };
    let (digit, name) = match mark.split_once('|') {
        Some((digit, name)) => (digit, Some(name)),
        None => (mark, None),
    };
    match digit.as_bytes() {
        [digit @ b'0'..=b'7'] => (digit - b'0', name, text),
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_gives_severity_and_name() {
        assert_eq!(parse("<3|netinfo>it broke"), (3, Some("netinfo"), "it broke"));
        assert_eq!(parse("<4>odd"), (4, None, "odd"));
    }

    #[test]
    fn a_line_without_a_mark_is_information() {
        for line in ["plain", "<b>bold</b>", "<9>nine", "<", ""] {
            assert_eq!(parse(line), (6, None, line));
        }
    }

    #[tokio::test]
    async fn a_long_line_becomes_several_and_the_last_needs_no_end() {
        let text = [vec![b'x'; LINE_BYTES_MAX + 10], b"\nlast".to_vec()].concat();
        let mut output = BufReader::with_capacity(64, &text[..]);
        let mut lengths = Vec::new();
        let mut line = Vec::new();
        while next_line(&mut output, &mut line).await.unwrap() {
            lengths.push(line.len());
            line.clear();
        }
        assert_eq!(lengths, [LINE_BYTES_MAX, 10, 4]);
    }
}
