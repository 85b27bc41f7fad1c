//! Answers of the second job.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::HeaderValue;
use http::{Response, StatusCode};
use plugins::call::{Body, Reply};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A JSON text as it stands.
pub(super) fn raw(body: impl Into<Bytes>) -> Response<Body> {
    crate::http::error::from_reply(Reply::full(StatusCode::OK, JSON, body))
}

/// A JSON value.
pub(super) fn json(body: &serde_json::Value) -> Response<Body> {
    raw(body.to_string())
}

/// `{"error": false}`.
pub(super) fn ok() -> Response<Body> {
    raw(Bytes::from_static(b"{\"error\":false}"))
}

/// The documents' empty answer.
pub(super) fn empty() -> Response<Body> {
    Response::new(Body::empty())
}

/// Plain text.
pub(super) fn text(body: impl Into<Bytes>) -> Response<Body> {
    crate::http::error::from_reply(Reply::full(StatusCode::OK, TEXT, body))
}

/// A JSON text put together from pieces, some of which came from elsewhere and are JSON already.
#[derive(Debug)]
pub(super) struct Text(BytesMut);

impl Text {
    /// Begins with `begin`; about `room` bytes will follow.
    pub(super) fn new(begin: &str, room: usize) -> Self {
        let mut text = BytesMut::with_capacity(begin.len() + room);
        text.put_slice(begin.as_bytes());
        Self(text)
    }

    /// Goes on with what is JSON already.
    pub(super) fn put(&mut self, json: impl AsRef<[u8]>) -> &mut Self {
        self.0.put_slice(json.as_ref());
        self
    }

    /// Goes on with a number.
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        use std::fmt::Write as _;
        // Writing to memory does not fail.
        let _ = write!(self.0, "{number}");
        self
    }

    /// Goes on with a string, which is quoted.
    pub(super) fn string(&mut self, text: &str) -> &mut Self {
        let quoted = serde_json::Value::from(text).to_string();
        self.put(quoted)
    }

    /// The text so far.
    pub(super) fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.0).freeze()
    }

    /// The answer.
    pub(super) fn answer(&mut self) -> Response<Body> {
        raw(self.take())
    }
}
