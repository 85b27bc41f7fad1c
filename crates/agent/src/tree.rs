//! All processes that descend from this one, and their end.
//!
//! Invariant: a signal goes only to a process that was seen below this one, by a handle of that very
//! process, so that a number that was given anew hits nobody.
//! Other systems than Linux know no such tree: there the command's process group stands for it.

use std::io;

/// Makes whoever loses its parent below us our child.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// Ends all processes that descend from this one (Linux), or the group `group` (elsewhere).
pub(crate) fn end_all(group: i32) {
    #[cfg(target_os = "linux")]
    {
        let _ = group;
        linux::end_descendants();
    }
    #[cfg(not(target_os = "linux"))]
    crate::process::end_group(group);
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;

    use rustix::process::{
        Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open, pidfd_send_signal,
    };

    /// How often is looked for processes that were made while we looked.
    const ROUNDS_MAX: usize = 50;

    /// A process as `/proc` shows it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Seen {
        pub(super) pid: i32,
        pub(super) parent: i32,
        /// In ticks since the system started; tells apart two processes of one number.
        pub(super) started: u64,
    }

    /// Stops them first, until no new ones appear, so that none can make others while we end them.
    pub(super) fn end_descendants() {
        let own = getpid().as_raw_nonzero().get();
        let mut stopped: Vec<Seen> = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let mut found = descendants(own, &processes());
            found.retain(|seen| !stopped.contains(seen));
            if found.is_empty() {
                break;
            }
            for seen in &found {
                signal(*seen, Signal::STOP);
            }
            stopped.extend(found);
        }
        for seen in &stopped {
            signal(*seen, Signal::KILL);
        }
    }

    fn signal(seen: Seen, signal: Signal) {
        let Some(pid) = Pid::from_raw(seen.pid) else { return };
        // It may be gone, or not ours to end (set-user-id): then there is nothing we can do.
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => {
                // The handle holds whoever has the number now; is it still the one we saw?
                if read(seen.pid).is_some_and(|now| now.started == seen.started) {
                    let _ = pidfd_send_signal(handle, signal);
                }
            }
            Err(rustix::io::Errno::NOSYS) => {
                let _ = kill_process(pid, signal);
            }
            Err(_) => {}
        }
    }

    fn processes() -> Vec<Seen> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?)).collect()
    }

    fn read(pid: i32) -> Option<Seen> {
        // A name need not be text.
        let line = fs::read(format!("/proc/{pid}/stat")).ok()?;
        parse(pid, &String::from_utf8_lossy(&line))
    }

    /// Reads a line of `/proc/PID/stat`. The second field is a name in parentheses that may hold
    /// anything, parentheses too.
    pub(super) fn parse(pid: i32, line: &str) -> Option<Seen> {
        let mut fields = line.get(line.rfind(')')? + 1..)?.split_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Seen { pid, parent, started })
    }

    /// Those of `all` that are below `root`.
    pub(super) fn descendants(root: i32, all: &[Seen]) -> Vec<Seen> {
        let mut found: Vec<Seen> = Vec::new();
        let mut parents = vec![root];
        while let Some(parent) = parents.pop() {
            let children = all.iter().filter(|seen| seen.parent == parent);
            let new: Vec<Seen> = children.filter(|seen| !found.contains(seen)).copied().collect();
            parents.extend(new.iter().map(|seen| seen.pid));
            found.extend(new);
        }
        found
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::linux::{Seen, descendants, parse};

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let rest = "S 7 1 1 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1 18446744073709551615";
        for name in ["sh", "a b", "x) R 1 1", "((("] {
            let seen = parse(9, &format!("9 ({name}) {rest}"));
            assert_eq!(seen, Some(Seen { pid: 9, parent: 7, started: 12345 }), "{name}");
        }
        assert_eq!(parse(9, "9 (sh"), None);
        assert_eq!(parse(9, "9 (sh) S 7"), None);
    }

    #[test]
    fn descendants_are_all_below_and_nobody_else() {
        let seen = |pid, parent| Seen { pid, parent, started: 0 };
        let all = [seen(1, 0), seen(5, 1), seen(7, 5), seen(6, 5), seen(8, 7), seen(9, 1)];
        let mut found: Vec<i32> = descendants(5, &all).iter().map(|seen| seen.pid).collect();
        found.sort_unstable();
        assert_eq!(found, [6, 7, 8]);
    }
}
