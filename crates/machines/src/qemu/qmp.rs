//! QEMU's monitor: lines of JSON over a Unix socket.
//!
//! Invariant: a line is never longer than [`LINE_BYTES_MAX`], an answer never waited for longer than its limit, and what
//! QEMU tells by itself never piles up: of events only what they change is kept, in [`Seen`].
//!
//! Not here: which commands make a machine.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// The longest line that QEMU may send; a full console in base64 is the longest that is asked for.
pub(super) const LINE_BYTES_MAX: usize = 256 * 1024;
/// How long QEMU may take for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How many commands wait at most.
const COMMANDS_MAX: usize = 16;

/// What QEMU says in one line.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    /// It is there.
    Greeting,
    /// What a command returned.
    Return { id: u64, value: Value },
    /// Why a command failed.
    Error { id: u64, why: String },
    /// Something happened.
    Event { name: String, data: Value },
}

/// A line that is too long or says nothing known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadLine {
    #[error("QEMU sent a line of more than {LINE_BYTES_MAX} bytes")]
    TooLong,
    #[error("QEMU sent a line that is no message of its monitor")]
    Unknown,
}

#[derive(Deserialize)]
struct Raw {
    id: Option<u64>,
    event: Option<String>,
    data: Option<Value>,
    #[serde(rename = "return")]
    returned: Option<Value>,
    error: Option<RawError>,
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
}

#[derive(Deserialize)]
struct RawError {
    desc: String,
}

/// Cuts what arrives into messages, without any input or output of its own.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// How much of the buffer is known to hold no end of line.
    searched: usize,
}

impl Lines {
    /// Takes what has arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, if it has arrived.
    pub(super) fn next(&mut self) -> Result<Option<Message>, BadLine> {
        loop {
            let Some(end) = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n')
            else {
                self.searched = self.buffer.len();
                return if self.searched > LINE_BYTES_MAX {
                    Err(BadLine::TooLong)
                } else {
                    Ok(None)
                };
            };
            let line: Vec<u8> = self.buffer.drain(..=self.searched + end).collect();
            self.searched = 0;
            if line.len() > LINE_BYTES_MAX {
                return Err(BadLine::TooLong);
            }
            if !line.trim_ascii().is_empty() {
                return message(&line).map(Some);
            }
        }
    }
}

fn message(line: &[u8]) -> Result<Message, BadLine> {
    let raw: Raw = serde_json::from_slice(line).map_err(|_| BadLine::Unknown)?;
    match raw {
        Raw { event: Some(name), data, .. } => {
            Ok(Message::Event { name, data: data.unwrap_or_default() })
        }
        Raw { greeting: Some(_), .. } => Ok(Message::Greeting),
        Raw { returned: Some(value), id: Some(id), .. } => Ok(Message::Return { id, value }),
        Raw { error: Some(error), id: Some(id), .. } => Ok(Message::Error { id, why: error.desc }),
        _ => Err(BadLine::Unknown),
    }
}

/// What QEMU has told by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Why the machine shuts down, in QEMU's words.
    pub(super) shutdown: Option<String>,
    /// The guest's kernel gave up.
    pub(super) panicked: bool,
    /// What its disk failed with, when the machine stands still because of it.
    pub(super) disk_error: Option<String>,
    /// How far the migration is, in QEMU's words.
    pub(super) migration: Option<String>,
    /// Somebody has taken the guest's network over.
    pub(super) networked: bool,
    /// The connection is over.
    pub(super) closed: bool,
}

impl Seen {
    /// Takes an event in; returns whether it changes anything.
    fn take(&mut self, name: &str, data: &Value) -> bool {
        let text = |key: &str| data.get(key).and_then(Value::as_str).map(str::to_owned);
        match name {
            "SHUTDOWN" => self.shutdown = Some(text("reason").unwrap_or_default()),
            "GUEST_PANICKED" => self.panicked = true,
            "NETDEV_STREAM_CONNECTED" => self.networked = true,
            "MIGRATION" => self.migration = text("status"),
            "BLOCK_IO_ERROR" if text("action").as_deref() == Some("stop") => {
                self.disk_error = Some(text("reason").unwrap_or_default());
            }
            _ => return false,
        }
        true
    }
}

