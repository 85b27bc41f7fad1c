//! Who answers requests: plain closures, in the place of what was there or around it.
//!
//! Invariant: a closure takes its turn once, at the door; what it calls from inside goes on at once.

use std::sync::Arc;

use wire::container::{Complaint, Request, Response};

use super::ServerInterface;
use super::handlers::{self, Shared};
use crate::tcp::events::Teller;
use crate::tcp::verbs::NotAVerb;
use crate::tcp::{Call, Client, Handler};

/// What answers requests of a verb, for a handler that takes its place and still wants it done.
#[derive(Debug, Clone)]
pub struct RequestHandler {
    handler: Handler,
    shared: Arc<Shared>,
}

impl ServerInterface {
    /// Lets `routine` answer requests of `verb` from now on, also in the place of a documented one. It is run to its end
    /// even when the client is gone, which [`Client::is_closed`] tells.
    ///
    /// # Errors
    /// When `verb` is not 1 to 64 letters from A to Z.
    pub fn set_request_handler<F>(&self, verb: &str, routine: F) -> Result<(), NotAVerb>
    where
        F: Fn(&Client, &Request) -> Response + Send + Sync + 'static,
    {
        let routine = Arc::new(routine);
        let handler = Handler::new(move |call: Call| {
            let routine = Arc::clone(&routine);
            async move { answered(move || routine(&call.client, &call.request)).await }
        });
        self.plan.verbs.set(verb, handler.in_turn(self.plan.shared.request_turns()))
    }

    /// What answers requests of `verb` now; nothing where the verb is not known.
    #[must_use]
    pub fn request_handler(&self, verb: &str) -> Option<RequestHandler> {
        let handler = self.plan.verbs.get(verb)?;
        Some(RequestHandler { handler, shared: Arc::clone(&self.plan.shared) })
    }
}

impl RequestHandler {
    /// Answers `request`, which may be another than what the client has sent, and waits for that. What it makes is undone
    /// when the client is not answered with success. Must not be called from asynchronous code.
    #[must_use]
    pub fn handle(&self, client: &Client, request: &Request) -> Response {
        let teller = Teller::new(Some(handlers::listening(&self.shared)));
        let call = Call { client: client.clone(), request: request.clone(), teller };
        let (work, asker) = (self.handler.run(call), client.clone());
        let ends_with_client = self.handler.ends_with_client();
        let answered = self.shared.wait_for(async move {
            if !ends_with_client {
                return Some(work.await);
            }
            tokio::select! {
                biased;
                () = asker.ended() => None,
                response = work => Some(response),
            }
        });
        let why = match answered {
            Some(Some(response)) => return response,
            Some(None) => "The client is gone",
            None => "The server is stopping",
        };
        Response::refuse(&Complaint::Unavailable(why), client.generation())
    }
}

/// A panic becomes the door's: an internal error for the client, a runtime error for the program.
async fn answered(routine: impl FnOnce() -> Response + Send + 'static) -> Response {
    match handlers::run(routine).await {
        Ok(response) => response,
        Err(text) => std::panic::resume_unwind(Box::new(text)),
    }
}
