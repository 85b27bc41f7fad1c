//! The door from outside: a real socket, the client's side of the protocol, machines that are closures.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use machines::manager::Handover;
use machines::{Lent, MachineError, MachineId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use wire::Secret;
use wire::container::{ClientSide, Complaint, Generation, KeyPair, Progress, Response};

use super::ip_filter::IpRule;
use super::*;

mod replay;
mod undoing;

fn keys() -> Arc<KeyPair> {
    static KEYS: OnceLock<Arc<KeyPair>> = OnceLock::new();
    let text = include_str!("../../../../testdata/containers/private2048.pem");
    let read = || Arc::new(KeyPair::from_private_pem(&Secret::new(text)).unwrap());
    Arc::clone(KEYS.get_or_init(read))
}

fn settings() -> DoorSettings {
    DoorSettings {
        client_timeout: Some(Duration::from_secs(10)),
        connections_max: 100,
        connections_per_address_max: 100,
        ip_filter: None,
        access_tokens: None,
        keys: keys(),
    }
}

/// A door that is open as long as this lives, and what its machines were asked.
struct Opened {
    address: SocketAddr,
    door: Arc<Door>,
    drain: watch::Sender<Option<Duration>>,
    running: JoinSet<()>,
}

async fn open(settings: DoorSettings, verbs: Verbs, listening: Option<Listening>) -> Opened {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let door = Arc::new(Door::new(settings, verbs, listening));
    let drain = watch::Sender::new(None);
    let mut running = JoinSet::new();
    let (this, receiver) = (Arc::clone(&door), drain.subscribe());
    running.spawn(async move { this.run(vec![socket], receiver).await });
    Opened { address, door, drain, running }
}

const ID: &str = "0123abcd-0123-4567-89ab-0123456789ab";

fn lent(handover: Handover) -> Lent {
    Lent {
        id: ID.parse().unwrap(),
        token: Secret::new("t".repeat(255)),
        image_sha256: "0".repeat(64),
        username: "user_12345".to_owned(),
        password: Secret::new("p".repeat(120)),
        port: 10_000,
        host_key: None,
        expires_at: None,
        handover,
    }
}

/// Machines of which there is one.
fn act(action: Action) -> Later<Result<Answer, MachineError>> {
    Box::pin(async move {
        match action {
            Action::Stat => Ok(Answer::Stat { uptime_secs: 5, available: 6 }),
            Action::Create { order, .. } if order.vcpus == Some(1024) => {
                Err(MachineError::NoCapacity { max: 6 })
            }
            Action::Create { order, .. } if order.image.is_some() => {
                Err(MachineError::SetUp("secret reason".to_owned()))
            }
            Action::Create { .. } => Ok(Answer::Lent(Box::new(lent(Handover::new(|_| {}))))),
            Action::Destroy { id, token, .. }
                if id.to_string() == ID && token.matches(&"t".repeat(255)) =>
            {
                Ok(Answer::Destroyed)
            }
            Action::Destroy { .. } => Err(MachineError::WrongToken),
        }
    })
}

fn verbs() -> Verbs {
    let act: Act = Arc::new(act);
    Verbs::builtin(&act)
}

fn request(verb: &str, parameters: Value) -> Value {
    json!({ "verb": verb, "parameters": parameters })
}

/// Asks; an error for a connection that ends without an answer.
async fn ask_as(
    generation: Generation,
    address: SocketAddr,
    request: &Value,
) -> Result<Response, String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let mut client = ClientSide::new(keys(), generation, request, None);
    loop {
        match client.advance().map_err(|refusal| refusal.to_string())? {
            Progress::Response(response) => return Ok(response),
            Progress::Read => {
                let output = client.take_output();
                stream.write_all(&output).await.map_err(|error| error.to_string())?;
                let mut bytes = [0; 4096];
                match stream.read(&mut bytes).await {
                    Ok(0) => return Err("closed".to_owned()),
                    Ok(count) => client.feed(&bytes[..count]),
                    Err(error) => return Err(error.to_string()),
                }
            }
        }
    }
}

async fn ask(address: SocketAddr, verb: &str, parameters: Value) -> Result<Response, String> {
    ask_as(Generation::Four, address, &request(verb, parameters)).await
}

