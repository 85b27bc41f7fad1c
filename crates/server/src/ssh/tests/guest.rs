//! A machine's SSH server in this process: user `u`, password `secret`.

use std::sync::{Arc, Mutex};

use machines::guest::ssh_key::SshKey;
use machines::hypervisor::GuestStream;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, Pty};
use tokio::task::AbortHandle;

/// The server; all its connections.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) host_key: SshKey,
    /// The key that is let in.
    pub(super) key: SshKey,
    /// What was asked for before commands.
    pub(super) asked: Arc<Mutex<Vec<String>>>,
    pub(super) running: Mutex<Vec<AbortHandle>>,
}

impl Guest {
    pub(super) fn new() -> Self {
        Self {
            host_key: SshKey::random().unwrap(),
            key: SshKey::random().unwrap(),
            asked: Arc::default(),
            running: Mutex::default(),
        }
    }

    pub(super) fn connect(&self) -> Box<dyn GuestStream> {
        // Room for what both windows allow: russh does not read while it writes, and here it is on both ends.
        let (ours, theirs) = tokio::io::duplex(8 * 1024 * 1024);
        let keys = vec![(*self.host_key.pair()).clone()];
        let config = Arc::new(Config { keys, ..Config::default() });
        let door =
            Door { key: self.key.clone(), asked: Arc::clone(&self.asked), command: Vec::new() };
        let (leash, theirs) = machines::guest::leash::leash(theirs);
        let task = tokio::task::spawn_local(async move {
            let _leash = leash;
            if let Ok(session) = russh::server::run_stream(config, theirs, door).await {
                let _ = session.await;
            }
        });
        self.running.lock().unwrap().push(task.abort_handle());
        Box::new(ours)
    }

    /// The machine ends.
    pub(super) fn end(&self) {
        self.running.lock().unwrap().drain(..).for_each(|task| task.abort());
    }
}

struct Door {
    key: SshKey,
    asked: Arc<Mutex<Vec<String>>>,
    command: Vec<u8>,
}

impl Door {
    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
}

impl Handler for Door {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        Ok(if (user, password) == ("u", "secret") { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        let is_ours = key.public_key.key_data() == self.key.pair().public_key().key_data();
        Ok(if user == "u" && is_ours { Auth::Accept } else { Auth::reject() })
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

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.note(format!("pty {term} {columns}x{rows}"));
        session.channel_success(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.note(format!("env {name}={value}"));
        session.channel_failure(channel)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.note(format!("subsystem {name}"));
        if name == "nonsense" {
            return session.channel_failure(channel);
        }
        session.channel_success(channel)
    }

    async fn window_change_request(
        &mut self,
        _: ChannelId,
        columns: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.note(format!("size {columns}x{rows}"));
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)?;
        self.command = command.to_vec();
        if command == b"speak" {
            session.data(channel, b"out".to_vec())?;
            session.extended_data(channel, 1, b"err".to_vec())?;
            session.exit_status_request(channel, 3)?;
            session.eof(channel)?;
            session.close(channel)?;
        }
        Ok(())
    }

    /// `cat`, whatever the command.
    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.data(channel, data.to_vec())
    }

    async fn channel_eof(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.exit_status_request(channel, 0)?;
        session.eof(channel)?;
        session.close(channel)
    }
}
