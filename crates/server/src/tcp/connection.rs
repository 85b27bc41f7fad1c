//! One client: keys, one request, one answer.
//!
//! Invariant: nothing is awaited without a limit but the handler of a request; while it runs, the client is watched. When
//! that is gone, a handler whose result it alone needs is dropped, any other may learn of it.

use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use machines::ports::peer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use wire::container::{
    Complaint, Next, Refusal, Request, Response, ServerSide, Unlock, Unlocked, Unreadable,
};

use super::events::Event;
use super::listener::{Shared, drained};
use super::verbs::{Call, Handler};
use super::{Client, access_tokens};
use crate::places::Place;

/// Bytes read at once. They lie on the stack of who reads, not in the connection.
const READ_BYTES: usize = 4 << 10;

/// How long a reset after the answer means that it did not arrive.
const TAKEN_MAX: Duration = Duration::from_secs(1);

/// A client that was let in.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: TcpStream,
    pub(super) client: Client,
    pub(super) place: Place<Client>,
}

/// Why a connection ended early.
#[derive(Debug)]
enum End {
    /// The client is gone, or the socket failed.
    Io(io::Error),
    /// The client broke the protocol.
    Refused(Refusal),
    /// It took too long.
    TimedOut,
    /// A listener or the door closed it.
    Closed,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "gone: {error}"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::TimedOut => f.write_str("took too long"),
            Self::Closed => f.write_str("closed from within"),
        }
    }
}

/// Serves a client until it has its answer or is gone.
pub(super) async fn serve(served: Served, mut drain: watch::Receiver<Option<Duration>>) {
    let Served { shared, stream, client, mut place } = served;
    let _cut = Cut(client.clone());
    // Answers are written whole; waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let side = ServerSide::new(Arc::clone(&shared.settings.keys));
    let mut link = Link { stream, side };
    // On the heap, and gone before the handler runs.
    let greeting = Box::pin(greet(&shared, &mut link, &client));
    let deadline = deadline(&shared);
    let greeted = tokio::select! {
        biased;
        () = client.closed() => Err(End::Closed),
        _ = drained(&mut drain) => Err(End::Closed),
        greeted = until(deadline, greeting) => greeted,
    };
    let is_secured = link.is_secured();
    let outcome = match greeted {
        Ok(request) if place.settle() => {
            attend(&shared, &mut link, &client, &mut place, request).await
        }
        Ok(_) => Err(End::Closed),
        Err(end) => {
            // What was said last may explain it: a `0`.
            let _ = link.try_flush();
            Err(end)
        }
    };
    if let Err(end) = &outcome {
        tracing::debug!(client = client.id(), "(client ID {}) ended: {end}", client.id());
    }
    drop(link);
    drop(place);
    client.settle(matches!(outcome, Ok(true)));
    if is_secured {
        shared.teller.tell(Event::ClientClosed(client)).await;
    }
}

/// Settles a session that is cut before its end.
struct Cut(Client);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.settle(false);
    }
}

fn deadline(shared: &Shared) -> Option<Instant> {
    shared.settings.client_timeout.map(|limit| Instant::now() + limit)
}

/// `work`, within its time.
async fn until<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, End>>,
) -> Result<T, End> {
    match deadline {
        None => work.await,
        Some(deadline) => match tokio::time::timeout_at(deadline, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(End::TimedOut),
        },
    }
}

/// From the first byte to the whole request.
async fn greet(
    shared: &Shared,
    link: &mut Link,
    client: &Client,
) -> Result<Result<Request, Unreadable>, End> {
    shared.teller.tell(Event::Connection(client.clone())).await;
    loop {
        if client.is_closed() {
            return Err(End::Closed);
        }
        match link.side.advance() {
            Next::Read => link.exchange().await?,
            Next::Unlock(unlock) => {
                link.flush().await?;
                let outcome = unlocked(shared, link, client, *unlock).await?;
                link.side.unlocked(outcome);
            }
            Next::Secured => shared.teller.tell(Event::Client(client.clone())).await,
            Next::Request(request) => {
                client.learn_generation(link.side.generation());
                return Ok(request);
            }
            Next::Refused(refusal) => {
                let _ = link.flush().await;
                return Err(End::Refused(refusal));
            }
            Next::Done => return Err(End::Closed),
        }
    }
}