/// What the answer says, in one line.
async fn check(
    opened: &Opened,
    generation: Generation,
    verb: &str,
    parameters: Value,
    expected: &str,
) {
    let response = ask_as(generation, opened.address, &request(verb, parameters)).await.unwrap();
    assert_eq!(response.message, expected, "{verb}");
    assert_eq!(response.success, expected == "OK");
}

#[tokio::test]
async fn every_generation_is_served_on_one_port() {
    let opened = open(settings(), verbs(), None).await;
    for generation in [Generation::One, Generation::Three, Generation::Four] {
        let asked = ask_as(generation, opened.address, &request("STAT", json!({}))).await.unwrap();
        let version = env!("CARGO_PKG_VERSION");
        let expected = json!({ "version": version, "uptime": 5, "available": 6 });
        assert_eq!(Value::Object(asked.data), expected);
        let create = request("CREATE", json!({}));
        let created = ask_as(generation, opened.address, &create).await.unwrap();
        assert_eq!(created.data.len(), 6);
        assert_eq!(created.data["container_listen_port"], 10_000);
    }
}

#[tokio::test]
async fn outcomes_have_their_documented_texts() {
    let opened = open(settings(), verbs(), None).await;
    let uuid = ID.to_owned();
    let right = json!({ "container_uuid": uuid, "client_token": "t".repeat(255) });
    let wrong = json!({ "container_uuid": uuid, "client_token": "u".repeat(255) });
    let unknown = MachineId::random().to_string();
    let unknown = json!({ "container_uuid": unknown, "client_token": "t".repeat(255) });
    for generation in [Generation::One, Generation::Four] {
        check(&opened, generation, "DESTROY", right.clone(), "OK").await;
        check(&opened, generation, "DESTROY", wrong.clone(), "Bad authentication").await;
        check(&opened, generation, "DESTROY", unknown.clone(), "Bad authentication").await;
        let broken = json!({ "image": "broken" });
        check(&opened, generation, "CREATE", broken, "Internal error").await;
    }
    let (one, four) = (Generation::One, Generation::Four);
    let full = json!({ "vcpus": 1024 });
    let text = "Unavailable (Running containers maximum amount was reached)";
    check(&opened, one, "CREATE", full, text).await;
    check(&opened, one, "NONE", json!({}), "Bad request (Unknown verb)").await;
    check(&opened, four, "NONE", json!({}), "Bad request (Unhandled verb)").await;
    check(&opened, four, "none", json!({}), "Bad request (Malformed request)").await;
    check(&opened, four, "DESTROY", json!({}), "Bad request (Malformed request)").await;
    check(&opened, four, "CREATE", json!({ "ttl": 0 }), "Bad request (Malformed request)").await;
    let text =
        "Bad request (Malformed request : {'parameters': [{'ttl': ['must be of integer type']}]})";
    check(&opened, one, "CREATE", json!({ "ttl": "x" }), text).await;
    assert_eq!(opened.door.statistics().runtime_errors, 2);
}

/// Notes what happens, and closes the client at event number `fatal`.
fn noting(fatal: u8) -> (Listening, Arc<Mutex<Vec<u8>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let listening: Listening = Arc::new(move |event| {
        notes.lock().unwrap().push(event.number());
        if event.number() == fatal
            && let Event::Connection(client)
            | Event::Client(client)
            | Event::Request { client, .. }
            | Event::MalformedRequest { client, .. }
            | Event::Created { client, .. }
            | Event::UnknownVerb(client) = event
        {
            client.close();
        }
        Box::pin(async {})
    });
    (listening, seen)
}

async fn check_events(verb: &str, fatal: u8, expected: &[u8]) {
    let (listening, seen) = noting(fatal);
    let mut opened = open(settings(), verbs(), Some(listening)).await;
    let answered = ask(opened.address, verb, json!({})).await;
    assert_eq!(answered.is_ok(), fatal == 0, "{answered:?}");
    opened.drain.send_replace(Some(Duration::from_secs(5)));
    opened.running.join_next().await.unwrap().unwrap();
    assert_eq!(*seen.lock().unwrap(), expected, "{verb} {fatal}");
}

