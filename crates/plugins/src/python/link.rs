//! The server's end of the socket to one worker process: many calls in flight at once.
//!
//! A call puts its message into the outbox and waits; [`Link::run`], the one task that owns the socket,
//! carries everything that waits in one write and hands each answer to its call.
//!
//! Invariant: a call that is in `pending` is answered exactly once: by the worker, by its deadline, or
//! by the end of the link. Nothing is put into the outbox after `stop`.
//! Not here: processes (`process`) and their replacement (`seat`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::protocol::{self, FRAME_OVERHEAD_BYTES_MAX, Incoming, Outgoing, PIECES_AHEAD};
use super::stream::Pieces;
use crate::call::{Body, BodyError, Call, CallError, Reply};

/// What may wait to be written to one worker; more is refused as [`CallError::Busy`].
const OUTBOX_BYTES_MAX: usize = 64 << 20;
/// How often deadlines are looked at while calls wait.
const DEADLINE_STEP: Duration = Duration::from_millis(50);
/// How often an idle worker is asked for a sign of life.
const HEARTBEAT_STEP: Duration = Duration::from_secs(1);
const READ_BYTES: usize = 64 << 10;

/// One worker that can be called.
#[derive(Debug)]
pub struct Link {
    state: Mutex<State>,
    wake: Notify,
    in_flight: AtomicUsize,
    bounds: Bounds,
}

/// What a link allows.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Calls in flight.
    pub calls_max: usize,
    /// Bytes of a whole answer.
    pub reply_bytes_max: usize,
    /// How long a worker may be silent with nothing to do, or beyond a call's deadline.
    pub hang_timeout: Duration,
}

#[derive(Debug, Default)]
struct State {
    outgoing: Outgoing,
    pending: HashMap<i32, Pending>,
    streams: HashMap<i32, mpsc::Sender<Result<Bytes, BodyError>>>,
    last_id: i32,
    closed: bool,
}

#[derive(Debug)]
struct Pending {
    answer: oneshot::Sender<Result<Reply, CallError>>,
    deadline: Instant,
    limit: Duration,
}

/// Why a link ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The worker hung up.
    HungUp,
    /// The worker gave no sign of life.
    Silent,
    /// The worker sent what no worker of ours sends.
    Malformed(String),
}

/// A call that could not be made on this link.
#[derive(Debug)]
pub enum LinkError {
    /// The link is closed to new calls; the registry has, or will have, another.
    Closed,
    /// The call itself failed.
    Call(CallError),
}

impl Link {
    /// A link without a socket yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            wake: Notify::new(),
            in_flight: AtomicUsize::new(0),
            bounds,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code between lock and unlock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls that wait for their answer.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Makes one call and waits for its answer, at most for `limit`.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the call was not begun; else what became of it.
    pub async fn call(
        self: &Arc<Self>,
        slot: u32,
        call: &Call,
        limit: Duration,
    ) -> Result<Reply, LinkError> {
        let (id, answer) = self.begin(slot, call, limit)?;
        let mut guard = Waiting { link: self, id: Some(id) };
        let answer = answer.await;
        guard.id = None;
        match answer {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(LinkError::Call(error)),
            Err(_) => Err(LinkError::Call(CallError::WorkerLost)),
        }
    }

