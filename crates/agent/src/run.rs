//! The agent at work: threads that fetch, keep claims alive and deliver, and one per task.
//!
//! Invariant: a task begins only when it is in the list of running ones and written in the book; its
//! result is written before it is sent.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::backoff::Backoff;
use crate::book::{Book, Known, Record};
use crate::config::Config;
use crate::connection::{CallError, Connection};
use crate::courier::{Courier, left};
use crate::running::{Job, Running};
use crate::stop::Stop;
use crate::task::{Failure, Offer};
use crate::tasks::{self, Workshop};

/// How many tasks are fetched at once at most.
const FETCH_MAX: usize = 100;
/// The least time between two polls that brought nothing new: no server is asked in a tight loop.
const BETWEEN_POLLS: Duration = Duration::from_secs(1);
/// How long tasks that were given up may take to end.
const ENDING_MAX: Duration = Duration::from_secs(15);
/// How long the last results may take when the agent ends; what is left goes out at the next start.
const DELIVERY_MAX: Duration = Duration::from_secs(10);

/// Why the agent came to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was told to.
    Stopped,
    /// Its program was replaced; this is to be started now.
    Replaced(PathBuf),
}

/// All that the threads share.
struct Agent {
    shop: Arc<Workshop>,
    book: Arc<Book>,
    courier: Courier,
    running: Running,
}

/// Works until a signal or an update ends it.
///
/// # Errors
/// In words, when it cannot begin.
pub(crate) fn run(config: Config) -> Result<Ended, String> {
    let who = Some((config.name.as_str(), &config.secret));
    let connection = Connection::new(&config.url, who, config.ca_file.as_deref())?;
    let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let (book, pending) = Book::open(&config.state_dir)
        .map_err(|error| format!("state_dir: {}: {error}", config.state_dir.display()))?;
    let running = Running::new(config.concurrency);
    let shop = Workshop {
        config,
        connection,
        supervisor: own_image(&program),
        program,
        replaced: Stop::default(),
        stop: Stop::default(),
    };
    let agent = Arc::new(Agent {
        shop: Arc::new(shop),
        book: Arc::new(book),
        courier: Courier::default(),
        running,
    });
    for record in pending {
        agent.courier.send(record);
    }
    listen_for_signals(&agent).map_err(|error| format!("signals: {error}"))?;
    agent.start_threads().map_err(|error| format!("starting: {error}"))?;
    let config = &agent.shop.config;
    tracing::info!("agent {} of {}: fetching tasks", config.name, config.url);
    Ok(agent.see_to_the_end())
}

/// The program that runs now, whatever became of its file.
fn own_image(program: &std::path::Path) -> PathBuf {
    let image = PathBuf::from("/proc/self/exe");
    if cfg!(target_os = "linux") && image.exists() { image } else { program.to_owned() }
}

/// The first signal lets tasks finish, the second ends the program at once.
fn listen_for_signals(agent: &Arc<Agent>) -> std::io::Result<()> {
    use std::io::Read;
    let (mut heard, told) = std::os::unix::net::UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, told.try_clone()?)?;
    }
    let agent = Arc::clone(agent);
    named("signals", move || {
        let mut byte = [0];
        while heard.read_exact(&mut byte).is_ok() {
            if agent.shop.stop.is_requested() {
                tracing::warn!("told again: ending at once");
                std::process::exit(1);
            }
            tracing::info!("told to stop: no more tasks; those that run may finish");
            agent.shop.stop.request();
        }
    })
}

