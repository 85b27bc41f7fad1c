//! A login on a guest that runs one command after another.

use std::fmt;
use std::time::Duration;

use russh::client::{Handle, Msg};
use russh::{Channel, ChannelMsg};
use tokio::time::{Instant, timeout};

use super::agent::User;
use super::leash::Leash;
use super::ssh::Acquaintance;
use super::{GuestError, check_user, excerpt};

/// The program that an image offers for setting it up.
pub const SET_UP: &str = "/bin/anweddol_container_setup.sh";
/// The number by which SSH calls standard error.
const STDERR: u32 = 1;
/// The longest name of a user that is said to a set-up script.
const USER_CHARS_MAX: usize = 32;
/// The longest password.
const PASSWORD_CHARS_MAX: usize = 512;
/// What a set-up script may say before it is no longer listened to.
const NOISE_BYTES_MAX: usize = 4096;

/// Limits of one command.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How long it may take.
    pub time_max: Duration,
    /// How much it may say on its standard output, and as much again on its standard error, in bytes.
    pub bytes_max: usize,
}

impl Bounds {
    /// At most this long, and 64 KiB on each of its outputs.
    #[must_use]
    pub fn within(time_max: Duration) -> Self {
        Self { time_max, bytes_max: 64 * 1024 }
    }
}

/// What a command said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// On its standard output.
    pub stdout: Vec<u8>,
    /// On its standard error.
    pub stderr: Vec<u8>,
    /// Its exit status; none where a signal ended it or it was cut off.
    pub exit: Option<u32>,
    /// Whether it was cut off because it said more than allowed.
    pub cut_off: bool,
}

/// How a command was seen to end.
enum End {
    /// With a status, or by the end of its channel.
    Seen,
    /// Together with the connection.
    Lost,
}

/// A login on a guest: runs commands until it is closed or dropped.
pub struct Shell {
    handle: Handle<Acquaintance>,
    host_key: String,
    /// After the handle, so that what it has to say still leaves.
    _leash: Leash,
}

impl Shell {
    pub(crate) fn new(leash: Leash, handle: Handle<Acquaintance>, host_key: String) -> Self {
        Self { handle, host_key, _leash: leash }
    }

    /// `SHA256:…` of the guest's SSH host key.
    #[must_use]
    pub fn host_key_fingerprint(&self) -> &str {
        &self.host_key
    }

    /// Whether the connection is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Opens a channel for a session of the user's own, to be driven by whoever asked.
    ///
    /// # Errors
    /// When the guest refuses, or the connection is gone.
    pub async fn open_session(&self) -> Result<Channel<Msg>, GuestError> {
        Ok(self.handle.channel_open_session().await?)
    }

    /// Has the guest connect to a port, as seen from inside it.
    ///
    /// # Errors
    /// When the guest refuses or cannot connect, or the connection is gone.
    pub async fn open_tcp(&self, host: &str, port: u16) -> Result<Channel<Msg>, GuestError> {
        let channel = self.handle.channel_open_direct_tcpip(host, port.into(), "127.0.0.1", 0);
        Ok(channel.await?)
    }

    /// Runs `command` by the user's shell and waits for its end.
    ///
    /// # Errors
    /// When the connection ends first, or the time does. Neither ends the command for certain.
    pub async fn run(&self, command: &str, bounds: Bounds) -> Result<Output, GuestError> {
        match self.hear_within(command, bounds).await? {
            (output, End::Seen) => Ok(output),
            (_, End::Lost) => Err(russh::Error::HUP.into()),
        }
    }

    async fn hear_within(
        &self,
        command: &str,
        bounds: Bounds,
    ) -> Result<(Output, End), GuestError> {
        timeout(bounds.time_max, self.hear(command, bounds.bytes_max))
            .await
            .map_err(|_| GuestError::TooSlow(bounds.time_max))?
    }

    async fn hear(&self, command: &str, bytes_max: usize) -> Result<(Output, End), GuestError> {
        let mut channel = self.handle.channel_open_session().await?;
        // No answer is asked for: a refusal ends the channel, and so does an end.
        channel.exec(false, command).await?;
        let mut output = Output::default();
        let mut end = End::Lost;
        while let Some(message) = channel.wait().await {
            let (kept, data) = match message {
                ChannelMsg::Data { data } => (&mut output.stdout, data),
                ChannelMsg::ExtendedData { data, ext: STDERR } => (&mut output.stderr, data),
                ChannelMsg::ExitStatus { exit_status } => {
                    output.exit = Some(exit_status);
                    end = End::Seen;
                    continue;
                }
                ChannelMsg::Close => {
                    end = End::Seen;
                    break;
                }
                _ => continue,
            };
            let room = bytes_max.saturating_sub(kept.len());
            kept.extend_from_slice(&data[..data.len().min(room)]);
            if data.len() > room {
                output.cut_off = true;
                output.exit = None;
                // The command gets a broken pipe; whether it minds is not waited for.
                let _ = channel.close().await;
                return Ok((output, End::Seen));
            }
        }
        Ok((output, end))
    }

    /// Runs the set-up script. It has worked if it said nothing at all; its exit status means nothing, and neither does a
    /// connection that ends, since the script restarts the SSH server. (That it worked is proved by a login.)
    ///
    /// # Errors
    /// When the user cannot be named in a command line, or the script says something or takes too long.
    pub async fn set_up(&self, user: &User<'_>, deadline: Instant) -> Result<(), GuestError> {
        check_user(user.name, USER_CHARS_MAX)?;
        let password = user.password.expose();
        let is_plain = password.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if password.is_empty() || password.len() > PASSWORD_CHARS_MAX || !is_plain {
            return Err(GuestError::Password);
        }
        let command = format!("sudo {SET_UP} {} {password} {}", user.name, user.port);
        let time_max = deadline.saturating_duration_since(Instant::now());
        let bounds = Bounds { time_max, bytes_max: NOISE_BYTES_MAX };
        let (output, _) = self.hear_within(&zeroize::Zeroizing::new(command), bounds).await?;
        let noise = [output.stdout, output.stderr].concat();
        if noise.is_empty() {
            return Ok(());
        }
        Err(GuestError::Noise(excerpt(&String::from_utf8_lossy(&noise), Some(user.password))))
    }

    /// Ends the connection without waiting for the guest.
    pub fn close(self) {
        drop(self);
    }
}

impl fmt::Debug for Shell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shell")
            .field("host_key", &self.host_key)
            .field("is_closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
