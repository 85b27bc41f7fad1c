//! Limits of a machine, as they are configured and as they are felt.

use std::thread::scope;
use std::time::Duration;

use e2e::lending::{id, port, text};
use e2e::{Guest, Lending};

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
