//! What every backend must do, checked against real guests.
//!
//! The guest's own image is used. Beside its init runs a shell that looks at the guest's name, which the agent's `refresh`
//! sets, and does what the name says: prints random numbers, powers off, resets, panics.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use wire::Secret;

use super::{Boot, Ending, Hypervisor, Start, Vm};
use crate::image::{Image, Media};
use crate::machine::MachineId;

/// What the guest does beside its init.
const BESIDE_INIT: &str = "rdinit=/bin/sh -- -c \"mknod /dev/null c 1 3; (while sleep 0.1; do case $(hostname) in \
    numbers) head -c 8 /dev/urandom | od -An -tx1 >/dev/console;; off) busybox poweroff -f;; again) busybox reboot -f;; \
    panic) echo c >/proc/sysrq-trigger;; esac; done) & exec /init\"";

/// More than anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The image, with the shell beside its init.
pub(crate) fn obedient(image: Image) -> Image {
    let Media::Kernel { kernel, initrd, cmdline } = image.media else {
        panic!("a kernel image is needed")
    };
    let media = Media::Kernel { kernel, initrd, cmdline: format!("{cmdline} {BESIDE_INIT}") };
    Image { media, name: format!("{}-obedient", image.name), ..image }
}

/// A backend with a folder for its machines.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    /// Must be [`obedient`].
    pub(crate) image: Arc<Image>,
    pub(crate) running: PathBuf,
}

/// All that every backend must do.
pub(crate) async fn all(bench: &Bench) {
    a_machine_answers_and_is_gone_when_killed(bench).await;
    two_machines_have_nothing_in_common_once_refreshed(bench).await;
    for (order, expected) in
        [("off", Ending::PoweredOff), ("again", Ending::Reset), ("panic", Ending::Panicked)]
    {
        an_end_is_told_with_its_reason(bench, order, &expected).await;
    }
    a_paused_machine_does_nothing(bench).await;
    a_machine_is_found_again(bench).await;
    what_is_not_kept_is_swept(bench).await;
    a_start_that_is_dropped_leaves_nothing(bench).await;
}

impl Bench {
    /// A machine that is to run in a folder of its own.
    pub(crate) fn boot(&self) -> Boot {
        let id = MachineId::random();
        let directory = self.running.join(id.to_string());
        std::fs::create_dir(&directory).unwrap();
        Boot { id, directory, image: Arc::clone(&self.image), memory_mb: 128, vcpus: 1 }
    }

    pub(crate) async fn start(&self) -> (Boot, Arc<dyn Vm>, Start) {
        let boot = self.boot();
        let (vm, start) =
            timeout(PATIENCE, self.hypervisor.start(boot.clone())).await.unwrap().unwrap();
        (boot, vm, start)
    }
}

/// Tells the guest its name and gives it numbers of its own.
async fn refresh(vm: &dyn Vm, name: &str, seed: u8) {
    vm.ask_agent(renamed(name, seed)).await.unwrap();
}

/// Tells the guest a name that ends it, which it may do before it answers.
pub(crate) async fn end_by(vm: &dyn Vm, name: &str) {
    let _ = vm.ask_agent(renamed(name, 1)).await;
}

fn renamed(name: &str, seed: u8) -> Secret {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let seed = STANDARD.encode([seed; 64]);
    Secret::new(format!("refresh {seed} {now} {name} - - -"))
}

async fn end_of(vm: &dyn Vm) -> Ending {
    let mut ended = vm.ended();
    let ending = timeout(PATIENCE, ended.wait_for(Option::is_some))
        .await
        .expect("the machine ends")
        .unwrap();
    ending.clone().unwrap()
}

/// Waits until the guest has printed a line that fits.
async fn printed(vm: &dyn Vm, fits: impl Fn(&str) -> bool) -> String {
    let look = async {
        loop {
            let console = String::from_utf8_lossy(&vm.console(1 << 16).await.unwrap()).into_owned();
            // Only whole lines: the last may still grow.
            let whole = console.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some(line) = whole.lines().map(str::trim).find(|line| fits(line)) {
                return line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, look).await.expect("the guest prints it")
}

fn is_numbers(line: &str) -> bool {
    line.len() == 23
        && line
            .split(' ')
            .all(|byte| byte.len() == 2 && byte.chars().all(|c| c.is_ascii_hexdigit()))
}

async fn ssh_greeting(vm: &dyn Vm) -> String {
    let mut stream = timeout(PATIENCE, vm.connect(22)).await.unwrap().unwrap();
    let mut start = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut start)).await.unwrap().unwrap();
    String::from_utf8_lossy(&start).into_owned()
}

