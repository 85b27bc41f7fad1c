//! Requests that wait for long, without hyper: a connection of hyper's holds three buffers of 8 KiB and a state of
//! some kilobytes, which very many agents that wait for a task would keep for nothing.
//!
//! What hyper has of a request is a [`Handle`]; the future that makes the answer lies in the [`Desk`] of the connection.
//! So the connection can take socket and future away from hyper, and come back to it with the answer.
//!
//! Invariant: hyper alone reads and writes HTTP. The answer is given to a new connection of hyper's as that to a
//! request in the place of the one that left (`way_back`), with what has been read behind it still to come.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use tokio::io::{AsyncRead, ReadBuf};

use super::activity::Activity;
use super::body::Sent;
use super::connection::{Drain, wait_for_drain};
use super::watched::Watched;
use super::way_back::WayBack;

/// A place for the one request that is under way, used again by the next.
type Place<F> = Pin<Box<Option<F>>>;

/// Where requests of one HTTP/1 connection are answered.
pub struct Desk<A, F> {
    answer: A,
    activity: Arc<Activity>,
    work: Mutex<Work<F>>,
}

struct Work<F> {
    place: Option<Place<F>>,
    /// The answer to a request that had left: hyper's next request stands for that.
    brought: Option<Box<Response<Sent>>>,
}

impl<A, F> Desk<A, F> {
    /// Requests are answered by `answer`.
    pub fn new(activity: Arc<Activity>, answer: A) -> Arc<Self> {
        let work = Mutex::new(Work { place: None, brought: None });
        Arc::new(Self { answer, activity, work })
    }

    /// The notes of the connection.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    fn work(&self) -> MutexGuard<'_, Work<F>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the request that is under way.
    pub fn take(&self) -> Option<Place<F>> {
        self.activity.stays();
        self.work().place.take_if(|place| place.is_some())
    }

    fn bring(&self, place: Place<F>, answer: Response<Sent>) {
        *self.work() = Work { place: Some(place), brought: Some(Box::new(answer)) };
    }
}

/// The desk, as hyper sees it.
pub struct Counter<A, F>(pub Arc<Desk<A, F>>);

impl<A, F> Service<Request<Incoming>> for Counter<A, F>
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<Sent>, Infallible>>,
{
    type Response = Response<Sent>;
    type Error = Infallible;
    type Future = Handle<A, F>;

    fn call(&self, request: Request<Incoming>) -> Handle<A, F> {
        let mut work = self.0.work();
        if work.brought.is_none() {
            let answer = (self.0.answer)(request);
            work.place.get_or_insert_with(|| Box::pin(None)).set(Some(answer));
        }
        drop(work);
        Handle(Arc::clone(&self.0))
    }
}

/// The request that is under way at a desk.
pub struct Handle<A, F>(Arc<Desk<A, F>>);

impl<A, F> Future for Handle<A, F>
where
    F: Future<Output = Result<Response<Sent>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut work = self.0.work();
        if let Some(answer) = work.brought.take() {
            return Poll::Ready(Ok(*answer));
        }
        let Some(place) = &mut work.place else { return Poll::Pending };
        let answer = ready!(poll_at(place, cx));
        self.0.activity.stays();
        Poll::Ready(answer)
    }
}

/// Goes on with what is at `place`, and clears it away at its end.
fn poll_at<F: Future>(place: &mut Place<F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    let Some(answer) = place.as_mut().as_pin_mut() else { return Poll::Pending };
    let answer = ready!(answer.poll(cx));
    place.set(None);
    Poll::Ready(answer)
}

/// A request that waits without hyper.
pub struct Parked<S, F> {
    /// The connection.
    pub socket: Box<Watched<S>>,
    /// The future of its answer.
    pub place: Place<F>,
    /// What was read behind the request.
    pub unread: Bytes,
    /// How its answer comes to hyper.
    pub way_back: WayBack,
}

impl<S, F> Parked<S, F>
where
    S: AsyncRead + Unpin,
    F: Future<Output = Result<Response<Sent>, Infallible>>,
{
    /// Waits for the answer and brings it to `desk`; `None` when the client left before.
    pub async fn wait<A>(
        mut self,
        desk: &Desk<A, F>,
        drain: &mut Drain,
        is_draining: &mut bool,
    ) -> Option<Box<Watched<S>>> {
        let answer = loop {
            tokio::select! {
                // First of all, whether there is anybody: a task goes to nobody who has left.
                biased;
                // What has been read is one request of several: while there is more, hyper does not listen either.
                read = read_some(&mut self.socket), if self.unread.is_empty() => {
                    self.unread = read.ok().filter(|read| !read.is_empty())?;
                }
                _ = wait_for_drain(drain), if !*is_draining => *is_draining = true,
                Ok(answer) = std::future::poll_fn(|cx| poll_at(&mut self.place, cx)) => break answer,
            }
        };
        desk.bring(self.place, answer);
        let head = self.way_back.head(*is_draining);
        self.socket.unread(&self.unread);
        self.socket.unread(head);
        Some(self.socket)
    }
}

