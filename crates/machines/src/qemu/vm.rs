//! One virtual machine of QEMU's, and the one task that watches it.
//!
//! Invariant: how a machine ended is told once, when its process is gone. Dropping the handle ends the watching and
//! closes the monitor, not the machine.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wire::Secret;

use super::agent_socket::AgentSocket;
use super::cgroup::Group;
use super::command::CONSOLE_BYTES;
use super::launch::{Folder, Running};
use super::process::{Handle, Process};
use super::qmp::{Qmp, Seen};
use crate::hypervisor::{Ending, GuestStream, Later, Vm};
use crate::network::Network;

/// How long is waited before an SSH server that does not answer is tried again.
const GREETING_PAUSE: Duration = Duration::from_millis(20);
/// How long an SSH server may take to greet.
const GREETING_LIMIT: Duration = Duration::from_secs(5);
/// How long the monitor's last lines are waited for when the process is gone.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(500);

/// A machine that runs.
#[derive(Debug)]
pub(super) struct QemuVm {
    handle: Handle,
    qmp: Arc<Qmp>,
    agent: Option<AgentSocket>,
    ssh_port: u16,
    console: Arc<Console>,
    killed: Arc<AtomicBool>,
    ended: watch::Receiver<Option<Ending>>,
    network: Network,
    /// Holds the paths of the sockets.
    folder: Folder,
    _watch: JoinSet<()>,
}

impl QemuVm {
    /// Takes a QEMU over, with the line to its guest's agent where there is one.
    /// Its SSH server is expected at `ssh_port`.
    pub(super) fn new(
        running: Running,
        network: Network,
        agent: Option<AgentSocket>,
        ssh_port: u16,
    ) -> Self {
        let Running { process, qmp, folder, group } = running;
        let qmp = Arc::new(qmp);
        let handle = process.handle().clone();
        let console = Arc::new(Console::default());
        let killed = Arc::new(AtomicBool::new(false));
        let (sender, ended) = watch::channel(None);
        let mut tasks = JoinSet::new();
        let watcher = Watcher {
            qmp: Arc::clone(&qmp),
            console: Arc::clone(&console),
            killed: Arc::clone(&killed),
            ended: sender,
            group,
        };
        tasks.spawn(watcher.run(process));
        Self {
            handle,
            qmp,
            agent,
            ssh_port,
            console,
            killed,
            ended,
            network,
            folder,
            _watch: tasks,
        }
    }

    /// Waits until the guest's agent answers, or its SSH server where it has no agent; the caller sets the limit.
    /// What was asked is taken for lost after `lost_after`, and asked again.
    ///
    /// # Errors
    /// When the machine ends meanwhile; the text says why.
    pub(super) async fn ready(&self, lost_after: Duration) -> Result<(), String> {
        let mut ended = self.ended.clone();
        let answer = async {
            match &self.agent {
                Some(agent) => agent.hello(lost_after).await,
                None => {
                    self.greeting().await;
                    Ok(())
                }
            }
        };
        let error = tokio::select! {
            answered = answer => match answered {
                Ok(()) => return Ok(()),
                Err(error) => error.to_string(),
            },
            _ = ended.wait_for(Option::is_some) => String::new(),
        };
        // The connection breaks a moment before it is known why.
        let ending = timeout(LAST_WORDS_LIMIT, ended.wait_for(Option::is_some)).await;
        let ending = ending.ok().and_then(|ending| ending.ok().and_then(|ending| ending.clone()));
        Err(ending.map_or(error, |ending| format!("it ended: {ending:?}")))
    }

    /// Waits until the guest's SSH server has sent its greeting; the caller sets the limit.
    pub(super) async fn greeting(&self) {
        while let Err(error) = self.greeted().await {
            tracing::trace!(%error, "the guest's SSH server does not answer yet");
            tokio::time::sleep(GREETING_PAUSE).await;
        }
    }

    async fn greeted(&self) -> io::Result<()> {
        let mut stream = self.network.connect(self.ssh_port).await?;
        let mut start = [0; 4];
        let read = stream.read_exact(&mut start);
        timeout(GREETING_LIMIT, read)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if start == *b"SSH-" { Ok(()) } else { Err(io::Error::other("not an SSH server")) }
    }

    /// The console's last line that says something, for error messages.
    pub(super) async fn last_line(&self) -> String {
        let bytes = self.console.read(&self.qmp, 512).await.unwrap_or_default();
        let text =
            String::from_utf8_lossy(&bytes).replace(|c: char| c.is_control() && c != '\n', "");
        text.lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .unwrap_or("nothing on the console")
            .to_owned()
    }

    /// Its folder.
    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Its monitor.
    pub(super) fn qmp(&self) -> &Qmp {
        &self.qmp
    }
}

