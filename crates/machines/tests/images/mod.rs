//! The images that this repository builds, lent as they are: as clones that have a disk, and as ISOs that the endpoint's
//! shell sets up.
//!
//! `make test` builds the small one, and the full Debian where it is root. Where it is not, what needs that one is
//! skipped and says so.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed step fails its test")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::path::Path;
use std::time::Duration;

use machines::guest::GuestError;
use machines::guest::ssh::{Login, Proof};
use machines::guest::ssh_key::SshKey;
use machines::machine::{Lent, Order};
use machines::manager::DefaultImage;
use machines::{MachineError, Machines, Settings};
use wire::Secret;

use crate::lab::{self, Lab, check_login, is_refused};

/// Whether the full Debian is there; root must have it.
fn has_debian() -> bool {
    let manifest = lab::images().join("debian/image.toml");
    let there = manifest.exists();
    let why = "build it with `images/build debian`, or let `make test` do it";
    assert!(there || !rustix::process::geteuid().is_root(), "no {}: {why}", manifest.display());
    if !there {
        eprintln!("SKIPPED: only root can build the full Debian: sudo images/build debian");
    }
    there
}

/// Waits until nothing of a machine is left.
async fn until_gone(lab: &Lab, machines: &Machines) {
    let gone = async {
        while machines.stat().taken > 0 || lab.processes() > 0 || lab.folders() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("all is undone");
}

/// What a command says that the user runs as root, by the password that was lent.
async fn as_root(lent: &Lent, command: &str) -> String {
    let password = lent.password.expose();
    lab::said(lent, &format!("echo {password} | sudo -S -p '' -H sh -c '{command}'")).await
}

/// An ISO boots, is set up by the endpoint's shell, and lets its user in and the endpoint no more.
async fn check_iso(iso: &Path, memory_mb: u32) {
    let lab = Lab::new();
    let change = |settings: &mut Settings| {
        settings.image = DefaultImage::Iso(iso.to_owned());
        settings.memory_mb = memory_mb;
    };
    let machines = lab.open(change).await;
    let lent = machines.create(Order::default()).await.unwrap();
    check_login(&lent, "id -un", &lent.username).await;
    let endpoint = Proof::Password(Secret::new("endpoint"));
    let endpoint = Login { user: "endpoint".into(), proof: endpoint, port: 22 };
    let refused = lab::enter(&lent, &endpoint).await.map(drop);
    assert!(matches!(refused, Err(GuestError::Refused { .. })), "{refused:?}");
    assert_eq!(as_root(&lent, "id -u").await.trim(), "0");
    let _ = as_root(&lent, "poweroff").await;
    until_gone(&lab, &machines).await;
    assert!(is_refused(lent.port).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_small_image_keeps_the_contract_as_an_iso() {
    check_iso(&lab::images().join("small/image.iso"), 128).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_full_debian_keeps_the_contract_as_an_iso() {
    if has_debian() {
        check_iso(&lab::images().join("debian/image.iso"), 768).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_of_a_machine_with_a_disk_write_to_disks_of_their_own() {
    if !has_debian() {
        return;
    }
    let lab = Lab::new();
    let change = |settings: &mut Settings| {
        settings.image = DefaultImage::Named("debian".into());
        settings.memory_mb = 512;
    };
    let machines = lab.open_on(|qemu| qemu.disk_mb = 5120, change).await;
    let one = machines.create(Order::default()).await.unwrap();
    let other = machines.create(Order::default()).await.unwrap();
    // Read again from the disk, since what was written is dropped from memory.
    let write = "head -c 4M /dev/urandom | tee /kept | sha256sum; sync; echo 3 >/proc/sys/vm/drop_caches; sha256sum </kept";
    let said = as_root(&one, write).await;
    let sums: Vec<&str> = said.lines().collect();
    assert!(sums.len() == 2 && sums[0] == sums[1], "{said}");
    let look = "sync; echo 3 >/proc/sys/vm/drop_caches; ls /kept 2>/dev/null || echo nothing";
    assert_eq!(as_root(&other, look).await.trim(), "nothing");
    // Larger than the image's, as wanted; in sectors.
    assert_eq!(lab::said(&one, "cat /sys/block/vda/size").await.trim(), "10485760");
    // A kernel numbers each of its boots at random: theirs was one and the same.
    let boot = "cat /proc/sys/kernel/random/boot_id";
    assert_eq!(lab::said(&one, boot).await, lab::said(&other, boot).await);
    assert_ne!(one.host_key, other.host_key);
    let _ = as_root(&one, "reboot").await;
    machines.destroy(other.id, &other.token).await.unwrap();
    until_gone(&lab, &machines).await;
}

/// Lends the small image as one that has no agent.
fn lend_iso(settings: &mut Settings) {
    settings.image = DefaultImage::Iso(lab::images().join("small/image.iso"));
    settings.memory_mb = 128;
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_without_agent_are_clones_where_that_is_wanted_and_let_keys_in() {
    let lab = Lab::new();
    let [own, gateway] = [(); 2].map(|()| SshKey::random().unwrap());
    let change = |settings: &mut Settings| {
        lend_iso(settings);
        settings.gateway_key = Some(gateway.public_line("gateway"));
    };
    let machines = lab.open_on(|qemu| qemu.snapshot_foreign = true, change).await;
    let with_key = Order { ssh_public_key: Some(own.public_line("me")), ..Order::default() };
    let one = machines.create(with_key).await.unwrap();
    let other = machines.create(Order::default()).await.unwrap();
    // Made at random at each boot, and nobody gives a clone without agent another.
    assert!(one.host_key.is_some() && one.host_key == other.host_key, "two boots");
    lab::check_key_login(&one, &own).await;
    for lent in [&one, &other] {
        lab::check_key_login(lent, &gateway).await;
        check_login(lent, "id -un", &lent.username).await;
    }
    let stranger = Login { user: other.username.clone(), proof: Proof::Key(own), port: 22 };
    let refused = lab::enter(&other, &stranger).await.map(drop);
    assert!(matches!(refused, Err(GuestError::Refused { .. })), "{refused:?}");
    machines.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_not_let_in_fails_the_creation_and_leaves_nothing() {
    let lab = Lab::new();
    let change = |settings: &mut Settings| {
        lend_iso(settings);
        settings.endpoint.proof = Proof::Password(Secret::new("another"));
    };
    let machines = lab.open(change).await;
    let failed = machines.create(Order::default()).await.map(|lent| lent.id);
    let says = |why: &str| why == "the guest refused to let endpoint log in";
    assert!(matches!(&failed, Err(MachineError::SetUp(why)) if says(why)), "{failed:?}");
    until_gone(&lab, &machines).await;
}
