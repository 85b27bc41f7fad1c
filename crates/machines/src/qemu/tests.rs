//! Real guests on the installed QEMU.
//!
//! The image is the small one that `make test` builds, in `.images` of the repository or where `GATEHOUSE_TEST_IMAGES`
//! says. Without it these tests fail: nothing here can be checked without a guest.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use tempfile::TempDir;

use super::*;
use crate::guest::ssh::Proof;
use crate::hypervisor::contract::{self, Bench};
use crate::hypervisor::{Ending, Start};
use crate::image::{HostKeyForm, Media};

fn small() -> Image {
    let folder = std::env::var_os("GATEHOUSE_TEST_IMAGES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.images"), PathBuf::from)
        .join("small");
    let manifest = fs::read_to_string(folder.join("image.toml")).unwrap_or_else(|error| {
        panic!("no guest image in {}: {error}; `make test` builds it", folder.display())
    });
    let manifest: toml::Table = manifest.parse().unwrap();
    let text = |key: &str| manifest[key].as_str().unwrap().to_owned();
    Image {
        name: text("name"),
        media: Media::Kernel {
            kernel: folder.join(text("kernel")),
            initrd: folder.join(text("initrd")),
            cmdline: text("cmdline"),
        },
        has_agent: true,
        host_key: HostKeyForm::Dropbear,
        memory_mb_min: 96,
        sha256: "0".repeat(64),
    }
}

fn endpoint() -> Login {
    let proof = Proof::Password(wire::Secret::new("endpoint"));
    Login { user: "endpoint".into(), proof, port: 22 }
}

/// The QEMU under test: the installed one, or where `GATEHOUSE_TEST_QEMU` says.
fn settings(folder: &Path) -> QemuSettings {
    QemuSettings {
        program: std::env::var_os("GATEHOUSE_TEST_QEMU")
            .map_or_else(|| "qemu-system-x86_64".into(), PathBuf::from),
        accelerator: Wanted::Qemu,
        user: None,
        snapshots: folder.join("snapshots"),
        snapshots_max: 8,
        network: Arc::default(),
        snapshot: true,
        limits: true,
        cpu_percent_max: None,
        snapshot_foreign: false,
        disk_mb: 0,
        disk_bytes_per_second: 0,
        disk_operations_per_second: 0,
        endpoint: endpoint(),
        ready_within: Duration::from_secs(100),
    }
}

async fn bench(change: impl FnOnce(&mut QemuSettings)) -> (TempDir, Bench) {
    let folder = tempfile::tempdir().unwrap();
    // Deeper than a socket's address is long.
    let running = folder.path().join("deep".repeat(25)).join("running");
    fs::create_dir_all(&running).unwrap();
    let mut settings = settings(folder.path());
    change(&mut settings);
    let hypervisor = Arc::new(Qemu::open(settings).await.unwrap());
    (folder, Bench { hypervisor, image: Arc::new(contract::obedient(small())), running })
}

#[tokio::test]
async fn clones_keep_the_contract() {
    let (_folder, bench) = bench(|_| ()).await;
    let (_, vm, start) = bench.start().await;
    assert_eq!(start, Start::Snapshot);
    vm.kill().await;
    contract::all(&bench).await;
}

#[tokio::test]
async fn booted_machines_keep_the_contract() {
    let (_folder, bench) = bench(|settings| settings.snapshot = false).await;
    let (_, vm, start) = bench.start().await;
    assert_eq!(start, Start::Cold { because: "snapshots are switched off".to_owned() });
    vm.kill().await;
    contract::all(&bench).await;
}

#[tokio::test]
async fn a_guest_without_agent_is_booted_unless_its_clones_are_wanted() {
    let (_folder, mut bench) = bench(|_| ()).await;
    bench.image = Arc::new(Image { has_agent: false, ..small() });
    let (_, vm, start) = bench.start().await;
    let because = "the image has no agent that could give a clone an identity of its own";
    assert_eq!(start, Start::Cold { because: because.to_owned() });
    vm.kill().await;
}

#[tokio::test]
async fn a_killed_qemu_is_noticed_with_its_last_words() {
    let (_folder, bench) = bench(|_| ()).await;
    let (boot, vm, _) = bench.start().await;
    let orphans = orphans::find(boot.directory.parent().unwrap(), None).unwrap();
    assert_eq!(orphans.len(), 1);
    orphans[0].handle.kill();
    let begun = Instant::now();
    vm.ended().wait_for(Option::is_some).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(*vm.ended().borrow(), Some(Ending::Died("QEMU was killed".to_owned())));
}

