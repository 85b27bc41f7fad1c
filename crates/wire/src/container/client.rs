//! The client's side of one connection, of any generation: for our own tools and for tests.
//!
//! Invariant: nothing is sent before the server has asked for it, but for what the protocol joins.
//!
//! RSA work is done within [`ClientSide::advance`]: a client has nobody else to serve.

use std::sync::Arc;

use serde_json::Value;

use super::cipher::Session;
use super::frame::{Generation, HEADER_BYTES, Input, YES, header, number, within};
use super::keys::{KeyPair, PublicKey, fingerprint};
use super::message::Response;
use super::packet::{self, SEALED_HEADER_BYTES, Sealed};
use super::{KEY_BYTES_MAX, RESPONSE_BYTES_MAX, Refusal};

/// Bytes of the AES keys that clients make.
const KEY_BYTES: usize = 32;

/// One connection, seen by the client.
#[derive(Debug)]
pub struct ClientSide {
    keys: Arc<KeyPair>,
    generation: Generation,
    pub(super) request: Vec<u8>,
    expected: Option<String>,
    seen: Option<String>,
    input: Input,
    output: Vec<u8>,
    state: State,
    pub(super) session: Option<Session>,
}

#[derive(Debug)]
enum State {
    MayKeyCome,
    GotKey,
    ServerKey { length: usize },
    GotBlock,
    MayRequestCome { packet: Vec<u8> },
    Length,
    Packet { length: usize },
    Done(Response),
    Refused(Refusal),
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Send the output, then more bytes are needed.
    Read,
    /// The answer.
    Response(Response),
}

impl ClientSide {
    /// Asks `request` (verb and parameters) in the form of `generation`. `keys` are the client's own and may be used
    /// again; `expected` is the fingerprint that the server's key must have, if any is expected.
    #[must_use]
    pub fn new(
        keys: Arc<KeyPair>,
        generation: Generation,
        request: &Value,
        expected: Option<String>,
    ) -> Self {
        let output = header(keys.public_pem().len()).map(Vec::from).unwrap_or_default();
        Self {
            keys,
            generation,
            request: request.to_string().into_bytes(),
            expected,
            seen: None,
            input: Input::default(),
            output,
            state: State::MayKeyCome,
            session: None,
        }
    }

    /// Takes bytes that came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.put(bytes);
    }

    /// What is to be sent now.
    #[must_use]
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// SHA-256 of the server's public PEM, once it has come.
    #[must_use]
    pub fn server_fingerprint(&self) -> Option<&str> {
        self.seen.as_deref()
    }

    /// Goes on as far as the bytes suffice. Takes milliseconds where a key is used.
    ///
    /// # Errors
    /// When the server refuses, or what it sends breaks the rules. It stays so.
    pub fn advance(&mut self) -> Result<Progress, Refusal> {
        loop {
            match self.step() {
                Ok(Some(progress)) => return Ok(progress),
                Ok(None) => {}
                Err(refusal) => {
                    self.state = State::Refused(refusal);
                    return Err(refusal);
                }
            }
        }
    }

    /// One step; `None`: there may be another.
    fn step(&mut self) -> Result<Option<Progress>, Refusal> {
        const READ: Result<Option<Progress>, Refusal> = Ok(Some(Progress::Read));
        match &mut self.state {
            State::MayKeyCome => {
                let Some(word) = self.input.take_yes("the key's length") else { return READ };
                word?;
                self.output.extend_from_slice(self.keys.public_pem().as_bytes());
                self.state = State::GotKey;
            }
            State::GotKey => {
                if self.input.peek(1).is_some_and(|word| word != [YES]) {
                    return Err(Refusal::NotConfirmed("the key"));
                }
                let Some(message) = self.input.take(1 + HEADER_BYTES) else { return READ };
                let length = number(&message[1..]);
                let length = within(length, KEY_BYTES_MAX, "the server's key")?;
                self.output.push(YES);
                self.state = State::ServerKey { length };
            }
            State::ServerKey { length } => {
                let Some(pem) = self.input.take(*length) else { return READ };
                self.send_block(&pem)?;
            }
            State::GotBlock => {
                if self.input.peek(1).is_some_and(|word| word != [YES]) {
                    return Err(Refusal::NotConfirmed("the AES key"));
                }
                let Some(message) = self.input.take(1 + self.keys.bytes()) else { return READ };
                self.send_length(&message[1..])?;
            }
            State::MayRequestCome { packet } => {
                let Some(word) = self.input.take_yes("the request's length") else { return READ };
                word?;
                self.output.append(packet);
                self.state = State::Length;
            }
            State::Length => return self.response_length(),
            State::Packet { length } => {
                let Some(packet) = self.input.take(*length) else { return READ };
                self.state = State::Done(self.open(&packet)?);
            }
            State::Done(response) => return Ok(Some(Progress::Response(response.clone()))),
            State::Refused(refusal) => return Err(*refusal),
        }
        Ok(None)
    }

    /// The server's key is there: an AES key goes back.
    fn send_block(&mut self, pem: &[u8]) -> Result<(), Refusal> {
        let seen = fingerprint(pem);
        let is_stranger = self.expected.as_ref().is_some_and(|expected| *expected != seen);
        self.seen = Some(seen);
        if is_stranger {
            return Err(Refusal::Stranger);
        }
        let server = PublicKey::from_pem(pem).map_err(Refusal::Key)?;
        let session = Session::fresh(KEY_BYTES)?;
        let block = server.encrypt(&session.to_bytes()).map_err(Refusal::Key)?;
        self.output.push(YES);
        self.output.extend_from_slice(&block);
        self.state = State::GotBlock;
        Ok(())
    }

    /// The server's AES key is there, and is the one in force.
    fn send_length(&mut self, block: &[u8]) -> Result<(), Refusal> {
        let plain = self.keys.decrypt(block).map_err(|_| Refusal::Block)?;
        let mut session = Session::from_bytes(&plain).ok_or(Refusal::Block)?;
        let Sealed { length, packet } = packet::seal(&mut session, self.generation, &self.request)?;
        self.session = Some(session);
        self.output.push(YES);
        self.output.extend_from_slice(&length);
        self.state = State::MayRequestCome { packet };
        Ok(())
    }

    fn response_length(&mut self) -> Result<Option<Progress>, Refusal> {
        let is_sealed = self.generation == Generation::Four;
        let bytes = if is_sealed { SEALED_HEADER_BYTES } else { HEADER_BYTES };
        let Some(message) = self.input.take(bytes) else { return Ok(Some(Progress::Read)) };
        let session = self.session.as_ref().ok_or(Refusal::Block)?;
        let length =
            if is_sealed { packet::sealed_number(session, &message) } else { number(&message) };
        let length = within(length, RESPONSE_BYTES_MAX, "the answer")?;
        self.output.push(YES);
        self.state = State::Packet { length };
        Ok(None)
    }

    fn open(&mut self, packet: &[u8]) -> Result<Response, Refusal> {
        let session = self.session.as_mut().ok_or(Refusal::Block)?;
        let plain = match self.generation {
            Generation::One => session.open(packet),
            Generation::Three | Generation::Four => packet::open_with_iv(session, packet),
        };
        let plain = plain.ok_or(Refusal::Response("does not decrypt"))?;
        Response::parse(&plain).ok_or(Refusal::Response("is not one"))
    }
}
