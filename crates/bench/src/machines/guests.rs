//! What machines use while nobody uses them, as the kernel tells it of their QEMU processes.
//!
//! Invariant: a machine's process is known by its name on the command line, so it is found whoever started it.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::rest::Created;
use crate::error::LoadError;
use crate::process::Process;

/// A machine that used this little in [`LOOK_EVERY`] rests.
const REST_CPU: Duration = Duration::from_millis(10);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What every machine's process has on its command line, before the machine's id.
const NAME: &str = "gatehouse-";

/// The processes of QEMU that `server` has started.
fn children(server: Process) -> Result<Vec<Process>, LoadError> {
    let mut found = Vec::new();
    for process in Process::all()? {
        // Any of them may have ended since.
        if process.parent().is_ok_and(|parent| parent == server.0)
            && process.command_line().is_ok_and(|line| line.contains(NAME))
        {
            found.push(process);
        }
    }
    Ok(found)
}

/// Waits until `server` has `count` machines or more and none of them does anything: a pool is full, a guest has settled.
pub(super) fn come_to_rest(
    server: Process,
    count: usize,
    limit: Duration,
) -> Result<(), LoadError> {
    let used = || -> Result<BTreeMap<u32, Duration>, LoadError> {
        let children = children(server)?;
        Ok(children.iter().filter_map(|it| Some((it.0, it.cpu().ok()?))).collect())
    };
    let until = Instant::now() + limit;
    let mut before = used()?;
    while Instant::now() < until {
        sleep(LOOK_EVERY);
        let now = used()?;
        let rests = |(pid, cpu): (&u32, &Duration)| {
            before.get(pid).is_some_and(|before| cpu.saturating_sub(*before) <= REST_CPU)
        };
        if now.len() >= count && now.iter().all(rests) {
            return Ok(());
        }
        before = now;
    }
    Err(LoadError::TooSlow("coming to rest"))
}

/// Memory of the machines and of the server, and their processor time over `time`.
pub(super) fn idle(server: Process, held: &[Created], time: Duration) -> Result<Value, LoadError> {
    let all = children(server)?;
    let is_of = |process: &Process, id: &str| {
        process.command_line().is_ok_and(|line| line.contains(&format!("{NAME}{id}")))
    };
    let mut guests = Vec::with_capacity(held.len());
    for created in held {
        let id = &created.it.machine.id;
        let found = all.iter().find(|process| is_of(process, id));
        guests.push(*found.ok_or_else(|| LoadError::Protocol("a machine has no process".into()))?);
    }
    let cpu = |guests: &[Process]| guests.iter().map(|it| it.cpu()).collect::<Result<Vec<_>, _>>();
    let (server_before, before, began) = (server.cpu()?, cpu(&guests)?, Instant::now());
    sleep(time);
    let (server_after, after, secs) = (server.cpu()?, cpu(&guests)?, began.elapsed().as_secs_f64());
    let percent = |now: Duration, before: Duration| 100.0 * (now - before).as_secs_f64() / secs;
    let idle = after.iter().zip(&before).map(|(now, before)| percent(*now, *before)).collect();
    let private = guests.iter().map(|it| it.private_bytes().map(|bytes| bytes as f64));
    Ok(json!({
        "idle_percent": spread(idle),
        "private_bytes": spread(private.collect::<Result<_, _>>()?),
        "server_idle_percent": percent(server_after, server_before),
        "server_rss_bytes": server.rss_bytes()?,
    }))
}

/// The median and the greatest; null where there is nothing.
fn spread(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    json!({ "median": values.get(values.len() / 2), "max": values.last() })
}

#[cfg(test)]
mod tests {
    use super::{json, spread};

    #[test]
    fn a_spread_is_the_middle_and_the_end() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), json!({ "median": 2.0, "max": 3.0 }));
        assert_eq!(spread(Vec::new()), json!({ "median": null, "max": null }));
    }
}
