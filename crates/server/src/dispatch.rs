//! The second job put together: accounts, files in transfer and the room of tasks, on one database.
//!
//! Invariant: an account that is gone leaves nothing behind: its polls end, its tasks and events are forgotten.

use std::pin::Pin;
use std::sync::Arc;

use database::{Database, DatabaseError};
use tasks::store::sqlite::SqliteStore;
use tasks::{AgentId, Dispatcher};
use tokio::sync::{Mutex, mpsc, watch};

use crate::accounts::{self, AccountId, Accounts, Identity, Role};
use crate::config::TasksConfig;
use crate::files::{self, FileError, Files};
use crate::follow::{Feed, Places};
use crate::webhooks::{self, Webhooks};

/// Streams of events that are open at a time.
const STREAMS_MAX: usize = 1000;

/// What the dispatch routes ask.
#[derive(Debug)]
pub struct Dispatch {
    /// Who somebody is.
    pub accounts: Accounts,
    /// Tasks and events.
    pub dispatcher: Dispatcher,
    /// Files on their way from one to another.
    pub files: Files,
    /// The file that all of it is in.
    pub database: Database,
    /// Limits and places.
    pub config: TasksConfig,
    /// Events for those who follow.
    pub feed: Feed,
    /// Programs elsewhere that are sent events.
    pub webhooks: Webhooks,
    /// Room for streams of events.
    pub stream_places: Places,
    departed: Mutex<mpsc::UnboundedReceiver<AgentId>>,
    is_closing: watch::Sender<bool>,
}

impl Dispatch {
    /// Opens the database that `config` names. Blocks.
    ///
    /// # Errors
    /// When it cannot be used, or another server does.
    pub fn open(config: TasksConfig) -> Result<Self, DatabaseError> {
        let tasks = tasks::store::sqlite::MIGRATIONS;
        let sets = [accounts::MIGRATIONS, tasks, files::MIGRATIONS, webhooks::MIGRATIONS];
        let database = Database::open(&config.database, &sets)?;
        let store = SqliteStore::open(database.clone())?;
        let dispatcher = Dispatcher::open(Arc::new(store), settings(&config))?;
        let files = open_files(&config, &database)?;
        let (tell, departed) = mpsc::unbounded_channel();
        let depart = move |gone: &Identity| {
            if gone.role == Role::Agent {
                // Nobody listens any more when the server ends; the next start sees to it.
                let _ = tell.send(AgentId(gone.account.0));
            }
        };
        let settings = accounts::Settings {
            session_idle: config.session,
            audit: config.audit,
            selfreg_agents_max: config.selfreg_agents_max,
        };
        let accounts = Accounts::open(database.clone(), settings, depart)?;
        let feed = Feed::new(accounts.clone(), dispatcher.clone());
        Ok(Self {
            webhooks: Webhooks::open(database.clone(), feed.clone())?,
            feed,
            stream_places: Places::new(STREAMS_MAX),
            accounts,
            dispatcher,
            files,
            database,
            config,
            departed: Mutex::new(departed),
            is_closing: watch::Sender::new(false),
        })
    }

    /// The server ends: whoever waits is answered now.
    pub fn close(&self) {
        self.is_closing.send_replace(true);
    }

    /// `wait`, unless the server ends first. It is pinned where it is made: what is handed to a future takes its place
    /// there twice, and very many wait.
    pub async fn unless_closing<T>(&self, wait: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let mut is_closing = self.is_closing.subscribe();
        tokio::select! {
            biased;
            outcome = wait => Some(outcome),
            _ = is_closing.wait_for(|closing| *closing) => None,
        }
    }

    /// Does what goes on beside requests, as long as it is polled.
    pub async fn run(&self) {
        self.forget_strangers().await;
        let forget_departed = async {
            let mut departed = self.departed.lock().await;
            while let Some(agent) = departed.recv().await {
                self.forget(agent).await;
            }
        };
        tokio::select! {
            () = self.dispatcher.keep_time() => {}
            () = async { self.accounts.follow().await } => {}
            () = self.accounts.keep_house() => {}
            () = forget_departed => {}
            () = self.files.run() => {}
            () = self.webhooks.run(self.is_closing.subscribe()) => {}
        }
    }

    /// Agents that were removed while no server ran.
    async fn forget_strangers(&self) {
        let known: std::collections::HashSet<i64> =
            self.accounts.agents().iter().map(|agent| agent.account.0).collect();
        match self.dispatcher.agents().await {
            Ok(agents) => {
                for agent in agents.into_iter().filter(|agent| !known.contains(&agent.0)) {
                    self.forget(agent).await;
                }
            }
            Err(error) => tracing::warn!("agents that are gone were not looked for: {error}"),
        }
    }

    /// Forgets what came for an agent, or from it, while its account was being removed. Says whether it is gone.
    pub async fn forget_if_gone(&self, agent: AgentId) -> bool {
        let is_gone = self.accounts.agent_by_id(AccountId(agent.0)).is_none();
        if is_gone {
            self.forget(agent).await;
        }
        is_gone
    }

    async fn forget(&self, agent: AgentId) {
        match self.dispatcher.forget(agent).await {
            Ok(()) => tracing::info!(agent = agent.0, "forgotten: its account was removed"),
            Err(error) => tracing::warn!(agent = agent.0, "not forgotten: {error}"),
        }
    }
}

fn open_files(config: &TasksConfig, database: &Database) -> Result<Files, DatabaseError> {
    let settings = files::Settings {
        directory: config.files.clone(),
        bytes_max: config.file_bytes_max as u64,
    };
    Files::open(database.clone(), settings).map_err(|error| match error {
        FileError::Database(error) => error,
        other => DatabaseError::Open { path: config.files.clone(), why: other.to_string() },
    })
}

fn settings(config: &TasksConfig) -> tasks::Settings {
    tasks::Settings {
        events_max: config.events_max,
        queue_max: config.queue_max,
        attempts_max: config.attempts_max,
        history: config.history,
        output_bytes_max: config.output_bytes_max as u64,
        ..tasks::Settings::default()
    }
}