#[tokio::test]
async fn a_spoilt_snapshot_is_made_anew() {
    let (folder, bench) = bench(|_| ()).await;
    let (_, vm, _) = bench.start().await;
    vm.kill().await;
    let template =
        fs::read_dir(folder.path().join("snapshots")).unwrap().next().unwrap().unwrap().path();
    let memory = template.join(command::TEMPLATE_MEMORY);
    fs::set_permissions(&memory, fs::Permissions::from_mode(0o644)).unwrap();
    let file = fs::File::options().write(true).open(&memory).unwrap();
    file.write_all_at(b"spoilt", 1 << 20).unwrap();
    // Noticed by the server that made it, and by one that finds it.
    let (_, vm, start) = bench.start().await;
    assert_eq!(start, Start::Snapshot);
    vm.kill().await;
    file.write_all_at(b"spoilt", 1 << 20).unwrap();
    let made = fs::metadata(&memory).unwrap().len();
    fs::set_permissions(template.join("devices"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::File::options()
        .write(true)
        .open(template.join("devices"))
        .unwrap()
        .write_all_at(b"x", 5000)
        .unwrap();
    let again = Qemu::open(settings(folder.path())).await.unwrap();
    again.prepare(&bench.image, 128, 1).await.unwrap();
    assert_eq!(fs::metadata(&memory).unwrap().len(), made);
    let (vm, start) = again.start(bench.boot()).await.unwrap();
    assert_eq!(start, Start::Snapshot);
    vm.kill().await;
}

#[tokio::test]
async fn what_does_not_start_says_why() {
    let (_folder, mut bench) =
        bench(|settings| settings.ready_within = Duration::from_secs(12)).await;
    let mut check = async |media: Media, expected: &str| {
        bench.image = Arc::new(Image { media, has_agent: false, ..small() });
        let error = bench.hypervisor.start(bench.boot()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let Media::Kernel { kernel, initrd, cmdline } = small().media else { unreachable!() };
    let missing = Media::Kernel {
        kernel: "/no/kernel".into(),
        initrd: initrd.clone(),
        cmdline: cmdline.clone(),
    };
    check(missing, "/no/kernel").await;
    check(Media::Iso("/no/such.iso".into()), "/no/such.iso").await;
    let no_init = format!("{cmdline} rdinit=/no/init root=/dev/none");
    check(Media::Kernel { kernel, initrd: initrd.clone(), cmdline: no_init }, "it ended: Reset")
        .await;
    // A file that is no CD: the firmware finds nothing to boot.
    check(Media::Iso(initrd), "was not ready within 12 seconds").await;
}

/// Set in the process that plays the server.
const SERVER_FOLDER: &str = "GATEHOUSE_TEST_SERVER_FOLDER";

/// A machine of a server that is killed: the same in both processes.
fn boot_in(folder: &Path, image: Arc<Image>) -> Boot {
    let id: MachineId = "5f1f4d34-9f3c-4a7e-8f0f-2f8e6a3c1b2d".parse().unwrap();
    Boot { id, directory: folder.join(id.to_string()), image, memory_mb: 128, vcpus: 1 }
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a server that can be killed is needed")]
async fn a_machine_outlives_a_killed_server() {
    if let Some(folder) = std::env::var_os(SERVER_FOLDER) {
        let folder = PathBuf::from(folder);
        let boot = boot_in(&folder, Arc::new(contract::obedient(small())));
        fs::create_dir(&boot.directory).unwrap();
        let (_vm, _) = Qemu::open(settings(&folder)).await.unwrap().start(boot).await.unwrap();
        println!("it runs");
        return std::future::pending().await;
    }
    let (folder, bench) = bench(|settings| settings.snapshot = false).await;
    let mut server = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "qemu::tests::a_machine_outlives_a_killed_server"])
        .env(SERVER_FOLDER, folder.path())
        .stdout(std::process::Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let output = tokio::io::BufReader::new(server.stdout.take().unwrap());
    let mut lines = tokio::io::AsyncBufReadExt::lines(output);
    while !lines
        .next_line()
        .await
        .unwrap()
        .expect("the server starts its machine")
        .contains("it runs")
    {}
    let group =
        rustix::process::Pid::from_raw(i32::try_from(server.id().unwrap()).unwrap()).unwrap();
    for signal in [rustix::process::Signal::HUP, rustix::process::Signal::KILL] {
        // Gone already after the first.
        let _ = rustix::process::kill_process_group(group, signal);
    }
    server.wait().await.unwrap();

    let boot = boot_in(folder.path(), Arc::clone(&bench.image));
    let vm = bench.hypervisor.adopt(boot).await.unwrap().expect("it still runs");
    contract::end_by(&*vm, "off").await;
    vm.ended().wait_for(Option::is_some).await.unwrap();
    assert_eq!(*vm.ended().borrow(), Some(Ending::PoweredOff));
}

#[tokio::test]
async fn a_machine_runs_as_somebody_else_where_the_server_may_choose() {
    let user = User { uid: 64_999, gid: 64_999 };
    let (folder, bench) = bench(|settings| settings.user = Some(user)).await;
    // Whoever runs machines as somebody else lets them pass.
    for open in [folder.path(), &folder.path().join("deep".repeat(25)), &bench.running] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o711)).unwrap();
    }
    let boot = bench.boot();
    let started = bench.hypervisor.start(boot.clone()).await;
    if !rustix::process::geteuid().is_root() {
        assert!(started.unwrap_err().to_string().contains("Operation not permitted"));
        return;
    }
    let (vm, start) = started.unwrap();
    assert_eq!(start, Start::Snapshot);
    let orphans = orphans::find(&bench.running, Some(user)).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", orphans[0].handle.pid())).unwrap();
    for line in [
        "Uid:\t64999\t64999\t64999\t64999",
        "Gid:\t64999\t64999\t64999\t64999",
        "CapEff:\t0000000000000000",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{line} in {status}");
    }
    drop(vm);
    let vm = bench.hypervisor.adopt(boot).await.unwrap().expect("it still runs");
    vm.kill().await;
}
