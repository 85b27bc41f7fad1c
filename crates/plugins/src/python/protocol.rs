//! The bytes between the server and a Python worker.
//!
//! A frame is a length (u32, little-endian) and a list in the format of Python's `marshal` module,
//! version 2, so that the interpreter turns a whole batch into objects with one C call. Facts about the
//! format: CPython, `Python/marshal.c`. What each message holds is told in `python/plugincore/calls.py`
//! and pinned by the tests of both sides.
//!
//! Invariant: nothing here does I/O, and nothing a worker sends is trusted: every length is checked
//! against what is there.

use bytes::{Buf, Bytes};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use crate::call::{Call, FormValue};

/// The version both sides must speak.
pub const VERSION: u32 = 1;
/// Pieces of a streamed body that a worker may be ahead of the client.
pub const PIECES_AHEAD: usize = 16;
/// The longest head of a frame beside the body that it carries, in bytes.
pub const FRAME_OVERHEAD_BYTES_MAX: usize = 4 << 20;

const PING: i32 = -1;
const STREAM_HEAD: i32 = -2;
const STREAM_PIECE: i32 = -3;
const STREAM_END: i32 = -4;
const CANCEL: i32 = -5;
const CREDIT: i32 = -6;
const STOP: i32 = -7;
const HELLO: i32 = -8;

const BODY_MUST_BE_JSON: i32 = 1;
const BODY_MAY_BE_JSON: i32 = 2;

/// Messages on their way to a worker: the items of the next frame.
#[derive(Debug, Default)]
pub struct Outgoing {
    items: Vec<u8>,
    count: u32,
}

impl Outgoing {
    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Moves everything into one frame at the end of `frames`; keeps its own memory for the next.
    pub fn take_frame(&mut self, frames: &mut Vec<u8>) {
        let payload = u32::try_from(self.items.len() + 5).unwrap_or(u32::MAX);
        frames.reserve(self.items.len() + 9);
        frames.extend_from_slice(&payload.to_le_bytes());
        frames.push(b'[');
        frames.extend_from_slice(&self.count.to_le_bytes());
        frames.extend_from_slice(&self.items);
        self.count = 0;
        if self.items.capacity() > 1 << 20 {
            self.items = Vec::new();
        } else {
            self.items.clear();
        }
    }

    /// The first message: what to load, as JSON.
    pub fn hello(&mut self, json: &str) {
        self.message(2);
        put_int(&mut self.items, HELLO);
        put_text(&mut self.items, json);
    }

    /// Asks for a sign of life.
    pub fn ping(&mut self) {
        self.message(1);
        put_int(&mut self.items, PING);
    }

    /// Nobody waits for this call any more.
    pub fn cancel(&mut self, id: i32) {
        self.message(2);
        put_int(&mut self.items, CANCEL);
        put_int(&mut self.items, id);
    }

    /// The client has taken a piece of a streamed body.
    pub fn credit(&mut self, id: i32) {
        self.message(3);
        put_int(&mut self.items, CREDIT);
        put_int(&mut self.items, id);
        put_int(&mut self.items, 1);
    }

    /// Finish what runs and end; said again: do not wait for what runs, but end in good order.
    pub fn stop(&mut self) {
        self.message(1);
        put_int(&mut self.items, STOP);
    }

    /// A call to the plugin at `slot` of the worker's list.
    pub fn call(&mut self, id: i32, slot: u32, call: &Call) {
        self.message(11);
        let out = &mut self.items;
        put_int(out, id);
        put_int(out, i32::try_from(slot).unwrap_or(i32::MAX));
        put_text(out, call.method.as_str());
        put_text(out, call.uri.path_and_query().map_or("/", |target| target.as_str()));
        match &call.subpath {
            Some(subpath) => put_text(out, subpath),
            None => out.push(b'N'),
        }
        put_query(out, call.uri.query());
        put_form(out, call.form.as_deref());
        put_headers(out, &call.headers);
        put_client(out, call);
        if call.body.is_empty() {
            out.push(b'N');
        } else {
            put_bytes(out, &call.body);
        }
        put_int(out, body_kind(call));
    }

    fn message(&mut self, items: u32) {
        self.count += 1;
        self.items.push(b'(');
        self.items.extend_from_slice(&items.to_le_bytes());
    }
}

/// What a body is to the worker. A form's content type is what many clients send by default, whatever
/// they send, so such a body may be JSON as well; so may one without a type.
fn body_kind(call: &Call) -> i32 {
    let Some(content_type) = call.headers.get(CONTENT_TYPE) else { return BODY_MAY_BE_JSON };
    let essence = content_type.as_bytes().split(|b| *b == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii();
    if essence.eq_ignore_ascii_case(b"application/json")
        || essence.len() > 5 && essence[essence.len() - 5..].eq_ignore_ascii_case(b"+json")
    {
        BODY_MUST_BE_JSON
    } else if essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
        BODY_MAY_BE_JSON
    } else {
        0
    }
}