struct Command {
    name: &'static str,
    arguments: Value,
    answer: oneshot::Sender<io::Result<Value>>,
}

/// A connection to the monitor of one QEMU, which serves one at a time. Closed when dropped.
#[derive(Debug)]
pub(super) struct Qmp {
    commands: mpsc::Sender<Command>,
    seen: watch::Receiver<Seen>,
    _driver: JoinSet<()>,
}

impl Qmp {
    /// Connects and waits for QEMU to be ready for commands.
    pub(super) async fn connect(path: &Path) -> io::Result<Self> {
        Self::open(UnixStream::connect(path).await?).await
    }

    async fn open(stream: UnixStream) -> io::Result<Self> {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let (sender, seen) = watch::channel(Seen::default());
        let mut driver = JoinSet::new();
        driver.spawn(drive(stream, receiver, sender));
        let qmp = Self { commands, seen, _driver: driver };
        qmp.ask("qmp_capabilities", Value::Null).await?;
        Ok(qmp)
    }

    /// Has a command done and returns what it returns.
    pub(super) async fn ask(&self, name: &'static str, arguments: Value) -> io::Result<Value> {
        let (answer, answered) = oneshot::channel();
        let closed = || io::Error::new(io::ErrorKind::BrokenPipe, "QEMU has closed its monitor");
        let exchange = async {
            self.commands.send(Command { name, arguments, answer }).await.map_err(|_| closed())?;
            answered.await.map_err(|_| closed())?
        };
        match tokio::time::timeout(ANSWER_LIMIT, exchange).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("QEMU did not answer {name} in time"),
            )),
        }
    }

    /// What QEMU has told by itself, as it changes.
    pub(super) fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }
}

async fn drive(
    stream: UnixStream,
    mut commands: mpsc::Receiver<Command>,
    seen: watch::Sender<Seen>,
) {
    let (mut reader, mut writer) = stream.into_split();
    let mut waiting = Waiting::default();
    let result = exchange(&mut reader, &mut writer, &mut commands, &seen, &mut waiting).await;
    if let Err(error) = result {
        tracing::debug!(%error, "QEMU's monitor is closed");
    }
    seen.send_modify(|seen| seen.closed = true);
}

#[derive(Default)]
struct Waiting {
    next_id: u64,
    answers: BTreeMap<u64, oneshot::Sender<io::Result<Value>>>,
}

async fn exchange(
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    commands: &mut mpsc::Receiver<Command>,
    seen: &watch::Sender<Seen>,
    waiting: &mut Waiting,
) -> io::Result<()> {
    let mut lines = Lines::default();
    let mut part = vec![0; 4096];
    let mut greeted = false;
    loop {
        tokio::select! {
            count = reader.read(&mut part) => match count? {
                0 => return Ok(()),
                count => lines.push(&part[..count]),
            },
            command = commands.recv(), if greeted => match command {
                Some(command) => writer.write_all(&waiting.put(command)).await?,
                None => return Ok(()),
            },
        }
        while let Some(message) = lines.next().map_err(io::Error::other)? {
            match message {
                Message::Greeting => greeted = true,
                Message::Return { id, value } => waiting.answer(id, Ok(value)),
                Message::Error { id, why } => waiting.answer(id, Err(io::Error::other(why))),
                Message::Event { name, data } => {
                    seen.send_if_modified(|seen| seen.take(&name, &data));
                }
            }
        }
    }
}

impl Waiting {
    /// Remembers who asks; returns the line to send.
    fn put(&mut self, command: Command) -> Vec<u8> {
        self.next_id += 1;
        let mut line = json!({"execute": command.name, "id": self.next_id});
        if !command.arguments.is_null() {
            line["arguments"] = command.arguments;
        }
        self.answers.insert(self.next_id, command.answer);
        let mut line = line.to_string().into_bytes();
        line.push(b'\n');
        line
    }