/// The next bytes that the client sends; none when it has left.
async fn read_some<S: AsyncRead + Unpin>(socket: &mut Watched<S>) -> io::Result<Bytes> {
    std::future::poll_fn(|cx| {
        let mut space = [0; 512];
        let mut read = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut *socket).poll_read(cx, &mut read))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(read.filled())))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plugins::call::Body;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::sync::{Notify, watch};
    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;
    use crate::http::connection::http1;

    /// After it, whoever is to be set aside has been.
    const LONG: Duration = Duration::from_secs(1);
    const SOON: &str = "GET /soon HTTP/1.1\r\n\r\n";
    const PARKED: &str = "GET /parked HTTP/1.1\r\n\r\n";

    struct Answer(Pin<Box<dyn Future<Output = Result<Response<Sent>, Infallible>> + Send>>);

    impl Future for Answer {
        type Output = Result<Response<Sent>, Infallible>;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            self.0.as_mut().poll(cx)
        }
    }

    type Answering = Box<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;

    /// Answers "late" when the bell rings, and others at once.
    fn answering(activity: Arc<Activity>, bell: Arc<Notify>) -> Answering {
        Box::new(move |request| {
            let (activity, bell) = (Arc::clone(&activity), Arc::clone(&bell));
            Answer(Box::pin(async move {
                let in_request = activity.begin(request.version());
                let head = request.into_parts().0;
                let mut text = "soon";
                if head.uri.path() == "/parked" {
                    activity.may_leave(WayBack::of(&head).unwrap());
                    bell.notified().await;
                    text = "late";
                }
                let body = Body::full(Bytes::from_static(text.as_bytes()));
                Ok(Response::new(Sent::new(body, None, None, false, in_request)))
            }))
        })
    }

    /// A client, and the server at the other end.
    struct Client {
        stream: DuplexStream,
        bell: Arc<Notify>,
        drain: watch::Sender<Option<Duration>>,
        desk: Arc<Desk<Answering, Answer>>,
        server: JoinSet<()>,
    }

    impl Client {
        fn connect() -> Self {
            let (stream, served) = duplex(64 << 10);
            let (activity, bell) = (Activity::new(), Arc::new(Notify::new()));
            let answer = answering(Arc::clone(&activity), Arc::clone(&bell));
            let desk = Desk::new(Arc::clone(&activity), answer);
            let drain = watch::Sender::new(None);
            let mut server = JoinSet::new();
            let (its_desk, its_drain) = (Arc::clone(&desk), drain.subscribe());
            server.spawn(async move {
                http1(Watched::new(served, activity), its_desk, its_drain).await;
            });
            Self { stream, bell, drain, desk, server }
        }

        async fn say(&mut self, text: &str) {
            self.stream.write_all(text.as_bytes()).await.unwrap();
        }

        /// Whether the request that is under way has left hyper.
        fn is_aside(&self) -> bool {
            let work = self.desk.work();
            work.place.is_none() && work.brought.is_none()
        }

        async fn park(head: &str) -> Self {
            let mut client = Self::connect();
            client.say(head).await;
            sleep(LONG).await;
            assert!(client.is_aside());
            client
        }

        /// The next answer, without its date.
        async fn answer(&mut self) -> String {
            let mut answer = String::new();
            while !["\r\n\r\nlate", "\r\n\r\nsoon"].iter().any(|end| answer.ends_with(end)) {
                let byte = self.stream.read_u8().await.unwrap();
                answer.push(byte.into());
            }
            answer.split_inclusive("\r\n").filter(|line| !line.starts_with("date:")).collect()
        }

        async fn is_closed(&mut self) -> bool {
            let _ = self.stream.write_all(SOON.as_bytes()).await;
            sleep(LONG).await;
            self.server.try_join_next().is_some()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_set_aside_is_answered_like_who_was_not() {
        for (version, connection, stays) in [
            ("1.1", "", true),
            ("1.1", "Connection: x, Close\r\n", false),
            ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            let head = format!("GET /parked HTTP/{version}\r\n{connection}\r\n");
            let mut other = Client::connect();
            other.say(&head).await;
            other.bell.notify_one();
            let expected = other.answer().await;
            assert!(!other.is_aside(), "the answer was there before");
            let mut client = Client::park(&head).await;
            client.bell.notify_one();
            assert_eq!(client.answer().await, expected, "{head}");
            assert_eq!(client.is_closed().await, !stays, "{head}");
            assert_eq!(other.is_closed().await, !stays, "{head}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_client_leaves_the_request_ends() {
        let mut client = Client::park(PARKED).await;
        let before = Arc::strong_count(&client.bell);
        drop(std::mem::replace(&mut client.stream, duplex(1).0));
        client.server.join_next().await.unwrap().unwrap();
        assert_eq!(Arc::strong_count(&client.bell), before - 1, "nobody waits for it");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_behind_a_parked_request_is_answered_behind_it() {
        let mut client = Client::park(PARKED).await;
        client.say(SOON).await;
        sleep(LONG).await;
        assert!(client.is_aside());
        client.bell.notify_one();
        assert!(client.answer().await.ends_with("late"));
        assert!(client.answer().await.ends_with("soon"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_with_a_parked_request_is_kept_in_order() {
        // More than fits into hyper's buffer, so some of it comes back to the socket twice.
        let long = format!("GET /parked HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(6000));
        let mut client = Client::park(&[PARKED, &long, &long, SOON].concat()).await;
        for _ in 0..3 {
            assert!(client.is_aside());
            client.bell.notify_one();
            assert!(client.answer().await.ends_with("late"));
            sleep(LONG).await;
        }
        assert!(client.answer().await.ends_with("soon"));
        assert!(!client.is_aside());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_answer_before_the_end_says_so() {
        let mut client = Client::park(PARKED).await;
        client.drain.send_replace(Some(LONG));
        sleep(LONG).await;
        assert!(client.is_aside());
        client.bell.notify_one();
        assert!(client.answer().await.contains("\r\nconnection: close\r\n"));
        assert!(client.is_closed().await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_parks_shortly_again_and_again_stays() {
        let mut client = Client::connect();
        for _ in 0..20 {
            client.say(PARKED).await;
            sleep(Duration::from_millis(20)).await;
            assert!(!client.is_aside());
            client.bell.notify_one();
            let _ = client.answer().await;
        }
    }
}
