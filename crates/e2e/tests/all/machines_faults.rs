//! What goes wrong around machines: each fault is told, undone and got over.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::lending::{self, id, images, port, text};
use e2e::{Connection, Lending, Setup, Signal, wait_until};
use rustix::process::geteuid;
use serde_json::json;

/// An own copy of the small image, which may be spoilt.
fn own_image(setup: Setup) -> Setup {
    let (from, to) = (images().join("small"), setup.path().join("images/small"));
    fs::create_dir_all(&to).unwrap();
    for file in ["image.toml", "vmlinux", "initrd"] {
        let _ = fs::copy(from.join(file), to.join(file)).unwrap();
    }
    // The ISO is another way to boot the same thing.
    let manifest = fs::read_to_string(to.join("image.toml")).unwrap();
    let manifest: Vec<&str> = manifest.lines().filter(|line| !line.contains("image.iso")).collect();
    fs::write(to.join("image.toml"), manifest.join("\n")).unwrap();
    setup.set("containers", "images", "{dir}/images")
}

fn refused_by_image(lending: &Lending, words: &str) {
    let reply = lending.post("/machines").send();
    assert!((400..600).contains(&reply.status), "{} {}", reply.status, reply.text());
    let said = reply.refused(reply.status);
    assert!(said.contains("small") && said.contains(words), "{said}");
    lending.wait_for_nothing();
}

#[test]
fn an_image_that_changes_or_goes_is_told_and_its_machines_stay() {
    let lending = Lending::start_in(own_image(Lending::setup()));
    let lent = lending.lend_any();
    let initrd = lending.path("images/small/initrd");
    let whole = fs::read(&initrd).unwrap();
    let mut spoilt = whole.clone();
    spoilt[whole.len() / 2] ^= 1;
    fs::write(&initrd, &spoilt).unwrap();
    let reply = lending.post("/machines").send();
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert!(reply.text().contains("initrd"), "{}", reply.text());
    assert!(lending.enter(&lent).is_some(), "the machine that was lent before");
    let _ = lending.request("DELETE", &format!("/machines/{}", id(&lent))).send().ok();

    fs::remove_file(&initrd).unwrap();
    refused_by_image(&lending, "initrd");
    fs::rename(lending.path("images/small"), lending.path("images/elsewhere")).unwrap();
    refused_by_image(&lending, "");
    fs::rename(lending.path("images/elsewhere"), lending.path("images/small")).unwrap();
    fs::write(&initrd, &whole).unwrap();
    assert!(lending.enter(&lending.lend_any()).is_some());
}

/// What happens in the guest before its init: its SSH server listens elsewhere until the set-up program is run, as the
/// contract with images allows, and its endpoint has another password, "another word".
const ELSEWHERE: &str = r#"rdinit=/bin/sh -- -c \"sed -i 's/-p 22 /-p 2222 /' /etc/inittab; \
    sed -i 's/^exec //; $a dropbear -w -p $3 -P x -r /etc/dropbear/dropbear_ed25519_host_key' /bin/anweddol_container_setup.sh; \
    sed -i 's|^endpoint:[^:]*|endpoint:$6$gatehouse$N3nxRLwaAOb6lXyhZgGzrWyiCzT2y3KzMJWPoMBEjjC4NJnUoycil8MHxkcnQBjCR9YlhvchE1ZX1f8B2Qlcy/|' \
    /etc/shadow; exec /init\""#;

