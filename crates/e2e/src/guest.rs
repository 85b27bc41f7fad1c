//! A login on a machine by SSH, as its user has it.
//!
//! Invariant: nothing is waited for longer than the deadline; whose host key it is, is told, not judged.
//! Not here: how the machine came to be (`lending`).

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use russh::ChannelMsg;
use russh::client::{self, AuthResult, Handle, Handler};
use russh::keys::{HashAlg, PublicKeyOrCertificate};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::DEADLINE;

/// A login that holds.
pub struct Guest {
    runtime: Runtime,
    handle: Handle<Seen>,
    /// `SHA256:…` of the host key.
    pub fingerprint: String,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

struct Seen(Arc<OnceLock<String>>);

impl Handler for Seen {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        server: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        if let PublicKeyOrCertificate::PublicKey { key, .. } = server {
            let _ = self.0.set(key.fingerprint(HashAlg::Sha256).to_string());
        }
        Ok(true)
    }
}

impl Guest {
    /// Logs in on a port of 127.0.0.1; `None` when nobody answers there or the login is refused.
    ///
    /// # Panics
    /// When the deadline passes.
    #[must_use]
    pub fn enter(port: u16, user: &str, password: &str) -> Option<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let seen = Arc::new(OnceLock::new());
        let entering = async {
            let known = Seen(Arc::clone(&seen));
            let mut handle =
                client::connect(Arc::default(), ("127.0.0.1", port), known).await.ok()?;
            let answer = handle.authenticate_password(user, password).await.ok()?;
            matches!(answer, AuthResult::Success).then_some(handle)
        };
        let handle = runtime
            .block_on(async { timeout(DEADLINE, entering).await })
            .expect("an answer in time")?;
        let fingerprint = seen.get().cloned().expect("a host key was seen");
        Some(Self { runtime, handle, fingerprint })
    }

    /// Runs a command and gives what it said, on both of its outputs, and its exit status.
    ///
    /// # Panics
    /// When the deadline passes, or the connection ends first.
    #[must_use]
    pub fn run(&self, command: &str) -> (String, Option<u32>) {
        let running = async {
            let mut channel = self.handle.channel_open_session().await.expect("a session");
            channel.exec(true, command).await.expect("a command");
            let (mut said, mut exit) = (Vec::new(), None);
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => {
                        said.extend_from_slice(&data);
                    }
                    ChannelMsg::ExitStatus { exit_status } => exit = Some(exit_status),
                    _ => {}
                }
            }
            (String::from_utf8_lossy(&said).into_owned(), exit)
        };
        let end = self.runtime.block_on(async { timeout(DEADLINE, running).await });
        end.expect("an end in time")
    }

    /// Runs a command and counts what it says until this time is over, or it ends. Tells how long that was, too.
    ///
    /// # Panics
    /// When the session cannot be had in time.
    #[must_use]
    pub fn bytes_within(&self, command: &str, time: Duration) -> (usize, Duration) {
        self.runtime.block_on(async {
            let starting = async {
                let channel = self.handle.channel_open_session().await.expect("a session");
                channel.exec(true, command).await.expect("a command");
                channel
            };
            let mut channel = timeout(DEADLINE, starting).await.expect("a session in time");
            let (begun, mut bytes) = (Instant::now(), 0);
            let counting = async {
                while let Some(message) = channel.wait().await {
                    if let ChannelMsg::Data { data } = message {
                        bytes += data.len();
                    }
                }
            };
            let _ = timeout(time, counting).await;
            (bytes, begun.elapsed())
        })
    }

    /// Gives a command that will not be heard of again, such as one that ends the machine.
    pub fn tell(&self, command: &str) {
        let telling = async {
            let channel = self.handle.channel_open_session().await?;
            channel.exec(true, command).await?;
            Ok::<_, russh::Error>(channel)
        };
        let _ = self.runtime.block_on(async {
            let channel = timeout(DEADLINE, telling).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            channel.map(drop)
        });
    }
}
