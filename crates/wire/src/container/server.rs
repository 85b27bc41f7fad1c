//! The server's side of one connection: key exchange, one request, one answer.
//!
//! Invariant: states follow each other in one order, and a refused connection stays refused. What the server sends is
//! joined where the protocol has two messages in a row.
//!
//! ```text
//! KeyLength → Key → MayKeyCome → GotKey → Block → Unlocking → GotBlock → Length → Packet
//!           → Working → MayAnswerCome → Done          any of them → Refused
//! ```

use std::sync::Arc;

use super::cipher::{KEY_AND_IV_BYTES_MAX, Session};
use super::frame::{Generation, HEADER_BYTES, Input, NO, YES, header, number, within};
use super::keys::{KeyPair, PublicKey};
use super::message::{Request, Response, Unreadable};
use super::packet::{self, SEALED_HEADER_BYTES, Sealed};
use super::{KEY_BYTES_MAX, REQUEST_BYTES_MAX, Refusal, SURPLUS_BYTES_MAX};

/// One connection, seen by the server.
#[derive(Debug)]
pub struct ServerSide {
    keys: Arc<KeyPair>,
    input: Input,
    output: Vec<u8>,
    state: State,
    generation: Generation,
    session: Option<Session>,
    is_secured: bool,
}

#[derive(Debug)]
enum State {
    KeyLength,
    Key { length: usize },
    MayKeyCome { client: PublicKey },
    GotKey { client: PublicKey },
    Block { client: PublicKey },
    Unlocking,
    GotBlock,
    Length,
    Packet { length: usize, is_clear: bool },
    Working,
    MayAnswerCome { packet: Vec<u8> },
    Done,
    Refused(Refusal),
}

/// What happens next.
#[derive(Debug)]
pub enum Next {
    /// More bytes are needed.
    Read,
    /// RSA work: [`Unlock::run`] on a thread that may be blocked, then [`ServerSide::unlocked`]. Read nothing meanwhile.
    Unlock(Box<Unlock>),
    /// The keys are exchanged. Said once.
    Secured,
    /// The request is there, or what came instead of it. [`ServerSide::answer`] it.
    Request(Result<Request, Unreadable>),
    /// All that remains is to send the output.
    Done,
    /// The connection is over: send the output and close.
    Refused(Refusal),
}

/// The RSA work of a connection. It owns what it needs.
#[derive(Debug)]
pub struct Unlock {
    keys: Arc<KeyPair>,
    client: PublicKey,
    pub(super) block: Vec<u8>,
}

/// What came of it.
#[derive(Debug)]
pub struct Unlocked {
    pub(super) session: Session,
    pub(super) block: Vec<u8>,
}

impl Unlock {
    /// How much work it is, counted in private operations of the server's key, roughly.
    #[must_use]
    pub fn cost(&self) -> u32 {
        1 + self.client.cost()
    }

    /// Decrypts the client's AES key, makes a new one and encrypts it to the client. Takes milliseconds.
    ///
    /// # Errors
    /// When the client's does not decrypt or is no AES key, or its public key does not work. One answer for all: which
    /// it was tells nothing to who asks.
    pub fn run(self) -> Result<Unlocked, Refusal> {
        let plain = self.keys.decrypt(&self.block).map_err(|_| Refusal::Block)?;
        if plain.len() > KEY_AND_IV_BYTES_MAX {
            return Err(Refusal::Block);
        }
        let theirs = Session::from_bytes(&plain).ok_or(Refusal::Block)?;
        // Of the same length as theirs: a client may know that length alone.
        let session = Session::fresh(theirs.key_bytes())?;
        let block = self.client.encrypt(&session.to_bytes()).map_err(|_| Refusal::Block)?;
        Ok(Unlocked { session, block })
    }
}

impl ServerSide {
    /// A connection that was just accepted. `keys` are the server's.
    #[must_use]
    pub fn new(keys: Arc<KeyPair>) -> Self {
        Self {
            keys,
            input: Input::default(),
            output: Vec::new(),
            state: State::KeyLength,
            generation: Generation::Four,
            session: None,
            is_secured: false,
        }
    }

    /// One whose keys were exchanged.
    #[cfg(fuzzing)]
    pub(super) fn secured(keys: Arc<KeyPair>, unlocked: Unlocked) -> Self {
        let mut side = Self::new(keys);
        side.state = State::Unlocking;
        side.unlocked(Ok(unlocked));
        side
    }

