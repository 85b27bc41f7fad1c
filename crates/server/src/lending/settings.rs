//! What the configuration means to the rooms that lend machines. Pure.
//!
//! Invariant: every setting of a machine reaches the room, or is named here as not meant for it.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use machines::Settings;
use machines::guest::ssh::{Login, Proof};
use machines::manager::DefaultImage;
use machines::network::{Net, NetworkPolicy};
use machines::ports::{Admission, Limits};
use machines::qemu::{QemuSettings, User, Wanted};

use crate::config::IpNetwork;
use crate::config::containers::{Accelerator, Machines, OnShutdown};

/// The image that is lent where nothing else is configured.
const IMAGE_DEFAULT: &str = "small";
/// How long a guest may take to boot where that is not limited: longer than any boots, shorter than for ever.
const READY_MAX: Duration = Duration::from_secs(3600);
/// A server that is killed may have lent a machine and not told of it: for so long somebody may still come.
const CLAIM_WITHIN: Duration = Duration::from_secs(600);

/// How QEMU is used, as `user`.
pub(super) fn of_qemu(config: &Machines, user: Option<User>) -> QemuSettings {
    QemuSettings {
        program: PathBuf::from("qemu-system-x86_64"),
        accelerator: match config.accelerator {
            Accelerator::Auto => Wanted::Auto,
            Accelerator::Kvm => Wanted::Kvm,
            Accelerator::Emulation => Wanted::Qemu,
        },
        user,
        snapshots: config.state.join("snapshots"),
        snapshots_max: config.snapshots.count_max,
        network: Arc::new(network(config)),
        snapshot: config.snapshots.is_on,
        snapshot_foreign: config.snapshots.is_foreign_on,
        limits: true,
        cpu_percent_max: config.cpu_percent_max,
        disk_mb: config.disk.size_mb,
        disk_bytes_per_second: bytes(config.disk.kib_max),
        disk_operations_per_second: config.disk.operations_max,
        endpoint: endpoint(config),
        ready_within: config.ready_timeout.unwrap_or(READY_MAX),
    }
}

fn endpoint(config: &Machines) -> Login {
    Login {
        user: config.endpoint_username.clone(),
        proof: Proof::Password(config.endpoint_password.clone()),
        port: config.endpoint_port,
    }
}

fn network(config: &Machines) -> NetworkPolicy {
    let rate = |kib: Option<u64>| kib.map(bytes).and_then(NonZeroU64::new);
    NetworkPolicy {
        internet: config.internet,
        allow: config.network_allow.iter().map(net).collect(),
        deny: config.network_deny.iter().map(net).collect(),
        upload_bytes_per_second: rate(config.upload_kib_max),
        download_bytes_per_second: rate(config.download_kib_max),
    }
}

fn net(network: &IpNetwork) -> Net {
    // A prefix is never longer than its address, which was seen to when it was read.
    Net::new(network.address, network.prefix_bits).unwrap_or_else(|_| network.address.into())
}

fn bytes(kib: u64) -> u64 {
    kib.saturating_mul(1024)
}

/// How machines are lent. `gateway_key` is let in to each.
pub(super) fn of_machines(config: &Machines, gateway_key: Option<String>) -> Settings {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Settings {
        directory: config.state.clone(),
        machines_max: config.count_max,
        quota: config.quota,
        image: default_image(config),
        memory_mb: config.memory_mb,
        memory_mb_max: config.memory_mb_max,
        vcpus: config.vcpus,
        vcpus_max: config.vcpus_max,
        ttl: config.ttl_default,
        ttl_max: config.ttl_max,
        pool: config.pool,
        starts_at_once: processors,
        keeps: config.on_shutdown == OnShutdown::Keep,
        claim_within: CLAIM_WITHIN,
        gateway_key,
        endpoint: endpoint(config),
        forwarding: Limits {
            bytes_per_second: config.bandwidth_kib_max.map_or(0, bytes),
            admission: match config.ip_filter.clone() {
                Some(filter) => Admission::of(move |address| filter.admits(address)),
                None => Admission::default(),
            },
            ..Limits::default()
        },
    }
}

