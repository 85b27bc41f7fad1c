//! The library from inside a plain program: no runtime, closures, threads. Machines are real in `tests/embedding`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value, json};
use wire::container::{ClientSide, Progress};

use super::*;
use crate::config::containers::Machines;

mod documented;
mod running;
mod sessions;

const PEM: &str = include_str!("../../../../testdata/containers/private2048.pem");
/// For a machine that does much else.
const LONG: Duration = Duration::from_secs(60);

fn rsa() -> RsaWrapper {
    RsaWrapper::from_private_pem(&Secret::new(PEM)).unwrap()
}

/// A server on a free port, and the folder that it uses.
fn server() -> (Arc<ServerInterface>, tempfile::TempDir) {
    server_of(|_| {})
}

fn server_of(change: fn(&mut Machines)) -> (Arc<ServerInterface>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerInterface::new(parameters(&folder, change));
    (Arc::new(server.unwrap()), folder)
}

/// Without an image: whoever asks for a machine gets none.
fn parameters(folder: &tempfile::TempDir, change: fn(&mut Machines)) -> Parameters {
    let mut virtualization = VirtualizationInterface::new().unwrap();
    // KVM would be tried out first.
    virtualization.machines.accelerator = Accelerator::Emulation;
    virtualization.machines.images = folder.path().join("none");
    change(&mut virtualization.machines);
    Parameters {
        bind_address: "127.0.0.1".to_owned(),
        listen_port: 0,
        client_timeout: Some(LONG),
        runtime_virtualization_interface: Some(virtualization),
        runtime_database_interface: Some(DatabaseInterface::at(folder.path())),
        runtime_rsa_wrapper: Some(rsa()),
        ..Parameters::default()
    }
}

/// Asks; nothing for a connection that ends without an answer.
fn ask(address: SocketAddr, verb: &str) -> Option<Response> {
    ask_whole(address, &json!({ "verb": verb, "parameters": {} }), |_| {})
}

/// The same; `asked` is called when all of the request is sent.
fn ask_whole(
    address: SocketAddr,
    request: &Value,
    asked: impl FnOnce(&TcpStream),
) -> Option<Response> {
    let client = ClientSide::new(rsa().keys, Generation::Four, request, None);
    talk(address, client, asked)
}

fn talk(
    address: SocketAddr,
    mut client: ClientSide,
    asked: impl FnOnce(&TcpStream),
) -> Option<Response> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    // Key length, key, confirmation, AES key, request length, request.
    let (mut asked, mut sent) = (Some(asked), 0);
    loop {
        match client.advance().ok()? {
            Progress::Response(response) => return Some(response),
            Progress::Read => {
                let output = client.take_output();
                stream.write_all(&output).ok()?;
                sent += usize::from(!output.is_empty());
                if sent == 6
                    && let Some(asked) = asked.take()
                {
                    asked(&stream);
                }
                let mut bytes = [0; 4096];
                let count = stream.read(&mut bytes).ok().filter(|count| *count > 0)?;
                client.feed(&bytes[..count]);
            }
        }
    }
}

#[test]
fn a_server_starts_answers_stops_and_starts_again() {
    let (server, _folder) = server();
    assert_eq!(server.address(), None);
    let idle = RuntimeStatistics {
        is_running: false,
        recorded_runtime_errors_amount: 0,
        uptime: 0,
        available_containers_amount: 0,
    };
    assert_eq!(server.runtime_statistics(), idle);
    server.start(true).unwrap();
    assert!(matches!(server.start(true), Err(StartError::IsRunning)));
    let running = server.runtime_statistics();
    assert_eq!((running.is_running, running.available_containers_amount), (true, 6));
    let first = server.address().unwrap();
    assert_eq!(ask(first, "STAT").unwrap().data["available"], 6);
    assert_eq!(server.runtime_database_interface().entries(), []);
    server.restart(true).unwrap();
    assert!(ask(server.address().unwrap(), "STAT").unwrap().success);
    server.stop();
    assert_eq!(server.runtime_statistics(), idle);
    assert!(TcpStream::connect(first).is_err(), "its port is closed");
}

