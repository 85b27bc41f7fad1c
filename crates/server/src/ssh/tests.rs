//! The gateway on a real port, a client of the same library, and a machine in this process.

mod guest;
mod strangers;

use std::future::ready;
use std::os::unix::fs::PermissionsExt;

use guest::Guest;
use machines::guest::ssh_key::fingerprint;
use russh::client::{self, AuthResult, Handle};
use russh::keys::{Certificate, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::authority::key_file;
use super::*;
use crate::tcp::ip_filter::IpRule;

/// Of a whole test.
const DEADLINE: Duration = Duration::from_secs(60);

struct Scene {
    guest: Arc<Guest>,
    id: MachineId,
    address: SocketAddr,
    authority: Authority,
    users_key: SshKey,
    gateways_key: String,
    notes: Arc<Mutex<Vec<(&'static str, bool)>>>,
    stop: Arc<Notify>,
    serving: JoinSet<()>,
}

impl Scene {
    async fn new() -> Self {
        let (guest, id) = (Arc::new(Guest::new()), MachineId::random());
        let users_key = SshKey::random().unwrap();
        let notes = Arc::new(Mutex::new(Vec::new()));
        let entry = Entry {
            id,
            user: "u".to_owned(),
            host_key: Some(guest.host_key.fingerprint()),
            authorized_keys: vec![users_key.public_line("me")],
            key: Some(guest.key.clone()),
        };
        // The machine's streams are made where its tasks may live.
        let (ask, mut asked) =
            tokio::sync::mpsc::unbounded_channel::<tokio::sync::oneshot::Sender<_>>();
        let machine = Arc::clone(&guest);
        tokio::task::spawn_local(async move {
            while let Some(answer) = asked.recv().await {
                let _ = answer.send(machine.connect());
            }
        });
        let noted = Arc::clone(&notes);
        let directory = Directory {
            find: Box::new(move |name| {
                (name == "m" || name == id.to_string()).then(|| entry.clone())
            }),
            connect: Box::new(move |_, _| {
                let (answer, stream) = tokio::sync::oneshot::channel();
                let _ = ask.send(answer);
                Box::pin(async move { stream.await.map_err(io::Error::other) })
            }),
            note: Box::new(move |visit| noted.lock().unwrap().push((visit.by, visit.is_admitted))),
        };
        let host_key = SshKey::random().unwrap();
        let gateways_key = host_key.fingerprint();
        let authority = Authority::new(SshKey::random().unwrap());
        let settings = Settings {
            host_key,
            authority: authority.clone(),
            connections_max: 4,
            strangers_per_address_max: 2,
            login_max: DEADLINE,
            ip_filter: Some(IpFilter {
                denied: vec![IpRule::parse("127.0.0.66").unwrap()],
                allowed: Vec::new(),
            }),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        let stop = Arc::new(Notify::new());
        let stopping = Arc::clone(&stop);
        let stopped = async move { stopping.notified().await };
        serving.spawn(Gateway::new(settings, directory).serve(listener, stopped));
        Self { guest, id, address, authority, users_key, gateways_key, notes, stop, serving }
    }

    async fn client(&self) -> Handle<Client> {
        let client = Client(self.gateways_key.clone());
        client::connect(Arc::default(), self.address, client).await.unwrap()
    }

    async fn inside(&self) -> Handle<Client> {
        let mut client = self.client().await;
        assert!(client.authenticate_password("m", "secret").await.unwrap().success());
        client
    }
}

struct Client(String);

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        Ok(fingerprint(key) == self.0)
    }
}

fn with_a_machine<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new()
        .block_on(&runtime, async { timeout(DEADLINE, test).await.expect("in time") })
}

/// What a channel says until it is closed.
async fn heard(channel: &mut Channel<client::Msg>) -> (Vec<u8>, Vec<u8>, Option<u32>) {
    let (mut out, mut err, mut exit) = (Vec::new(), Vec::new(), None);
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => out.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, .. } => err.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => exit = Some(exit_status),
            _ => {}
        }
    }
    (out, err, exit)
}

