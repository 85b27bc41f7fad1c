//! One connection to the gateway: who it is, which machine it is for, and the channels it opens there.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use machines::MachineId;
use machines::guest::GuestError;
use machines::guest::shell::Shell;
use machines::guest::ssh::{Login, PORT, Proof, log_in};
use russh::keys::{Certificate, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, Pty};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wire::Secret;

use super::relay::{self, End};
use super::{CHANNELS_MAX, Entry, Gateway, Visit};

/// How long a guest may take to let somebody in or to open a channel.
const GUEST_MAX: Duration = Duration::from_secs(8);

/// Somebody at the door.
pub(super) struct Visitor {
    gateway: Arc<Gateway>,
    ip: IpAddr,
    admitted: Arc<Notify>,
    /// The login at the machine, once there is one.
    inside: Option<(MachineId, Shell)>,
    /// What goes on in the channels; ends with the visit.
    channels: JoinSet<()>,
}

impl Visitor {
    pub(super) fn new(gateway: Arc<Gateway>, ip: IpAddr, admitted: Arc<Notify>) -> Self {
        Self { gateway, ip, admitted, inside: None, channels: JoinSet::new() }
    }

    /// Logs in to the machine `name`, if `proof` has one for it.
    async fn enter(
        &mut self,
        name: &str,
        by: &'static str,
        holder: Option<&str>,
        proof: impl FnOnce(&Gateway, &Entry) -> Option<Proof>,
    ) -> Auth {
        // A key is not guessed, and somebody's agent may hold some that are not for this machine.
        let attempt = match by {
            "password" => match self.gateway.try_once(self.ip, name) {
                Some(attempt) => Some(attempt),
                None => return Auth::reject(),
            },
            _ => None,
        };
        let entry = (self.gateway.directory.find)(name);
        let machine = entry.as_ref().map(|entry| entry.id);
        let inside = match entry {
            Some(entry) => self.log_in(&entry, proof(&self.gateway, &entry)).await,
            None => None,
        };
        let is_admitted = inside.is_some();
        (self.gateway.directory.note)(Visit { from: self.ip, machine, by, holder, is_admitted });
        if !is_admitted {
            return Auth::reject();
        }
        if let Some(attempt) = attempt {
            self.gateway.forgive(attempt);
        }
        self.inside = inside;
        Auth::Accept
    }

    async fn log_in(&self, entry: &Entry, proof: Option<Proof>) -> Option<(MachineId, Shell)> {
        let login = Login { user: entry.user.clone(), proof: proof?, port: PORT };
        let open = async {
            let stream = (self.gateway.directory.connect)(entry.id, PORT).await;
            let stream = stream.map_err(russh::Error::IO)?;
            log_in(stream, &login, entry.host_key.as_deref()).await
        };
        match in_time(open).await {
            Ok(shell) => Some((entry.id, shell)),
            Err(error) => {
                tracing::debug!(ip = %self.ip, machine = %entry.id, %error, "a login by the SSH gateway failed");
                None
            }
        }
    }

    /// The machine, if it may be given another channel.
    fn inside(&mut self) -> Result<(MachineId, &Shell), ChannelOpenFailure> {
        while self.channels.try_join_next().is_some() {}
        let is_full = self.channels.len() >= CHANNELS_MAX;
        match &self.inside {
            Some((id, shell)) if !is_full => Ok((*id, shell)),
            Some(_) => Err(ChannelOpenFailure::ResourceShortage),
            None => Err(ChannelOpenFailure::AdministrativelyProhibited),
        }
    }
}

/// What a guest is asked must not keep its visitor's connection from being ended.
async fn in_time<T>(asked: impl Future<Output = Result<T, GuestError>>) -> Result<T, GuestError> {
    timeout(GUEST_MAX, asked).await.unwrap_or(Err(GuestError::TooSlow(GUEST_MAX)))
}

/// The server's key for the machine, for somebody who has shown to be allowed.
fn by_our_key(entry: &Entry, is_allowed: bool) -> Option<Proof> {
    entry.key.clone().filter(|_| is_allowed).map(Proof::Key)
}

fn lists(entry: &Entry, key: &PublicKey) -> bool {
    let is_it = |line: &String| {
        PublicKey::from_openssh(line).is_ok_and(|listed| listed.key_data() == key.key_data())
    };
    entry.authorized_keys.iter().any(is_it)
}

impl Handler for Visitor {
    type Error = russh::Error;

    async fn auth_password(&mut self, name: &str, password: &str) -> Result<Auth, russh::Error> {
        let password = Proof::Password(Secret::new(password));
        Ok(self.enter(name, "password", None, |_, _| Some(password)).await)
    }

    async fn auth_publickey(
        &mut self,
        name: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        let proof = |_: &Gateway, entry: &Entry| by_our_key(entry, lists(entry, key.public_key));
        Ok(self.enter(name, "key", None, proof).await)
    }

    async fn auth_openssh_certificate(
        &mut self,
        name: &str,
        certificate: &Certificate,
    ) -> Result<Auth, russh::Error> {
        let proof = |gateway: &Gateway, entry: &Entry| {
            by_our_key(entry, gateway.authority.admits(certificate, entry.id))
        };
        Ok(self.enter(name, "certificate", Some(certificate.key_id()), proof).await)
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), russh::Error> {
        self.admitted.notify_one();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let guest = match self.inside() {
            Ok((_, shell)) => in_time(shell.open_session()).await,
            Err(reason) => {
                reply.reject(reason).await;
                return Ok(());
            }
        };
        let Ok(guest) = guest else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        };
        reply.accept().await;
        let handle = session.handle();
        self.channels.spawn(async move {
            if relay::session(channel, guest, handle.clone()).await == End::GuestLost {
                let why = "the machine has ended".to_owned();
                let _ = handle.disconnect(Disconnect::ConnectionLost, why, String::new()).await;
            }
        });
        Ok(())
    }

    // Requests are carried by the relay, which hears of them, too. They are answered here, since clients send several
    // without waiting and russh remembers of the last alone whether it is to be answered.

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)
    }

    /// Screens of others stay out of a guest's reach.
    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }

    /// Port 22 is the machine's own SSH server, whatever name it is given, for `ssh -J MACHINE@gateway user@machine`;
    /// any other is connected to by the guest, for `ssh -L`.
    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        let gateway = Arc::clone(&self.gateway);
        let (id, shell) = match self.inside() {
            Ok(inside) => inside,
            Err(reason) => {
                reply.reject(reason).await;
                return Ok(());
            }
        };
        let port = u16::try_from(port).unwrap_or(0);
        if port == PORT {
            let Ok(guest) = (gateway.directory.connect)(id, PORT).await else {
                reply.reject(ChannelOpenFailure::ConnectFailed).await;
                return Ok(());
            };
            reply.accept().await;
            self.channels.spawn(async move { drop(relay::bytes(channel, guest).await) });
            return Ok(());
        }
        let Ok(guest) = in_time(shell.open_tcp(host, port)).await else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        };
        reply.accept().await;
        self.channels.spawn(async move { drop(relay::bytes(channel, guest.into_stream()).await) });
        Ok(())
    }
}
