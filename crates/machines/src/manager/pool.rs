//! The warm pool: machines that are started, set up, tried out and paused before anybody asks.
//!
//! Invariant: a spare is nobody's and has no port. Its secrets are in memory alone, so that no server but this one can
//! lend it; the next one ends it.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::pending::{self, Pending};
use super::{Shared, order};
use crate::error::MachineError;
use crate::image::Image;
use crate::lifecycle::State;
use crate::machine::{MachineId, Order, Summary};

/// After a spare could not be made: the first pause, doubled each time until the longest.
const PAUSE: Duration = Duration::from_secs(1);
/// See [`PAUSE`].
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A machine of the pool, and what it can be lent as.
#[derive(Debug)]
pub(super) struct Spare {
    pending: Pending,
    memory_mb: u32,
    vcpus: u32,
}

impl Spare {
    fn fits(&self, wanted: &Summary, image: &Image) -> bool {
        self.pending.image.sha256 == image.sha256
            && self.pending.image.name == image.name
            && (self.memory_mb, self.vcpus) == (wanted.memory_mb, wanted.vcpus)
    }
}

fn spares(shared: &Shared) -> MutexGuard<'_, Vec<Spare>> {
    shared.spares.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A spare for `wanted`, if there is one like it.
pub(super) fn take(
    shared: &Arc<Shared>,
    wanted: &Summary,
    order: &Order,
    image: &Image,
) -> Result<Option<Pending>, MachineError> {
    let mut spares = spares(shared);
    let Some(place) = spares.iter().position(|spare| {
        spare.fits(wanted, image) && shared.register().is(spare.pending.id, State::Spare)
    }) else {
        return Ok(None);
    };
    // Asked under both locks: whoever is refused has taken nothing.
    let id = spares[place].pending.id;
    shared.register().give(id, wanted.clone())?;
    let mut pending = spares.swap_remove(place).pending;
    pending.give_to(order.clone());
    shared.pool_bell.notify_one();
    Ok(Some(pending))
}

/// Makes spares as they are used, one at a time, until the server closes.
pub(super) async fn keep_full(shared: &Arc<Shared>) {
    let mut is_closing = shared.is_closing.subscribe();
    let mut pause = PAUSE;
    loop {
        let rung = shared.pool_bell.notified();
        drop_dead(shared);
        let missing = spares(shared).len() < shared.settings.pool;
        let work = async {
            if !missing {
                rung.await;
                return;
            }
            match make(shared).await {
                Ok(spare) => {
                    spares(shared).push(spare);
                    pause = PAUSE;
                }
                Err(error) => {
                    tracing::warn!(
                        "no machine for the pool, the next try is in {pause:?}: {error}"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(PAUSE_MAX);
                }
            }
        };
        tokio::select! {
            biased;
            _ = is_closing.wait_for(|closing| *closing) => return,
            () = work => {}
        }
    }
}

/// Spares that ended by themselves are none.
fn drop_dead(shared: &Shared) {
    let mut spares = spares(shared);
    let register = shared.register();
    let (alive, dead) = std::mem::take(&mut *spares)
        .into_iter()
        .partition(|spare: &Spare| register.is(spare.pending.id, State::Spare));
    *spares = alive;
    // Dropped without the locks: it says so to its driver.
    drop((register, spares));
    drop::<Vec<Spare>>(dead);
}

async fn make(shared: &Arc<Shared>) -> Result<Spare, MachineError> {
    let order = Order::default();
    let image = pending::find_image(shared, &order).await?;
    if !image.has_agent {
        let why =
            "machines without an agent cannot be kept ready: their identity could not be refreshed";
        return Err(MachineError::Image { name: image.name.clone(), why: why.into() });
    }
    let summary = order::meant(&shared.settings, &order, &image, MachineId::random())?;
    let (memory_mb, vcpus) = (summary.memory_mb, summary.vcpus);
    let mut pending = pending::enter(shared, summary, order, image, false)?;
    pending.start().await?;
    pending.set_up().await?;
    pending.park().await?;
    Ok(Spare { pending, memory_mb, vcpus })
}