/// Starts a thread. One that fails takes the program with it: an agent that fetches but does not
/// deliver, say, would be worse than one that is started anew.
fn named(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let work = move || {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            std::process::exit(101);
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

impl Agent {
    fn start_threads(self: &Arc<Self>) -> std::io::Result<()> {
        let agent = Arc::clone(self);
        named("deliver", move || agent.courier.run(&agent.shop.connection, &agent.book))?;
        let agent = Arc::clone(self);
        named("keep alive", move || {
            let lease = agent.shop.config.lease;
            // Tasks that finish while the agent stops are still to be kept.
            agent.running.keep_alive(&agent.shop.connection, lease, &agent.courier.stop);
        })?;
        let agent = Arc::clone(self);
        named("fetch", move || agent.fetch())
    }

    /// Asks for tasks as long as there are free places.
    fn fetch(self: &Arc<Self>) {
        let stop = &self.shop.stop;
        let mut backoff = Backoff::default();
        let mut is_well = true;
        while let Some(free) = self.running.free(stop) {
            let began = Instant::now();
            let polled = self.shop.connection.poll(free.min(FETCH_MAX), self.shop.config.lease);
            let wait = match polled {
                Ok((offers, odd, lease)) => {
                    backoff.reset();
                    if !is_well {
                        tracing::info!("the server answers again");
                        is_well = true;
                    }
                    for id in odd {
                        tracing::warn!("the server offers a task with the odd id {id:?}: left out");
                    }
                    let begun = offers.into_iter().filter(|offer| self.take(offer, lease)).count();
                    if begun > 0 { Duration::ZERO } else { left(BETWEEN_POLLS, began) }
                }
                Err(error) => {
                    is_well = false;
                    let wait = backoff.next(&error);
                    complain(&error, wait);
                    wait
                }
            };
            stop.wait(wait);
        }
    }

    /// Begins a task that was offered; tells whether it is one that was not known.
    fn take(self: &Arc<Self>, offer: &Offer, lease: Duration) -> bool {
        let digest = offer.digest();
        if self.running.adopt(&offer.id, &digest, offer.claim.clone(), lease) {
            tracing::info!("task {}: offered again; it runs already", offer.id);
            return false;
        }
        if let Known::Ended(record) = self.book.look(offer) {
            tracing::info!("task {}: offered again; its result is sent again", offer.id);
            self.courier.send(record);
            return false;
        }
        let job = Job::new(offer.id.clone(), digest, offer.claim.clone(), lease);
        let job = Arc::new(job);
        if !self.running.add(Arc::clone(&job), &self.shop.stop) {
            tracing::info!("task {}: came too late; the server offers it again", offer.id);
            if let Some(claim) = &offer.claim {
                // The shortest lease there is gives it back; should that fail, the old one runs out.
                let _ = self.shop.connection.heartbeat(&offer.id, claim, Duration::from_secs(1));
            }
            return false;
        }
        if let Err(error) = self.book.begin(offer) {
            let dir = self.shop.config.state_dir.display();
            let why =
                Failure::new(format!("the agent cannot write {dir}: {error}; nothing was run"));
            self.finish(&job, why.into_result());
            return true;
        }
        let (agent, body) = (Arc::clone(self), offer.body.clone());
        let worked = Arc::clone(&job);
        let started = named(&format!("task {}", offer.id), move || agent.work(&worked, &body));
        if let Err(error) = started {
            self.finish(
                &job,
                Failure::new(format!("no thread for the task: {error}")).into_result(),
            );
        }
        true
    }

    fn work(&self, job: &Arc<Job>, body: &Value) {
        let kind = body.get("type").and_then(Value::as_str).unwrap_or("no type");
        tracing::info!("task {}: {} begins", job.id, kind.escape_debug());
        // A fault of ours in one task is that task's failure, not the agent's end.
        let result = catch_unwind(AssertUnwindSafe(|| tasks::run(&self.shop, job, body)));
        let result = result.unwrap_or_else(|_| {
            Failure::new("the agent failed in this task; its log says where").into_result()
        });
        self.finish(job, result);
    }

    /// Writes the result down, hands it to the courier, gives the place free.
    fn finish(&self, job: &Job, result: Value) {
        let record = Record {
            id: job.id.to_string(),
            claim: job.claim(),
            digest: job.digest.clone(),
            result: Some(result),
        };
        if let Err(error) = self.book.finish(&record) {
            tracing::error!("task {}: its result is not on disk: {error}", job.id);
        }
        tracing::info!("task {}: ended", job.id);
        self.courier.send(record);
        self.running.remove(&job.id);
        if self.shop.replaced.is_requested() {
            self.shop.stop.request();
        }
    }

    /// Waits for the end, and brings it about in order.
    fn see_to_the_end(&self) -> Ended {
        while !self.shop.stop.wait(Duration::from_secs(3600)) {}
        self.running.wake();
        if !self.running.wait_empty(self.shop.config.finish_max) {
            tracing::warn!("tasks still run; they are ended");
            self.running.cancel_all("the agent was stopped before the task ended");
            self.running.wait_empty(ENDING_MAX);
        }
        if !self.courier.wait_empty(DELIVERY_MAX) {
            tracing::warn!("some results are not delivered; they are kept for the next start");
        }
        self.courier.end();
        if self.shop.replaced.is_requested() {
            Ended::Replaced(self.shop.program.clone())
        } else {
            Ended::Stopped
        }
    }
}

fn complain(error: &CallError, wait: Duration) {
    let secs = wait.as_secs_f64();
    if error.is_authorization() {
        tracing::error!(
            "{error}: it does not know this agent by its name and secret; enrol it again \
             (gatehouse-agent enroll --force) or add its account; asked again in {secs:.0} s"
        );
    } else {
        tracing::warn!("{error}; asked again in {secs:.1} s");
    }
}