#[test]
fn the_machines_password_is_the_gateways_and_nothing_else_is() {
    with_a_machine(async {
        let scene = Scene::new().await;
        let mut client = scene.client().await;
        let mut tries = async |name: &str, password: &str| {
            client.authenticate_password(name, password).await.unwrap().success()
        };
        assert!(!tries("m", "wrong").await);
        assert!(!tries("nobody", "secret").await);
        assert!(tries(&scene.id.to_string(), "secret").await);
        let notes = [("password", false), ("password", false), ("password", true)];
        assert_eq!(*scene.notes.lock().unwrap(), notes);
    });
}

#[test]
fn a_command_is_carried_with_both_outputs_and_its_status() {
    with_a_machine(async {
        let scene = Scene::new().await;
        let client = scene.inside().await;
        for _ in 0..2 {
            let mut channel = client.channel_open_session().await.unwrap();
            channel.exec(true, "speak").await.unwrap();
            assert_eq!(heard(&mut channel).await, (b"out".to_vec(), b"err".to_vec(), Some(3)));
        }
    });
}

#[test]
fn what_a_session_asks_for_reaches_the_machine_in_order() {
    with_a_machine(async {
        let scene = Scene::new().await;
        let client = scene.inside().await;
        let mut channel = client.channel_open_session().await.unwrap();
        channel.set_env(true, "LANG", "C").await.unwrap();
        channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
        channel.window_change(100, 30, 0, 0).await.unwrap();
        channel.request_subsystem(true, "sftp").await.unwrap();
        channel.data(&b"ping"[..]).await.unwrap();
        channel.eof().await.unwrap();
        let mut replies = Vec::new();
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Success => replies.push("yes"),
                ChannelMsg::Failure => replies.push("no"),
                ChannelMsg::Data { data } => assert_eq!(data.as_ref(), b"ping"),
                _ => {}
            }
        }
        // The machine says no to the variable, which nobody minds.
        assert_eq!(replies, ["yes", "yes", "yes"]);
        let asked = ["env LANG=C", "pty xterm 80x24", "size 100x30", "subsystem sftp"];
        assert_eq!(*scene.guest.asked.lock().unwrap(), asked);
    });
}

#[test]
fn a_request_that_the_machine_refuses_ends_its_channel_with_a_word() {
    with_a_machine(async {
        let scene = Scene::new().await;
        let client = scene.inside().await;
        let mut channel = client.channel_open_session().await.unwrap();
        channel.request_subsystem(true, "nonsense").await.unwrap();
        let (out, err, exit) = heard(&mut channel).await;
        assert!(out.is_empty() && err.starts_with(b"the machine refused") && exit.is_none());
    });
}

#[test]
fn much_goes_both_ways_at_once() {
    with_a_machine(async {
        let scene = Scene::new().await;
        let client = scene.inside().await;
        let channel = client.channel_open_session().await.unwrap();
        channel.exec(true, "cat").await.unwrap();
        let (mut from, to) = channel.split();
        let sent = vec![7; 5_000_000];
        let send = async {
            to.data(&sent[..]).await.unwrap();
            to.eof().await.unwrap();
        };
        let hear = async {
            let mut count = 0;
            while let Some(message) = from.wait().await {
                if let ChannelMsg::Data { data } = message {
                    count += data.len();
                }
            }
            count
        };
        assert_eq!(tokio::join!(send, hear).1, sent.len());
    });
}

#[test]
fn a_certificate_is_good_for_its_machine_and_its_minutes_and_by_our_authority() {
    with_a_machine(async {
        let scene = Scene::new().await;
        let mut client = scene.client().await;
        let key = SshKey::random().unwrap();
        let minutes = Duration::from_secs(120);
        let mut tries = async |authority: &Authority, machine: MachineId, minutes: Duration| {
            let line = authority.issue(&key.public_line("x"), machine, "alice", minutes).unwrap();
            let certificate = Certificate::from_openssh(&line).unwrap();
            assert!(
                certificate.valid_before_time().unwrap()
                    < std::time::SystemTime::now() + authority::VALIDITY_MAX + minutes
            );
            client.authenticate_openssh_cert("m", key.pair(), certificate).await.unwrap().success()
        };
        let foreign = Authority::new(SshKey::random().unwrap());
        assert!(!tries(&foreign, scene.id, minutes).await);
        assert!(!tries(&scene.authority, MachineId::random(), minutes).await);
        assert!(!tries(&scene.authority, scene.id, Duration::ZERO).await, "it has expired");
        assert!(tries(&scene.authority, scene.id, minutes).await);
        assert_eq!(scene.notes.lock().unwrap().last(), Some(&("certificate", true)));
    });
}

