//! Watches the time: leases that run out, tasks that expire, what is no longer kept.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::dispatcher::Shared;
use crate::ledger::Due;
use crate::task::{Outcome, now_ms};

/// How late a lease may be found to be over.
const TICK: Duration = Duration::from_millis(200);
/// The work of one tick, in tasks; the rest waits for the next.
const DUE_MAX: usize = 1000;
/// Ticks between two looks at what is kept.
const HOUSE_TICKS: u32 = 5;
/// Ticks between two looks for tasks that were never answered.
const ABANDONED_TICKS: u32 = 300;

/// Runs as long as it is polled.
pub(crate) async fn run(shared: &Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0_u32;
    loop {
        ticks.tick().await;
        count = count.wrapping_add(1);
        let due = shared.ledger().due(Instant::now(), DUE_MAX);
        for due in due {
            match due {
                Due::Ring(agent) => {
                    let bell = shared.ledger().bell(agent);
                    bell.ring();
                }
                Due::End(task, outcome, why) => drop(shared.end(task, outcome, why)),
            }
        }
        if count.is_multiple_of(ABANDONED_TICKS) {
            give_up_abandoned(shared);
        }
        if count.is_multiple_of(HOUSE_TICKS) {
            let (store, settings) = (Arc::clone(&shared.store), shared.settings);
            // It reads.
            let _ = tokio::task::spawn_blocking(move || store.keep_house(&settings)).await;
        }
    }
}

fn give_up_abandoned(shared: &Arc<Shared>) {
    let timeout = u64::try_from(shared.settings.result_timeout.as_millis()).unwrap_or(u64::MAX);
    let abandoned = shared.ledger().abandoned(now_ms().saturating_sub(timeout));
    for task in abandoned.into_iter().take(DUE_MAX) {
        drop(shared.end(task, Outcome::Dead, "its agent took it and never answered"));
    }
}
