//! The line to a guest's agent: one request, one answer.
//!
//! Invariant: an answer is never taken for another request's. A connection on which a request was not answered in full
//! is given up; a new one, or one to a guest that an earlier server spoke to, starts by agreeing on where the next line
//! begins. Nothing that was asked is ever logged.
//!
//! Not here: what is asked, and what the answers mean.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use wire::Secret;

/// The longest line, either way.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// How long the agent may take for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// How long nothing may arrive before what arrived last is taken for the last.
const QUIET: Duration = Duration::from_millis(50);
/// How long a sign of life is waited for before it is asked for again, and how often that is.
const PATIENCE: Duration = Duration::from_millis(300);
/// See [`PATIENCE`].
const ASKED_MAX: u32 = 40;
/// Ends whatever was begun in a way that makes it no valid request, then asks for a sign of life.
const RESYNCHRONISE: &[u8] = b" ! !\nhello\n";
/// How the answer to `hello` begins.
const GREETING: &str = "ok gatehouse-agent ";

/// The line to one guest's agent.
#[derive(Debug)]
pub(super) struct AgentSocket {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Somebody may have asked something.
    Unknown,
    /// Every request was answered.
    Ready(Line),
}

impl AgentSocket {
    /// The line to a guest that nobody has spoken to yet. It is there before the guest runs, and as it was when the
    /// guest's state was saved: an agent that sees it come and go would speak to nobody for a moment.
    pub(super) async fn fresh(path: PathBuf) -> io::Result<Self> {
        let line = Line::connect(&path).await?;
        Ok(Self { path, state: Mutex::new(State::Ready(line)) })
    }

    /// The line to a guest that an earlier server spoke to.
    pub(super) fn used(path: PathBuf) -> Self {
        Self { path, state: Mutex::new(State::Unknown) }
    }

    /// Waits until the agent is there; the caller sets the limit. Asks once, and begins anew when that was lost. An agent
    /// that gives no sign of life is not there yet: its guest may need minutes to boot.
    pub(super) async fn hello(&self, lost_after: Duration) -> io::Result<()> {
        loop {
            match timeout(lost_after, self.exchange(b"hello\n")).await {
                Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {}
                Ok(answer) => return answer.map(drop),
                Err(_) => {}
            }
            tracing::debug!("the guest's agent is asked again");
        }
    }

    /// Asks, and returns the answer without `ok`.
    pub(super) async fn ask(&self, request: &Secret) -> io::Result<String> {
        let request = request.expose();
        if request.len() >= LINE_BYTES_MAX || request.contains(['\n', '\r']) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a line for the guest's agent",
            ));
        }
        let line = wire::Secret::new(format!("{request}\n"));
        match timeout(ANSWER_LIMIT, self.exchange(line.expose().as_bytes())).await {
            Ok(answer) => answer,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the guest's agent did not answer in time",
            )),
        }
    }

    async fn exchange(&self, line: &[u8]) -> io::Result<String> {
        let mut state = self.state.lock().await;
        // Whoever leaves before the answer is read, by an error or by being dropped, leaves this behind.
        let mut agent = match std::mem::replace(&mut *state, State::Unknown) {
            State::Ready(agent) => agent,
            State::Unknown => Line::resynchronised(&self.path).await?,
        };
        agent.stream.write_all(line).await?;
        let answer = agent.read().await?;
        *state = State::Ready(agent);
        judge(&answer)
    }
}

fn judge(answer: &str) -> io::Result<String> {
    match answer.split_once(' ').unwrap_or((answer, "")) {
        ("ok", rest) => Ok(rest.to_owned()),
        ("error", why) => Err(io::Error::other(format!("the guest's agent refused: {why}"))),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the guest's agent answered neither ok nor error",
        )),
    }
}

#[derive(Debug)]
struct Line {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Line {
    async fn connect(path: &PathBuf) -> io::Result<Self> {
        Ok(Self { stream: UnixStream::connect(path).await?, buffer: Vec::new() })
    }

