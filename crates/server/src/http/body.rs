//! Request bodies, read whole and within limits, and the wrapper around bodies of answers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use plugins::call::{Body, BodyError, FormValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access_log::Line;
use super::activity::InRequest;
use super::cargo::Freight;
use super::error;
use super::policy::Policy;

/// The most fields of one form.
const FORM_FIELDS_MAX: usize = 10_000;

/// A request's body that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is longer than allowed.
    #[error("the body is longer than {limit_bytes} bytes ([limits] body_bytes_max)")]
    TooLong {
        /// The limit, in bytes.
        limit_bytes: usize,
    },
    /// Bodies of other requests fill the memory that there is for them.
    #[error("too many large requests at once; try again")]
    Crowded,
    /// It stopped coming.
    #[error("the body did not arrive in time ([limits] body_timeout_secs)")]
    TimedOut,
    /// It broke off, or its framing is wrong.
    #[error("the body broke off or is framed wrongly")]
    Broken,
    /// It is not what its content type says.
    #[error("the body is not what its content type says: {0}")]
    NotAForm(String),
}

impl ReadError {
    /// The error as a response.
    #[must_use]
    pub fn response(&self) -> Response<Body> {
        let status = match self {
            Self::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Crowded => StatusCode::SERVICE_UNAVAILABLE,
            Self::TimedOut => StatusCode::REQUEST_TIMEOUT,
            Self::Broken | Self::NotAForm(_) => StatusCode::BAD_REQUEST,
        };
        error::response(status, &self.to_string())
    }
}

/// Bodies of up to this size are not counted: connections are, and each has but few.
const SMALL_BYTES: usize = 64 << 10;
/// The unit in which room is counted.
const ROOM_UNIT_BYTES: usize = 1 << 10;

/// What all bodies that are in memory at a time may take together.
#[derive(Debug)]
pub struct Room(Arc<Semaphore>);

/// A body, and the room it takes as long as this lives.
#[derive(Debug)]
pub struct Held {
    /// The body.
    pub bytes: Bytes,
    /// Read by nobody: that it lives is what counts.
    room: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Room for half a gigabyte, or for four of the longest bodies where those are longer.
    #[must_use]
    pub fn new(body_bytes_max: usize) -> Self {
        let bytes = (512 << 20).max(body_bytes_max.saturating_mul(4));
        Self(Arc::new(Semaphore::new((bytes / ROOM_UNIT_BYTES).min(Semaphore::MAX_PERMITS))))
    }

    /// Makes `held` large enough for `bytes`.
    fn take(&self, held: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), ReadError> {
        let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let needs = if bytes <= SMALL_BYTES { 0 } else { bytes.div_ceil(ROOM_UNIT_BYTES) };
        let Ok(more @ 1..) = u32::try_from(needs.saturating_sub(has)) else { return Ok(()) };
        let more = Arc::clone(&self.0).try_acquire_many_owned(more);
        let more = more.map_err(|_| ReadError::Crowded)?;
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }
}

impl Held {
    /// The body, whose room is taken as long as any part of it lives.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self.room {
            Some(_) => Bytes::from_owner(self),
            None => self.bytes,
        }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the whole body.
///
/// # Errors
/// When it is too long, too slow, or broken, or when bodies of others take all the room.
pub async fn read(body: &mut Incoming, policy: &Policy, room: &Room) -> Result<Held, ReadError> {
    let mut held = None;
    let bytes = read_bytes(body, policy, policy.body_bytes_max, room, &mut held).await?;
    Ok(Held { bytes, room: held })
}

/// Reads the whole body of somebody who is not known yet: it must be small, so that it takes no room.
///
/// # Errors
/// As [`read`].
pub async fn read_small(
    body: &mut Incoming,
    policy: &Policy,
    room: &Room,
) -> Result<Bytes, ReadError> {
    let limit_bytes = policy.body_bytes_max.min(SMALL_BYTES);
    read_bytes(body, policy, limit_bytes, room, &mut None).await
}

