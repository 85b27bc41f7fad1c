//! Machines as they are lent: real QEMU, real guests, real SSH through the public port.

mod images;
mod lab;

use std::time::{Duration, SystemTime};

use machines::MachineError;
use machines::machine::Order;
use machines::manager::Step;

use lab::{Lab, check_login, is_refused};

/// A guest under software emulation, with all of the tests beside it.
const LONG: Duration = Duration::from_secs(60);

/// Waits until `is` holds, or fails.
async fn eventually(what: &str, limit: Duration, mut is: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + limit;
    while !is() {
        assert!(tokio::time::Instant::now() < end, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_lent_used_and_taken_back_without_a_trace() {
    let lab = Lab::new();
    let machines = lab.open(|_| {}).await;
    let lent = machines.create(Order::default()).await.unwrap();
    check_login(&lent, "id -un", &lent.username).await;
    assert_eq!(machines.stat().available, 5);
    let foreign = machines::credentials::token().unwrap();
    let refused = machines.destroy(lent.id, &foreign).await;
    assert!(matches!(refused, Err(MachineError::WrongToken)), "{refused:?}");
    // Of three at once one takes it back.
    let destroy = || machines.destroy(lent.id, &lent.token);
    let (one, two, three) = tokio::join!(destroy(), destroy(), destroy());
    let taken = [one, two, three].iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(taken, 1);
    assert!(is_refused(lent.port).await);
    assert_eq!(machines.stat().available, 6);
    assert_eq!(lab.folders(), 0);
    assert_eq!(lab.processes(), 0);
    let again = machines.destroy(lent.id, &lent.token).await;
    assert!(matches!(again, Err(MachineError::NotFound)), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_machines_than_there_are_places_are_refused_before_anything_starts() {
    let lab = Lab::new();
    let machines = lab.open(|settings| settings.machines_max = 2).await;
    let mut lent = Vec::new();
    let mut refused = 0;
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let machines = machines.clone();
        all.spawn(async move { machines.create(Order::default()).await });
    }
    while let Some(done) = all.join_next().await {
        match done.unwrap() {
            Ok(one) => lent.push(one),
            Err(MachineError::NoCapacity { max: 2 }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(machines.stat().taken <= 2);
    }
    assert_eq!((lent.len(), refused), (2, 3));
    machines.close().await;
    assert_eq!(lab.processes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clones_of_a_snapshot_have_nothing_in_common_that_must_be_secret() {
    let lab = Lab::new();
    let machines = lab.open(|_| {}).await;
    let one = machines.create(Order::default()).await.unwrap();
    let other = machines.create(Order::default()).await.unwrap();
    let what = "head -c 16 /dev/urandom | od -An -tx1; cat /etc/machine-id; hostname; cat /sys/class/net/eth0/address";
    let said = lab::said(&one, what).await;
    let also = lab::said(&other, what).await;
    for (a, b) in said.lines().zip(also.lines()) {
        assert_ne!(a, b, "{said}\n{also}");
    }
    assert_eq!(said.lines().count(), 4, "{said}");
    assert_ne!(one.host_key, other.host_key);
    assert_ne!(one.password.expose(), other.password.expose());
    let clock: u64 = lab::said(&one, "date +%s").await.trim().parse().unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(clock) <= 2, "{clock} instead of {now}");
    machines.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_before_the_end_leaves_nothing() {
    let lab = Lab::new();
    let machines = lab.open(|_| {}).await;
    for step in [Step::Queued, Step::Starting, Step::SettingUp] {
        let mut pending = machines.order(Order::default()).await.unwrap();
        let mut steps = pending.steps();
        let reached = async {
            while *steps.borrow_and_update() < step {
                steps.changed().await.unwrap();
            }
        };
        let work = async {
            pending.start().await.unwrap();
            pending.set_up().await.unwrap();
        };
        tokio::select! {
            biased;
            () = reached => {}
            () = work => panic!("{step:?} was never reached"),
        }
        drop(pending);
        let gone = || machines.stat().taken == 0 && lab.processes() == 0 && lab.folders() == 0;
        eventually("all is undone", Duration::from_secs(5), gone).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_ends_by_itself_gives_its_place_back() {
    let lab = Lab::new();
    let machines = lab.open(|settings| settings.machines_max = 1).await;
    for ending in ["poweroff -f", "reboot -f", "echo c > /proc/sysrq-trigger"] {
        let lent = machines.create(Order::default()).await.unwrap();
        // Its user may become root with the password that was lent. The connection ends with the guest, and not before.
        let command = format!("echo {} | sudo -S sh -c '{ending}'", lent.password.expose());
        let _ = lab::run(&lent, &command).await;
        let gone = || machines.stat().taken == 0 && lab.processes() == 0 && lab.folders() == 0;
        eventually(ending, Duration::from_secs(1), gone).await;
        assert!(is_refused(lent.port).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_process_is_killed_gives_its_place_back() {
    let lab = Lab::new();
    let machines = lab.open(|_| {}).await;
    let lent = machines.create(Order::default()).await.unwrap();
    assert_eq!(lab.kill_all(), 1);
    let gone = || machines.stat().taken == 0 && lab.folders() == 0;
    eventually("its place is free", Duration::from_secs(1), gone).await;
    assert!(is_refused(lent.port).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifetime_ends_and_can_be_extended() {
    let lab = Lab::new();
    let machines = lab.open(|settings| settings.ttl_max = Some(Duration::from_secs(100))).await;
    let order = Order { ttl: Some(Duration::from_secs(2)), ..Order::default() };
    let (short, long) =
        (machines.create(order.clone()).await.unwrap(), machines.create(order).await.unwrap());
    machines.extend(long.id, Duration::from_secs(90)).await.unwrap();
    let too_long = machines.extend(long.id, Duration::from_secs(101)).await;
    assert!(matches!(too_long, Err(MachineError::Order(_))), "{too_long:?}");
    let is_gone = || machines.show(short.id).is_err();
    eventually("the short one ends", Duration::from_secs(5), is_gone).await;
    assert!(machines.show(long.id).is_ok());
    machines.close().await;
}

#[test]
fn a_new_server_takes_over_what_was_lent_and_cleans_away_the_rest() {
    let lab = Lab::new();
    // As if it were killed: all that it did ends in the middle, and nothing of it is told so.
    let killed = tokio::runtime::Runtime::new().unwrap();
    let (lent, unfinished) = killed.block_on(async {
        let machines = lab.open(|settings| settings.keeps = true).await;
        let lent = machines.create(Order::default()).await.unwrap();
        let mut unfinished = machines.order(Order::default()).await.unwrap();
        unfinished.start().await.unwrap();
        (lent, unfinished)
    });
    killed.shutdown_timeout(LONG);
    drop(unfinished);
    assert_eq!(lab.processes(), 2);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let machines = lab.open(|settings| settings.keeps = true).await;
        assert_eq!((lab.processes(), lab.folders()), (1, 1));
        let seen = machines.show(lent.id).unwrap();
        assert_eq!((seen.port, seen.username.as_ref()), (Some(lent.port), Some(&lent.username)));
        check_login(&lent, "id -un", &lent.username).await;
        machines.destroy(lent.id, &lent.token).await.unwrap();
        assert_eq!((lab.processes(), lab.folders()), (0, 0));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_owner_cannot_be_told_of_it_is_taken_back() {
    let lab = Lab::new();
    let machines = lab.open(|settings| settings.keeps = true).await;
    let told = machines.create(Order::default()).await.unwrap();
    let untold = machines.create(Order::default()).await.unwrap();
    let unfinished = machines.order(Order::default()).await.unwrap();
    // The server ends: what is not lent yet ends, and owners are still told of the rest.
    machines.stop_lending();
    eventually("only two are left", LONG, || machines.stat().taken == 2).await;
    assert!(matches!(machines.create(Order::default()).await, Err(MachineError::Closing)));
    drop(unfinished);
    told.handover.told();
    let (kept, gone) = (told.id, untold.id);
    drop((told, untold));
    eventually("one is taken back", LONG, || machines.show(gone).is_err()).await;
    assert!(machines.show(kept).is_ok());
    machines.close().await;
    assert_eq!((lab.processes(), lab.folders()), (1, 1));
}

#[test]
fn what_a_killed_server_may_not_have_told_of_is_taken_back_unless_somebody_comes() {
    let lab = Lab::new();
    let killed = tokio::runtime::Runtime::new().unwrap();
    let lent = killed.block_on(async {
        let machines = lab.open(|settings| settings.keeps = true).await;
        let mut lent = Vec::new();
        for _ in 0..3 {
            lent.push(machines.create(Order::default()).await.unwrap());
        }
        lent[0].handover.told();
        let record = lab.record(lent[0].id);
        let noted = || std::fs::read_to_string(&record).unwrap().contains("\"is_told\": true");
        eventually("it is noted", LONG, noted).await;
        lent
    });
    killed.shutdown_timeout(LONG);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let change = |settings: &mut machines::Settings| {
            settings.keeps = true;
            settings.claim_within = Duration::from_secs(5);
        };
        let machines = lab.open(change).await;
        check_login(&lent[1], "id -un", &lent[1].username).await;
        eventually("one is taken back", LONG, || machines.show(lent[2].id).is_err()).await;
        // The moment for both has come, since it is the same one.
        assert!(machines.show(lent[0].id).is_ok() && machines.show(lent[1].id).is_ok());
        let record = lab.record(lent[1].id);
        let noted = || std::fs::read_to_string(&record).unwrap().contains("\"is_told\": true");
        eventually("that somebody came is noted", LONG, noted).await;
        machines.close().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spare_machine_is_lent_at_once_with_the_key_of_who_asks() {
    let lab = Lab::new();
    let machines = lab.open(|settings| settings.pool = 1).await;
    let running = machines.clone();
    let mut pool = tokio::task::JoinSet::new();
    pool.spawn(async move { running.run().await });
    eventually("a spare is there", LONG, || machines.stat().spare == 1).await;
    assert_eq!(machines.stat().available, 6, "a spare takes no place");
    let key = machines::guest::ssh_key::SshKey::random().unwrap();
    let order = Order { ssh_public_key: Some(key.public_line("me")), ..Order::default() };
    let lent = machines.create(order).await.unwrap();
    lab::check_key_login(&lent, &key).await;
    check_login(&lent, "id -un", &lent.username).await;
    eventually("another spare is made", LONG, || machines.stat().spare == 1).await;
    machines.close().await;
    assert_eq!(lab.processes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spare_machine_that_died_keeps_nobody_from_a_machine() {
    let lab = Lab::new();
    // There is one place, which the dead one must not keep.
    let machines = lab.open(|settings| (settings.pool, settings.machines_max) = (1, 1)).await;
    let running = machines.clone();
    let mut pool = tokio::task::JoinSet::new();
    pool.spawn(async move { running.run().await });
    eventually("a spare is there", LONG, || machines.stat().spare == 1).await;
    assert_eq!(lab.kill_all(), 1);
    // Nobody may have noticed yet.
    let lent = machines.create(Order::default()).await.unwrap();
    check_login(&lent, "id -un", &lent.username).await;
    eventually("another spare is made", LONG, || machines.stat().spare == 1).await;
    machines.close().await;
    assert_eq!((lab.processes(), lab.folders()), (0, 0));
}