    async fn resynchronised(path: &PathBuf) -> io::Result<Self> {
        let mut line = Self::connect(path).await?;
        let mut asked = 0_u32;
        // An agent that reads before its kernel has noticed that we are there speaks to nobody; so it is asked again.
        loop {
            line.stream.write_all(RESYNCHRONISE).await?;
            asked += 1;
            match timeout(PATIENCE, line.greeting()).await {
                Ok(greeted) => break greeted?,
                Err(_) if asked < ASKED_MAX => {}
                Err(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the guest's agent gives no sign of life",
                    ));
                }
            }
        }
        // An earlier greeting may have been on its way; answers come in order, so ours is the last.
        let quiet = if asked == 1 { QUIET } else { PATIENCE };
        while let Ok(late) = timeout(quiet, line.read()).await {
            late?;
        }
        line.buffer.clear();
        Ok(line)
    }

    async fn greeting(&mut self) -> io::Result<()> {
        while !self.read().await?.starts_with(GREETING) {}
        Ok(())
    }

    async fn read(&mut self) -> io::Result<String> {
        let mut part = [0; 512];
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                // Not trusted: what it says is shown to people.
                return Ok(
                    String::from_utf8_lossy(line.trim_ascii_end()).replace(char::is_control, "?")
                );
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the guest's agent sent a line without end",
                ));
            }
            match self.stream.read(&mut part).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.buffer.extend_from_slice(&part[..count]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;
    use tokio::task::JoinSet;

    use super::*;

    /// A guest: for each connection, in pairs, what must arrive and what is sent back.
    fn guest(
        connections: Vec<Vec<(&'static str, &'static str)>>,
    ) -> (tempfile::TempDir, PathBuf, JoinSet<()>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            for connection in connections {
                let (mut stream, _) = listener.accept().await.unwrap();
                for (expected, answer) in connection {
                    let mut found = vec![0; expected.len()];
                    stream.read_exact(&mut found).await.unwrap();
                    assert_eq!(String::from_utf8(found).unwrap(), expected);
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                let _ = stream.read(&mut [0]).await;
            }
        });
        (folder, path, task)
    }

    fn request(text: &str) -> Secret {
        Secret::new(text)
    }

    #[tokio::test]
    async fn answers_come_without_ok_and_refusals_as_errors() {
        let (_folder, path, _guest) = guest(vec![vec![
            ("hello\n", "ok gatehouse-agent 1\n"),
            ("refresh a\n", "ok\n"),
            ("no\n", "error unknown\n"),
            ("odd\n", "what\n"),
        ]]);
        let agent = AgentSocket::fresh(path).await.unwrap();
        agent.hello(ANSWER_LIMIT).await.unwrap();
        assert_eq!(agent.ask(&request("refresh a")).await.unwrap(), "");
        assert_eq!(
            agent.ask(&request("no")).await.unwrap_err().to_string(),
            "the guest's agent refused: unknown"
        );
        assert_eq!(
            agent.ask(&request("odd")).await.unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert_eq!(
            agent.ask(&request("two\nlines")).await.unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_is_waited_for_however_long_its_guest_boots() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mut guest = JoinSet::new();
        guest.spawn(async move {
            // Nobody reads on the first lines in the guest; those who ask give them up.
            for _ in 0..3 {
                let (mut line, _) = listener.accept().await.unwrap();
                line.read_to_end(&mut Vec::new()).await.unwrap();
            }
            let (mut line, _) = listener.accept().await.unwrap();
            line.read_exact(&mut [0; RESYNCHRONISE.len()]).await.unwrap();
            line.write_all(b"error unknown\nok gatehouse-agent 1\n").await.unwrap();
            line.read_exact(&mut [0; 6]).await.unwrap();
            line.write_all(b"ok gatehouse-agent 1\n").await.unwrap();
        });
        let agent = AgentSocket::fresh(path).await.unwrap();
        agent.hello(Duration::from_secs(30)).await.unwrap();
        guest.join_next().await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_late_is_not_taken_for_the_next() {
        let (_folder, path, _guest) = guest(vec![
            vec![("slow\n", "ok half of an ans")],
            vec![
                (" ! !\nhello\n", "wer\nerror unknown\nok gatehouse-agent 1\n"),
                ("next\n", "ok mine\n"),
            ],
        ]);
        let agent = AgentSocket::fresh(path).await.unwrap();
        assert_eq!(agent.ask(&request("slow")).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(agent.ask(&request("next")).await.unwrap(), "mine");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_restart_an_older_greeting_is_not_taken_for_ours() {
        let (_folder, path, _guest) = guest(vec![vec![
            (" ! !\nhello\n", "ok gatehouse-agent 1\nerror unknown\nok gatehouse-agent 1\n"),
            ("keys -\n", "ok\n"),
        ]]);
        assert_eq!(AgentSocket::used(path).ask(&request("keys -")).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_line_without_end_is_given_up() {
        let long: &'static str = Box::leak("x".repeat(LINE_BYTES_MAX + 600).into_boxed_str());
        let (_folder, path, _guest) = guest(vec![vec![("a\n", long)]]);
        let error = AgentSocket::fresh(path).await.unwrap().ask(&request("a")).await.unwrap_err();
        assert_eq!(error.to_string(), "the guest's agent sent a line without end");
    }
}