#[tokio::test]
async fn what_happens_is_told_in_order() {
    check_events("STAT", 0, &[10, 3, 1, 8, 2, 11]).await;
    check_events("CREATE", 0, &[10, 3, 1, 8, 4, 2, 11]).await;
    check_events("NONE", 0, &[10, 3, 1, 8, 12, 2, 11]).await;
    check_events("none", 0, &[10, 3, 1, 7, 2, 11]).await;
    check_events("DESTROY", 0, &[10, 3, 1, 8, 7, 2, 11]).await;
}

#[tokio::test]
async fn a_listener_that_closes_the_client_ends_the_session() {
    check_events("STAT", 3, &[10, 3, 11]).await;
    check_events("STAT", 1, &[10, 3, 1, 2, 11]).await;
    check_events("STAT", 8, &[10, 3, 1, 8, 2, 11]).await;
    check_events("CREATE", 4, &[10, 3, 1, 8, 4, 2, 11]).await;
    check_events("NONE", 12, &[10, 3, 1, 8, 12, 2, 11]).await;
    check_events("none", 7, &[10, 3, 1, 7, 2, 11]).await;
    check_events("DESTROY", 7, &[10, 3, 1, 8, 7, 2, 11]).await;
}

#[tokio::test]
async fn verbs_can_be_added_and_replaced_while_the_door_is_open() {
    let verbs = verbs();
    let opened = open(settings(), verbs.clone(), None).await;
    let echo =
        Handler::new(|call: Call| async move { Response::ok(call.request.parameters.clone()) });
    verbs.set("ECHO", echo.clone()).unwrap();
    assert_eq!(verbs.set("echo", echo.clone()), Err(verbs::NotAVerb));
    let echoed = ask(opened.address, "ECHO", json!({ "a": [1, "b"] })).await.unwrap();
    assert_eq!(Value::Object(echoed.data), json!({ "a": [1, "b"] }));
    verbs.set("STAT", echo).unwrap();
    let stat = ask(opened.address, "STAT", json!({ "b": 1 })).await.unwrap();
    assert_eq!(Value::Object(stat.data), json!({ "b": 1 }));
}

#[tokio::test]
async fn a_handler_that_panics_is_an_internal_error() {
    let verbs = verbs();
    verbs.set("BOOM", Handler::new(|_| async { panic!("as the test wants") })).unwrap();
    let long = Handler::new(|_| async {
        let text = "x".repeat(17 << 20);
        Response::ok(serde_json::Map::from_iter([("text".to_owned(), text.into())]))
    });
    verbs.set("LONG", long).unwrap();
    // Seventeen megabytes take a busy machine a while.
    let patient = DoorSettings { client_timeout: None, ..settings() };
    let opened = open(patient, verbs, None).await;
    check(&opened, Generation::Four, "BOOM", json!({}), "Internal error").await;
    assert_eq!(opened.door.statistics().runtime_errors, 1);
    check(&opened, Generation::One, "LONG", json!({}), "Internal error").await;
    check(&opened, Generation::Four, "STAT", json!({}), "OK").await;
}

/// Carries out what `make` makes a handler of: says that it was begun, and ends when it is told to.
fn waiting(
    make: fn(Waiting) -> Handler,
) -> (Handler, mpsc::UnboundedReceiver<()>, watch::Sender<bool>) {
    let (began, begun) = mpsc::unbounded_channel();
    let (end, ended) = watch::channel(false);
    (make(Waiting { began, ended }), begun, end)
}

#[derive(Clone)]
struct Waiting {
    began: mpsc::UnboundedSender<()>,
    ended: watch::Receiver<bool>,
}

impl Waiting {
    async fn wait(mut self) -> Response {
        self.began.send(()).unwrap();
        self.ended.wait_for(|ended| *ended).await.unwrap();
        Response::ok(serde_json::Map::new())
    }
}

#[tokio::test]
async fn a_silent_client_is_let_go_and_a_long_creation_is_not() {
    let verbs = verbs();
    let (slow, mut begun, end) =
        waiting(|waiting| Handler::while_client_waits(move |_| waiting.clone().wait()));
    verbs.set("SLOW", slow).unwrap();
    let client_timeout = Some(Duration::from_secs(2));
    let opened = open(DoorSettings { client_timeout, ..settings() }, verbs, None).await;
    let mut asking = JoinSet::new();
    let address = opened.address;
    asking.spawn(async move { ask(address, "SLOW", json!({})).await });
    begun.recv().await.unwrap();
    // Let go after the time of the one before is over, too.
    let mut silent = TcpStream::connect(opened.address).await.unwrap();
    silent.write_all(b"451=").await.unwrap();
    let mut rest = Vec::new();
    assert_eq!(silent.read_to_end(&mut rest).await.unwrap(), 0);
    end.send_replace(true);
    assert!(asking.join_next().await.unwrap().unwrap().unwrap().success);
}

