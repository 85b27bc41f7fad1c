//! What the kernel tells about a process: memory, processor time, open files.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::error::LoadError;

/// A process of this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    fn read(self, file: &str) -> Result<String, LoadError> {
        let path = format!("/proc/{}/{file}", self.0);
        std::fs::read_to_string(&path).map_err(LoadError::io(path))
    }

    /// Resident memory in bytes.
    pub(crate) fn rss_bytes(self) -> Result<u64, LoadError> {
        let status = self.read("status")?;
        let kib = number_after(&status, "VmRSS:").ok_or_else(|| unknown("status", &status))?;
        Ok(kib * 1024)
    }

    /// Processor time used by all its threads, to a hundredth of a second.
    pub(crate) fn cpu(self) -> Result<Duration, LoadError> {
        let stat = self.read("stat")?;
        let ticks = cpu_ticks(&stat).ok_or_else(|| unknown("stat", &stat))?;
        let per_sec = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_secs_f64(ticks as f64 / per_sec as f64))
    }

    /// Every process that there is.
    pub(crate) fn all() -> Result<Vec<Self>, LoadError> {
        let entries = std::fs::read_dir("/proc").map_err(LoadError::io("/proc"))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.parse().ok().map(Self)).collect())
    }

    /// Who started it.
    pub(crate) fn parent(self) -> Result<u32, LoadError> {
        let status = self.read("status")?;
        let parent = number_after(&status, "PPid:").and_then(|pid| u32::try_from(pid).ok());
        parent.ok_or_else(|| unknown("status", &status))
    }

    /// Its program and arguments, each ended by a zero byte.
    pub(crate) fn command_line(self) -> Result<String, LoadError> {
        self.read("cmdline")
    }

    /// Memory that it shares with nobody, in bytes.
    pub(crate) fn private_bytes(self) -> Result<u64, LoadError> {
        let rollup = self.read("smaps_rollup")?;
        let kib = private_kib(&rollup).ok_or_else(|| unknown("smaps_rollup", &rollup))?;
        Ok(kib * 1024)
    }

    /// How many files it may have open.
    pub(crate) fn files_max(self) -> Result<u64, LoadError> {
        let limits = self.read("limits")?;
        number_after(&limits, "Max open files").ok_or_else(|| unknown("limits", &limits))
    }
}

/// Processor time that this program has used.
pub(crate) fn own_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

fn unknown(file: &str, text: &str) -> LoadError {
    LoadError::protocol(&format!("/proc/…/{file} is not understood"), text.as_bytes())
}

/// The number after `name` at the beginning of a line; `unlimited` is the largest.
fn number_after(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    match value.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn private_kib(rollup: &str) -> Option<u64> {
    Some(number_after(rollup, "Private_Clean:")? + number_after(rollup, "Private_Dirty:")?)
}

/// User and system time; the program's name before them may contain anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Lets this process open as many files as it may ask for, at most `wanted`; returns how many.
pub(crate) fn allow_files(wanted: u64) -> Result<u64, LoadError> {
    let now = getrlimit(Resource::Nofile);
    let current = now.current.unwrap_or(u64::MAX);
    // A privileged process may go beyond; where it may not, the limit it has is what there is.
    for maximum in [now.maximum.map(|maximum| maximum.max(wanted)), now.maximum] {
        let allowed = wanted.min(maximum.unwrap_or(u64::MAX)).max(current);
        let limit = Rlimit { current: Some(allowed), maximum };
        if setrlimit(Resource::Nofile, limit).is_ok() {
            return Ok(allowed);
        }
    }
    Ok(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_behind_their_names() {
        let status = "Name:\tVmRSS: x\nVmRSS:\t   1234 kB\n";
        assert_eq!(number_after(status, "VmRSS:"), Some(1234));
        let limits = "Max cpu time   unlimited unlimited seconds\nMax open files   20 40 files\n";
        assert_eq!(number_after(limits, "Max open files"), Some(20));
        assert_eq!(number_after(limits, "Max cpu time"), Some(u64::MAX));
        assert_eq!(number_after(limits, "Max wonders"), None);
    }

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 300 21 0 0 20 0 1";
        assert_eq!(cpu_ticks(stat), Some(321));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
    }

    #[test]
    fn private_memory_is_clean_and_dirty() {
        let rollup = "5-6 ---p [rollup]\nRss: 9 kB\nPrivate_Clean:  12 kB\nPrivate_Dirty:  30 kB\n";
        assert_eq!(private_kib(rollup), Some(42));
        assert_eq!(private_kib("Private_Clean: 1 kB"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let this = Process(std::process::id());
        assert!(this.rss_bytes().unwrap() > 100_000);
        assert!(this.files_max().unwrap() >= 64);
        this.cpu().unwrap();
        assert!(this.private_bytes().unwrap() > 10_000);
        assert!(!this.command_line().unwrap().is_empty());
        let parent = this.parent().unwrap();
        assert!(Process::all().unwrap().iter().any(|process| process.0 == parent));
    }
}
