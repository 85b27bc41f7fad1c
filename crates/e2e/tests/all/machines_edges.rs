//! Machines where many want them at once, and where something else has what they need.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Barrier;
use std::thread::{scope, sleep};
use std::time::Duration;

use e2e::lending::{id, port};
use e2e::{Connection, Lending, Process, Reply, Setup, Signal, free_port, program, wait_until};
use serde_json::json;

/// The answers to as many creations at the same moment.
fn create_at_once(lending: &Lending, count: usize) -> Vec<Reply> {
    let barrier = Barrier::new(count);
    scope(|scope| {
        let clients: Vec<_> = (0..count)
            .map(|_| {
                scope.spawn(|| {
                    let _ = barrier.wait();
                    lending.post("/machines").send()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

#[test]
fn of_ten_at_once_as_many_are_served_as_there_are_places() {
    let lending = Lending::start_in(Lending::setup().set(
        "containers",
        "max_allowed_running_container_domains",
        "3",
    ));
    let replies = create_at_once(&lending, 10);
    let mut counts = BTreeMap::new();
    for reply in &replies {
        *counts.entry(reply.status).or_insert(0) += 1;
    }
    assert_eq!(counts, BTreeMap::from([(201, 3), (503, 7)]), "{}", lending.log().so_far());
    assert_eq!((lending.available(), lending.qemu().len()), (0, 3));
    let mut fingerprints = Vec::new();
    let mut random = Vec::new();
    for reply in replies.iter().filter(|reply| reply.status == 201) {
        let guest = lending.enter(&reply.json()).expect("a login");
        random.push(guest.run("head -c 16 /dev/urandom | md5sum; cat /etc/machine-id").0);
        fingerprints.push(guest.fingerprint.clone());
    }
    for mut all in [fingerprints, random] {
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 3, "clones are alike: {all:?}");
    }
}

#[test]
fn the_warm_pool_is_filled_again_and_survives_a_kill() {
    let mut lending = Lending::start_in(Lending::setup().set("containers", "pool", "1"));
    let filled = |lending: &Lending, lent: usize| {
        wait_until("a pool of one", || (lending.qemu().len() == lent + 1).then_some(()));
        assert_eq!(lending.ids().len(), lent, "who waits in the pool is nobody's");
    };
    filled(&lending, 0);
    let first = lending.lend_any();
    filled(&lending, 1);
    lending.restart(Signal::KILL);
    filled(&lending, 1);
    let second = lending.lend_any();
    for lent in [&first, &second] {
        assert!(lending.enter(lent).is_some());
        let _ = lending.request("DELETE", &format!("/machines/{}", id(lent))).send().ok();
    }
    filled(&lending, 0);
    assert_eq!(lending.folders().len(), 1);
}

/// A range of one port.
fn only(setup: Setup, port: u16) -> Setup {
    setup.set("containers", "max_allowed_running_container_domains", "1").set(
        "containers.port_forwarding",
        "port_range",
        &format!("{port} {port}"),
    )
}

#[test]
fn a_port_that_somebody_else_has_is_not_lent() {
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = stranger.local_addr().unwrap().port();
    let lending = Lending::start_in(only(Lending::setup(), taken));
    let said = lending.post("/machines").send().refused(503);
    assert!(said.contains("port"), "{said}");
    lending.wait_for_nothing();
    drop(stranger);
    assert_eq!(port(&lending.lend_any()), taken);
}

#[test]
fn a_port_that_was_taken_while_no_server_ran_stops_no_server() {
    let mut lending = Lending::start_in(only(Lending::setup(), free_port()));
    let lent = lending.lend_any();
    let mut stranger = None;
    lending.restart_then(Signal::KILL, || {
        stranger = Some(TcpListener::bind(("127.0.0.1", port(&lent))).unwrap());
    });
    // Its one port is gone, so nobody could reach it.
    wait_until("the machine to be ended", || lending.qemu().is_empty().then_some(()));
    assert!(lending.ids().is_empty() && lending.folders().is_empty());
    drop(stranger);
    assert!(lending.enter(&lending.lend_any()).is_some());
}

#[test]
fn fewer_places_than_machines_end_none_of_them() {
    let mut lending = Lending::start();
    let lent = [lending.lend_any(), lending.lend_any()];
    lending
        .configure(|setup| setup.set("containers", "max_allowed_running_container_domains", "1"));
    lending.restart(Signal::TERM);
    assert_eq!((lending.ids().len(), lending.available()), (2, 0));
    let _ = lending.post("/machines").send().refused(503);
    let _ = lending.request("DELETE", &format!("/machines/{}", id(&lent[0]))).send().ok();
    assert_eq!(lending.available(), 0);
    let _ = lending.post("/machines").send().refused(503);
    assert!(lending.enter(&lent[1]).is_some());
}

#[test]
fn a_second_server_on_the_same_state_refuses_to_start() {
    let lending = Lending::start();
    let lent = lending.lend_any();
    let file = lending.path("gatehouse.ini").display().to_string();
    let arguments = ["serve", "-i", &file];
    let mut second = Process::start(&program(), &arguments, &lending.path(""), &[]);
    let has_ended = second.ends_within(Duration::from_secs(10));
    second.signal(Signal::KILL);
    let exit = second.wait();
    assert!(has_ended, "it runs: {exit:?}");
    assert!(exit.code.is_some_and(|code| code != 0), "{exit:?}");
    assert!(exit.stderr.contains("/m"), "the folder is not named: {exit:?}");
    assert!(lending.enter(&lent).is_some(), "the first server's machine");
    assert_eq!(lending.qemu().len(), 1);
}

#[test]
fn without_qemu_the_server_says_what_is_missing() {
    let exit = Lending::setup().environment("PATH", "/nowhere").fail_to_start();
    assert!(exit.stderr.contains("qemu-system-x86_64"), "{exit:?}");
    assert!(!exit.stderr.contains("panicked"), "{exit:?}");
}

#[test]
fn a_server_that_ends_during_a_creation_leaves_nothing_of_it() {
    let mut lending = Lending::start();
    let _ = lending.lend(&json!({ "ttl": 1 }));
    lending.wait_for_nothing();
    for after in [20, 120, 250] {
        let mut connection = lending.connect();
        connection.write("POST /machines HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        sleep(Duration::from_millis(after));
        let mut answer = None;
        lending.restart_then(Signal::TERM, || answer = connection.try_read_reply());
        // Either it was lent, and is there, or it was not, and nothing is.
        match answer {
            Some(reply) if reply.status == 201 => {
                let lent = reply.json();
                assert!(lending.enter(&lent).is_some(), "{after} ms: lent, and nobody gets in");
                let path = format!("/machines/{}", id(&lent));
                let _ = lending.request("DELETE", &path).send().ok();
            }
            Some(reply) => assert_eq!(reply.status, 503, "{}", reply.text()),
            None => {}
        }
        lending.wait_for_nothing();
    }
}

#[test]
fn many_connections_to_one_machine_end_with_it() {
    let lending = Lending::start();
    let lent = lending.lend_any();
    let address = ([127, 0, 0, 1], port(&lent)).into();
    let mut open: Vec<Connection> =
        (0..200).filter_map(|_| Connection::try_open(address)).collect();
    assert_eq!(lending.get("/machines").status, 200);
    let _ = lending.request("DELETE", &format!("/machines/{}", id(&lent))).send().ok();
    for connection in &mut open {
        let _ = connection.read_to_close();
    }
    lending.wait_for_nothing();
    let again = lending.lend_any();
    assert!(lending.enter(&again).is_some());
}
