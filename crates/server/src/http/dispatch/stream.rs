//! `/events/stream`: events as they come, as server-sent events.
//!
//! Invariant: nothing is read before the connection takes it, so a slow reader costs one page; whoever comes back with
//! the last id goes on where they were. Who asks is looked at again before anything is told.

use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::tasks::EventId;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, AUTHORIZATION};
use http::{HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use plugins::call::{Body, BodyError};
use tokio::time::Instant;

use super::refusal::Refusal;
use super::{Answer, Request};
use crate::accounts::{Act, AuthError, Credential};
use crate::dispatch::Dispatch;
use crate::follow::{Filter, Follower, Place, Told};

/// How long a stream is silent at most. As often it is looked whether its reader may still see.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After how many milliseconds a browser comes back.
const RETRY_MS: u32 = 2000;

/// Begins a stream.
pub(super) async fn stream(request: &mut Request<'_>) -> Answer {
    request.who_may(Act::See).await?;
    let parameters = request.parameters()?;
    let (dispatch, head) = (request.dispatch, &*request.head);
    let filter = match parameters.get("agent") {
        None => Filter::default(),
        Some(names) => Filter::parse(names, |name| dispatch.accounts.agent(name).is_some())
            .map_err(|error| Refusal::bad(error.to_string()))?,
    };
    let after = parameters.number("after", 0, i64::MAX.unsigned_abs())?.map(EventId);
    let last = match head.headers.get("last-event-id").filter(|id| !id.is_empty()) {
        None => None,
        Some(id) => Some(event_id(id).ok_or_else(|| Refusal::bad("Non-numeric Last-Event-ID"))?),
    };
    let feed = &dispatch.feed;
    let place = dispatch.stream_places.take().ok_or_else(|| {
        let message = "Too many streams of events are open; try again later";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
    })?;
    let reader = Reader {
        follower: feed.follow(filter, last.or(after).unwrap_or_else(|| feed.newest())),
        dispatch: Arc::clone(dispatch),
        authorization: head.headers.get(AUTHORIZATION).cloned(),
        client: request.client,
    };
    let mut begin = BytesMut::new();
    begin.put_slice(format!("retry: {RETRY_MS}\n").as_bytes());
    put_cursor(&mut begin, reader.follower.cursor());
    let (begin, next) = (Some(begin.freeze()), Some(Box::pin(reader.next()) as Next));
    let stream = Stream { begin, next, place };
    let mut response = Response::new(Body::Stream(stream.boxed_unsync()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies like nginx would wait for more before they pass on anything.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

fn event_id(id: &HeaderValue) -> Option<EventId> {
    let id: u64 = id.to_str().ok()?.parse().ok()?;
    i64::try_from(id).is_ok().then_some(EventId(id))
}

/// Whoever reads a stream.
struct Reader {
    follower: Follower,
    dispatch: Arc<Dispatch>,
    authorization: Option<HeaderValue>,
    client: IpAddr,
}

impl Reader {
    /// What comes next; `None` when the stream ends.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        let silent = Instant::now() + KEEP_ALIVE;
        let next = tokio::time::timeout_at(silent, self.follower.next());
        let next = self.dispatch.unless_closing(pin!(next)).await?;
        if !self.may_see().await {
            return None;
        }
        let mut text = BytesMut::new();
        match next {
            Ok(Ok(told)) => told.iter().for_each(|told| put(&mut text, told)),
            Ok(Err(error)) => {
                tracing::warn!("a stream of events ends: {error}");
                return None;
            }
            Err(_) => {
                text.put_slice(b": still here\n");
                put_cursor(&mut text, self.follower.cursor());
            }
        }
        Some((text.freeze(), self))
    }

    async fn may_see(&self) -> bool {
        let header = self.authorization.as_ref().map(HeaderValue::as_bytes);
        let Some(credential) = header.and_then(Credential::parse) else { return false };
        let accounts = &self.dispatch.accounts;
        let known = match accounts.authenticate_now(&credential, self.client) {
            Some(known) => known,
            None => accounts.authenticate(&credential, self.client).await,
        };
        match known {
            Ok(identity) => identity.role.may(Act::See),
            Err(AuthError::Refused | AuthError::TooMany { .. }) => false,
            // Nobody knows just now; it is asked again.
            Err(AuthError::Busy | AuthError::Unavailable(_)) => true,
        }
    }
}

/// An id without an event moves the reader's cursor and tells nothing else.
fn put_cursor(text: &mut BytesMut, cursor: EventId) {
    text.put_slice(format!("id: {}\n\n", cursor.0).as_bytes());
}

/// Writes one message.
fn put(text: &mut BytesMut, told: &Told) {
    let quoted = |name: &str| serde_json::Value::from(name).to_string();
    let line = match told {
        Told::Event { id, agent, at, body } => {
            let agent = quoted(agent);
            text.reserve(body.len() + agent.len() + 96);
            text.put_slice(
                format!(
                    "id: {}\nevent: event\ndata: {{\"agent\":{agent},\"at\":{at},\"event\":",
                    id.0
                )
                .as_bytes(),
            );
            body
        }
        Told::Gap { agent, last } => {
            let (agent, last) = (quoted(agent), last.0);
            let before = last + 1;
            text.put_slice(
                format!(
                    "id: {last}\nevent: gap\ndata: {{\"agent\":{agent},\"before\":\"{before}\""
                )
                .as_bytes(),
            );
            &Bytes::new()
        }
    };
    // A line end would end the field. In JSON a bare one can only stand between tokens.
    text.extend(line.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    text.put_slice(b"}\n\n");
}

type Next = Pin<Box<dyn Future<Output = Option<(Bytes, Reader)>> + Send>>;

/// The body: asks the reader for more when the connection takes more.
struct Stream {
    begin: Option<Bytes>,
    next: Option<Next>,
    place: Place,
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(begin) = this.begin.take() {
            return Poll::Ready(Some(Ok(Frame::data(begin))));
        }
        if !this.place.moves() {
            // It had not been read for long, and another has its place.
            this.next = None;
        }
        let Some(next) = &mut this.next else { return Poll::Ready(None) };
        let Some((text, reader)) = ready!(next.as_mut().poll(cx)) else {
            this.next = None;
            return Poll::Ready(None);
        };
        this.next = Some(Box::pin(reader.next()));
        Poll::Ready(Some(Ok(Frame::data(text))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(told: &Told, expected: &str) {
        let mut text = BytesMut::new();
        put(&mut text, told);
        assert_eq!(std::str::from_utf8(&text).unwrap(), expected);
    }

    fn event(agent: &str, body: &'static str) -> Told {
        Told::Event { id: EventId(9), agent: agent.into(), at: 5, body: body.into() }
    }

    #[test]
    fn an_event_is_one_message() {
        let message = |data: &str| format!("id: 9\nevent: event\ndata: {data}\n\n");
        let told = event("a", "{\"n\":1.50}");
        check(&told, &message("{\"agent\":\"a\",\"at\":5,\"event\":{\"n\":1.50}}"));
        let told = event("a\"b\u{2028}", "null");
        check(&told, &message("{\"agent\":\"a\\\"b\u{2028}\",\"at\":5,\"event\":null}"));
    }

    #[test]
    fn no_kind_of_line_end_breaks_a_message_up() {
        let message = |event: &str| {
            format!("id: 9\nevent: event\ndata: {{\"agent\":\"a\",\"at\":5,\"event\":{event}}}\n\n")
        };
        check(&event("a", "{\r\n\"n\":\r1}"), &message("{  \"n\": 1}"));
        // These end no line of a stream: they stay what they are.
        let others = "\"\u{2028}\u{2029}\u{85}\u{b}\\n\"";
        check(&event("a", others), &message(others));
    }

    #[test]
    fn a_gap_names_the_first_event_that_can_be_there() {
        let told = Told::Gap { agent: "a".into(), last: EventId(11) };
        check(&told, "id: 11\nevent: gap\ndata: {\"agent\":\"a\",\"before\":\"12\"}\n\n");
    }

    #[test]
    fn the_last_id_is_a_number_that_an_event_can_have() {
        let check = |text: &str, expected: Option<u64>| {
            let found = event_id(&HeaderValue::from_str(text).unwrap());
            assert_eq!(found, expected.map(EventId), "{text}");
        };
        check("17", Some(17));
        for wrong in ["x", "-1", "1.5", "9223372036854775808", "99999999999999999999"] {
            check(wrong, None);
        }
    }
}
