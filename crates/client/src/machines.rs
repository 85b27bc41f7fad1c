//! Temporary machines: asking for one, looking at them, giving them back.
//!
//! Invariant: whoever drops a [`Creation`] before it is done hangs up, which tells the server to undo it.

use std::io::{BufRead, BufReader, Read as _};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::SendBody;
use ureq::http::{Method, StatusCode};
use wire::machines::{
    Certificate, CertificateOrder, CreatedMachine, Extension, Machine, Machines, NewMachine, Step,
    StepEvent,
};

use crate::call::{Patience, Route};
use crate::dispatch::{ANSWER, JSON};
use crate::stream::{is_stream, read_message};
use crate::{Client, ClientError};

/// How long a creation may be silent: an image without a snapshot boots for minutes on a machine that
/// cannot help with it.
const CREATION: Patience = Patience::Each(Duration::from_secs(600));
/// What all messages about a creation together may be long, signs of life included.
const CREATION_BYTES_MAX: u64 = 1 << 20;
/// What a console may be long; the server keeps less.
const CONSOLE_BYTES_MAX: u64 = 64 << 20;

/// What is heard of a creation.
#[derive(Debug, Clone)]
pub enum Creating {
    /// This is being done now.
    Step(Step),
    /// The machine is there, and nothing follows.
    Done(Box<CreatedMachine>),
}

/// A machine on its way.
pub struct Creation {
    reader: Box<dyn BufRead + Send>,
    client: Client,
    /// A server that tells no steps has answered already.
    answer: Option<Box<CreatedMachine>>,
}

impl Client {
    /// Asks for a machine. What comes of it is heard from the [`Creation`].
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 400 for an order that cannot be, with 429
    /// for one machine too many, with 503 when there is no place.
    pub fn create_machine(&self, order: &NewMachine) -> Result<Creation, ClientError> {
        let route = Route::new("machines");
        let headers = [JSON, ("Accept", "text/event-stream, application/json;q=0.9")];
        let body = json!(order).to_string();
        let response = self.send(Method::POST, &route, &headers, &body, CREATION)?;
        if !is_stream(response.headers()) {
            let answer = self.read(&route, response, CREATION_BYTES_MAX, CREATION)?;
            let reader = Box::new(std::io::empty());
            return Ok(Creation { reader, client: self.clone(), answer: Some(answer) });
        }
        let body = response.into_body().into_reader().take(CREATION_BYTES_MAX);
        let reader = Box::new(BufReader::new(body));
        Ok(Creation { reader, client: self.clone(), answer: None })
    }

    /// All machines that one may see, and how many more there could be.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn machines(&self) -> Result<Machines, ClientError> {
        self.get(&Route::new("machines"))
    }

    /// The machine `id`.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 404 for an unknown machine or somebody
    /// else's.
    pub fn machine(&self, id: &str) -> Result<Machine, ClientError> {
        self.get(&Route::new("machines").segment(id))
    }

    /// Has the machine `id` taken back in `ttl_secs` from now, instead of when it was to be; gives how
    /// it stands then.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 404 as ever, with 400 for a time longer than
    /// the server allows.
    pub fn extend_machine(&self, id: &str, ttl_secs: u64) -> Result<Machine, ClientError> {
        let body = json!(Extension { ttl: ttl_secs }).to_string();
        let route = Route::new("machines").segment(id);
        self.json(Method::PATCH, &route, &[JSON], &body, ANSWER)
    }

    /// A certificate by which the holder of `public_key` may log in to the machine `id` through the SSH gateway.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 404 as ever or where there is no gateway, with
    /// 409 for a machine that is not ready.
    pub fn machine_certificate(
        &self,
        id: &str,
        public_key: &str,
    ) -> Result<Certificate, ClientError> {
        let body = json!(CertificateOrder { public_key: public_key.to_owned() }).to_string();
        let route = Route::new("machines").segment(id).segment("certificate");
        self.json(Method::POST, &route, &[JSON], &body, ANSWER)
    }

    /// Gives the machine `id` back; it is gone then, with all that was on it.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 404 for an unknown machine or somebody
    /// else's.
    pub fn destroy_machine(&self, id: &str) -> Result<(), ClientError> {
        self.done(Method::DELETE, &Route::new("machines").segment(id))
    }

    /// What the machine `id` wrote to its console: the last `bytes`, or all that the server has.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 404 for an unknown machine or somebody
    /// else's.
    pub fn machine_console(&self, id: &str, bytes: Option<u64>) -> Result<Vec<u8>, ClientError> {
        let route = Route::new("machines").segment(id).segment("console");
        let route = route.with_some("bytes", bytes);
        let response = self.send(Method::GET, &route, &[], SendBody::none(), ANSWER)?;
        let mut console = Vec::new();
        let mut body = response.into_body().into_reader().take(CONSOLE_BYTES_MAX);
        body.read_to_end(&mut console).map_err(|error| self.broken(ANSWER, error))?;
        Ok(console)
    }
}

impl Creation {
    /// What comes next; after [`Creating::Done`] nothing does.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] when the server gave up, with the reasons of
    /// [`Client::create_machine`], and with 504 for a machine that was not ready in time.
    pub fn wait(&mut self) -> Result<Creating, ClientError> {
        if let Some(answer) = self.answer.take() {
            return Ok(Creating::Done(answer));
        }
        loop {
            let message = read_message(&mut self.reader);
            let message = message.map_err(|error| self.client.broken(CREATION, error))?;
            let Some(message) = message else {
                return Err(self.unexpected("it ended before the machine was there"));
            };
            match message.kind.as_str() {
                // A newer server may know more steps; they are no reason to give up.
                "step" => {
                    if let Ok(event) = self.parse::<StepEvent>(&message.data) {
                        return Ok(Creating::Step(event.step));
                    }
                }
                "machine" => return Ok(Creating::Done(self.parse(&message.data)?)),
                "error" => return Err(self.refused(&message.data)),
                _ => {}
            }
        }
    }

    /// The error that an answer with that status would have been.
    fn refused(&self, data: &str) -> ClientError {
        let said: Option<Value> = serde_json::from_str(data).ok();
        let status = said.as_ref().and_then(|said| said.get("status")?.as_u64());
        let status = status.and_then(|status| StatusCode::from_u16(status.try_into().ok()?).ok());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.client.refusal(&Route::new("machines"), status, data.as_bytes())
    }

    fn parse<T: DeserializeOwned>(&self, data: &str) -> Result<T, ClientError> {
        serde_json::from_str(data).map_err(|error| self.unexpected(&error.to_string()))
    }

    fn unexpected(&self, why: &str) -> ClientError {
        self.client.unexpected(&Route::new("machines"), why)
    }
}
