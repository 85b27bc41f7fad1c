//! What is known of a document before its bytes: headers made once, and the small ones kept whole.
//!
//! Invariant: a kept document is only used for a file whose stamp is the one it was read under, so
//! an edit is visible to the next request.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, LAST_MODIFIED,
    X_CONTENT_TYPE_OPTIONS,
};

use super::body::read_cached;
use super::conditions::whole_seconds;
use super::root::{Miss, Patience, Stamp};

/// Longer files are not kept but read as they are sent.
pub(super) const KEPT_BYTES_MAX: u64 = 64 * 1024;

/// A file changed more recently than this may change again without its stamp moving, for time stamps
/// are as coarse as the kernel's clock tick. What was read from it is not kept.
const SETTLED_AFTER: Duration = Duration::from_millis(50);

/// The headers of a document and what conditions are judged by.
#[derive(Debug)]
pub(super) struct About {
    /// `Content-Type`, `ETag`, `Last-Modified`, `Accept-Ranges`, `X-Content-Type-Options`.
    pub(super) headers: HeaderMap,
    pub(super) etag: HeaderValue,
    pub(super) modified: Option<SystemTime>,
}

impl About {
    /// Of a file that is sent as it is.
    pub(super) fn file(content_type: HeaderValue, stamp: &Stamp) -> Self {
        let (secs, nanos) = stamp.mtime;
        let tag = format!("\"{:x}-{:x}-{secs:x}.{nanos:x}\"", stamp.ino, stamp.size);
        Self::new(content_type, &tag, whole_seconds(secs))
    }

    /// `tag` with its quotes; `modified` in whole seconds, or `None` when no time is meaningful.
    pub(super) fn new(content_type: HeaderValue, tag: &str, modified: Option<SystemTime>) -> Self {
        // A time in the future must not be said: clients would not ask again.
        let modified = modified.filter(|modified| *modified <= SystemTime::now());
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE, content_type);
        // Only digits, dashes and quotes: always a header value.
        let etag = HeaderValue::from_str(tag).unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        headers.insert(ETAG, etag.clone());
        if let Some(said) =
            modified.and_then(|m| HeaderValue::from_str(&httpdate::fmt_http_date(m)).ok())
        {
            headers.insert(LAST_MODIFIED, said);
        }
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Self { headers, etag, modified }
    }
}

/// A small document, whole.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) about: About,
    pub(super) bytes: Bytes,
    /// The file it was read from, as it was then.
    pub(super) stamp: Stamp,
    /// For the log: the files whose text is in it, by URL and length.
    pub(super) includes: Vec<(String, u64)>,
}

/// Counts a kept document's bytes, and something for what surrounds them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight;

/// What a kept thing costs beside its bytes, about.
pub(super) const OVERHEAD_BYTES: usize = 1024;

impl quick_cache::Weighter<Box<str>, Arc<Document>> for Weight {
    fn weight(&self, path: &Box<str>, document: &Arc<Document>) -> u64 {
        (path.len() + document.bytes.len() + OVERHEAD_BYTES) as u64
    }
}

/// Reads a file of the length in its stamp; a shorter result means that it shrank meanwhile.
pub(super) fn read_whole(file: &File, stamp: &Stamp, patience: Patience) -> Result<Vec<u8>, Miss> {
    // Only called for what is short enough to be held in memory.
    let len =
        usize::try_from(stamp.size).map_err(|_| Miss::Failed(io::ErrorKind::OutOfMemory.into()))?;
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        let (into, offset) = (&mut bytes[filled..], filled as u64);
        let outcome = match patience {
            Patience::Cached => read_cached(file, into, offset).ok_or(Miss::WouldBlock)?,
            Patience::Blocking => file.read_at(into, offset),
        };
        match outcome {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Miss::Failed(error)),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// May what was just read from `file` under `stamp` be kept?
pub(super) fn is_settled(file: &File, stamp: &Stamp) -> bool {
    let unchanged = file.metadata().is_ok_and(|now| Stamp::of(&now) == *stamp);
    unchanged && is_old(stamp, SystemTime::now())
}

fn is_old(stamp: &Stamp, now: SystemTime) -> bool {
    let (secs, nanos) = stamp.ctime;
    let (Ok(secs), Ok(nanos)) = (u64::try_from(secs), u32::try_from(nanos)) else { return false };
    let changed = UNIX_EPOCH + Duration::new(secs, nanos);
    now.duration_since(changed).is_ok_and(|age| age > SETTLED_AFTER)
}

/// The content type a file's name stands for, with its character set where one matters.
pub(super) fn content_type(path: &str) -> HeaderValue {
    let essence = mime_guess::from_path(path).first_raw().unwrap_or("application/octet-stream");
    let is_text = essence.starts_with("text/")
        || essence.ends_with("+xml")
        || essence.ends_with("+json")
        || matches!(
            essence,
            "application/json"
                | "application/javascript"
                | "application/xml"
                | "application/x-javascript"
        );
    if !is_text {
        return HeaderValue::from_static(essence);
    }
    HeaderValue::from_str(&format!("{essence}; charset=utf-8"))
        .unwrap_or_else(|_| HeaderValue::from_static(essence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: &str) {
        assert_eq!(content_type(path), expected, "{path}");
    }

    #[test]
    fn text_says_its_character_set_and_the_rest_does_not() {
        check("a/page.html", "text/html; charset=utf-8");
        check("STYLE.CSS", "text/css; charset=utf-8");
        check("a.txt", "text/plain; charset=utf-8");
        check("a.js", "text/javascript; charset=utf-8");
        check("a.json", "application/json; charset=utf-8");
        check("a.svg", "image/svg+xml; charset=utf-8");
        check("a.png", "image/png");
        check("a.wasm", "application/wasm");
        check("a.tar.gz", "application/gzip");
        check("README", "application/octet-stream");
    }

    #[test]
    fn a_file_changed_just_now_may_change_again_unseen() {
        let stamp = |secs| Stamp { dev: 1, ino: 1, size: 1, mtime: (0, 0), ctime: (secs, 0) };
        let now = UNIX_EPOCH + Duration::from_secs(100);
        assert!(is_old(&stamp(99), now));
        assert!(!is_old(&stamp(100), now));
        assert!(!is_old(&stamp(101), now));
        assert!(!is_old(&stamp(-1), now));
    }
}