/// RSA on a thread that may be blocked, when it is this connection's turn and its client is still there.
async fn unlocked(
    shared: &Shared,
    link: &Link,
    client: &Client,
    unlock: Unlock,
) -> Result<Result<Unlocked, Refusal>, End> {
    let turn = shared.rsa.take(peer(client.address().ip()), unlock.cost()).await;
    link.check_there()?;
    let work = tokio::task::spawn_blocking(move || {
        // Held by the work itself: that its client has gone does not make it cost less.
        let _turn = turn;
        unlock.run()
    });
    Ok(work.await.unwrap_or(Err(Refusal::Block)))
}

/// From the request to the last byte of its answer; whether that tells of success.
async fn attend(
    shared: &Shared,
    link: &mut Link,
    client: &Client,
    place: &mut Place<Client>,
    request: Result<Request, Unreadable>,
) -> Result<bool, End> {
    // The client is told that its packet may come before it sends it; it waits for this no more.
    link.flush().await?;
    let reply = tokio::select! {
        biased;
        () = client.closed() => Err(End::Closed),
        reply = reply(shared, link, client, request) => reply,
    };
    let response = reply?;
    // Whoever only has to take an answer must not keep others out by not taking it.
    let has_news = client.has_news();
    if !has_news {
        place.unsettle(client.clone());
    }
    let delivery = until(deadline(shared), deliver(link, &response, has_news));
    let is_success = tokio::select! {
        biased;
        () = client.closed() => Err(End::Closed),
        is_success = delivery => is_success,
    }?;
    Ok(is_success && (!has_news || link.is_taken().await))
}

/// What is to be answered.
async fn reply(
    shared: &Shared,
    link: &mut Link,
    client: &Client,
    request: Result<Request, Unreadable>,
) -> Result<Response, End> {
    let refuse = |complaint: &Complaint<'_>| Ok(Response::refuse(complaint, client.generation()));
    let request = match request {
        Ok(request) => request,
        Err(Unreadable::NotAnObject) => return refuse(&Complaint::Internal),
        Err(Unreadable::Malformed(errors)) => {
            let event = Event::MalformedRequest { client: client.clone(), errors: errors.clone() };
            tell(shared, client, event).await?;
            return match client.take_answer() {
                Some(answer) => Ok(answer),
                None => refuse(&Complaint::Malformed(&errors)),
            };
        }
    };
    client.learn_request(&request);
    tracing::info!(client = client.id(), "(client ID {}) {}", client.id(), request.verb);
    let event = Event::Request { client: client.clone(), request: request.clone() };
    tell(shared, client, event).await?;
    if let Some(answer) = client.take_answer() {
        return Ok(answer);
    }
    if let Some(tokens) = &shared.settings.access_tokens {
        match access_tokens::admit(tokens, request.access_token()).await {
            Ok(owner) => client.learn_owner(owner),
            Err(access_tokens::NotAdmitted::Missing) => {
                return refuse(&Complaint::AccessTokenRequired);
            }
            Err(access_tokens::NotAdmitted::Invalid) => {
                return refuse(&Complaint::AccessTokenInvalid);
            }
            Err(access_tokens::NotAdmitted::Failed(text)) => {
                shared.teller.fail(client, "AccessTokens", text).await;
                return refuse(&Complaint::Internal);
            }
        }
    }
    let Some(handler) = shared.verbs.get(&request.verb) else {
        tell(shared, client, Event::UnknownVerb(client.clone())).await?;
        return match client.take_answer() {
            Some(answer) => Ok(answer),
            None => refuse(&Complaint::UnknownVerb),
        };
    };
    let call = Call { client: client.clone(), request, teller: shared.teller.clone() };
    carry_out(link, &handler, call).await
}

/// Nothing goes on for a client that a listener has closed: not even in the moment until that is seen elsewhere.
async fn tell(shared: &Shared, client: &Client, event: Event) -> Result<(), End> {
    shared.teller.tell(event).await;
    if client.is_closed() { Err(End::Closed) } else { Ok(()) }
}

