//! A length of time, as an argument has it.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// The longest one that is taken: what is longer was mistyped.
const LENGTH_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Whole seconds from `90` (seconds), `90s`, `45m`, `2h`, `1h30m`, `7d`.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let spelled = || {
        let span: Span = text.parse().ok()?;
        let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
        Duration::try_from(length).ok().map(|length| length.as_secs())
    };
    let seconds = text.parse().ok().or_else(spelled);
    let seconds =
        seconds.ok_or("expected seconds, or a number with a unit such as 90s, 45m, 2h or 7d")?;
    match seconds {
        0 => Err("it must be a second at least".to_owned()),
        seconds if seconds > LENGTH_MAX.as_secs() => Err("that is more than ten years".to_owned()),
        seconds => Ok(seconds),
    }
}

#[cfg(test)]
mod tests {
    #[track_caller]
    fn check(text: &str, seconds: Option<u64>) {
        assert_eq!(super::seconds(text).ok(), seconds, "{text}");
    }

    #[test]
    fn numbers_are_seconds_and_units_are_understood() {
        check("3600", Some(3600));
        check("90s", Some(90));
        check("45m", Some(2700));
        check("2h", Some(7200));
        check("1h30m", Some(5400));
        check("7d", Some(604_800));
    }

    #[test]
    fn what_is_no_length_of_time_is_refused() {
        for text in
            ["", "0", "0h", "-1", "-2h", "h", "2 hats", "500ms", "1mo", "99999999999", "11y"]
        {
            check(text, None);
        }
    }
}
