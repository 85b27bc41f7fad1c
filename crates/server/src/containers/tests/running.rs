//! Starting, stopping, and what a server says of itself meanwhile.

use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use super::*;

/// Looks again and again.
fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < LONG, "it never was so");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_server_shows_what_it_was_made_of() {
    let (server, folder) = server_of(|machines| machines.count_max = 3);
    let virtualization = server.runtime_virtualization_interface();
    assert_eq!(virtualization.machines.count_max, 3);
    assert_eq!(server.runtime_database_interface().directory(), Some(folder.path()));
    let keys = server.runtime_rsa_wrapper().clone();
    assert_eq!(keys.fingerprint(), rsa().fingerprint());
    assert_eq!(keys.public_pem(), rsa().public_pem());
    server.start(true).unwrap();
    assert_eq!(ask(server.address().unwrap(), "STAT").unwrap().data["available"], 3);
}

#[test]
fn keys_are_read_from_files_and_are_those_that_clients_see() {
    let (_, folder) = server();
    let (public, private) = (folder.path().join("public.pem"), folder.path().join("private.pem"));
    std::fs::write(&private, PEM).unwrap();
    let keys = RsaWrapper::from_files(public.clone(), private.clone()).unwrap();
    assert_eq!(keys.fingerprint(), rsa().fingerprint());
    assert_eq!(std::fs::read_to_string(&public).unwrap(), keys.public_pem());
    let other = RsaWrapper::with_bits(2048).unwrap();
    std::fs::write(&public, other.public_pem()).unwrap();
    assert!(RsaWrapper::from_files(public, private).is_err(), "they do not belong together");
    let server = ServerInterface::new(Parameters {
        runtime_rsa_wrapper: Some(other.clone()),
        ..parameters(&folder, |_| {})
    });
    let server = server.unwrap();
    server.start(true).unwrap();
    let seen = |expected: &RsaWrapper| {
        let request = json!({ "verb": "STAT", "parameters": {} });
        let expected = Some(expected.fingerprint());
        let client = ClientSide::new(rsa().keys, Generation::Four, &request, expected);
        talk(server.address().unwrap(), client, |_| {}).is_some()
    };
    assert_eq!((seen(&other), seen(&keys)), (true, false));
}

#[test]
fn restarted_in_the_background_it_is_a_new_run() {
    let (server, _folder) = server();
    let (tell, told) = mpsc::channel();
    let tell_stop = tell.clone();
    server.on_started(move || tell.send("started").unwrap());
    server.on_stopped(move || tell_stop.send("stopped").unwrap());
    server.set_request_handler("BOOM", |_, _| panic!("as the test wants")).unwrap();
    // What does not run is started.
    server.restart(true).unwrap();
    let boom = || ask(server.address().unwrap(), "BOOM").unwrap().message;
    assert_eq!((boom(), boom()), ("Internal error".to_owned(), "Internal error".to_owned()));
    let errors = || server.runtime_statistics().recorded_runtime_errors_amount;
    assert_eq!(errors(), 2);
    server.restart(true).unwrap();
    assert_eq!(errors(), 0, "those of this run");
    assert!(ask(server.address().unwrap(), "STAT").unwrap().success);
    assert_eq!(boom(), "Internal error");
    server.stop();
    server.stop();
    assert_eq!(errors(), 1, "they can be asked for afterwards");
    drop(server);
    assert_eq!(told.iter().collect::<Vec<_>>(), ["started", "stopped", "started", "stopped"]);
}

#[test]
fn restarted_in_the_foreground_it_returns_when_it_was_stopped() {
    let (server, _folder) = server();
    server.start(true).unwrap();
    // Answered: its own start has been told of.
    assert!(ask(server.address().unwrap(), "STAT").unwrap().success);
    let (tell, told) = mpsc::channel();
    server.on_started(move || tell.send(()).unwrap());
    thread::scope(|scope| {
        let restarting = scope.spawn(|| server.restart(DEFAULT_ASYCHRONOUS));
        told.recv_timeout(LONG).unwrap();
        let address = server.address().unwrap();
        assert!(ask(address, "STAT").unwrap().success);
        assert!(!restarting.is_finished(), "it runs");
        server.stop();
        restarting.join().unwrap().unwrap();
    });
    assert!(!server.runtime_statistics().is_running);
}

#[test]
fn its_uptime_counts_seconds_of_this_run() {
    let (server, _folder) = server();
    let before = Instant::now();
    server.start(true).unwrap();
    let uptime = wait_for(|| {
        let uptime = server.runtime_statistics().uptime;
        (uptime > 0).then_some(uptime)
    });
    assert!((1..=before.elapsed().as_secs()).contains(&uptime), "{uptime}");
    let running = server.runtime_statistics();
    assert!(running.is_running);
    assert_eq!(running.available_containers_amount, 6);
    server.stop();
    let stopped = RuntimeStatistics {
        is_running: false,
        recorded_runtime_errors_amount: 0,
        uptime: 0,
        available_containers_amount: 0,
    };
    assert_eq!(server.runtime_statistics(), stopped);
    server.start(true).unwrap();
    assert!(server.runtime_statistics().uptime < uptime + 1);
}

#[test]
fn dropped_it_is_stopped() {
    let (server, _folder) = server();
    let stopped = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stopped);
    server.on_stopped(move || seen.store(true, Ordering::SeqCst));
    server.start(true).unwrap();
    let address = server.address().unwrap();
    assert!(ask(address, "STAT").unwrap().success);
    drop(server);
    assert!(stopped.load(Ordering::SeqCst), "dropping waits for it");
    assert!(TcpStream::connect(address).is_err(), "its port is closed");
}