    /// Takes bytes that came. At most a few thousand at a time keep the memory of a connection small.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.put(bytes);
    }

    /// What is to be sent now.
    #[must_use]
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// How the client frames; known when the request is there.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether the keys were exchanged.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        self.is_secured
    }

    /// Goes on as far as the bytes suffice.
    pub fn advance(&mut self) -> Next {
        loop {
            match self.step() {
                Ok(Some(next)) => return next,
                Ok(None) => {}
                Err(refusal) => self.state = State::Refused(refusal),
            }
        }
    }

    /// Hands back what [`Unlock::run`] gave.
    pub fn unlocked(&mut self, outcome: Result<Unlocked, Refusal>) {
        if !matches!(self.state, State::Unlocking) {
            return;
        }
        self.state = match outcome {
            Ok(Unlocked { session, block }) => {
                self.session = Some(session);
                self.output.push(YES);
                self.output.extend_from_slice(&block);
                State::GotBlock
            }
            Err(refusal) => {
                self.output.push(NO);
                State::Refused(refusal)
            }
        };
    }

    /// Answers the request.
    ///
    /// # Errors
    /// When the answer is too long to be said; another may be given instead.
    pub fn answer(&mut self, response: &Response) -> Result<(), Refusal> {
        self.answer_text(&response.to_json().to_string())
    }

    pub(super) fn answer_text(&mut self, plain: &str) -> Result<(), Refusal> {
        let (State::Working, Some(session)) = (&self.state, &mut self.session) else {
            return Ok(());
        };
        let Sealed { length, packet } = packet::seal(session, self.generation, plain.as_bytes())?;
        self.output.extend_from_slice(&length);
        self.state = State::MayAnswerCome { packet };
        Ok(())
    }

    /// One step; `None`: there may be another.
    fn step(&mut self) -> Result<Option<Next>, Refusal> {
        let state = std::mem::replace(&mut self.state, State::Done);
        match state {
            State::KeyLength | State::Key { .. } => return self.client_key(state),
            State::MayKeyCome { client } => match self.input.take_yes("the server's key length") {
                None => return Ok(self.wait(State::MayKeyCome { client })),
                Some(word) => {
                    word?;
                    self.output.extend_from_slice(self.keys.public_pem().as_bytes());
                    self.state = State::GotKey { client };
                }
            },
            State::GotKey { client } => match self.input.take_yes("the server's key") {
                None => return Ok(self.wait(State::GotKey { client })),
                Some(word) => {
                    word?;
                    self.state = State::Block { client };
                }
            },
            State::Block { client } => {
                let Some(block) = self.input.take(self.keys.bytes()) else {
                    return Ok(self.wait(State::Block { client }));
                };
                self.state = State::Unlocking;
                let unlock = Unlock { keys: Arc::clone(&self.keys), client, block };
                return Ok(Some(Next::Unlock(Box::new(unlock))));
            }
            State::GotBlock => match self.input.take_yes("the AES key") {
                None => return Ok(self.wait(State::GotBlock)),
                Some(word) => {
                    word?;
                    self.state = State::Length;
                    self.is_secured = true;
                    return Ok(Some(Next::Secured));
                }
            },
            State::Length => return self.request_length(),
            State::Packet { length, is_clear } => return Ok(self.request(length, is_clear)),
            State::Unlocking | State::Working => {
                if self.input.len() > SURPLUS_BYTES_MAX {
                    return Err(Refusal::Surplus);
                }
                return Ok(self.wait(state));
            }
            State::MayAnswerCome { mut packet } => match self.input.take_yes("the answer's length")
            {
                None => return Ok(self.wait(State::MayAnswerCome { packet })),
                Some(word) => {
                    word?;
                    self.output.append(&mut packet);
                }
            },
            State::Done => return Ok(Some(Next::Done)),
            State::Refused(refusal) => {
                self.state = State::Refused(refusal);
                return Ok(Some(Next::Refused(refusal)));
            }
        }
        Ok(None)
    }

    fn wait(&mut self, state: State) -> Option<Next> {
        self.state = state;
        Some(Next::Read)
    }

    /// A refusal that the client is told of.
    fn refused<T>(&mut self, refusal: Refusal) -> Result<T, Refusal> {
        self.output.push(NO);
        Err(refusal)
    }

    fn client_key(&mut self, state: State) -> Result<Option<Next>, Refusal> {
        if let State::Key { length } = state {
            let Some(pem) = self.input.take(length) else {
                return Ok(self.wait(State::Key { length }));
            };
            let client = match PublicKey::from_pem(&pem) {
                Ok(client) => client,
                Err(error) => return self.refused(Refusal::Key(error)),
            };
            let length = header(self.keys.public_pem().len()).ok_or(Refusal::TooLong)?;
            self.output.push(YES);
            self.output.extend_from_slice(&length);
            self.state = State::MayKeyCome { client };
            return Ok(None);
        }
        let Some(header) = self.input.take(HEADER_BYTES) else {
            return Ok(self.wait(State::KeyLength));
        };
        match within(number(&header), KEY_BYTES_MAX, "the public key") {
            Ok(length) => {
                self.output.push(YES);
                self.state = State::Key { length };
                Ok(None)
            }
            Err(refusal) => self.refused(refusal),
        }
    }

    /// Eight digits in the clear, or else sixteen encrypted bytes.
    fn request_length(&mut self) -> Result<Option<Next>, Refusal> {
        let Some(header) = self.input.peek(HEADER_BYTES) else {
            return Ok(self.wait(State::Length));
        };
        let clear = number(header);
        let (length, least) = if clear.is_some() {
            self.input.take(HEADER_BYTES);
            (clear, packet::BLOCK)
        } else {
            let Some(message) = self.input.take(SEALED_HEADER_BYTES) else {
                return Ok(self.wait(State::Length));
            };
            self.generation = Generation::Four;
            let session = self.session.as_ref().ok_or(Refusal::Block)?;
            (packet::sealed_number(session, &message), 2 * packet::BLOCK)
        };
        let length = match within(length, REQUEST_BYTES_MAX, "the request") {
            Ok(length) if length >= least && length.is_multiple_of(packet::BLOCK) => length,
            Ok(_) => return self.refused(Refusal::Length("the request")),
            Err(refusal) => return self.refused(refusal),
        };
        self.output.push(YES);
        self.state = State::Packet { length, is_clear: clear.is_some() };
        Ok(None)
    }

    fn request(&mut self, length: usize, is_clear: bool) -> Option<Next> {
        let Some(packet) = self.input.take(length) else {
            return self.wait(State::Packet { length, is_clear });
        };
        self.state = State::Working;
        let session = self.session.as_mut()?;
        let plain = if is_clear {
            let opened = packet::open_clear(session, &packet);
            self.generation = opened.generation;
            opened.plain
        } else {
            packet::open_with_iv(session, &packet)
        };
        let request = plain.ok_or(Unreadable::NotAnObject).and_then(|plain| Request::parse(&plain));
        Some(Next::Request(request))
    }
}
