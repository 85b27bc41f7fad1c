//! What a worker prints: lines for the server's log, with the plugin's name.
//!
//! A line may begin with `<severity|name>` (from `self.log`) or `<severity>` (systemd's habit). Reading
//! has a pace: a plugin that floods its output waits for the pipe, and nobody else does.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::time::Instant;

/// The longest line; what is longer becomes several.
const LINE_BYTES_MAX: usize = 8 << 10;
/// What may come in one go. A line costs one, and one more for each [`BYTES_PER_UNIT`] in it.
const BURST_UNITS: usize = 20_000;
/// What may come a second beyond that: some 5,000 short lines, or 1.3 MB of long ones.
const UNITS_PER_SEC: usize = 5_000;
const BYTES_PER_UNIT: usize = 256;

/// Reads `output` to its end and logs it under `label`.
pub async fn log_lines(output: impl AsyncRead + Unpin, label: String) {
    let mut output = BufReader::with_capacity(LINE_BYTES_MAX, output);
    let mut pace = Pace { units: BURST_UNITS, since: Instant::now() };
    let mut line = Vec::new();
    loop {
        match next_line(&mut output, &mut line).await {
            Ok(true) => {
                pace.wait(line.len()).await;
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
    units: usize,
    since: Instant,
}

impl Pace {
    async fn wait(&mut self, line_bytes: usize) {
        let cost = 1 + line_bytes / BYTES_PER_UNIT;
        if self.since.elapsed() >= Duration::from_secs(5) {
            self.units = BURST_UNITS;
            self.since = Instant::now();
        } else if self.units < cost {
            let step = Duration::from_millis(100);
            tokio::time::sleep(step.saturating_sub(self.since.elapsed())).await;
            self.units = UNITS_PER_SEC / 10;
            self.since = Instant::now();
        }
        self.units = self.units.saturating_sub(cost);
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

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_slowed_down_and_a_burst_is_not() {
        let mut pace = Pace { units: BURST_UNITS, since: Instant::now() };
        let begin = Instant::now();
        for _ in 0..BURST_UNITS {
            pace.wait(10).await;
        }
        assert_eq!(begin.elapsed(), Duration::ZERO);
        for _ in 0..UNITS_PER_SEC {
            pace.wait(10).await;
        }
        assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
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