/// Sends a request; who drops the result leaves.
async fn begin_to_ask(address: SocketAddr, request: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut client = ClientSide::new(keys(), Generation::Four, request, None);
    let mut exchanged = 0;
    loop {
        assert_eq!(client.advance().unwrap(), Progress::Read);
        let output = client.take_output();
        stream.write_all(&output).await.unwrap();
        // Key length, key, confirmation, AES key, request length, request.
        exchanged += 1;
        if exchanged == 6 {
            break;
        }
        let mut bytes = [0; 4096];
        let expected = [1, 9, 451, 257, 1][exchanged - 1];
        let mut had = 0;
        while had < expected {
            let count = stream.read(&mut bytes).await.unwrap();
            assert!(count > 0, "closed after {exchanged}");
            client.feed(&bytes[..count]);
            had += count;
        }
    }
    stream
}

#[tokio::test]
async fn a_creation_is_undone_when_its_client_goes() {
    let (tell, mut told) = mpsc::unbounded_channel::<String>();
    struct Undone(mpsc::UnboundedSender<String>);
    impl Drop for Undone {
        fn drop(&mut self) {
            let _ = self.0.send("dropped".to_owned());
        }
    }
    let machines: Act = Arc::new(move |action| {
        let tell = tell.clone();
        Box::pin(async move {
            match action {
                Action::Create { order, .. } if order.ttl.is_some() => {
                    let _undone = Undone(tell.clone());
                    tell.send("begun".to_owned()).unwrap();
                    std::future::pending().await
                }
                Action::Create { .. } => {
                    let end = move |telling| tell.send(format!("{telling:?}")).unwrap();
                    Ok(Answer::Lent(Box::new(lent(Handover::new(end)))))
                }
                _ => act(action).await,
            }
        })
    });
    let opened = open(settings(), Verbs::builtin(&machines), None).await;
    let waiting = begin_to_ask(opened.address, &request("CREATE", json!({ "ttl": 5 }))).await;
    assert_eq!(told.recv().await.unwrap(), "begun");
    drop(waiting);
    assert_eq!(told.recv().await.unwrap(), "dropped");
    ask(opened.address, "CREATE", json!({})).await.unwrap();
    assert_eq!(told.recv().await.unwrap(), "Told");
    // Who learns the answer's length and never confirms it may leave, or be cut when the door's time is over.
    let create = request("CREATE", json!({}));
    let mut leaving = begin_to_ask(opened.address, &create).await;
    leaving.read_exact(&mut [0; 16]).await.unwrap();
    drop(leaving);
    assert_eq!(told.recv().await.unwrap(), "Failed");
    // One confirms it, and leaves without what it has confirmed.
    let mut fooling = begin_to_ask(opened.address, &create).await;
    fooling.read_exact(&mut [0; 16]).await.unwrap();
    fooling.write_all(b"1").await.unwrap();
    drop(fooling);
    assert_eq!(told.recv().await.unwrap(), "Failed");
    let mut staying = begin_to_ask(opened.address, &create).await;
    staying.read_exact(&mut [0; 16]).await.unwrap();
    opened.drain.send_replace(Some(Duration::ZERO));
    assert_eq!(told.recv().await.unwrap(), "Failed");
}

#[tokio::test]
async fn silent_ones_beyond_the_limit_give_way() {
    let few = DoorSettings { connections_max: 16, ..settings() };
    let opened = open(few, verbs(), None).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(opened.address).await.unwrap());
    }
    check(&opened, Generation::Four, "STAT", json!({}), "OK").await;
    let mut rest = Vec::new();
    assert_eq!(silent[0].read_to_end(&mut rest).await.unwrap(), 0, "the oldest had to go");
}

