//! Runs the fuzz targets: all of them are built once, then run two at a time.
//!
//! Invariant: what cannot be built or found has failed; nothing is passed over. Works with a stable tool chain: the
//! compiler's coverage is asked for by flags that every tool chain knows, and cargo-fuzz is not needed.
//! Not here: the targets (`fuzz/fuzz_targets`, which `cargo fuzz run NAME` runs as well).

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::process::{End, Job, command, run as run_job};

/// How long all targets together run in CI.
pub(crate) const SECS: u64 = 60;
/// Targets that run at a time.
const AT_ONCE: u64 = 2;
const BUILD_LIMIT_SECS: u64 = 1200;
/// What a target gets beyond its time: it ends by itself.
const SPARE_SECS: u64 = 60;
/// What cargo-fuzz sets without a sanitizer.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
const EXECUTED: &str = "stat::number_of_executed_units:";

/// Where things are.
struct Places {
    target: PathBuf,
    host: String,
}

impl Places {
    fn look(root: &Path) -> Result<Self, String> {
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        let version = command(root, &["rustc".to_owned(), "-vV".to_owned()]).output();
        let version = version.map_err(|error| format!("rustc: {error}"))?.stdout;
        let version = String::from_utf8_lossy(&version).into_owned();
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.ok_or("rustc does not say what it compiles for")?.to_owned();
        Ok(Self { target: root.join(target).join("fuzz"), host })
    }

    fn build(&self) -> Job {
        let target = self.target.to_string_lossy();
        let manifest = "fuzz/Cargo.toml";
        let words = ["cargo", "build", "--release", "--locked", "--manifest-path", manifest];
        // With a target named, the flags are for what is fuzzed and not for what runs while compiling.
        let words = [&words[..], &["--target", &self.host, "--target-dir", &target]].concat();
        Job::new(BUILD_LIMIT_SECS, &words).env("RUSTFLAGS", FLAGS)
    }

    /// Found inputs are kept in the first folder; the second is ours.
    fn target(&self, name: &str, secs: u64) -> Job {
        let program = self.target.join(&self.host).join("release").join(name);
        let found = self.corpus(name);
        let artifacts = format!("-artifact_prefix={}/{name}-", self.target.display());
        let time = format!("-max_total_time={secs}");
        let words = [
            &*program.to_string_lossy(),
            &found.to_string_lossy(),
            &format!("fuzz/seeds/{name}"),
            &time,
            &artifacts,
            "-timeout=10",
            "-rss_limit_mb=1024",
            "-verbosity=0",
            "-print_final_stats=1",
        ];
        Job::new(secs + SPARE_SECS, &words)
    }

    fn corpus(&self, name: &str) -> PathBuf {
        self.target.join("corpus").join(name)
    }
}

/// Runs every target, `secs` for all of them together, and gives a line about each that ended well.
pub(crate) fn run(root: &Path, secs: u64) -> (End, Vec<String>) {
    let (places, names) = match Places::look(root).and_then(|it| Ok((it, targets(root)?))) {
        Ok(found) => found,
        Err(why) => return (End::NotStarted(why), Vec::new()),
    };
    let build = places.build();
    println!("$ RUSTFLAGS='{FLAGS}' {}", build.argv.join(" "));
    match run_job(root, &build, |_| false).0 {
        End::Passed => {}
        End::Failed(status) => {
            let why = format!("{status}: the fuzz targets cannot be built, and nothing was fuzzed");
            return (End::Failed(why), Vec::new());
        }
        end => return (end, Vec::new()),
    }
    let each = secs_of_each(secs, names.len());
    let (queue, ends) = (Mutex::new(names.into_iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                while let Some(name) = next() {
                    let end = run_target(root, &places, &name, each);
                    ends.lock().unwrap_or_else(PoisonError::into_inner).push((name, end));
                }
            });
        }
    });
    summed_up(ends.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn run_target(root: &Path, places: &Places, name: &str, secs: u64) -> (End, Vec<String>) {
    if let Err(error) = std::fs::create_dir_all(places.corpus(name)) {
        return (End::NotStarted(error.to_string()), Vec::new());
    }
    let job = places.target(name, secs);
    println!("$ {}", job.argv.join(" "));
    run_job(root, &job, |line| line.starts_with(EXECUTED))
}

/// The names of the targets: files are found, so that none is forgotten.
fn targets(root: &Path) -> Result<Vec<String>, String> {
    let folder = root.join("fuzz/fuzz_targets");
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        names.extend(name.to_string_lossy().strip_suffix(".rs").map(str::to_owned));
    }
    names.sort();
    if names.is_empty() { Err("there are no fuzz targets".to_owned()) } else { Ok(names) }
}

fn secs_of_each(secs: u64, targets: usize) -> u64 {
    (secs * AT_ONCE / (targets as u64).max(1)).max(1)
}

/// The first end that is not a good one, and a line about each that is.
fn summed_up(ends: Vec<(String, (End, Vec<String>))>) -> (End, Vec<String>) {
    let (mut whole, mut lines) = (End::Passed, Vec::new());
    for (name, (end, said)) in ends {
        let count = said.iter().find_map(|line| line.strip_prefix(EXECUTED));
        let end = match (end, count.map(str::trim)) {
            (End::Passed, Some(count)) if count != "0" => {
                lines.push(format!("{name}: {count} inputs"));
                continue;
            }
            (End::Passed, _) => End::Failed(format!("{name} looked at no input")),
            (End::Failed(status), _) => {
                End::Failed(format!("{name} found something (see above): {status}"))
            }
            (end, _) => end,
        };
        if whole == End::Passed {
            whole = end;
        }
    }
    lines.sort();
    (whole, lines)
}

#[cfg(test)]
mod tests {
    use super::{EXECUTED, End, secs_of_each, summed_up, targets};

    fn ended(name: &str, end: End, said: &[String]) -> (String, (End, Vec<String>)) {
        (name.to_owned(), (end, said.to_vec()))
    }

    #[test]
    fn all_targets_share_the_time_two_at_a_time() {
        assert_eq!([secs_of_each(60, 5), secs_of_each(60, 1), secs_of_each(1, 5)], [24, 120, 1]);
    }

    #[test]
    fn every_target_must_end_well_and_have_done_something() {
        let count = |count: u32| vec![format!("{EXECUTED} {count}")];
        let good = || ended("b", End::Passed, &count(7));
        assert_eq!(summed_up(vec![good()]), (End::Passed, vec!["b: 7 inputs".to_owned()]));
        for (bad, words) in [
            (ended("a", End::Passed, &count(0)), "no input"),
            (ended("a", End::Passed, &[]), "no input"),
            (ended("a", End::Failed("exit status: 77".to_owned()), &count(3)), "found something"),
        ] {
            let (end, lines) = summed_up(vec![bad, good()]);
            assert!(matches!(end, End::Failed(why) if why.contains(words) && why.contains('a')));
            assert_eq!(lines.len(), 1);
        }
        let broken_off = summed_up(vec![good(), ended("a", End::Interrupted, &[])]);
        assert_eq!(broken_off.0, End::Interrupted);
    }

    #[test]
    fn every_target_is_found_and_has_seeds() {
        let root = crate::root();
        let names = targets(&root).unwrap();
        assert!(names.iter().any(|name| name == "handshake"), "{names:?}");
        for name in names {
            let seeds = root.join("fuzz/seeds").join(&name);
            assert!(seeds.read_dir().is_ok_and(|mut files| files.next().is_some()), "{name}");
        }
    }
}
