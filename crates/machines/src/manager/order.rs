//! From what is asked to what is started: defaults put in, limits checked.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Settings;
use crate::error::MachineError;
use crate::guest::ssh_key::authorized_line;
use crate::image::Image;
use crate::lifecycle::State;
use crate::machine::{LABEL_CHARS_MAX, LABELS_MAX, MachineId, Order, Summary};

/// The longest lifetime where none is configured: ten years. A longer one is a mistake, and may be later than clocks tell.
const LIFETIME_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

fn refused<T>(why: String) -> Result<T, MachineError> {
    Err(MachineError::Order(why))
}

/// The lifetime that is meant by `asked`.
pub(super) fn lifetime(
    settings: &Settings,
    asked: Option<Duration>,
) -> Result<Option<Duration>, MachineError> {
    match (asked, settings.ttl_max) {
        (Some(Duration::ZERO), _) => refused("ttl: must be one second at least".into()),
        (Some(asked), None) if asked > LIFETIME_MAX => {
            refused(format!("ttl: {} seconds at most", LIFETIME_MAX.as_secs()))
        }
        (Some(asked), Some(max)) if asked > max => {
            refused(format!("ttl: {} seconds at most", max.as_secs()))
        }
        (Some(asked), _) => Ok(Some(asked)),
        // What nobody limited is still limited by what the operator allows at most.
        (None, max) => Ok(settings.ttl.or(max)),
    }
}

fn within(what: &str, value: u32, least: u32, most: u32) -> Result<u32, MachineError> {
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        refused(format!("{what}: from {least} to {most}, not {value}"))
    }
}

fn check_labels(order: &Order) -> Result<(), MachineError> {
    if order.labels.len() > LABELS_MAX {
        return refused(format!("labels: {LABELS_MAX} at most"));
    }
    let texts = order.labels.iter().flat_map(|(name, value)| [name, value]);
    for text in texts {
        if text.chars().count() > LABEL_CHARS_MAX || text.chars().any(char::is_control) {
            return refused(format!(
                "labels: {LABEL_CHARS_MAX} characters at most, none of control"
            ));
        }
    }
    Ok(())
}

/// What `order` means for a machine called `id` that is started from `image`.
pub(super) fn meant(
    settings: &Settings,
    order: &Order,
    image: &Arc<Image>,
    id: MachineId,
) -> Result<Summary, MachineError> {
    check_labels(order)?;
    if let Some(key) = &order.ssh_public_key {
        authorized_line(key)
            .map_err(|error| MachineError::Order(format!("ssh_public_key: {error}")))?;
    }
    lifetime(settings, order.ttl)?;
    let least = image.memory_mb_min;
    let memory_mb = order.memory_mb.unwrap_or(settings.memory_mb.max(least));
    let most = settings.memory_mb_max.max(settings.memory_mb).max(least);
    let vcpus = order.vcpus.unwrap_or(settings.vcpus);
    Ok(Summary {
        id,
        state: State::Starting,
        image: image.name.clone(),
        memory_mb: within("memory", memory_mb, least, most)?,
        vcpus: within("vcpus", vcpus, 1, settings.vcpus_max.max(settings.vcpus))?,
        port: None,
        username: None,
        host_key: None,
        owner: order.owner.clone(),
        ssh_public_key: order.ssh_public_key.clone(),
        labels: order.labels.clone(),
        created_at: SystemTime::now(),
        expires_at: None,
    })
}
