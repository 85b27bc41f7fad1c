//! A guest in this process whose connections a test holds the other end of.

use std::future::{pending, ready};
use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::DuplexStream;
use tokio::sync::{Notify, watch};

use crate::hypervisor::{Ending, GuestStream, Later, Vm};

/// The guest.
#[derive(Debug)]
pub(super) struct Guest {
    /// The other ends, in the order of the connections.
    ends: Mutex<Vec<DuplexStream>>,
    pub(super) arrived: Notify,
    answers: bool,
    pub(super) ended: watch::Sender<Option<Ending>>,
}

impl Guest {
    pub(super) fn new(answers: bool) -> Arc<Self> {
        let ended = watch::channel(None).0;
        Arc::new(Self { ends: Mutex::default(), arrived: Notify::new(), answers, ended })
    }

    /// The other end of the connection that was made last.
    pub(super) fn end(&self) -> DuplexStream {
        self.ends.lock().unwrap().pop().unwrap()
    }
}

impl Vm for Guest {
    fn connect(&self, port: u16) -> Later<'_, io::Result<Box<dyn GuestStream>>> {
        assert_eq!(port, 22);
        if !self.answers {
            return Box::pin(pending());
        }
        let (ours, theirs) = tokio::io::duplex(1024);
        self.ends.lock().unwrap().push(theirs);
        self.arrived.notify_one();
        Box::pin(ready(Ok(Box::new(ours) as Box<dyn GuestStream>)))
    }

    fn ask_agent(&self, _: wire::Secret) -> Later<'_, io::Result<String>> {
        Box::pin(ready(Err(io::ErrorKind::Unsupported.into())))
    }

    fn pause(&self) -> Later<'_, io::Result<()>> {
        Box::pin(ready(Ok(())))
    }

    fn resume(&self) -> Later<'_, io::Result<()>> {
        Box::pin(ready(Ok(())))
    }

    fn kill(&self) -> Later<'_, ()> {
        Box::pin(ready(()))
    }

    fn ended(&self) -> watch::Receiver<Option<Ending>> {
        self.ended.subscribe()
    }

    fn console(&self, _: usize) -> Later<'_, io::Result<Vec<u8>>> {
        Box::pin(ready(Ok(Vec::new())))
    }
}
