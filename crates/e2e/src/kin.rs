//! What `/proc` tells about the server and the processes it started.
//!
//! Invariant: reads only. Not here: ending any of them.

use std::fs;

/// Every process that descends from `pid`, without `pid` itself.
#[must_use]
pub fn descendants(pid: u32) -> Vec<u32> {
    let everybody: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?.1)))
        .collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(everybody.iter().filter(|kin| kin.1 == parent).map(|kin| kin.0));
        next += 1;
    }
    found.split_off(1)
}

/// Whether a process exists and is more than an entry that waits to be reaped.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// The most memory a process ever had in use, in KiB; 0 when it is gone.
#[must_use]
pub fn peak_memory_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// State and parent.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name between the parentheses may hold anything, so the fields are counted from its end.
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