#[test]
fn a_handler_may_stop_the_server_that_a_thread_waits_for() {
    let (server, _folder) = server();
    let weak = Arc::downgrade(&server);
    let stopped = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stopped);
    server.on_stopped(move || seen.store(true, Ordering::SeqCst));
    server.on_started(move || {
        let server = weak.upgrade().unwrap();
        server.stop();
        assert!(matches!(server.restart(true), Err(StartError::IsRunning)));
    });
    server.start(DEFAULT_ASYCHRONOUS).unwrap();
    assert!(stopped.load(Ordering::SeqCst));
    assert_eq!(server.runtime_statistics().recorded_runtime_errors_amount, 0);
}

/// Which events there are when `verb` is asked for, when the handler of event `fatal` closes the client.
fn check_events(verb: &str, fatal: u8, expected: &[u8]) {
    let (server, _folder) = server();
    let seen = Arc::new(Mutex::new(Vec::new()));
    for event in 1..=12 {
        let notes = Arc::clone(&seen);
        let note = move |it: &Occasion| {
            notes.lock().unwrap().push(it.event);
            if it.event == fatal
                && let Some(client) = &it.client
            {
                client.close();
            }
        };
        server.set_event_handler(event, note).unwrap();
    }
    assert_eq!(server.set_event_handler(13, |_| {}), Err(NoSuchEvent(13)));
    assert_eq!(server.set_event_handler(0, |_| {}), Err(NoSuchEvent(0)));
    server.start(true).unwrap();
    let answered = ask(server.address().unwrap(), verb);
    assert_eq!(answered.is_some(), fatal == 0, "{verb} {fatal}");
    server.stop();
    assert_eq!(*seen.lock().unwrap(), expected, "{verb} {fatal}");
}

#[test]
fn events_are_told_by_their_numbers_and_a_closed_client_ends_the_session() {
    check_events("STAT", 0, &[10, 3, 1, 8, 2, 11]);
    check_events("NONE", 0, &[10, 3, 1, 8, 12, 2, 11]);
    check_events("none", 0, &[10, 3, 1, 7, 2, 11]);
    check_events("STAT", 3, &[10, 3, 11]);
    check_events("STAT", 1, &[10, 3, 1, 2, 11]);
    check_events("STAT", 8, &[10, 3, 1, 8, 2, 11]);
    check_events("none", 7, &[10, 3, 1, 7, 2, 11]);
    check_events("DESTROY", 7, &[10, 3, 1, 8, 7, 2, 11]);
    check_events("NONE", 12, &[10, 3, 1, 8, 12, 2, 11]);
}

#[test]
fn a_handler_that_panics_is_a_runtime_error() {
    let (server, _folder) = server();
    let told = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&told);
    server.on_runtime_error(move |error, client| {
        notes.lock().unwrap().push((error.name.clone(), error.class, client.is_some()));
    });
    server.set_request_handler("BOOM", |_, _| panic!("as the test wants")).unwrap();
    server.start(true).unwrap();
    let address = server.address().unwrap();
    assert_eq!(ask(address, "BOOM").unwrap().message, RESPONSE_MSG_INTERNAL_ERROR);
    server.on_request(|_| panic!("as the test wants"));
    assert_eq!(ask(address, "STAT"), None, "what the handler may have wanted is not known");
    assert_eq!(server.runtime_statistics().recorded_runtime_errors_amount, 2);
    server.stop();
    let expected = [("BOOM".to_owned(), "Panic", true), ("event 8".to_owned(), "Panic", true)];
    assert_eq!(*told.lock().unwrap(), expected);
}

#[test]
fn a_documented_verb_can_be_replaced_and_a_request_be_refused() {
    let (server, _folder) = server();
    let stat = |client: &Client, request: &Request| {
        let data = json!({ "verb": request.verb, "from": client.address().ip() });
        let Value::Object(data) = data else { return Response::ok(Map::new()) };
        Response::ok(data)
    };
    server.set_request_handler(REQUEST_VERB_STAT, stat).unwrap();
    assert!(server.set_request_handler("stat", stat).is_err());
    server.on_request(|client| {
        if client.request().is_some_and(|request| request.verb == REQUEST_VERB_CREATE) {
            client.answer_with(Response::refuse(&Complaint::Refused, client.generation()));
        }
    });
    server.start(true).unwrap();
    let address = server.address().unwrap();
    let expected = json!({ "verb": "STAT", "from": "127.0.0.1" });
    assert_eq!(Value::Object(ask(address, "STAT").unwrap().data), expected);
    assert_eq!(ask(address, "CREATE").unwrap().message, RESPONSE_MSG_REFUSED_REQ);
}
