//! Conditional and range requests (RFC 9110, sections 13 and 14), without any I/O.
//!
//! Several ranges at once are answered with the whole document, as the RFC allows: nobody can make
//! the server send the same bytes many times over.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};

/// What the conditions of a request lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// 200 with everything.
    Whole,
    /// 206 with the bytes `first..=last`.
    Part {
        /// Where it begins.
        first: u64,
        /// Its last byte.
        last: u64,
    },
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
    /// 416.
    Unsatisfiable,
}

/// Judges a GET; for a HEAD set `ranges` to false, for ranges mean something to GET only.
#[must_use]
pub fn judge(
    headers: &HeaderMap,
    etag: &HeaderValue,
    modified: Option<SystemTime>,
    len: u64,
    ranges: bool,
) -> Verdict {
    if headers.contains_key(IF_MATCH) {
        if !names(headers, IF_MATCH, etag, false) {
            return Verdict::PreconditionFailed;
        }
    } else if let (Some(since), Some(modified)) = (date(headers, IF_UNMODIFIED_SINCE), modified)
        && modified > since
    {
        return Verdict::PreconditionFailed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if names(headers, IF_NONE_MATCH, etag, true) {
            return Verdict::NotModified;
        }
    } else if let (Some(since), Some(modified)) = (date(headers, IF_MODIFIED_SINCE), modified)
        && modified <= since
    {
        return Verdict::NotModified;
    }
    match headers.get(RANGE) {
        Some(range) if ranges && same_version(headers, etag, modified) => part(range, len),
        _ => Verdict::Whole,
    }
}

/// A file's time as HTTP can say it: whole seconds, and nothing before 1970.
pub(super) fn whole_seconds(secs: i64) -> Option<SystemTime> {
    Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(secs).ok()?))
}

fn names(headers: &HeaderMap, header: HeaderName, etag: &HeaderValue, weakly: bool) -> bool {
    // Our own tags hold no comma, so splitting at commas cannot invent one.
    headers.get_all(header).iter().filter_map(|value| value.to_str().ok()).any(|list| {
        list.split(',').map(str::trim).any(|tag| {
            let tag = if weakly { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
            tag == "*" || tag.as_bytes() == etag.as_bytes()
        })
    })
}

fn date(headers: &HeaderMap, header: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(header)?.to_str().ok()?).ok()
}

/// `If-Range`: a part is wanted only of the version the client has.
fn same_version(headers: &HeaderMap, etag: &HeaderValue, modified: Option<SystemTime>) -> bool {
    match headers.get(IF_RANGE) {
        None => true,
        Some(tag) if tag.as_bytes().starts_with(b"\"") => tag == etag,
        Some(_) => modified.is_some() && date(headers, IF_RANGE) == modified,
    }
}

/// What cannot be understood is no range: the whole document is the answer.
fn part(range: &HeaderValue, len: u64) -> Verdict {
    let Some((first, last)) = range.to_str().ok().and_then(bounds) else { return Verdict::Whole };
    match (first, last) {
        (None, None) => Verdict::Whole,
        (None, Some(count)) if count == 0 || len == 0 => Verdict::Unsatisfiable,
        (None, Some(count)) => Verdict::Part { first: len - count.min(len), last: len - 1 },
        (Some(first), Some(last)) if last < first => Verdict::Whole,
        (Some(first), _) if first >= len => Verdict::Unsatisfiable,
        (Some(first), last) => {
            Verdict::Part { first, last: last.map_or(len - 1, |l| l.min(len - 1)) }
        }
    }
}

/// The two ends of a single range.
fn bounds(range: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, spec) = range.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = spec.trim().split_once('-')?;
    Some((bound(first)?, bound(last)?))
}

