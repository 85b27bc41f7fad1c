//! What an earlier server left: machines that are lent are taken over, all else is cleaned away.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Shared, driver, off_thread};
use crate::error::MachineError;
use crate::hypervisor::{Boot, Vm};
use crate::image::{HostKeyForm, Image, Media};
use crate::lifecycle::{Event, State};
use crate::machine::{MachineId, Summary};
use crate::ports::Lease;
use crate::record::Record;

/// Takes over every machine that is lent and still runs.
pub(super) async fn adopt_all(shared: &Arc<Shared>) -> Result<(), MachineError> {
    let running = shared.running();
    let what = {
        let running = running.clone();
        move || running.display().to_string()
    };
    let found = off_thread(what, move || folders(&running)).await?;
    let mut kept = Vec::new();
    for (id, record) in &found {
        if let Some(record) = record
            && let Some((lease, vm)) = find(shared, record).await
        {
            take_over(shared, record.clone(), lease, vm)?;
            kept.push(*id);
        }
    }
    let ended = shared.hypervisor.sweep(shared.running(), kept.clone()).await;
    for (id, _) in found.iter().filter(|(id, _)| !kept.contains(id)) {
        let folder = shared.running().join(id.to_string());
        let what = {
            let folder = folder.clone();
            move || folder.display().to_string()
        };
        off_thread(what, move || driver::remove_folder(&folder)).await?;
    }
    if !found.is_empty() || ended > 0 {
        let cleaned = found.len() - kept.len();
        tracing::info!(taken_over = kept.len(), cleaned, ended, "machines of an earlier server");
    }
    Ok(())
}

/// The machines that have a folder or a record, with their records.
fn folders(running: &Path) -> io::Result<Vec<(MachineId, Option<Record>)>> {
    super::private_folder(running)?;
    let mut ids = BTreeSet::new();
    for entry in std::fs::read_dir(running)? {
        let path = entry?.path();
        // What is not named like a machine is not ours to touch.
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let stem = name.split('.').next().unwrap_or_default();
        ids.extend(stem.parse::<MachineId>());
    }
    for id in &ids {
        Record::remove_unfinished(&running.join(id.to_string()))?;
    }
    let read = |id: MachineId| {
        let record = Record::read(&running.join(id.to_string())).unwrap_or_else(|error| {
            tracing::warn!(machine = %id, "its record cannot be read, it is ended: {error}");
            None
        });
        (id, record.filter(|record| record.id == id))
    };
    Ok(ids.into_iter().map(read).collect())
}

async fn find(shared: &Arc<Shared>, record: &Record) -> Option<(Lease, Arc<dyn Vm>)> {
    let is_over = record.expires_at.is_some_and(|end| end <= SystemTime::now());
    if is_over {
        tracing::info!(machine = %record.id, "its lifetime ended while no server ran");
        return None;
    }
    let boot = Boot {
        id: record.id,
        directory: shared.running().join(record.id.to_string()),
        image: Arc::new(image_of(record)),
        memory_mb: record.memory_mb,
        vcpus: record.vcpus,
    };
    let vm = match shared.hypervisor.adopt(boot).await {
        Ok(Some(vm)) => vm,
        Ok(None) => {
            tracing::info!(machine = %record.id, "it ended while no server ran");
            return None;
        }
        Err(error) => {
            tracing::warn!(machine = %record.id, "it cannot be taken over, it is ended: {error}");
            return None;
        }
    };
    // Its owner was told this port, and no other.
    match shared.ports.lease_exactly(record.port) {
        Ok(lease) => Some((lease, vm)),
        Err(error) => {
            let port = record.port;
            tracing::warn!(machine = %record.id, port, "its port is taken, it is ended: {error}");
            vm.kill().await;
            None
        }
    }
}

/// What it was started from may have been changed or removed since; what runs does not mind.
fn image_of(record: &Record) -> Image {
    Image {
        name: record.image.clone(),
        media: Media::Iso(std::path::PathBuf::new()),
        has_agent: record.has_agent,
        host_key: HostKeyForm::OpenSsh,
        memory_mb_min: 0,
        sha256: String::new(),
    }
}

fn take_over(
    shared: &Arc<Shared>,
    record: Record,
    lease: Lease,
    vm: Arc<dyn Vm>,
) -> Result<(), MachineError> {
    let summary = Summary {
        id: record.id,
        state: State::Starting,
        image: record.image.clone(),
        memory_mb: record.memory_mb,
        vcpus: record.vcpus,
        port: Some(record.port),
        username: Some(record.username.clone()),
        host_key: record.host_key.clone(),
        owner: record.owner.clone(),
        ssh_public_key: record.ssh_public_key.clone(),
        labels: record.labels.clone(),
        created_at: record.created_at,
        expires_at: record.expires_at,
    };
    // Limits may be lower than they were; what is lent stays lent.
    let (driver, _) = driver::enter(shared, summary, false)?;
    let desk = driver::desk(shared, &vm);
    let mut register = shared.register();
    register.advance(record.id, Event::Started);
    register.advance(record.id, Event::Lent);
    register.change(record.id, |entry| {
        entry.has_place = true;
        entry.token = Some(record.token.clone());
        entry.desk = Some(Arc::clone(&desk));
    });
    drop(register);
    driver::spawn(shared, driver.take_over(record, lease, desk));
    Ok(())
}
