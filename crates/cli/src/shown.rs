//! Foreign text, made fit to be looked at.
//!
//! Invariant: what leaves here cannot move a terminal's cursor, colour it, change its title, or turn
//! the order of letters around. Names and output come from agents, and an agent may be anybody's.

/// `text` in one line.
pub(crate) fn line(text: &str) -> String {
    escaped(text, |_| false)
}

/// `text` with its lines and tabs.
pub(crate) fn lines(text: &str) -> String {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

/// `text` in one line of at most `chars_max` characters.
pub(crate) fn start(text: &str, chars_max: usize) -> String {
    let shown = line(text);
    match shown.char_indices().nth(chars_max) {
        Some(_) => shown.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect(),
        None => shown,
    }
}

fn escaped(text: &str, keeps: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if keeps(c) || !(c.is_control() || is_invisible(c)) {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    }
    shown
}

/// Marks of direction and other characters that change what is seen without being seen.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// JSON `text` with one value a line. Only white space is changed: numbers stay as they were sent.
pub(crate) fn json(text: &str) -> String {
    let (mut shown, mut depth, mut in_string, mut escape) = (String::new(), 0_usize, false, false);
    let mut characters = text.chars().filter(|c| !c.is_whitespace() || *c == ' ').peekable();
    while let Some(c) = characters.next() {
        if in_string {
            in_string = escape || c != '"';
            escape = c == '\\' && !escape;
            shown.push(c);
            continue;
        }
        match c {
            ' ' => {}
            '{' | '[' => {
                shown.push(c);
                while characters.next_if_eq(&' ').is_some() {}
                if let Some(end) = characters.next_if(|c| matches!(c, '}' | ']')) {
                    shown.push(end);
                } else {
                    depth += 1;
                    new_line(&mut shown, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut shown, depth);
                shown.push(c);
            }
            ',' => {
                shown.push(c);
                new_line(&mut shown, depth);
            }
            ':' => shown.push_str(": "),
            _ => {
                in_string = c == '"';
                shown.push(c);
            }
        }
    }
    shown
}

fn new_line(shown: &mut String, depth: usize) {
    shown.push('\n');
    shown.extend(std::iter::repeat_n("  ", depth));
}

/// A time of RFC 3339 as the time where the operator is; what is none stays as it is.
pub(crate) fn written_time(text: &str) -> String {
    match text.parse::<jiff::Timestamp>() {
        Ok(at) => time(at.as_millisecond()),
        Err(_) => text.to_owned(),
    }
}

/// Milliseconds since 1970 as the time where the operator is.
pub(crate) fn time(milliseconds: i64) -> String {
    match jiff::Timestamp::from_millisecond(milliseconds) {
        Ok(time) => {
            let zone = jiff::tz::TimeZone::system();
            time.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        Err(_) => milliseconds.to_string(),
    }
}

/// A number of bytes, in few digits.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} bytes");
    }
    let (mut tenths, mut unit) = (u128::from(count) * 10 / 1024, 0);
    while tenths >= 10240 && unit + 1 < UNITS.len() {
        (tenths, unit) = (tenths / 1024, unit + 1);
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_cannot_command_the_terminal() {
        assert_eq!(super::line("a\x1b[31mb\n\u{202e}c\u{9b}é"), r"a\u{1b}[31mb\n\u{202e}c\u{9b}é");
        assert_eq!(super::lines("a\tb\n\x07\r"), "a\tb\n\\u{7}\\r");
    }

    #[test]
    fn long_text_is_cut_with_a_sign() {
        assert_eq!(super::start("äbcdef", 4), "äbc…");
        assert_eq!(super::start("äbcd", 4), "äbcd");
    }

    #[track_caller]
    fn check_json(text: &str, shown: &str) {
        assert_eq!(super::json(text), shown);
    }

    #[test]
    fn json_is_laid_out_and_not_changed() {
        check_json(
            r#"{"b":1.0,"a":[1,{}],"c":[ ]}"#,
            "{\n  \"b\": 1.0,\n  \"a\": [\n    1,\n    {}\n  ],\n  \"c\": []\n}",
        );
        check_json(r#""a:{\"b, \\""#, r#""a:{\"b, \\""#);
        check_json("18446744073709551617", "18446744073709551617");
    }

    #[test]
    fn bytes_are_told_in_few_digits() {
        let shown = [1023, 1024, 1_048_575, 5 << 20, u64::MAX].map(super::bytes);
        assert_eq!(shown, ["1023 bytes", "1.0 KiB", "1023.9 KiB", "5.0 MiB", "16383.9 PiB"]);
    }
}