impl Vm for QemuVm {
    fn connect(&self, port: u16) -> Later<'_, io::Result<Box<dyn GuestStream>>> {
        Box::pin(
            async move { Ok(Box::new(self.network.connect(port).await?) as Box<dyn GuestStream>) },
        )
    }

    fn ask_agent(&self, request: Secret) -> Later<'_, io::Result<String>> {
        Box::pin(async move {
            match &self.agent {
                Some(agent) => agent.ask(&request).await,
                None => Err(io::Error::new(io::ErrorKind::Unsupported, "the image has no agent")),
            }
        })
    }

    fn pause(&self) -> Later<'_, io::Result<()>> {
        Box::pin(async { self.qmp.ask("stop", Value::Null).await.map(drop) })
    }

    fn resume(&self) -> Later<'_, io::Result<()>> {
        Box::pin(async { self.qmp.ask("cont", Value::Null).await.map(drop) })
    }

    fn kill(&self) -> Later<'_, ()> {
        Box::pin(async {
            self.killed.store(true, Ordering::SeqCst);
            self.handle.kill();
            // The watcher lives as long as this does, so it tells.
            let _ = self.ended.clone().wait_for(Option::is_some).await;
        })
    }

    fn ended(&self) -> watch::Receiver<Option<Ending>> {
        self.ended.clone()
    }

    fn console(&self, bytes_max: usize) -> Later<'_, io::Result<Vec<u8>>> {
        Box::pin(self.console.read(&self.qmp, bytes_max))
    }
}

/// What the guest printed. Reading QEMU's ring empties it, so what was read is kept here.
#[derive(Debug, Default)]
struct Console {
    last: Mutex<Vec<u8>>,
    reading: tokio::sync::Mutex<()>,
}

impl Console {
    async fn read(&self, qmp: &Qmp, bytes_max: usize) -> io::Result<Vec<u8>> {
        let _alone = self.reading.lock().await;
        let read = json!({"device": "console", "size": CONSOLE_BYTES, "format": "base64"});
        let fresh = match qmp.ask("ringbuf-read", read).await {
            Ok(text) => {
                STANDARD.decode(text.as_str().unwrap_or_default()).map_err(io::Error::other)?
            }
            // When the machine is gone, what was read before is what there is.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.extend_from_slice(&fresh);
        let surplus = last.len().saturating_sub(CONSOLE_BYTES);
        last.drain(..surplus);
        Ok(last[last.len().saturating_sub(bytes_max)..].to_vec())
    }
}

/// Waits for a machine's end, and makes one of what leaves no way on.
struct Watcher {
    qmp: Arc<Qmp>,
    console: Arc<Console>,
    killed: Arc<AtomicBool>,
    ended: watch::Sender<Option<Ending>>,
    /// Removed with the process.
    group: Group,
}

impl Watcher {
    async fn run(self, mut process: Process) {
        // The handle's owner decides about its life from here on.
        process.keep();
        let handle = process.handle().clone();
        let mut seen = self.qmp.seen();
        let said = tokio::select! {
            said = process.ended() => said,
            () = self.hopeless(&mut seen) => {
                handle.kill();
                process.ended().await
            }
        };
        let _ = timeout(LAST_WORDS_LIMIT, seen.wait_for(|seen| seen.closed)).await;
        let ending = ending(self.killed.load(Ordering::SeqCst), &seen.borrow(), said);
        drop(self.group);
        self.ended.send_replace(Some(ending));
    }

    /// Returns when the machine stands still for ever, or cannot be controlled any more.
    async fn hopeless(&self, seen: &mut watch::Receiver<Seen>) {
        let now = seen
            .wait_for(|seen| {
                seen.closed || seen.panicked || seen.disk_error.is_some() || seen.shutdown.is_some()
            })
            .await
            .map(|seen| seen.clone())
            .unwrap_or_default();
        if !now.closed {
            // Its last words go with the process.
            let _ = self.console.read(&self.qmp, 0).await;
        }
    }
}

/// What a machine's end means.
fn ending(killed: bool, seen: &Seen, said: String) -> Ending {
    if killed {
        return Ending::Killed;
    }
    if seen.panicked {
        return Ending::Panicked;
    }
    if let Some(reason) = &seen.disk_error {
        return Ending::Died(format!("writing its disk failed: {reason}"));
    }
    match seen.shutdown.as_deref() {
        Some("guest-shutdown") => Ending::PoweredOff,
        Some("guest-reset") => Ending::Reset,
        Some("guest-panic") => Ending::Panicked,
        Some(reason) => Ending::Died(format!("QEMU {said} ({reason})")),
        None => Ending::Died(format!("QEMU {said}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(killed: bool, seen: Seen, expected: Ending) {
        assert_eq!(ending(killed, &seen, "was killed".into()), expected);
    }

    #[test]
    fn an_end_has_one_reason() {
        let shutdown = |reason: &str| Seen { shutdown: Some(reason.into()), ..Seen::default() };
        check(false, Seen::default(), Ending::Died("QEMU was killed".into()));
        check(true, Seen::default(), Ending::Killed);
        check(true, shutdown("guest-reset"), Ending::Killed);
        check(false, shutdown("guest-reset"), Ending::Reset);
        check(false, shutdown("guest-shutdown"), Ending::PoweredOff);
        check(false, shutdown("host-signal"), Ending::Died("QEMU was killed (host-signal)".into()));
        check(false, Seen { panicked: true, ..Seen::default() }, Ending::Panicked);
        let full = Seen { disk_error: Some("No space left on device".into()), ..Seen::default() };
        check(false, full, Ending::Died("writing its disk failed: No space left on device".into()));
    }
}