#[test]
fn a_key_that_the_machine_was_ordered_with_is_let_in_and_no_other() {
    with_a_machine(async {
        let scene = Scene::new().await;
        let mut client = scene.client().await;
        let mut tries = async |key: &SshKey| {
            let key = PrivateKeyWithHashAlg::new(key.pair(), None);
            client.authenticate_publickey("m", key).await.unwrap().success()
        };
        assert!(!tries(&SshKey::random().unwrap()).await);
        assert!(tries(&scene.users_key).await);
    });
}

#[test]
fn port_22_through_the_gateway_is_the_machines_own_ssh_server() {
    with_a_machine(async {
        let scene = Scene::new().await;
        let client = scene.inside().await;
        let channel =
            client.channel_open_direct_tcpip("machine", 22, "127.0.0.1", 1).await.unwrap();
        let jump = Client(scene.guest.host_key.fingerprint());
        let mut end =
            client::connect_stream(Arc::default(), channel.into_stream(), jump).await.unwrap();
        assert!(matches!(
            end.authenticate_password("u", "secret").await.unwrap(),
            AuthResult::Success
        ));
        // The machine in this test connects nobody to anything.
        assert!(client.channel_open_direct_tcpip("localhost", 80, "127.0.0.1", 1).await.is_err());
    });
}

#[test]
fn channels_and_connections_are_limited() {
    with_a_machine(async {
        let scene = Scene::new().await;
        let client = scene.inside().await;
        let mut open = Vec::new();
        while let Ok(channel) = client.channel_open_session().await {
            open.push(channel);
        }
        assert_eq!(open.len(), CHANNELS_MAX);

        let _others = (scene.inside().await, scene.inside().await, scene.inside().await);
        let fifth = client::connect(Arc::default(), scene.address, Client(String::new())).await;
        assert!(fifth.is_err(), "all are logged in, so nobody gives way");
        assert!(client.channel_open_session().await.is_err() && !client.is_closed());
    });
}

#[test]
fn a_machine_that_ends_ends_the_visit() {
    with_a_machine(async {
        let scene = Scene::new().await;
        let client = scene.inside().await;
        let mut channel = client.channel_open_session().await.unwrap();
        channel.exec(true, "cat").await.unwrap();
        assert!(matches!(
            channel.wait().await,
            Some(ChannelMsg::Success | ChannelMsg::WindowAdjusted { .. })
        ));
        scene.guest.end();
        assert_eq!(heard(&mut channel).await.2, None);
        while !client.is_closed() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_gateway_that_is_to_stop_takes_nobody_and_lets_visits_end() {
    with_a_machine(async {
        let mut scene = Scene::new().await;
        let client = scene.inside().await;
        scene.stop.notify_one();
        while TcpStream::connect(scene.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        let mut channel = client.channel_open_session().await.unwrap();
        channel.exec(true, "cat").await.unwrap();
        channel.data(&b"x"[..]).await.unwrap();
        channel.eof().await.unwrap();
        assert_eq!(heard(&mut channel).await.0, b"x");
        drop((channel, client));
        assert!(scene.serving.join_next().await.is_some());
    });
}

#[test]
fn a_key_file_is_made_once_for_our_eyes_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ssh_host_key.pem");
    let key = key_file(&path).unwrap();
    assert_eq!(key_file(&path).unwrap().fingerprint(), key.fingerprint());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&path, "nonsense").unwrap();
    assert!(key_file(&path).unwrap_err().to_string().contains("ssh_host_key.pem"));
}