/// Runs the handler on a task of its own: a panic in it ends nobody else, and dropping it ends it.
async fn carry_out(link: &mut Link, handler: &Handler, call: Call) -> Result<Response, End> {
    let (client, teller) = (call.client.clone(), call.teller.clone());
    let mut work = JoinSet::new();
    work.spawn(handler.run_in_turn(call));
    let (finished, gone) = tokio::select! {
        biased;
        finished = work.join_next() => (finished, None),
        end = link.watch() => {
            client.leave();
            if handler.ends_with_client() {
                return Err(end);
            }
            (work.join_next().await, Some(end))
        }
    };
    let response = match finished {
        Some(Ok(response)) => response,
        Some(Err(error)) => {
            teller.fail(&client, "Panic", error.to_string()).await;
            Response::refuse(&Complaint::Internal, client.generation())
        }
        None => return Err(End::Closed),
    };
    gone.map_or(Ok(response), Err)
}

/// Sends the answer: its length, and when that is confirmed the rest. Where it `must_arrive`, a client that says nothing
/// more before it has come is taken for gone. Whether what was sent tells of success.
async fn deliver(link: &mut Link, response: &Response, must_arrive: bool) -> Result<bool, End> {
    let mut is_success = response.success;
    if link.side.answer(response).is_err() {
        is_success = false;
        let internal = Response::refuse(&Complaint::Internal, link.side.generation());
        link.side.answer(&internal).map_err(End::Refused)?;
    }
    loop {
        match link.side.advance() {
            Next::Read => link.exchange().await?,
            Next::Done => {
                if must_arrive && matches!(link.stream.try_read(&mut [0]), Ok(0)) {
                    return Err(End::Io(io::ErrorKind::UnexpectedEof.into()));
                }
                link.flush().await?;
                link.stream.shutdown().await?;
                return Ok(is_success);
            }
            Next::Refused(refusal) => return Err(End::Refused(refusal)),
            Next::Unlock(_) | Next::Secured | Next::Request(_) => return Err(End::Closed),
        }
    }
}

/// The socket and the protocol on it.
#[derive(Debug)]
struct Link {
    stream: TcpStream,
    side: ServerSide,
}

impl Link {
    /// Fails when the client has ended the connection, or its side of it. Does not wait.
    fn check_there(&self) -> Result<(), End> {
        let mut ready = std::pin::pin!(self.stream.ready(Interest::READABLE));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match ready.as_mut().poll(&mut context) {
            Poll::Ready(Ok(ready)) if ready.is_read_closed() => {
                Err(End::Io(io::ErrorKind::UnexpectedEof.into()))
            }
            Poll::Ready(Err(error)) => Err(error.into()),
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }

    fn is_secured(&self) -> bool {
        self.side.is_secured()
    }

    /// Sends what there is to send, then waits for more bytes.
    async fn exchange(&mut self) -> Result<(), End> {
        self.flush().await?;
        self.read().await
    }

    async fn flush(&mut self) -> Result<(), End> {
        let output = self.side.take_output();
        if !output.is_empty() {
            self.stream.write_all(&output).await?;
        }
        Ok(())
    }

    /// The same without waiting.
    fn try_flush(&mut self) -> io::Result<usize> {
        let output = self.side.take_output();
        if output.is_empty() { Ok(0) } else { self.stream.try_write(&output) }
    }

    async fn read(&mut self) -> Result<(), End> {
        loop {
            self.stream.readable().await?;
            let mut bytes = [0; READ_BYTES];
            match self.stream.try_read(&mut bytes) {
                Ok(0) => return Err(End::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    self.side.feed(&bytes[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether the client took all that was sent: it then ends the connection in order, soon or later. One that was gone
    /// before resets it.
    async fn is_taken(&mut self) -> bool {
        let ending = async {
            loop {
                match self.stream.read(&mut [0; 64]).await {
                    Ok(0) => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        };
        tokio::time::timeout(TAKEN_MAX, ending).await.unwrap_or(true)
    }

    /// Waits until the client is gone, or talks too much out of turn.
    async fn watch(&mut self) -> End {
        loop {
            if let Err(end) = self.read().await {
                return end;
            }
            if let Next::Refused(refusal) = self.side.advance() {
                return End::Refused(refusal);
            }
        }
    }
}
