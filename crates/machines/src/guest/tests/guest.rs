//! A guest that is not there: an SSH server and an agent in this process, which do what the test says.

use std::collections::VecDeque;
use std::future::ready;
use std::io;
use std::sync::{Arc, Mutex};

use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session};
use russh::{Channel, ChannelId};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use wire::Secret;

use crate::guest::ssh_key::SshKey;
use crate::hypervisor::{Ending, GuestStream, Later, Vm};

/// What a connection to the guest meets.
#[derive(Debug, Clone)]
pub(crate) enum Meet {
    /// Nobody listens.
    Refused,
    /// It is accepted and closed.
    Closed,
    /// A greeting, then the end.
    ClosedAfterGreeting,
    /// It is accepted, and nothing is said.
    Silence,
    /// A server.
    Server,
}

/// What a command does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Does {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) exit: u32,
    pub(crate) never_ends: bool,
    /// Whether it ends the connection, as a script may that restarts the SSH server.
    pub(crate) hangs_up: bool,
}

/// The guest. The user is `endpoint`, the password `secret`.
#[derive(Debug)]
pub(crate) struct FakeGuest {
    pub(crate) key: SshKey,
    /// What the next connections meet; a server afterwards.
    pub(crate) meets: Mutex<VecDeque<Meet>>,
    pub(crate) does: Does,
    pub(crate) commands: Arc<Mutex<Vec<String>>>,
    /// What the agent was asked, and what it answers.
    pub(crate) asked: Mutex<Vec<String>>,
    pub(crate) answer: Result<String, String>,
    /// Whether the agent never answers.
    pub(crate) is_mute: bool,
    pub(crate) ended: watch::Sender<Option<Ending>>,
    /// The other ends of connections that nothing is said on.
    pub(crate) silent: Mutex<Vec<DuplexStream>>,
}

impl FakeGuest {
    pub(crate) fn new() -> Self {
        Self {
            key: SshKey::random().unwrap(),
            meets: Mutex::default(),
            does: Does::default(),
            commands: Arc::default(),
            asked: Mutex::default(),
            answer: Ok(String::new()),
            is_mute: false,
            ended: watch::channel(None).0,
            silent: Mutex::default(),
        }
    }

    pub(crate) fn meeting(self, meets: impl IntoIterator<Item = Meet>) -> Self {
        self.meets.lock().unwrap().extend(meets);
        self
    }

    pub(crate) fn doing(self, does: Does) -> Self {
        Self { does, ..self }
    }

    /// Whether the other end of the first silent connection has gone.
    pub(crate) async fn silence_is_over(&self) {
        let mut stream = self.silent.lock().unwrap().remove(0);
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap();
    }

    async fn accept(&self) -> io::Result<Box<dyn GuestStream>> {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let meet = self.meets.lock().unwrap().pop_front().unwrap_or(Meet::Server);
        match meet {
            Meet::Refused => return Err(io::ErrorKind::ConnectionRefused.into()),
            Meet::Closed => drop(theirs),
            Meet::ClosedAfterGreeting => theirs.write_all(b"SSH-2.0-x\r\n").await?,
            Meet::Silence => self.silent.lock().unwrap().push(theirs),
            Meet::Server => self.serve(theirs),
        }
        Ok(Box::new(ours))
    }

    fn serve(&self, stream: DuplexStream) {
        let config = Config { keys: vec![(*self.key.pair()).clone()], ..Config::default() };
        let door = Door { does: self.does.clone(), commands: Arc::clone(&self.commands) };
        tokio::task::spawn_local(async move {
            // It ends when the test's side does.
            let Ok(session) = russh::server::run_stream(Arc::new(config), stream, door).await
            else {
                return;
            };
            let _ = session.await;
        });
    }
}

impl Vm for FakeGuest {
    fn connect(&self, port: u16) -> Later<'_, io::Result<Box<dyn GuestStream>>> {
        assert_eq!(port, 22);
        Box::pin(self.accept())
    }

    fn ask_agent(&self, request: Secret) -> Later<'_, io::Result<String>> {
        self.asked.lock().unwrap().push(request.expose().to_owned());
        if self.is_mute {
            return Box::pin(std::future::pending());
        }
        Box::pin(ready(self.answer.clone().map_err(io::Error::other)))
    }

    fn pause(&self) -> Later<'_, io::Result<()>> {
        Box::pin(ready(Ok(())))
    }

    fn resume(&self) -> Later<'_, io::Result<()>> {
        Box::pin(ready(Ok(())))
    }

    fn kill(&self) -> Later<'_, ()> {
        self.ended.send_replace(Some(Ending::Killed));
        Box::pin(ready(()))
    }

    fn ended(&self) -> watch::Receiver<Option<Ending>> {
        self.ended.subscribe()
    }

    fn console(&self, _: usize) -> Later<'_, io::Result<Vec<u8>>> {
        Box::pin(ready(Ok(Vec::new())))
    }
}

/// Lets `endpoint` in and does what it is told to for every command.
struct Door {
    does: Does,
    commands: Arc<Mutex<Vec<String>>>,
}

impl Handler for Door {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        Ok(if (user, password) == ("endpoint", "secret") { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.commands.lock().unwrap().push(String::from_utf8_lossy(command).into_owned());
        session.data(channel, self.does.stdout.clone())?;
        session.extended_data(channel, 1, self.does.stderr.clone())?;
        if self.does.hangs_up {
            session.flush()?;
            return Err(russh::Error::HUP);
        }
        if self.does.never_ends {
            return Ok(());
        }
        session.exit_status_request(channel, self.does.exit)?;
        session.eof(channel)?;
        session.close(channel)
    }
}