    fn begin(
        &self,
        slot: u32,
        call: &Call,
        limit: Duration,
    ) -> Result<(i32, oneshot::Receiver<Result<Reply, CallError>>), LinkError> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        if state.closed {
            return Err(LinkError::Closed);
        }
        let waiting = state.outgoing.len();
        if state.pending.len() >= self.bounds.calls_max
            || waiting > 0 && waiting + call.body.len() > OUTBOX_BYTES_MAX
        {
            return Err(LinkError::Call(CallError::Busy));
        }
        let id = state.fresh_id();
        state.outgoing.call(id, slot, call);
        let deadline = Instant::now() + limit;
        state.pending.insert(id, Pending { answer: sender, deadline, limit });
        self.in_flight.store(state.pending.len(), Ordering::Relaxed);
        drop(state);
        self.wake.notify_one();
        Ok((id, receiver))
    }

    /// The client took a piece of a streamed body.
    pub(super) fn credit(&self, id: i32) {
        self.tell(|outgoing| outgoing.credit(id));
    }

    /// The client left before the streamed body ended.
    pub(super) fn abandon(&self, id: i32) {
        self.state().streams.remove(&id);
        self.tell(|outgoing| outgoing.cancel(id));
    }

    fn tell(&self, message: impl FnOnce(&mut Outgoing)) {
        let mut state = self.state();
        // After the last message (`stop`) only the worker's own end is awaited; what it still streams
        // goes on to need credits, and the worker reads them until then.
        message(&mut state.outgoing);
        drop(state);
        self.wake.notify_one();
    }

    /// Says what to load. The answer arrives through the `hello` of [`Link::run`].
    pub fn hello(&self, json: &str) {
        self.tell(|outgoing| outgoing.hello(json));
    }

    /// Closes the link to new calls and asks the worker to finish its calls and end.
    pub fn stop(&self) {
        let mut state = self.state();
        if !state.closed {
            state.closed = true;
            state.outgoing.stop();
        }
        drop(state);
        self.wake.notify_one();
    }

    /// After [`Link::stop`]: asks the worker not to wait for its calls any longer.
    pub fn stop_waiting(&self) {
        self.tell(Outgoing::stop);
    }

    /// Whether [`Link::stop`] was called or the link has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Whether calls or streams are still under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let state = self.state();
        !state.pending.is_empty() || !state.streams.is_empty()
    }

    /// Carries messages until the worker hangs up, falls silent or talks nonsense. Every call that is
    /// under way then ends with [`CallError::WorkerLost`].
    pub async fn run(self: &Arc<Self>, socket: UnixStream, hello: oneshot::Sender<String>) -> End {
        let mut carrier = Carrier {
            link: self,
            socket,
            hello: Some(hello),
            inbox: BytesMut::with_capacity(READ_BYTES),
            frames: Vec::new(),
            written: 0,
            heartbeat: Heartbeat::default(),
        };
        let end = carrier.carry().await;
        self.fail_everything();
        end
    }

    fn fail_everything(&self) {
        let mut state = self.state();
        state.closed = true;
        state.pending.clear();
        let streams = std::mem::take(&mut state.streams);
        drop(state);
        self.in_flight.store(0, Ordering::Relaxed);
        for stream in streams.into_values() {
            // A full channel loses only the reason: without an end the reader takes it as broken off.
            let _ = stream.try_send(Err(BodyError("the plugin's process ended".into())));
        }
    }

    /// Answers the calls whose time is up; returns whether there were any.
    fn expire(&self, now: Instant) -> bool {
        let mut state = self.state();
        let late: Vec<i32> = state
            .pending
            .iter()
            .filter(|(_, pending)| pending.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in &late {
            state.outgoing.cancel(*id);
            if let Some(pending) = state.pending.remove(id) {
                let limit_secs = pending.limit.as_secs_f64();
                let _ = pending.answer.send(Err(CallError::TimedOut { limit_secs }));
            }
        }
        self.in_flight.store(state.pending.len(), Ordering::Relaxed);
        !late.is_empty()
    }

    fn deliver(self: &Arc<Self>, message: Incoming) {
        match message {
            Incoming::Answer { id, status, headers, body } => {
                let reply = if body.len() > self.bounds.reply_bytes_max {
                    let limit_bytes = self.bounds.reply_bytes_max;
                    Err(CallError::ReplyTooLarge { limit_bytes })
                } else {
                    Ok(Reply { status, headers, body: Body::full(body) })
                };
                self.answer(id, reply);
            }
            Incoming::StreamHead { id, status, headers } => {
                let (sender, receiver) = mpsc::channel(PIECES_AHEAD + 2);
                self.state().streams.insert(id, sender);
                let pieces = Pieces::new(receiver, Arc::clone(self), id);
                let body = Body::Pieces(Box::new(pieces));
                self.answer(id, Ok(Reply { status, headers, body }));
            }
            Incoming::StreamPiece { id, piece } => {
                let mut state = self.state();
                // An empty piece would be the end. The worker waits for credits, so the channel has room;
                // one that does not wait is cut.
                if !piece.is_empty()
                    && let Some(stream) = state.streams.get(&id)
                    && stream.try_send(Ok(piece)).is_err()
                {
                    state.streams.remove(&id);
                    state.outgoing.cancel(id);
                }
            }
            Incoming::StreamEnd { id, problem } => {
                let stream = self.state().streams.remove(&id);
                if let Some(stream) = stream {
                    let end = problem.map_or(Ok(Bytes::new()), |problem| Err(BodyError(problem)));
                    // Without room the reader sees the channel close without an end: broken off.
                    let _ = stream.try_send(end);
                }
            }
            Incoming::Hello(_) | Incoming::Pong => {}
        }
    }

    fn answer(&self, id: i32, reply: Result<Reply, CallError>) {
        let mut state = self.state();
        let pending = state.pending.remove(&id);
        self.in_flight.store(state.pending.len(), Ordering::Relaxed);
        drop(state);
        if let Some(pending) = pending {
            // A caller that left in this very moment takes no answer; its stream then cancels itself.
            let _ = pending.answer.send(reply);
        }
    }
}