fn bound(digits: &str) -> Option<Option<u64>> {
    if digits.is_empty() {
        return Some(None);
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Beyond u64 is beyond every file.
    Some(Some(digits.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 100;
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    #[track_caller]
    fn check(given: &[(&str, &str)], expected: Verdict) {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let modified = whole_seconds(784_111_777);
        let etag = HeaderValue::from_static("\"e\"");
        assert_eq!(judge(&headers, &etag, modified, LEN, true), expected, "{given:?}");
    }

    #[test]
    fn without_conditions_everything_is_sent() {
        check(&[], Verdict::Whole);
    }

    #[test]
    fn a_known_tag_is_not_sent_again() {
        check(&[("if-none-match", "\"e\"")], Verdict::NotModified);
        check(&[("if-none-match", "\"a\", W/\"e\"")], Verdict::NotModified);
        check(&[("if-none-match", "\"a\""), ("if-none-match", "\"e\"")], Verdict::NotModified);
        check(&[("if-none-match", "*")], Verdict::NotModified);
        check(&[("if-none-match", "\"a\"")], Verdict::Whole);
        // The tag decides, not the date beside it.
        check(&[("if-none-match", "\"a\""), ("if-modified-since", LATER)], Verdict::Whole);
    }

    #[test]
    fn dates_decide_to_the_second() {
        check(&[("if-modified-since", THEN)], Verdict::NotModified);
        check(&[("if-modified-since", EARLIER)], Verdict::Whole);
        check(&[("if-modified-since", "yesterday")], Verdict::Whole);
        check(&[("if-unmodified-since", EARLIER)], Verdict::PreconditionFailed);
        check(&[("if-unmodified-since", THEN)], Verdict::Whole);
    }

    #[test]
    fn another_version_fails_the_precondition() {
        check(&[("if-match", "\"e\"")], Verdict::Whole);
        check(&[("if-match", "*")], Verdict::Whole);
        check(&[("if-match", "\"a\"")], Verdict::PreconditionFailed);
        check(&[("if-match", "W/\"e\"")], Verdict::PreconditionFailed);
    }

    #[test]
    fn a_single_range_is_cut_out() {
        let part = |first, last| Verdict::Part { first, last };
        check(&[("range", "bytes=0-0")], part(0, 0));
        check(&[("range", "bytes=10-19")], part(10, 19));
        check(&[("range", "bytes=90-")], part(90, 99));
        check(&[("range", "bytes=90-1000")], part(90, 99));
        check(&[("range", "bytes=-10")], part(90, 99));
        check(&[("range", "Bytes=-1000")], part(0, 99));
        check(&[("range", "bytes=5-99999999999999999999999")], part(5, 99));
    }

    #[test]
    fn a_range_beyond_the_end_cannot_be_satisfied() {
        check(&[("range", "bytes=100-")], Verdict::Unsatisfiable);
        check(&[("range", "bytes=99999999999999999999999-")], Verdict::Unsatisfiable);
        check(&[("range", "bytes=-0")], Verdict::Unsatisfiable);
    }

    #[test]
    fn what_is_no_single_range_is_ignored() {
        for range in ["bytes=0-1,5-6", "bytes=9-5", "bytes=-", "bytes=x-y", "lines=0-1", "bytes"] {
            check(&[("range", range)], Verdict::Whole);
        }
    }

    #[test]
    fn a_part_of_another_version_is_not_sent() {
        let part = Verdict::Part { first: 1, last: 2 };
        check(&[("range", "bytes=1-2"), ("if-range", "\"e\"")], part);
        check(&[("range", "bytes=1-2"), ("if-range", THEN)], part);
        check(&[("range", "bytes=1-2"), ("if-range", "\"a\"")], Verdict::Whole);
        check(&[("range", "bytes=1-2"), ("if-range", "W/\"e\"")], Verdict::Whole);
        check(&[("range", "bytes=1-2"), ("if-range", LATER)], Verdict::Whole);
    }

    #[test]
    fn a_head_knows_no_ranges() {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static("bytes=1-2"));
        let etag = HeaderValue::from_static("\"e\"");
        assert_eq!(judge(&headers, &etag, None, LEN, false), Verdict::Whole);
    }
}