#[test]
fn an_image_without_agent_is_set_up_where_and_with_the_password_that_is_configured() {
    let setup = own_image(Lending::setup()).set("containers", "endpoint_listen_port", "2222").set(
        "containers",
        "endpoint_password",
        "another word",
    );
    let file = setup.path().join("images/small/image.toml");
    let manifest = fs::read_to_string(&file).unwrap();
    let lines = manifest.lines().map(|line| match line.split_once(" = ") {
        Some(("agent", _)) => "agent = false".to_owned(),
        Some(("cmdline", words)) => {
            format!("cmdline = \"\"\"{} {ELSEWHERE}\"\"\"", words.trim_matches('"'))
        }
        _ => line.to_owned(),
    });
    fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
    let mut lending = Lending::start_in(setup);
    let lent = lending.lend_any();
    let guest = lending.enter(&lent).expect("the user's login");
    assert_eq!(guest.run("id -un").0.trim(), text(&lent["username"]));
    let _ = lending.request("DELETE", &format!("/machines/{}", id(&lent))).send().ok();

    lending.configure(|setup| setup.set("containers", "endpoint_password", "a wrong word"));
    lending.restart(Signal::TERM);
    let reply = lending.post("/machines").send();
    assert!(reply.refused(500).contains("the server's log says more"), "{}", reply.text());
    let words = "the guest refused to let endpoint log in";
    wait_until(words, || lending.log().so_far().contains(words).then_some(()));
    lending.wait_for_nothing();
}

#[test]
fn a_snapshot_that_is_spoilt_is_made_anew() {
    let mut lending = Lending::start();
    let first = lending.lend_any();
    let _ = lending.request("DELETE", &format!("/machines/{}", id(&first))).send().ok();
    for part in ["memory", "devices", "snapshot.json"] {
        let file = snapshot_file(&lending, part);
        lending.restart_then(Signal::TERM, || spoil(&file));
        let lent = lending.lend_any();
        let guest = lending.enter(&lent).unwrap_or_else(|| panic!("{part}: nobody gets in"));
        assert_eq!(guest.run("echo well").0, "well\n", "{part}");
        let log = lending.log().so_far();
        assert!(log.contains("a snapshot is thrown away"), "{part}: {log}");
        let _ = lending.request("DELETE", &format!("/machines/{}", id(&lent))).send().ok();
    }
    lending.wait_for_nothing();
}

fn snapshot_file(lending: &Lending, name: &str) -> std::path::PathBuf {
    let snapshots = fs::read_dir(lending.path("m/snapshots")).unwrap().flatten();
    let files = snapshots.map(|snapshot| snapshot.path().join(name));
    files.into_iter().find(|file| file.exists()).unwrap_or_else(|| panic!("no {name}"))
}

