//! One connection, from its first byte to its last: which HTTP it speaks, and hyper for as long as it is needed.
//!
//! Invariant: only what has been written whole is taken from hyper; what it has read and not used goes on with the
//! connection (`parked`).

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::watch;

use super::activity::TimeLimits;
use super::body::Sent;
use super::door::Door;
use super::parked::{Counter, Desk, Parked};
use super::watched::Watched;

/// The longest head of a request, in bytes; a longer one is answered 431.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 200;
/// What a client begins with that speaks HTTP/2 (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Says when the server ends, and how long requests in flight have from then on.
pub type Drain = watch::Receiver<Option<Duration>>;

/// Returns when the server ends.
pub async fn wait_for_drain(drain: &mut Drain) -> Duration {
    match drain.wait_for(Option::is_some).await {
        Ok(limit) => limit.unwrap_or_default(),
        Err(_) => Duration::ZERO,
    }
}

/// Serves a connection until it ends, a limit has passed, or the server drains.
pub async fn serve<S>(socket: Box<Watched<S>>, door: Door, limits: TimeLimits, drain: Drain)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::clone(&door.activity);
    tokio::select! {
        biased;
        () = speak(socket, door, drain) => {}
        () = activity.overdue(limits) => {}
    }
}

// How a connection ends concerns only the peer: requests have been answered or logged.
async fn speak<S>(mut socket: Box<Watched<S>>, door: Door, mut drain: Drain)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let is_http2 = tokio::select! {
        biased;
        is_http2 = is_http2(&mut socket) => is_http2,
        _ = wait_for_drain(&mut drain) => return,
    };
    match is_http2 {
        Ok(true) => Box::pin(http2(socket, door, drain)).await,
        Ok(false) => {
            let activity = Arc::clone(&door.activity);
            let desk = Desk::new(activity, move |request| door.clone().answer(request));
            http1(socket, desk, drain).await;
        }
        Err(_) => {}
    }
}

/// Whether the client begins as one does that speaks HTTP/2. What it said is read once more.
async fn is_http2<S: AsyncRead + Unpin>(socket: &mut Watched<S>) -> io::Result<bool> {
    let mut begin = [0; PREFACE.len()];
    let mut length = 0;
    while length < begin.len() {
        let more = socket.read(&mut begin[length..]).await?;
        length += more;
        if more == 0 || begin[..length] != PREFACE[..length] {
            break;
        }
    }
    socket.unread(&begin[..length]);
    Ok(begin == *PREFACE)
}

async fn http2<S>(socket: Box<Watched<S>>, door: Door, mut drain: Drain)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| door.clone().answer(request));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_concurrent_streams(STREAMS_MAX).max_header_list_size(64 << 10);
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        _ = wait_for_drain(&mut drain) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Serves HTTP/1: by hyper, except while a request is parked.
pub async fn http1<S, A, F>(mut socket: Box<Watched<S>>, desk: Arc<Desk<A, F>>, mut drain: Drain)
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<Sent>, Infallible>>,
{
    let mut is_draining = false;
    loop {
        // On the heap: while a request is parked there is none of it.
        let by_hyper = Box::pin(by_hyper(socket, &desk, &mut drain, &mut is_draining));
        let Some(parked) = by_hyper.await else { return };
        let Some(back) = parked.wait(&desk, &mut drain, &mut is_draining).await else { return };
        socket = back;
    }
}

/// Serves by hyper until the connection ends, or a request has been parked for long.
async fn by_hyper<S, A, F>(
    socket: Box<Watched<S>>,
    desk: &Arc<Desk<A, F>>,
    drain: &mut Drain,
    is_draining: &mut bool,
) -> Option<Parked<S, F>>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<Sent>, Infallible>>,
{
    let mut builder = http1::Builder::new();
    // The watchdog keeps the time, at less cost for each request.
    builder.max_buf_size(HEAD_BYTES_MAX).header_read_timeout(None);
    let service = Counter(Arc::clone(desk));
    let mut connection = builder.serve_connection(TokioIo::new(socket), service);
    let long_parked = desk.activity().long_parked();
    tokio::pin!(long_parked);
    let (way_back, place) = loop {
        tokio::select! {
            biased;
            _ = &mut connection => return None,
            way_back = &mut long_parked => match desk.take() {
                Some(place) => break (way_back, place),
                None => long_parked.set(desk.activity().long_parked()),
            },
            _ = wait_for_drain(drain), if !*is_draining => {
                *is_draining = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let parts = connection.into_parts();
    let socket = parts.io.into_inner();
    // A copy: it lies in hyper's buffer, which is to go.
    let unread = Bytes::copy_from_slice(&parts.read_buf);
    Some(Parked { socket, place, unread, way_back })
}
