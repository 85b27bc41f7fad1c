//! Webhooks: programs elsewhere that are sent each event.
//!
//! Invariant: each webhook is sent the events that it wants in order, each until it is taken; how far it has come is on
//! the disk, so that a restart loses none (and may repeat the last). One that does not answer holds up only itself.
//! Not here: who may ask for one (`http`), and how events are read (`follow`).

mod address;
mod delivery;
mod message;
mod post;
mod rows;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::tasks::EventId;
use ::tasks::task::now_ms;
use database::rusqlite::{self, Connection};
use database::{Database, DatabaseError, Rider};
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use wire::Secret;

use crate::follow::{Feed, Filter};

pub use address::{Address, AddressError};
pub use rows::MIGRATIONS;

/// Webhooks of one server.
pub const WEBHOOKS_MAX: usize = 64;
/// After a delivery has failed in a way that it should not: before it begins anew.
const PAUSE: Duration = Duration::from_secs(1);

/// A webhook.
#[derive(Debug)]
pub struct Webhook {
    /// Its number; never used again.
    pub id: i64,
    /// Where events are sent.
    pub address: Address,
    /// What signs them. It must be kept as it is to do so.
    pub secret: Secret,
    /// Whose events.
    pub filter: Filter,
    /// When it was made, in milliseconds since 1970.
    pub created_at: u64,
    fare: Mutex<Fare>,
}

/// How a webhook fares.
#[derive(Debug, Clone)]
pub struct Fare {
    /// Up to this event all have been taken, or were not wanted.
    pub delivered_to: EventId,
    /// Why the last attempt that failed did, since the server began.
    pub last_error: Option<String>,
    /// Since when none has succeeded, in milliseconds since 1970.
    pub failing_since: Option<u64>,
}

impl Webhook {
    fn lock(&self) -> MutexGuard<'_, Fare> {
        self.fare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it fares now.
    #[must_use]
    pub fn fare(&self) -> Fare {
        self.lock().clone()
    }

    fn has_come_to(&self, event: EventId) {
        let mut fare = self.lock();
        fare.delivered_to = event.max(fare.delivered_to);
    }

    /// Returns whether it had failed before.
    fn has_succeeded(&self) -> bool {
        self.lock().failing_since.take().is_some()
    }

    /// Returns whether it is the first failure after a success.
    fn has_failed(&self, error: String) -> bool {
        let mut fare = self.lock();
        fare.last_error = Some(error);
        let is_first = fare.failing_since.is_none();
        fare.failing_since.get_or_insert_with(now_ms);
        is_first
    }
}

/// What a new webhook is to be.
#[derive(Debug)]
pub struct New {
    /// Where events are sent.
    pub address: Address,
    /// What signs them.
    pub secret: Secret,
    /// Whose events.
    pub filter: Filter,
}

/// By their numbers.
type All = BTreeMap<i64, Arc<Webhook>>;

/// All webhooks, in order of creation.
#[derive(Debug)]
pub struct Webhooks {
    database: Database,
    feed: Feed,
    all: watch::Sender<All>,
}

impl Webhooks {
    /// The webhooks in `database`, which was opened with [`MIGRATIONS`]. Blocks.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn open(database: Database, feed: Feed) -> Result<Self, DatabaseError> {
        let all = database.read_now(rows::all)?;
        let all = all.into_iter().map(|it| (it.id, Arc::new(it))).collect();
        Ok(Self { database, feed, all: watch::Sender::new(all) })
    }

    /// All of them.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Webhook>> {
        self.all.borrow().values().cloned().collect()
    }

    /// Adds one, which is sent what is stored from now on; gives its number, or `None` when there are
    /// [`WEBHOOKS_MAX`] already. `rider` is written with it.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn add(&self, new: New, rider: Rider) -> Result<Option<i64>, DatabaseError> {
        let (newest, created_at) = (self.feed.newest(), now_ms());
        let row = rows::Row::of(&new, created_at, newest);
        let then = move |all: &mut All, id: &Option<i64>| {
            let Some(id) = *id else { return };
            let New { address, secret, filter } = new;
            let fare = Fare { delivered_to: newest, last_error: None, failing_since: None };
            let fare = Mutex::new(fare);
            let webhook = Webhook { id, address, secret, filter, created_at, fare };
            all.insert(id, Arc::new(webhook));
        };
        let job = move |tx: &Connection| {
            let id = rows::insert(tx, &row)?;
            if id.is_some() {
                rider(tx)?;
            }
            Ok(id)
        };
        self.commit(job, then).await
    }

    /// Ends one, and writes `rider` with that; returns whether there was one.
    ///
    /// # Errors
    /// When that cannot be stored.
    pub async fn remove(&self, id: i64, rider: Rider) -> Result<bool, DatabaseError> {
        let then = move |all: &mut All, _: &bool| drop(all.remove(&id));
        let job = move |tx: &Connection| {
            let was_there = rows::delete(tx, id)?;
            if was_there {
                rider(tx)?;
            }
            Ok(was_there)
        };
        self.commit(job, then).await
    }

    /// Writes, and does the same in memory once it is on the disk, whether or not the caller still waits.
    async fn commit<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
        then: impl FnOnce(&mut All, &T) + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let (tell, told) = oneshot::channel();
        let all = self.all.clone();
        self.database.write_then(job, move |outcome| {
            if let Ok(value) = &outcome {
                all.send_modify(|all| then(all, value));
            }
            // Nobody may wait any more.
            let _ = tell.send(outcome);
        });
        told.await.unwrap_or(Err(DatabaseError::Ended))
    }

    /// Delivers as long as it is polled, until `is_closing` is true.
    pub async fn run(&self, is_closing: watch::Receiver<bool>) {
        let mut all = self.all.subscribe();
        let mut deliveries = JoinSet::new();
        let mut running: HashMap<i64, AbortHandle> = HashMap::new();
        loop {
            let wanted = all.borrow_and_update().clone();
            running.retain(|id, delivery| {
                let stays = wanted.contains_key(id);
                if !stays {
                    delivery.abort();
                }
                stays
            });
            for (id, webhook) in wanted {
                running.entry(id).or_insert_with(|| {
                    let (feed, database) = (self.feed.clone(), self.database.clone());
                    let delivery = delivery::run(webhook, feed, database, is_closing.clone());
                    deliveries.spawn(delivery)
                });
            }
            tokio::select! {
                changed = all.changed() => if changed.is_err() { return },
                Some(Err(error)) = deliveries.join_next() => if error.is_panic() {
                    tracing::error!("the delivery to a webhook failed and begins anew: {error}");
                    running.retain(|_, delivery| delivery.id() != error.id());
                    tokio::time::sleep(PAUSE).await;
                },
            }
        }
    }
}
