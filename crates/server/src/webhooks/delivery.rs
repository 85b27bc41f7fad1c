//! Delivers to one webhook, event by event.
//!
//! Invariant: the next event is sent when the one before it has been taken.

use std::sync::Arc;
use std::time::Duration;

use database::Database;
use tokio::sync::watch;
use tokio::time::Instant;

use super::message::Message;
use super::post::Post;
use super::{PAUSE, Webhook, rows};
use crate::accounts::token;
use crate::follow::Feed;

use ::tasks::EventId;

/// How far a webhook has come is written down as often at most, and as late.
const SAVE_PACE: Duration = Duration::from_secs(1);
/// As often it is written down that events were not wanted.
const IDLE_PACE: Duration = Duration::from_secs(60);
/// The longest pause between two attempts.
const DELAY_MAX: Duration = Duration::from_secs(300);

/// Delivers until the server closes.
pub(super) async fn run(
    webhook: Arc<Webhook>,
    feed: Feed,
    database: Database,
    mut is_closing: watch::Receiver<bool>,
) {
    let saved = webhook.fare().delivered_to;
    let mut delivery = Delivery {
        post: Post::new(webhook.address.clone()),
        webhook,
        database,
        saved,
        saved_at: Instant::now(),
    };
    tokio::select! {
        () = delivery.run(&feed) => {}
        _ = is_closing.wait_for(|closing| *closing) => {}
    }
    delivery.save();
}

struct Delivery {
    webhook: Arc<Webhook>,
    post: Post,
    database: Database,
    /// What is written down.
    saved: EventId,
    saved_at: Instant,
}

impl Delivery {
    async fn run(&mut self, feed: &Feed) {
        let mut follower = feed.follow(self.webhook.filter.clone(), self.saved);
        loop {
            let is_behind = self.webhook.fare().delivered_to > self.saved;
            let pace = if is_behind { SAVE_PACE } else { IDLE_PACE };
            match tokio::time::timeout_at(self.saved_at + pace, follower.next()).await {
                Ok(Ok(told)) => {
                    for told in told {
                        self.deliver(&Message::of(&told)).await;
                        self.webhook.has_come_to(told.id());
                        if self.saved_at.elapsed() >= SAVE_PACE {
                            self.save();
                        }
                    }
                }
                Ok(Err(error)) => {
                    self.webhook.has_failed(format!("events could not be read: {error}"));
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(_) => {}
            }
            self.webhook.has_come_to(follower.cursor());
            if self.saved_at.elapsed() >= SAVE_PACE {
                self.save();
            }
        }
    }

    /// Sends until it is taken.
    async fn deliver(&mut self, message: &Message) {
        let host = self.webhook.address.authority().clone();
        let id = self.webhook.id;
        let mut failures = 0;
        loop {
            let Err(error) = self.post.send(message, &self.webhook.secret).await else { break };
            if self.webhook.has_failed(error.to_string()) {
                tracing::warn!(
                    webhook = id,
                    "{host} does not take event {}: {error}",
                    message.id.0
                );
            }
            // It may take long.
            self.save();
            let [chance, ..] = token::random();
            tokio::time::sleep(delay(failures, chance)).await;
            failures += 1;
        }
        if self.webhook.has_succeeded() {
            tracing::info!(webhook = id, "{host} takes events again");
        }
    }

    fn save(&mut self) {
        self.saved_at = Instant::now();
        let (id, event) = (self.webhook.id, self.webhook.fare().delivered_to);
        if event == self.saved {
            return;
        }
        self.saved = event;
        self.database.append(
            move |tx| rows::note(tx, id, event),
            move |outcome| {
                if let Err(error) = outcome {
                    // The next one says more; lost, events would be sent again.
                    tracing::warn!(webhook = id, "it is not stored how far it has come: {error}");
                }
            },
        );
    }
}

/// How long to wait after so many failures before the last: 1, 2, 4 … seconds, and a little less by chance, so that
/// webhooks which failed together do not come back together.
fn delay(failures: u32, chance: u8) -> Duration {
    let whole = Duration::from_secs(1 << failures.min(16)).min(DELAY_MAX);
    whole - whole * u32::from(chance) / (5 * 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes_and_vary_a_little() {
        let check = |failures: u32, secs: u64| {
            let whole = Duration::from_secs(secs);
            assert_eq!(delay(failures, 0), whole);
            assert_eq!(delay(failures, 255), whole * 4 / 5);
        };
        for (failures, secs) in [(0, 1), (1, 2), (2, 4), (8, 256), (9, 300), (u32::MAX, 300)] {
            check(failures, secs);
        }
    }
}