async fn read_bytes(
    body: &mut Incoming,
    policy: &Policy,
    limit_bytes: usize,
    room: &Room,
    held: &mut Option<OwnedSemaphorePermit>,
) -> Result<Bytes, ReadError> {
    let too_long = || ReadError::TooLong { limit_bytes };
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > limit_bytes as u64 {
        return Err(too_long());
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(data) = next_piece(body, policy).await? {
        let length = first.len() + rest.len() + data.len();
        if length > limit_bytes {
            return Err(too_long());
        }
        room.take(held, length)?;
        if first.is_empty() && rest.is_empty() {
            // Most bodies arrive in one piece, which then needs no copy.
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.reserve(first.len() + data.len());
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// The next piece of a body that is not read whole; `None` at its end.
///
/// # Errors
/// When it does not come in time, or is broken.
pub async fn next_piece(body: &mut Incoming, policy: &Policy) -> Result<Option<Bytes>, ReadError> {
    loop {
        let frame = tokio::time::timeout(policy.body_timeout, body.frame()).await;
        let Some(frame) = frame.map_err(|_| ReadError::TimedOut)? else { return Ok(None) };
        // Trailers are nobody's.
        if let Ok(data) = frame.map_err(|_| ReadError::Broken)?.into_data() {
            return Ok(Some(data));
        }
    }
}

/// What is read away of a body that nobody wants, so that the connection can be kept.
const UNWANTED_BYTES_MAX: u64 = 256 << 10;
/// How long it may take to arrive.
const UNWANTED_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads away what is left of a body after its answer is known. Returns whether the connection can be
/// kept: a client that is still sending must otherwise be told that it will be closed.
pub async fn finish(body: &mut Incoming, is_waiting: bool) -> bool {
    if body.is_end_stream() {
        return true;
    }
    // A client that waits for `100 Continue` has not sent anything, and now need not.
    if is_waiting || body.size_hint().lower() > UNWANTED_BYTES_MAX {
        return false;
    }
    let drain = async {
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            if bytes > UNWANTED_BYTES_MAX {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(UNWANTED_TIMEOUT, drain).await.unwrap_or(false)
}

/// The fields of a form body; `None` when the content type is no form's.
///
/// # Errors
/// When the content type says form and the body is none.
pub async fn form(
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Option<Vec<(String, FormValue)>>, ReadError> {
    let Some(content_type) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if body.is_empty() {
        Ok(None)
    } else if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        urlencoded(body).map(Some)
    } else if essence.eq_ignore_ascii_case("multipart/form-data") {
        multipart(content_type, body).await.map(Some)
    } else {
        Ok(None)
    }
}

fn urlencoded(body: &[u8]) -> Result<Vec<(String, FormValue)>, ReadError> {
    let mut fields = Vec::new();
    for (name, value) in form_urlencoded::parse(body) {
        if fields.len() == FORM_FIELDS_MAX {
            return Err(ReadError::NotAForm(format!("more than {FORM_FIELDS_MAX} fields")));
        }
        fields.push((name.into_owned(), FormValue::Text(value.into_owned())));
    }
    Ok(fields)
}

async fn multipart(
    content_type: &str,
    body: &Bytes,
) -> Result<Vec<(String, FormValue)>, ReadError> {
    let broken = |error: multer::Error| ReadError::NotAForm(error.to_string());
    let boundary = multer::parse_boundary(content_type).map_err(broken)?;
    let whole = http_body_util::Full::new(body.clone());
    let stream = http_body_util::BodyDataStream::new(whole);
    let mut parts = multer::Multipart::new(stream, boundary);
    let mut fields = Vec::new();
    while let Some(part) = parts.next_field().await.map_err(broken)? {
        if fields.len() == FORM_FIELDS_MAX {
            return Err(ReadError::NotAForm(format!("more than {FORM_FIELDS_MAX} fields")));
        }
        let name = part.name().unwrap_or_default().to_owned();
        let is_file = part.file_name().is_some();
        let bytes = part.bytes().await.map_err(broken)?;
        let value = match (is_file, std::str::from_utf8(&bytes)) {
            (false, Ok(text)) => FormValue::Text(text.to_owned()),
            _ => FormValue::File(bytes),
        };
        fields.push((name, value));
    }
    Ok(fields)
}

/// The body of an answer while it is sent: counts what leaves, and ends the request when it is gone.
#[derive(Debug)]
pub struct Sent {
    body: Body,
    line: Option<Box<Line>>,
    freight: Option<Freight>,
    /// Where the answer is a stream of HTTP/2 and carries something.
    tail: Option<Tail>,
    request: InRequest,
}

/// How an answer of HTTP/2 ends that carries tasks.
///
/// What is given to HTTP/2 may lie there until the client makes room for it, which it may never do. But it asks for a
/// piece only when there was room for the one before; so the last byte is a piece of its own, and when what is behind
/// it is asked for, all of the answer is on its way.
#[derive(Debug)]
enum Tail {
    /// All is still to come.
    Whole,
    /// This last byte.
    Byte(Bytes),
    /// Nothing but the end.
    End,
}

impl Sent {
    /// Wraps `body`; `line` is written when it has been sent, or given up. `freight` is what it carries, over HTTP/2 or
    /// not.
    #[must_use]
    pub fn new(
        body: Body,
        line: Option<Box<Line>>,
        freight: Option<Freight>,
        is_http2: bool,
        request: InRequest,
    ) -> Self {
        let tail = (is_http2 && freight.is_some()).then_some(Tail::Whole);
        Self { body, line, freight, tail, request }
    }

    /// The next bytes that leave complete the answer.
    fn load(&mut self) {
        if let Some(freight) = self.freight.take() {
            self.request.cargo().load(&freight);
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.tail.take() {
            None => self.load(),
            Some(Tail::Whole) => {
                if let Some(freight) = &self.freight {
                    freight.leaves();
                }
                let frame = Pin::new(&mut self.body).poll_frame(cx);
                self.tail = Some(Tail::Whole);
                return frame.map(|frame| self.without_last(frame));
            }
            Some(Tail::Byte(byte)) => {
                self.tail = Some(Tail::End);
                return Poll::Ready(Some(Ok(Frame::data(byte))));
            }
            Some(Tail::End) => {
                self.load();
                return Poll::Ready(Some(Ok(Frame::data(Bytes::new()))));
            }
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    /// Keeps the last byte of the last piece back.
    fn without_last(
        &mut self,
        frame: Option<Result<Frame<Bytes>, BodyError>>,
    ) -> Option<Result<Frame<Bytes>, BodyError>> {
        if !self.body.is_end_stream() {
            return frame;
        }
        let data = match frame {
            Some(Ok(frame)) => frame.into_data(),
            other => return other,
        };
        Some(Ok(match data {
            Ok(mut data) if !data.is_empty() => {
                self.tail = Some(Tail::Byte(data.split_off(data.len() - 1)));
                Frame::data(data)
            }
            Ok(data) => Frame::data(data),
            Err(frame) => frame,
        }))
    }
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = self.poll_body(cx);
        if let (Some(line), Poll::Ready(Some(Ok(frame)))) = (&mut self.line, &frame) {
            line.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.tail.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.tail {
            None | Some(Tail::Whole) => self.body.size_hint(),
            Some(Tail::Byte(byte)) => SizeHint::with_exact(byte.len() as u64),
            Some(Tail::End) => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_share_a_room_and_give_it_back() {
        let room = Room::new(1);
        let (mut one, mut other) = (None, None);
        room.take(&mut one, SMALL_BYTES).unwrap();
        assert!(one.is_none(), "a small one is not counted");
        room.take(&mut one, 100 << 20).unwrap();
        room.take(&mut one, 400 << 20).unwrap();
        assert!(matches!(room.take(&mut other, 200 << 20), Err(ReadError::Crowded)));
        drop(one);
        room.take(&mut other, 200 << 20).unwrap();
    }

    #[test]
    fn a_body_takes_its_room_until_its_last_part_is_gone() {
        let room = Room::new(1);
        let all = room.0.available_permits();
        let mut permit = None;
        room.take(&mut permit, 1 << 20).unwrap();
        let bytes = Held { bytes: vec![1; 1 << 20].into(), room: permit }.into_bytes();
        let part = bytes.slice(5..9);
        drop(bytes);
        assert_eq!(room.0.available_permits(), all - 1024);
        assert_eq!(part, [1, 1, 1, 1][..]);
        drop(part);
        assert_eq!(room.0.available_permits(), all);
    }

    #[test]
    fn a_form_of_too_many_fields_is_refused() {
        let body = |count: usize| "a=1&".repeat(count).into_bytes();
        assert_eq!(urlencoded(&body(FORM_FIELDS_MAX)).unwrap().len(), FORM_FIELDS_MAX);
        assert!(urlencoded(&body(FORM_FIELDS_MAX + 1)).is_err());
    }
}
