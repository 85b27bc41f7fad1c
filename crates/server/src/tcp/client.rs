//! A connected client, as handlers and listeners see it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use machines::manager::Handover;
use ring::digest;
use tokio::sync::watch;
use wire::container::{Generation, Request, Response};

use super::handovers::Handovers;
use crate::places::GivesWay;

/// A client and its connection. Copies are the same client.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: String,
    address: SocketAddr,
    connected_at: SystemTime,
    session: watch::Sender<Session>,
    generation: OnceLock<Generation>,
    request: OnceLock<Request>,
    owner: OnceLock<String>,
    answer: Mutex<Option<Response>>,
    handovers: Handovers,
}

/// How its session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    Open,
    /// Whoever works for it may end in its own way.
    Over,
    /// Nothing goes on.
    Closed,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let hash = digest::digest(&digest::SHA256, address.ip().to_string().as_bytes());
        let mut id: String =
            hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        id.truncate(7);
        Self(Arc::new(Inner {
            id,
            address,
            connected_at: SystemTime::now(),
            session: watch::Sender::new(Session::Open),
            generation: OnceLock::new(),
            request: OnceLock::new(),
            owner: OnceLock::new(),
            answer: Mutex::new(None),
            handovers: Handovers::default(),
        }))
    }

    /// By which logs name it: the first seven digits of the SHA-256 of its address.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Where it comes from. An IPv4 address is one, however the socket sees it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Since when it is connected.
    #[must_use]
    pub fn connected_at(&self) -> SystemTime {
        self.0.connected_at
    }

    /// Its generation, once its request is there; that of today's clients before.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.0.generation.get().copied().unwrap_or(Generation::Four)
    }

    /// Its request, once it is there and keeps the rules.
    #[must_use]
    pub fn request(&self) -> Option<&Request> {
        self.0.request.get()
    }

    /// By whose access token it came in.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.0.owner.get().map(String::as_str)
    }

    /// Ends its session: nothing more is read, done or answered for it.
    pub fn close(&self) {
        self.0.session.send_replace(Session::Closed);
    }

    /// Whether its session has ended: it was closed, the client has gone, or has its answer.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        *self.0.session.borrow() != Session::Open
    }

    /// Answers its request in the place of whoever would have, when that was said before the request was carried out.
    pub fn answer_with(&self, response: Response) {
        *self.0.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(response);
    }

    pub(super) fn take_answer(&self) -> Option<Response> {
        self.0.answer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until its session is ended by [`Client::close`].
    pub(super) async fn closed(&self) {
        self.wait_for(|session| session == Session::Closed).await;
    }

    /// Waits until its session has ended, in whatever way.
    pub(crate) async fn ended(&self) {
        self.wait_for(|session| session != Session::Open).await;
    }

    async fn wait_for(&self, is_it: impl Fn(Session) -> bool) {
        // The sender lives as long as this client.
        let _ = self.0.session.subscribe().wait_for(|session| is_it(*session)).await;
    }

    /// The client is gone: nobody waits for what is done for it.
    pub(super) fn leave(&self) {
        self.0.session.send_if_modified(|session| {
            let is_open = *session == Session::Open;
            if is_open {
                *session = Session::Over;
            }
            is_open
        });
    }

    /// It is to be told of a machine by its answer. If its session ends without that, the machine is taken back. `false`: it
    /// has ended, and the machine is taken back at once.
    pub(crate) fn is_to_know(&self, handover: Handover) -> bool {
        self.0.handovers.add(handover)
    }

    /// Whether its answer tells of a machine.
    pub(super) fn has_news(&self) -> bool {
        self.0.handovers.are_there()
    }

    /// Ends its session.
    pub(super) fn settle(&self, is_answered: bool) {
        self.leave();
        self.0.handovers.settle(is_answered);
    }

    pub(super) fn learn_generation(&self, generation: Generation) {
        let _ = self.0.generation.set(generation);
    }

    pub(super) fn learn_request(&self, request: &Request) {
        let _ = self.0.request.set(request.clone());
    }

    pub(super) fn learn_owner(&self, owner: String) {
        let _ = self.0.owner.set(owner);
    }
}

impl GivesWay for Client {
    fn give_way(&self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::Client;

    #[test]
    fn a_client_is_named_by_its_address_alone() {
        let id = |address: &str| Client::new(address.parse().unwrap()).id().to_owned();
        // `printf 127.0.0.1 | sha256sum`
        assert_eq!(id("127.0.0.1:5"), "12ca17b");
        assert_eq!(id("[::ffff:127.0.0.1]:6"), "12ca17b");
        assert_ne!(id("127.0.0.2:5"), "12ca17b");
    }
}