fn put_int(out: &mut Vec<u8>, value: i32) {
    out.push(b'i');
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    // Longer than u32 cannot be: bodies and heads have limits far below.
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b's');
    put_length(out, value.len());
    out.extend_from_slice(value);
}

fn put_text(out: &mut Vec<u8>, value: &str) {
    // The short form for ASCII text is the one that the interpreter reads fastest.
    match u8::try_from(value.len()) {
        Ok(length) if value.is_ascii() => out.extend_from_slice(&[b'z', length]),
        _ => {
            out.push(b'u');
            put_length(out, value.len());
        }
    }
    out.extend_from_slice(value.as_bytes());
}

/// Header values are bytes; those beyond ASCII are read as UTF-8 where they are, else as Latin-1.
fn put_header_value(out: &mut Vec<u8>, value: &HeaderValue) {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => put_text(out, text),
        Err(_) => {
            put_text(out, &value.as_bytes().iter().copied().map(char::from).collect::<String>());
        }
    }
}

fn put_headers(out: &mut Vec<u8>, headers: &HeaderMap) {
    out.push(b'(');
    put_length(out, headers.len() * 2);
    for (name, value) in headers {
        put_text(out, name.as_str());
        put_header_value(out, value);
    }
}

fn put_query(out: &mut Vec<u8>, query: Option<&str>) {
    let Some(query) = query.filter(|query| !query.is_empty()) else {
        out.push(b'N');
        return;
    };
    // A later entry of a dictionary replaces an earlier one, and the first of repeated variables is to
    // stay: so from the back.
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    out.push(b'{');
    for (name, value) in pairs.iter().rev() {
        put_text(out, name);
        put_text(out, value);
    }
    out.push(b'0');
}

fn put_form(out: &mut Vec<u8>, form: Option<&[(String, FormValue)]>) {
    let Some(form) = form else {
        out.push(b'N');
        return;
    };
    out.push(b'(');
    put_length(out, form.len() * 2);
    for (name, value) in form {
        put_text(out, name);
        match value {
            FormValue::Text(text) => put_text(out, text),
            FormValue::File(bytes) => put_bytes(out, bytes),
        }
    }
}

fn put_client(out: &mut Vec<u8>, call: &Call) {
    use std::io::Write;
    let mut text = [0u8; 46];
    let mut rest = &mut text[..];
    // 46 bytes hold the longest address there is, so this cannot fail.
    let _ = write!(rest, "{}", call.client_ip);
    let unused = rest.len();
    let length = text.len() - unused;
    out.extend_from_slice(&[b'z', u8::try_from(length).unwrap_or(0)]);
    out.extend_from_slice(&text[..length]);
}

/// A message from a worker.
#[derive(Debug)]
pub enum Incoming {
    /// What was loaded, as JSON.
    Hello(String),
    /// A sign of life.
    Pong,
    /// A whole answer.
    Answer {
        /// The call.
        id: i32,
        /// Its status.
        status: StatusCode,
        /// Its headers.
        headers: HeaderMap,
        /// Its body.
        body: Bytes,
    },
    /// The begin of an answer in pieces.
    StreamHead {
        /// The call.
        id: i32,
        /// Its status.
        status: StatusCode,
        /// Its headers.
        headers: HeaderMap,
    },
    /// A piece of a body.
    StreamPiece {
        /// The call.
        id: i32,
        /// The piece.
        piece: Bytes,
    },
    /// The end of a body in pieces.
    StreamEnd {
        /// The call.
        id: i32,
        /// What went wrong, if something did.
        problem: Option<String>,
    },
}

/// Bytes that no worker of ours sends.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Malformed {
    /// A length beyond the end of the frame.
    #[error("a value reaches beyond its frame")]
    Truncated,
    /// Another type than belongs here.
    #[error("a value of type {0:#04x} where another belongs")]
    UnexpectedType(u8),
    /// A message that is not known.
    #[error("a message of kind {0}")]
    UnknownKind(i32),
    /// Text that is not UTF-8.
    #[error("a text that is not UTF-8")]
    NotText,
}

/// Takes one frame from the front of `buffer`, or tells how many bytes a whole one has (0: unknown).
pub fn take_frame(buffer: &mut bytes::BytesMut) -> Result<Bytes, usize> {
    let Some(length) = buffer.first_chunk::<4>() else { return Err(0) };
    let whole = u32::from_le_bytes(*length) as usize + 4;
    if buffer.len() < whole {
        return Err(whole);
    }
    let mut frame = buffer.split_to(whole).freeze();
    frame.advance(4);
    Ok(frame)
}

