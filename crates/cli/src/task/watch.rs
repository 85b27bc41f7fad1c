//! Waits for many tasks at once, each by its number.
//!
//! Invariant: what is heard of a task goes through one channel to the one thread that prints, so
//! that answers appear whole and as they come. Tasks wait in one queue; each turn takes one, asks
//! the server, and puts it back unless it has ended: with more tasks than threads none is left out.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client::{Client, ClientError};
use wire::dispatch::Task;

use super::report::Report;
use crate::screen::Screen;
use crate::session::Surroundings;
use crate::{CliError, Outcome};

/// How many tasks are asked about at a time.
const THREADS_MAX: usize = 32;
/// How long one call waits: shorter than what proxies on the way allow.
const TURN: Duration = Duration::from_secs(25);
/// How long one call waits while other tasks wait for a thread.
const SHORT_TURN: Duration = Duration::from_secs(1);
/// How long an absent server is asked again before it counts as gone.
const ABSENT_MAX: Duration = Duration::from_secs(300);
/// The first pause between two tries, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// What may be heard and not yet printed.
const HEARD_MAX: usize = 64;

/// How to wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// How long; without it as long as it takes.
    pub(super) timeout: Option<Duration>,
    /// Fetch what tasks print while they run.
    pub(super) follow: bool,
}

/// A task that is waited for.
#[derive(Debug)]
pub(super) struct Job {
    /// Its agent, where that is known.
    pub(super) target: Option<String>,
    /// Its number.
    pub(super) id: u64,
    /// Which of all it is.
    index: usize,
    /// How much of its output was heard.
    offset: u64,
    /// All of its output was heard.
    printed: bool,
    /// Since when the server has been away, and the last pause.
    absent: Option<(Instant, Duration)>,
}

impl Job {
    pub(super) const fn new(target: Option<String>, id: u64) -> Self {
        Self { target, id, index: 0, offset: 0, printed: false, absent: None }
    }

    /// How long to leave a server alone that is away; `None` when it has been for too long.
    fn pause(&mut self) -> Option<Duration> {
        let (since, last) = self.absent.unwrap_or((Instant::now(), PAUSE_MIN));
        let pause = (last * 2).min(PAUSE_MAX);
        self.absent = Some((since, pause));
        (since.elapsed() < ABSENT_MAX).then_some(last)
    }
}

/// What is heard of a task.
#[derive(Debug)]
pub(super) enum News {
    /// It printed `bytes` from `offset` on.
    Output { offset: u64, bytes: Vec<u8> },
    /// It has ended.
    Ended(Box<Task>),
    /// The time is over.
    TimedOut,
    /// It cannot be asked about.
    Failed(ClientError),
}

impl News {
    fn says_something(&self) -> bool {
        !matches!(self, Self::Output { bytes, .. } if bytes.is_empty())
    }
}

enum Heard {
    News(usize, News),
    Interrupted,
}

/// Waits for `jobs` by `plan` and prints what is heard. Tells how all of them together ended.
pub(super) fn run(
    mut jobs: Vec<Job>,
    plan: Plan,
    client: &Client,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    for (index, job) in jobs.iter_mut().enumerate() {
        job.index = index;
    }
    let mut report = Report::new(jobs.iter().map(|job| (job.target.clone(), job.id)), screen);
    let (tell, heard) = sync_channel(HEARD_MAX);
    let interrupt = tell.clone();
    (around.on_interrupt)(Box::new(move || {
        // Nobody listens any more: the program is ending anyway.
        let _ = interrupt.send(Heard::Interrupted);
    }));
    let threads = jobs.len().min(THREADS_MAX);
    let queue = Arc::new(Mutex::new(VecDeque::from(jobs)));
    let deadline = plan.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    for _ in 0..threads {
        let watcher = Watcher {
            client: client.clone(),
            queue: queue.clone(),
            tell: tell.clone(),
            follow: plan.follow,
            deadline,
        };
        // Not joined: a call in flight may last for a whole turn after the last word was said.
        std::thread::spawn(move || watcher.work());
    }
    drop(tell);
    listen(&heard, &mut report)?;
    report.end()
}

/// Prints until all tasks have been told of.
fn listen(heard: &Receiver<Heard>, report: &mut Report<'_, '_>) -> Result<(), CliError> {
    report.progress();
    while !report.is_complete() {
        match heard.recv() {
            Ok(Heard::News(index, news)) => report.tell(index, news)?,
            Ok(Heard::Interrupted) => {
                report.interrupt();
                break;
            }
            Err(_) => break,
        }
    }
    Ok(())
}

/// One of the threads that ask.
struct Watcher {
    client: Client,
    queue: Arc<Mutex<VecDeque<Job>>>,
    tell: SyncSender<Heard>,
    follow: bool,
    deadline: Option<Instant>,
}

impl Watcher {
    /// Takes turns until no task waits for one. Whoever puts a task back takes the next turn, so a
    /// queue that is empty leaves no task to a thread that has gone.
    fn work(&self) {
        loop {
            let (job, is_crowded) = {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                let job = queue.pop_front();
                (job, !queue.is_empty())
            };
            let Some(mut job) = job else { return };
            let (news, goes_on) = self.turn(&mut job, is_crowded);
            for news in news {
                if self.tell.send(Heard::News(job.index, news)).is_err() {
                    return;
                }
            }
            if goes_on {
                self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(job);
            }
        }
    }

    /// Asks about one task once. Gives the news and whether there will be more.
    fn turn(&self, job: &mut Job, is_crowded: bool) -> (Vec<News>, bool) {
        let left = self.deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let longest = if is_crowded { SHORT_TURN } else { TURN };
        let is_last = left.is_some_and(|left| left.is_zero());
        let news = match self.ask(job, left.map_or(longest, |left| left.min(longest))) {
            Ok(news) => news,
            Err(error) if error.is_passing() && !is_last => {
                return match job.pause() {
                    Some(pause) => {
                        std::thread::sleep(left.map_or(pause, |left| left.min(pause)));
                        (Vec::new(), true)
                    }
                    None => (vec![News::Failed(error)], false),
                };
            }
            Err(error) => return (vec![News::Failed(error)], false),
        };
        job.absent = None;
        let has_ended = matches!(news, Some(News::Ended(_)));
        // After the last of its output there is the result to fetch, which is there.
        let goes_on =
            !has_ended && (!is_last || matches!(news, Some(News::Output { .. }) if job.printed));
        let is_over = !has_ended && !goes_on;
        let news = news.into_iter().filter(News::says_something);
        (news.chain(is_over.then_some(News::TimedOut)).collect(), goes_on)
    }

    /// What there is to hear within `wait`.
    fn ask(&self, job: &mut Job, wait: Duration) -> Result<Option<News>, ClientError> {
        if self.follow && !job.printed {
            let part = self.client.task_output(job.id, job.offset, wait)?;
            let offset = job.offset;
            job.offset = part.next.max(offset);
            job.printed = part.ended;
            let bytes = part.bytes;
            let is_news = part.ended || !bytes.is_empty();
            return Ok(is_news.then_some(News::Output { offset, bytes }));
        }
        let task = self.client.task(job.id, wait)?;
        Ok(task.state.has_ended().then(|| News::Ended(Box::new(task))))
    }
}