/// The image of who names none.
pub(super) fn default_image(config: &Machines) -> DefaultImage {
    match (&config.default_image, &config.iso) {
        (Some(name), _) => DefaultImage::Named(name.clone()),
        (None, Some(iso)) => DefaultImage::Iso(iso.clone()),
        (None, None) => DefaultImage::Named(IMAGE_DEFAULT.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    fn read(text: &str) -> Machines {
        let config = Config::embedded("f", text, &Overrides::default(), &|_| None).unwrap();
        config.containers.unwrap().machines
    }

    const EVERYTHING: &str = "
        [containers]
        state = /m
        max_allowed_running_container_domains = 3
        container_memory = 300
        container_memory_max = 400
        container_vcpus = 1
        container_vcpus_max = 5
        cpu_percent_max = 50
        bandwidth_kib_max = 256
        upload_kib_max = 32
        download_kib_max = 64
        domain_type = kvm
        wait_max_tryout = 7
        endpoint_username = e
        endpoint_password = secret
        endpoint_listen_port = 2222
        pool = 2
        ttl_default_secs = 60
        ttl_max_secs = 120
        quota = 1
        internet = yes
        network_allow = 10.0.0.0/8 192.168.7.1
        network_deny = 10.9.0.0/16 8.8.8.8 2001:db8::/32
        on_shutdown = stop
        snapshot = no
        snapshot_foreign = yes
        snapshots_max = 5
        container_disk = 9000
        disk_kib_max = 16
        disk_operations_max = 70
        default_image = mine
        [containers.ip_filter]
        enabled = yes
        denied_ip_list = 10.0.0.5
    ";

    #[test]
    fn what_is_configured_reaches_qemu() {
        let user = Some(User { uid: 7, gid: 8 });
        // Without `..`, so that a new setting is thought of here.
        let QemuSettings {
            program,
            accelerator,
            user: used,
            snapshots,
            snapshots_max,
            network,
            snapshot,
            snapshot_foreign,
            limits,
            cpu_percent_max,
            disk_mb,
            disk_bytes_per_second,
            disk_operations_per_second,
            endpoint,
            ready_within,
        } = of_qemu(&read(EVERYTHING), user);
        assert_eq!(program, PathBuf::from("qemu-system-x86_64"));
        assert_eq!((accelerator, used), (Wanted::Kvm, user));
        assert_eq!((endpoint.user.as_str(), endpoint.port), ("e", 2222));
        assert_eq!((snapshots, snapshots_max), (PathBuf::from("/m/snapshots"), 5));
        assert_eq!(
            (disk_mb, disk_bytes_per_second, disk_operations_per_second),
            (9000, 16 << 10, 70)
        );
        assert_eq!((snapshot, snapshot_foreign, limits), (false, true, true));
        assert_eq!((cpu_percent_max, ready_within), (Some(50), Duration::from_secs(7)));
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let expected = NetworkPolicy {
            internet: true,
            allow: nets(&["10.0.0.0/8", "192.168.7.1/32"]),
            deny: nets(&["10.9.0.0/16", "8.8.8.8/32", "2001:db8::/32"]),
            upload_bytes_per_second: NonZeroU64::new(32 * 1024),
            download_bytes_per_second: NonZeroU64::new(64 * 1024),
        };
        assert_eq!(*network, expected);
    }

    #[test]
    fn what_is_configured_reaches_the_manager() {
        // As above.
        let Settings {
            directory,
            machines_max,
            quota,
            image,
            memory_mb,
            memory_mb_max,
            vcpus,
            vcpus_max,
            ttl,
            ttl_max,
            pool,
            starts_at_once,
            keeps,
            claim_within,
            endpoint: Login { user, proof, port },
            gateway_key,
            forwarding,
        } = of_machines(&read(EVERYTHING), Some("key".into()));
        assert_eq!(directory, PathBuf::from("/m"));
        assert_eq!((machines_max, quota, pool), (3, Some(1), 2));
        assert_eq!(image, DefaultImage::Named("mine".into()));
        assert_eq!((memory_mb, memory_mb_max, vcpus, vcpus_max), (300, 400, 1, 5));
        let secs = |secs| Some(Duration::from_secs(secs));
        assert_eq!((ttl, ttl_max), (secs(60), secs(120)));
        assert!(starts_at_once > 0 && !keeps && claim_within == CLAIM_WITHIN);
        assert!(matches!(proof, Proof::Password(password) if password.expose() == "secret"));
        assert_eq!((user.as_str(), port, gateway_key.as_deref()), ("e", 2222, Some("key")));
        let Limits {
            connections_max,
            connections_per_address_max,
            connections_per_second,
            bytes_per_second,
            idle_max,
            connect_max,
            admission,
        } = forwarding;
        assert_eq!(
            (connections_max, connections_per_address_max, connections_per_second),
            (64, 32, 20)
        );
        assert_eq!((bytes_per_second, idle_max), (256 * 1024, None));
        assert_eq!(connect_max, Duration::from_secs(10));
        let admitted = ["10.0.0.5", "10.0.0.6"].map(|ip| admission.admits(ip.parse().unwrap()));
        assert_eq!(admitted, [false, true]);
    }

    #[test]
    fn what_is_not_configured_is_not_limited_and_reaches_nothing() {
        let config = read("[containers]\nwait_max_tryout = -1");
        let qemu = of_qemu(&config, None);
        assert_eq!(*qemu.network, NetworkPolicy::default());
        assert_eq!((qemu.cpu_percent_max, qemu.ready_within), (None, READY_MAX));
        assert_eq!((qemu.accelerator, qemu.snapshot), (Wanted::Auto, true));
        let settings = of_machines(&config, None);
        assert_eq!(settings.forwarding.bytes_per_second, 0);
        assert!(settings.forwarding.admission.admits("10.0.0.5".parse().unwrap()));
        assert_eq!((settings.ttl, settings.quota, settings.pool), (None, None, 0));
        assert_eq!(settings.image, DefaultImage::Named("small".into()));
        assert!(settings.keeps);
        let iso = read("[containers]\ncontainer_iso_file_path = /x.iso");
        assert_eq!(default_image(&iso), DefaultImage::Iso("/x.iso".into()));
    }
}