#[tokio::test]
async fn who_does_not_take_an_answer_gives_way() {
    let few = DoorSettings { connections_max: 16, ..settings() };
    let opened = open(few, verbs(), None).await;
    let mut holding = Vec::new();
    for _ in 0..40 {
        let mut client = begin_to_ask(opened.address, &request("STAT", json!({}))).await;
        client.read_exact(&mut [0; 16]).await.unwrap();
        holding.push(client);
    }
    check(&opened, Generation::Four, "STAT", json!({}), "OK").await;
    let mut rest = Vec::new();
    assert_eq!(holding[0].read_to_end(&mut rest).await.unwrap_or(0), 0, "the oldest had to go");
}

#[tokio::test]
async fn an_address_that_is_denied_gets_no_byte() {
    let denied = vec![IpRule::parse("127.0.0.0/8").unwrap()];
    let ip_filter = Some(IpFilter { denied, allowed: Vec::new() });
    let opened = open(DoorSettings { ip_filter, ..settings() }, verbs(), None).await;
    let mut stream = TcpStream::connect(opened.address).await.unwrap();
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn where_tokens_are_on_every_request_needs_one() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = Arc::new(AccessTokens::new(folder.path().join("tokens.db")));
    let owners = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&owners);
    let machines: Act = Arc::new(move |action| {
        if let Action::Create { order, .. } = &action {
            notes.lock().unwrap().push(order.owner.clone());
        }
        act(action)
    });
    let access_tokens = Some(Arc::clone(&tokens));
    let settings = DoorSettings { access_tokens, ..settings() };
    let opened = open(settings, Verbs::builtin(&machines), None).await;
    let four = Generation::Four;
    let required = "Bad request (Access token is required)";
    for verb in ["STAT", "DESTROY", "NONE"] {
        check(&opened, four, verb, json!({}), required).await;
    }
    check(&opened, four, "STAT", json!({ "access_token": "" }), required).await;
    let invalid = "Bad authentication (Invalid access token)";
    check(&opened, four, "STAT", json!({ "access_token": "x" }), invalid).await;
    let malformed = "Bad request (Malformed request)";
    check(&opened, four, "STAT", json!({ "access_token": 5 }), malformed).await;
    let (_, token) = tokens.add(true).unwrap();
    let with = json!({ "access_token": token.expose() });
    check(&opened, four, "STAT", with.clone(), "OK").await;
    check(&opened, four, "CREATE", with.clone(), "OK").await;
    check(&opened, four, "NONE", with.clone(), "Bad request (Unhandled verb)").await;
    tokens.enable(1, false).unwrap();
    check(&opened, four, "STAT", with, invalid).await;
    assert_eq!(*owners.lock().unwrap(), [Some("access token 1".to_owned())]);
}

#[tokio::test]
async fn a_hundred_clients_at_once_are_all_answered() {
    let opened = open(DoorSettings { connections_max: 200, ..settings() }, verbs(), None).await;
    let answered = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..100 {
        let (address, answered) = (opened.address, Arc::clone(&answered));
        clients.spawn(async move {
            ask(address, "STAT", json!({})).await.unwrap();
            answered.fetch_add(1, Ordering::Relaxed);
        });
    }
    while let Some(outcome) = clients.join_next().await {
        outcome.unwrap();
    }
    assert_eq!(answered.load(Ordering::Relaxed), 100);
}

#[tokio::test]
async fn a_door_that_closes_waits_for_who_is_served_and_for_nobody_else() {
    let verbs = verbs();
    let (handler, mut begun, end) =
        waiting(|waiting| Handler::new(move |_| waiting.clone().wait()));
    verbs.set("WAIT", handler).unwrap();
    let mut opened = open(settings(), verbs, None).await;
    let _silent = TcpStream::connect(opened.address).await.unwrap();
    let mut asking = JoinSet::new();
    let address = opened.address;
    asking.spawn(async move { ask(address, "WAIT", json!({})).await });
    begun.recv().await.unwrap();
    opened.drain.send_replace(Some(Duration::from_secs(10)));
    // The socket is closed before whoever is served has been answered.
    while TcpStream::connect(opened.address).await.is_ok() {}
    end.send_replace(true);
    assert!(asking.join_next().await.unwrap().unwrap().unwrap().success);
    opened.running.join_next().await.unwrap().unwrap();
}