/// Calls `each` for every message of `frame`.
pub fn read_frame(frame: Bytes, mut each: impl FnMut(Incoming)) -> Result<(), Malformed> {
    let mut reader = Reader { rest: frame };
    for _ in 0..reader.sequence()? {
        each(reader.message()?);
    }
    Ok(())
}

struct Reader {
    rest: Bytes,
}

impl Reader {
    fn message(&mut self) -> Result<Incoming, Malformed> {
        let items = self.sequence()?;
        let first = self.int()?;
        match (first, items) {
            (id @ 0.., 4) => {
                let (status, headers) = self.head()?;
                Ok(Incoming::Answer { id, status, headers, body: self.bytes()? })
            }
            (PING, 1) => Ok(Incoming::Pong),
            (HELLO, 2) => Ok(Incoming::Hello(self.text()?)),
            (STREAM_HEAD, 4) => {
                let id = self.int()?;
                let (status, headers) = self.head()?;
                Ok(Incoming::StreamHead { id, status, headers })
            }
            (STREAM_PIECE, 3) => {
                Ok(Incoming::StreamPiece { id: self.int()?, piece: self.bytes()? })
            }
            (STREAM_END, 3) => {
                let id = self.int()?;
                let problem = if self.rest.first() == Some(&b'N') {
                    self.rest.advance(1);
                    None
                } else {
                    Some(self.text()?)
                };
                Ok(Incoming::StreamEnd { id, problem })
            }
            (kind, _) => Err(Malformed::UnknownKind(kind)),
        }
    }

    fn head(&mut self) -> Result<(StatusCode, HeaderMap), Malformed> {
        let code = u16::try_from(self.int()?).ok().filter(|code| (200..600).contains(code));
        let status = code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut headers = HeaderMap::with_capacity(4);
        if self.rest.first() != Some(&b'[') {
            let text = self.text_bytes()?;
            headers.insert(CONTENT_TYPE, content_type(text));
            return Ok((status, headers));
        }
        for _ in 0..self.sequence()? {
            self.sequence()?;
            let (name, value) = (self.text_bytes()?, self.text_bytes()?);
            // A header that HTTP cannot carry is left out: a line break in a value must not become
            // a header of its own.
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(&name), HeaderValue::from_maybe_shared(value))
                && !is_the_doors(&name)
            {
                headers.append(name, value);
            }
        }
        Ok((status, headers))
    }

    fn type_byte(&mut self) -> Result<u8, Malformed> {
        if self.rest.is_empty() {
            return Err(Malformed::Truncated);
        }
        Ok(self.rest.get_u8())
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        let length = self.rest.first_chunk::<4>().ok_or(Malformed::Truncated)?;
        let length = u32::from_le_bytes(*length) as usize;
        self.rest.advance(4);
        Ok(length)
    }

    fn take(&mut self, length: usize) -> Result<Bytes, Malformed> {
        if length > self.rest.len() {
            return Err(Malformed::Truncated);
        }
        Ok(self.rest.split_to(length))
    }

    /// The length of a tuple or list; its items follow.
    fn sequence(&mut self) -> Result<usize, Malformed> {
        match self.type_byte()? {
            b'(' | b'[' => self.length(),
            other => Err(Malformed::UnexpectedType(other)),
        }
    }

    fn int(&mut self) -> Result<i32, Malformed> {
        match self.type_byte()? {
            b'i' => {
                let bytes = self.rest.first_chunk::<4>().ok_or(Malformed::Truncated)?;
                let value = i32::from_le_bytes(*bytes);
                self.rest.advance(4);
                Ok(value)
            }
            other => Err(Malformed::UnexpectedType(other)),
        }
    }

    fn bytes(&mut self) -> Result<Bytes, Malformed> {
        match self.type_byte()? {
            b's' => {
                let length = self.length()?;
                self.take(length)
            }
            other => Err(Malformed::UnexpectedType(other)),
        }
    }

    fn text_bytes(&mut self) -> Result<Bytes, Malformed> {
        match self.type_byte()? {
            b'u' | b't' => {
                let length = self.length()?;
                self.take(length)
            }
            other => Err(Malformed::UnexpectedType(other)),
        }
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let bytes = self.text_bytes()?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| Malformed::NotText)
    }
}

/// Headers of the connection, which a plugin does not decide.
fn is_the_doors(name: &HeaderName) -> bool {
    use http::header;
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::UPGRADE]
        .contains(name)
        || name == "keep-alive"
}

fn content_type(text: Bytes) -> HeaderValue {
    match &*text {
        b"application/json" => HeaderValue::from_static("application/json"),
        b"text/html; charset=utf-8" => HeaderValue::from_static("text/html; charset=utf-8"),
        _ => HeaderValue::from_maybe_shared(text)
            .unwrap_or(HeaderValue::from_static("application/octet-stream")),
    }
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