    fn answer(&mut self, id: u64, result: io::Result<Value>) {
        if let Some(answer) = self.answers.remove(&id) {
            // Who asked may have given up.
            let _ = answer.send(result);
        }
    }
}

/// For a fuzz target: `bytes` arrive in parts of `part`; whatever they are, little of them is kept and reading ends.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8], part: usize) {
    let (mut lines, mut seen) = (Lines::default(), Seen::default());
    for part in bytes.chunks(part.max(1)) {
        lines.push(part);
        loop {
            match lines.next() {
                Ok(None) => break,
                Ok(Some(Message::Event { name, data })) => drop(seen.take(&name, &data)),
                Ok(Some(_)) => {}
                Err(_) => return,
            }
        }
        assert!(lines.buffer.len() <= LINE_BYTES_MAX, "{} bytes are kept", lines.buffer.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";

    /// Whatever way the text is cut into parts, the same messages come out.
    fn check(text: &str, expected: &[Result<Message, BadLine>]) {
        for size in [1, 7, text.len().max(1)] {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            'parts: for part in text.as_bytes().chunks(size) {
                lines.push(part);
                loop {
                    match lines.next() {
                        Ok(None) => break,
                        Ok(Some(message)) => found.push(Ok(message)),
                        Err(bad) => {
                            found.push(Err(bad));
                            break 'parts;
                        }
                    }
                }
            }
            assert_eq!(found, expected, "in parts of {size}");
        }
    }

    #[test]
    fn messages_are_cut_out_of_any_parts() {
        check("", &[]);
        check("{\"return\": {}", &[]);
        check("\r\n\n", &[]);
        check(GREETING, &[Ok(Message::Greeting)]);
        check(
            "{\"return\": {\"a\": 1}, \"id\": 3}\n",
            &[Ok(Message::Return { id: 3, value: json!({"a": 1}) })],
        );
        check(
            "{\"id\": 4, \"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n{\"event\": \"STOP\", \"timestamp\": {}}\n",
            &[
                Ok(Message::Error { id: 4, why: "no".into() }),
                Ok(Message::Event { name: "STOP".into(), data: Value::Null }),
            ],
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "{}\n",
            "[]\n",
            "hello\n",
            "{\"return\": 1}\n",
            "{\"id\": -1, \"return\": {}}\n",
            "\u{0}\n",
        ] {
            check(text, &[Err(BadLine::Unknown)]);
        }
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let mut lines = Lines::default();
        lines.push(&vec![b' '; LINE_BYTES_MAX]);
        assert_eq!(lines.next(), Ok(None));
        lines.push(b" ");
        assert_eq!(lines.next(), Err(BadLine::TooLong));
    }

    #[tokio::test]
    async fn answers_find_who_asked_and_events_leave_their_trace() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut qemu = JoinSet::new();
        qemu.spawn(async move {
            let (reader, mut writer) = theirs.into_split();
            let mut asked = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(reader));
            writer.write_all(GREETING.as_bytes()).await.unwrap();
            for answer in [
                "{\"return\": {}, \"id\": 1}\n",
                "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}}\n{\"id\": 2, \"return\": 7}\n",
                "{\"id\": 3, \"error\": {\"desc\": \"never\"}}\n",
            ] {
                asked.next_line().await.unwrap().unwrap();
                writer.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let qmp = Qmp::open(ours).await.unwrap();
        assert_eq!(qmp.ask("query", json!({"a": 1})).await.unwrap(), json!(7));
        assert_eq!(qmp.ask("stop", Value::Null).await.unwrap_err().to_string(), "never");
        assert_eq!(
            qmp.ask("cont", Value::Null).await.unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
        let mut seen = qmp.seen();
        seen.wait_for(|seen| seen.closed).await.unwrap();
        assert_eq!(seen.borrow().shutdown.as_deref(), Some("guest-reset"));
    }
}