async fn a_machine_answers_and_is_gone_when_killed(bench: &Bench) {
    let (_, vm, _) = bench.start().await;
    refresh(&*vm, "first", 1).await;
    assert_eq!(ssh_greeting(&*vm).await, "SSH-");
    assert!(vm.ask_agent(Secret::new("nonsense")).await.is_err());
    assert_eq!(*vm.ended().borrow(), None);
    vm.kill().await;
    assert_eq!(end_of(&*vm).await, Ending::Killed);
    assert!(vm.ask_agent(Secret::new("hello")).await.is_err());
    assert!(vm.console(10).await.unwrap().len() <= 10);
}

async fn two_machines_have_nothing_in_common_once_refreshed(bench: &Bench) {
    let ((_, one, _), (_, other, _)) = tokio::join!(bench.start(), bench.start());
    refresh(&*one, "numbers", 1).await;
    refresh(&*other, "numbers", 2).await;
    assert_ne!(printed(&*one, is_numbers).await, printed(&*other, is_numbers).await);
    tokio::join!(one.kill(), other.kill());
}

async fn an_end_is_told_with_its_reason(bench: &Bench, order: &str, expected: &Ending) {
    let (_, vm, _) = bench.start().await;
    end_by(&*vm, order).await;
    assert_eq!(end_of(&*vm).await, *expected, "{order}");
}

async fn a_paused_machine_does_nothing(bench: &Bench) {
    let (_, vm, _) = bench.start().await;
    refresh(&*vm, "numbers", 1).await;
    printed(&*vm, is_numbers).await;
    vm.pause().await.unwrap();
    let before = vm.console(1 << 16).await.unwrap();
    // Time must pass for something not to happen; what runs prints ten times a second.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(vm.console(1 << 16).await.unwrap() == before);
    vm.resume().await.unwrap();
    timeout(PATIENCE, async {
        while vm.console(1 << 16).await.unwrap() == before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("it goes on");
    vm.kill().await;
}

async fn a_machine_is_found_again(bench: &Bench) {
    let (boot, vm, _) = bench.start().await;
    refresh(&*vm, "adopted", 1).await;
    drop(vm);
    let adopt = || async { bench.hypervisor.adopt(boot.clone()).await.unwrap() };
    let vm = adopt().await.expect("it still runs");
    refresh(&*vm, "again-adopted", 1).await;
    assert_eq!(ssh_greeting(&*vm).await, "SSH-");
    vm.pause().await.unwrap();
    drop(vm);
    // A pool's machine is paused when the server is killed.
    let vm = adopt().await.expect("it is paused");
    vm.resume().await.unwrap();
    end_by(&*vm, "off").await;
    assert_eq!(end_of(&*vm).await, Ending::PoweredOff);
    drop(vm);
    assert!(adopt().await.is_none());
}

async fn what_is_not_kept_is_swept(bench: &Bench) {
    let ((kept, kept_vm, _), (_, other, _)) = tokio::join!(bench.start(), bench.start());
    let sweep = |keep| bench.hypervisor.sweep(bench.running.clone(), keep);
    assert_eq!(sweep(vec![kept.id]).await, 1);
    assert!(matches!(end_of(&*other).await, Ending::Died(_)));
    assert_eq!(*kept_vm.ended().borrow(), None);
    assert_eq!(sweep(vec![]).await, 1);
    assert!(matches!(end_of(&*kept_vm).await, Ending::Died(_)));
    assert_eq!(sweep(vec![]).await, 0);
}

async fn a_start_that_is_dropped_leaves_nothing(bench: &Bench) {
    for millis in [1, 20, 60] {
        let boot = bench.boot();
        let directory = boot.directory.clone();
        assert!(
            timeout(Duration::from_millis(millis), bench.hypervisor.start(boot)).await.is_err()
                || millis > 20
        );
        gone(&directory).await;
    }
    assert_eq!(bench.hypervisor.sweep(bench.running.clone(), vec![]).await, 0);
}

/// Waits until no process names the folder; a killed process takes a moment.
async fn gone(directory: &Path) {
    let name = directory.display().to_string();
    let names_it = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter(|entry| entry.file_name() != "self" && entry.file_name() != "thread-self")
            .any(|entry| {
                let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&command).contains(&name)
            })
    };
    timeout(Duration::from_secs(10), async {
        while names_it() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("no process is left");
}
