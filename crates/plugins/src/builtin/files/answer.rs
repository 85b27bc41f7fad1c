//! From a document and the request's conditions to the answer.

use std::fs::File;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use http::{Method, StatusCode};
use serde_json::json;

use super::FileBody;
use super::conditions::{Verdict, judge};
use super::document::About;
use crate::call::{Body, Call, Reply};

/// The bytes of an answer before it is known which of them are wanted.
pub(super) enum Source {
    Memory(Bytes),
    Disk { file: File, len: u64 },
}

impl Source {
    fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Disk { len, .. } => *len,
        }
    }

    /// The bytes `first..first + len`, which must be there.
    fn cut(self, first: u64, len: u64) -> Body {
        match self {
            Self::Disk { file, .. } => Body::File(Box::new(FileBody::new(file, first, len))),
            Self::Memory(bytes) => {
                // What is in memory has a length that fits.
                let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
                Body::full(bytes.slice(at(first)..at(first + len)))
            }
        }
    }
}

pub(super) fn answer(call: &Call, about: &About, source: Source) -> Reply {
    let len = source.len();
    let is_head = call.method == Method::HEAD;
    let verdict = judge(&call.headers, &about.etag, about.modified, len, !is_head);
    let mut headers = about.headers.clone();
    match verdict {
        Verdict::Whole if is_head => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
            Reply { status: StatusCode::OK, headers, body: Body::empty() }
        }
        Verdict::Whole => Reply { status: StatusCode::OK, headers, body: source.cut(0, len) },
        Verdict::Part { first, last } => {
            insert_range(&mut headers, &format!("bytes {first}-{last}/{len}"));
            let body = source.cut(first, last - first + 1);
            Reply { status: StatusCode::PARTIAL_CONTENT, headers, body }
        }
        Verdict::NotModified => {
            headers.remove(CONTENT_TYPE);
            Reply { status: StatusCode::NOT_MODIFIED, headers, body: Body::empty() }
        }
        Verdict::PreconditionFailed => {
            error(StatusCode::PRECONDITION_FAILED, "the document is not the version asked for")
        }
        Verdict::Unsatisfiable => {
            let mut reply = error(StatusCode::RANGE_NOT_SATISFIABLE, "no such part");
            insert_range(&mut reply.headers, &format!("bytes */{len}"));
            reply
        }
    }
}

fn insert_range(headers: &mut HeaderMap, range: &str) {
    if let Ok(range) = HeaderValue::from_str(range) {
        headers.insert(CONTENT_RANGE, range);
    }
}

pub(super) fn absent() -> Reply {
    error(StatusCode::NOT_FOUND, "not found")
}

fn error(status: StatusCode, message: &str) -> Reply {
    Reply::json(status, &json!({ "error": message }))
}

/// To the same place with a slash at the end; what follows `?` goes along.
pub(super) fn redirect(location: &str, call: &Call) -> Reply {
    let location = match call.uri.query() {
        Some(query) => format!("{location}?{query}"),
        None => location.to_owned(),
    };
    let mut reply = error(StatusCode::MOVED_PERMANENTLY, "this is a directory");
    if let Ok(location) = HeaderValue::from_str(&location) {
        reply.headers.insert(LOCATION, location);
    }
    reply
}