/// Changes a byte in the middle.
fn spoil(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    // A snapshot cannot be written to by accident.
    fs::remove_file(file).unwrap();
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_machine_whose_process_is_killed_leaves_its_place_at_once() {
    let lending = Lending::start();
    let (lent, other) = (lending.lend_any(), lending.lend_any());
    e2e::lending::signal(lending.qemu_of(&id(&lent)), Signal::KILL);
    let begun = Instant::now();
    wait_until("its place to be free", || (lending.available() == 5).then_some(()));
    assert!(begun.elapsed() < lending::SOON, "{:?}", begun.elapsed());
    let _ = lending.get(&format!("/machines/{}", id(&lent))).refused(404);
    assert!(Connection::try_open(([127, 0, 0, 1], port(&lent)).into()).is_none());
    assert!(lending.enter(&other).is_some(), "another machine's end is no business of this one");
    assert_eq!(lending.folders().into_iter().collect::<Vec<_>>(), [id(&other)]);
}

#[test]
fn a_guest_that_powers_off_reboots_or_panics_is_given_back() {
    let lending = Lending::start();
    for command in ["poweroff -f", "reboot -f", "echo c > /proc/sysrq-trigger"] {
        let lent = lending.lend_any();
        let guest = lending.enter(&lent).unwrap();
        let password = text(&lent["password"]);
        guest.tell(&format!("echo {password} | sudo -S sh -c '{command}'"));
        wait_until(command, || lending.ids().is_empty().then_some(()));
        lending.wait_for_nothing();
    }
}

#[test]
fn machines_outlive_the_server_unless_it_is_told_to_end_them() {
    let mut lending = Lending::start();
    let lent = lending.lend(&json!({ "ttl": 3600 }));
    let guest = lending.enter(&lent).unwrap();
    assert_eq!(guest.run("echo here > file").1, Some(0));
    drop(guest);
    let before = lending.qemu();
    lending.restart(Signal::TERM);
    assert_eq!(lending.qemu(), before, "another process");
    let guest = lending.enter(&lent).expect("the same credentials at the same port");
    assert_eq!(guest.run("cat file").0, "here\n");
    let shown = lending.get_json(&format!("/machines/{}", id(&lent)));
    assert_eq!(shown, lent["machine"]);
    assert_eq!(lending.available(), 5);

    lending.configure(|setup| setup.set("containers", "on_shutdown", "stop"));
    // The first of these two servers does not know of the new setting yet.
    lending.restart(Signal::TERM);
    assert_eq!(lending.ids().len(), 1);
    lending.restart(Signal::TERM);
    lending.wait_for_nothing();
    assert_eq!(lending.available(), 6);
}

#[test]
fn a_machine_that_ended_while_no_server_ran_is_forgotten() {
    let mut lending = Lending::start();
    let (lent, overdue) = (lending.lend_any(), lending.lend(&json!({ "ttl": 4 })));
    let pid = lending.qemu_of(&id(&lent));
    lending.restart_then(Signal::KILL, || {
        e2e::lending::signal(pid, Signal::KILL);
        std::thread::sleep(Duration::from_secs(4));
    });
    let _ = lending.get(&format!("/machines/{}", id(&lent))).refused(404);
    let _ = lending.enter(&overdue);
    lending.wait_for_nothing();
}

#[test]
fn a_record_that_cannot_be_read_ends_its_machine_alone() {
    let mut lending = Lending::start();
    let (lent, other) = (lending.lend_any(), lending.lend_any());
    let record = lending.path("m/running").join(format!("{}.json", id(&lent)));
    lending.restart_then(Signal::KILL, || fs::write(&record, "{\"half\":").unwrap());
    assert_eq!(lending.ids().into_iter().collect::<Vec<_>>(), [id(&other)]);
    assert_eq!(lending.qemu().len(), 1);
    assert!(lending.enter(&other).is_some());
}

#[test]
fn a_full_disk_refuses_machines_and_leaves_nothing_of_them() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root can have a small disk");
        return;
    }
    let setup = Lending::setup();
    let state = setup.path().join("m");
    fs::create_dir(&state).unwrap();
    let place = state.display().to_string();
    let mount = ["-t", "tmpfs", "-o", "size=24m,mode=700", "none", &place];
    if e2e::run(Path::new("mount"), &mount, setup.path()).code != Some(0) {
        eprintln!("SKIPPED: this container has no right to mount a small disk");
        return;
    }
    let unmount = Unmount(place);
    let lending = Lending::start_in(setup);
    // There is no room for a snapshot of 128 MiB, and then none for anything at all.
    let without_snapshot = lending.post("/machines").send();
    assert!(matches!(without_snapshot.status, 201 | 500 | 503), "{}", without_snapshot.text());
    for id in lending.ids() {
        let _ = lending.request("DELETE", &format!("/machines/{id}")).send().ok();
    }
    lending.wait_for_nothing();
    let rest = fs::File::create(lending.path("m/rest")).unwrap();
    let _ = std::io::copy(&mut std::io::Read::take(std::io::repeat(1), 1 << 30), &mut &rest);
    let reply = lending.post("/machines").send();
    assert!(matches!(reply.status, 500 | 503), "{} {}", reply.status, reply.text());
    lending.wait_for_nothing();
    assert_eq!(lending.available(), 6);
    let log = lending.log().so_far();
    assert!(!log.contains("panicked") && log.contains("did not start"), "{log}");
    drop(rest);
    drop(lending);
    drop(unmount);
}

/// Takes a small disk away again.
struct Unmount(String);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = e2e::run(Path::new("umount"), &["-l", &self.0], Path::new("/"));
    }
}