impl State {
    fn fresh_id(&mut self) -> i32 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(0);
            if !self.pending.contains_key(&self.last_id)
                && !self.streams.contains_key(&self.last_id)
            {
                return self.last_id;
            }
        }
    }
}

/// Takes a call back when its caller leaves before the answer.
struct Waiting<'a> {
    link: &'a Link,
    id: Option<i32>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let mut state = self.link.state();
            if state.pending.remove(&id).is_some() {
                state.outgoing.cancel(id);
            }
            self.link.in_flight.store(state.pending.len(), Ordering::Relaxed);
            drop(state);
            self.link.wake.notify_one();
        }
    }
}

/// The socket and everything that moves through it.
struct Carrier<'a> {
    link: &'a Arc<Link>,
    socket: UnixStream,
    hello: Option<oneshot::Sender<String>>,
    inbox: BytesMut,
    frames: Vec<u8>,
    written: usize,
    heartbeat: Heartbeat,
}

impl Carrier<'_> {
    async fn carry(&mut self) -> End {
        let clock = tokio::time::sleep(HEARTBEAT_STEP);
        tokio::pin!(clock);
        loop {
            tokio::select! {
                biased;
                readable = self.socket.readable() => {
                    if let Some(end) = readable.map_or(Some(End::HungUp), |()| self.read()) {
                        return end;
                    }
                }
                () = self.link.wake.notified(), if self.frames.is_empty() => {
                    // Whoever else is ready to run now may have a call as well: one write for all.
                    tokio::task::yield_now().await;
                    self.collect();
                    let soon = Instant::now() + DEADLINE_STEP;
                    if clock.deadline() > soon && self.link.in_flight() > 0 {
                        clock.as_mut().reset(soon);
                    }
                    if let Some(end) = self.write() {
                        return end;
                    }
                }
                writable = self.socket.writable(), if !self.frames.is_empty() => {
                    if let Some(end) = writable.map_or(Some(End::HungUp), |()| self.write()) {
                        return end;
                    }
                }
                () = &mut clock => {
                    let now = Instant::now();
                    if let Some(end) = self.check_time(now) {
                        return end;
                    }
                    let busy = self.link.in_flight() > 0;
                    clock.as_mut().reset(now + if busy { DEADLINE_STEP } else { HEARTBEAT_STEP });
                }
            }
        }
    }

    fn collect(&mut self) {
        let mut state = self.link.state();
        if !state.outgoing.is_empty() {
            state.outgoing.take_frame(&mut self.frames);
        }
    }

    fn write(&mut self) -> Option<End> {
        while self.written < self.frames.len() {
            match self.socket.try_write(&self.frames[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
                // What the worker still has to say is read before its end is believed.
                Err(_) => break,
            }
        }
        self.written = 0;
        if self.frames.capacity() > 1 << 20 {
            self.frames = Vec::new();
        } else {
            self.frames.clear();
        }
        // Messages that came meanwhile had nobody to ring for.
        if !self.link.state().outgoing.is_empty() {
            self.link.wake.notify_one();
        }
        None
    }

    fn read(&mut self) -> Option<End> {
        self.inbox.reserve(READ_BYTES);
        match self.socket.try_read_buf(&mut self.inbox) {
            Ok(0) => return Some(End::HungUp),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
            Err(_) => return Some(End::HungUp),
        }
        loop {
            match protocol::take_frame(&mut self.inbox) {
                Ok(frame) => {
                    if let Err(error) = self.read_frame(frame) {
                        return Some(End::Malformed(error.to_string()));
                    }
                }
                Err(needed)
                    if needed > self.link.bounds.reply_bytes_max + FRAME_OVERHEAD_BYTES_MAX =>
                {
                    return Some(End::Malformed(format!("a frame of {needed} bytes")));
                }
                Err(needed) => {
                    self.inbox.reserve(needed.saturating_sub(self.inbox.len()));
                    return None;
                }
            }
        }
    }

    fn read_frame(&mut self, frame: Bytes) -> Result<(), protocol::Malformed> {
        let link = self.link;
        let (hello, heartbeat) = (&mut self.hello, &mut self.heartbeat);
        protocol::read_frame(frame, |message| match message {
            Incoming::Hello(text) => {
                if let Some(hello) = hello.take() {
                    let _ = hello.send(text);
                }
            }
            Incoming::Pong => heartbeat.heard(),
            other => link.deliver(other),
        })
    }

    fn check_time(&mut self, now: Instant) -> Option<End> {
        let expired = self.link.expire(now);
        let idle = self.link.in_flight() == 0;
        // Before the hello is answered the file is being imported; that has its own deadline.
        if self.hello.is_none() {
            if self.heartbeat.is_lost(now, idle, expired, self.link.bounds.hang_timeout) {
                return Some(End::Silent);
            }
            if self.heartbeat.is_due(now) {
                self.link.state().outgoing.ping();
            }
        }
        // Cancellations and the ping leave by the ordinary way.
        if !self.link.state().outgoing.is_empty() {
            self.link.wake.notify_one();
        }
        None
    }
}

/// Whether the worker's event loop still turns.
#[derive(Debug, Default)]
struct Heartbeat {
    asked: Option<Instant>,
    last: Option<Instant>,
    deadline_missed: bool,
}

impl Heartbeat {
    fn heard(&mut self) {
        self.asked = None;
        self.deadline_missed = false;
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.asked.is_none()
            && self.last.is_none_or(|last| now.duration_since(last) >= HEARTBEAT_STEP);
        if due {
            self.asked = Some(now);
            self.last = Some(now);
        }
        due
    }

    /// A worker may be silent while a plain (not async) handler works, up to the call's deadline. It is
    /// lost when it is silent beyond one, or with nothing to do.
    fn is_lost(&mut self, now: Instant, idle: bool, expired: bool, hang_timeout: Duration) -> bool {
        self.deadline_missed |= expired && self.asked.is_some();
        self.asked.is_some_and(|asked| {
            now.duration_since(asked) >= hang_timeout && (idle || self.deadline_missed)
        })
    }
}
