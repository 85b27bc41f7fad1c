//! Limits of a machine, as they are configured and as they are felt.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::scope;
use std::time::Duration;

use e2e::lending::{id, port, text};
use e2e::{Guest, Lending, Signal, wait_until};

/// How long is looked at what passes.
const LOOK: Duration = Duration::from_secs(3);

/// Asserts that no more has passed than is earned in a time, and a second of it beside for credit and buffers.
#[track_caller]
fn check_pace(kib_per_second: u128, bytes: usize, time: Duration) {
    let most = kib_per_second * 1024 * (time.as_millis() + 1000) / 1000;
    assert!((bytes as u128) < most, "{bytes} bytes in {time:?}");
}

#[test]
fn the_port_and_the_gateway_share_the_bandwidth_of_a_machine() {
    let setup = Lending::setup().set("containers", "ssh_gateway_port", "0");
    let lending = Lending::start_in(setup.set("containers", "bandwidth_kib_max", "128"));
    let lent = lending.lend_any();
    let gateway = u16::try_from(lent["gateway_port"].as_u64().unwrap()).unwrap();
    let (user, password) = (text(&lent["username"]), text(&lent["password"]));
    let ways = [(port(&lent), user), (gateway, id(&lent))];
    let counted = scope(|scope| {
        let ways = ways.map(|(port, name)| {
            let password = &password;
            scope.spawn(move || {
                let guest = Guest::enter(port, &name, password).expect("a login");
                guest.bytes_within("head -c 20000000 /dev/zero", LOOK)
            })
        });
        ways.map(|way| way.join().unwrap())
    });
    let bytes = counted.iter().map(|(bytes, _)| bytes).sum();
    check_pace(128, bytes, counted[0].1.max(counted[1].1));
}

#[test]
fn what_a_machine_sends_is_limited_whichever_way_it_leaves() {
    let lending = Lending::start_in(Lending::setup().set("containers", "upload_kib_max", "128"));
    let guest = lending.enter(&lending.lend_any()).expect("a login");
    let (bytes, time) = guest.bytes_within("head -c 20000000 /dev/zero", LOOK);
    check_pace(128, bytes, time);
}

/// Where the kernel shows its groups.
const GROUPS: &str = "/sys/fs/cgroup";

/// The groups of a process, or of ourselves, with the names of what they limit: empty in the kernel's second form.
fn groups(pid: &str) -> Vec<(String, PathBuf)> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let parts = text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let folder = |path: &str| path.trim_start_matches('/').to_owned();
    parts
        .map(|(kinds, path)| (kinds.to_owned(), Path::new(GROUPS).join(kinds).join(folder(path))))
        .collect()
}

/// Whether groups can be made here: not in every container, nor by everybody.
fn can_make_groups() -> bool {
    let own = groups("self").into_iter().find(|(kinds, _)| kinds.split(',').any(|it| it == "pids"));
    // The second form does not let us divide a group that we are in.
    let Some((_, own)) = own else { return false };
    let tried = own.join(format!("gatehouse-test-{}", std::process::id()));
    fs::create_dir(&tried).and_then(|()| fs::remove_dir(&tried)).is_ok()
}

/// What is written in the groups of a machine, and where they are.
fn limits(lending: &Lending, id: &str) -> (Vec<(&'static str, String)>, Vec<PathBuf>) {
    const FILES: [&str; 5] =
        ["cpu.cfs_quota_us", "cpu.cfs_period_us", "memory.limit_in_bytes", "pids.max", "cpu.max"];
    let own = Path::new("gatehouse-machines").join(format!("gatehouse-{id}"));
    let folders = groups(&lending.qemu_of(id).to_string()).into_iter().map(|(_, folder)| folder);
    let folders: Vec<_> = folders.filter(|folder| folder.ends_with(&own)).collect();
    let read = |file: &'static str| {
        let text = folders.iter().find_map(|it| fs::read_to_string(it.join(file)).ok())?;
        Some((file, text.trim().to_owned()))
    };
    (FILES.into_iter().filter_map(read).collect(), folders)
}

#[test]
fn a_machine_is_in_groups_of_its_own_that_go_with_it() {
    let setup = Lending::setup().set("containers", "cpu_percent_max", "50");
    let mut lending = Lending::start_in(setup);
    let ids = [id(&lending.lend_any()), id(&lending.lend_any())];
    if !can_make_groups() {
        eprintln!("skipped: no control groups can be made here");
        return;
    }
    let expected = [
        ("cpu.cfs_quota_us", "50000"),
        ("cpu.cfs_period_us", "100000"),
        ("memory.limit_in_bytes", "536870912"),
        ("pids.max", "64"),
    ]
    .map(|(file, text)| (file, text.to_owned()));
    let destroy = |lending: &Lending, id: &str, folders: Vec<PathBuf>| {
        let _ = lending.request("DELETE", &format!("/machines/{id}")).send().ok();
        wait_until("its groups to go", || {
            folders.iter().all(|folder| !folder.exists()).then_some(())
        });
    };
    let [first, second] = ids.each_ref().map(|id| limits(&lending, id));
    assert_eq!((first.0.as_slice(), second.0.as_slice()), (&expected[..], &expected[..]));
    destroy(&lending, &ids[0], first.1);
    // Of a machine that an earlier server put there, too.
    lending.restart(Signal::KILL);
    assert_eq!(limits(&lending, &ids[1]), second);
    destroy(&lending, &ids[1], second.1);
}
