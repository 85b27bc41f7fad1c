//! Real connections to a forwarder; the guest is in this process.

use std::net::Ipv4Addr;

use tokio::io::DuplexStream;
use tokio::time::timeout;

use super::*;
use crate::hypervisor::Vm;
use crate::ports::guest::Guest;
use crate::ports::{Admission, Limits, Ports};

fn ports() -> Ports {
    Ports::new(21_000..=31_999, vec![Ipv4Addr::LOCALHOST.into()])
}

struct Scene {
    guest: Arc<Guest>,
    desk: Arc<Desk>,
    forwarder: Forwarder,
}

impl Scene {
    fn new(answers: bool, limits: Limits) -> Self {
        let guest = Guest::new(answers);
        let desk = Desk::new(Arc::clone(&guest) as Arc<dyn Vm>, limits);
        let forwarder = Forwarder::start(ports().lease().unwrap(), Arc::clone(&desk));
        Self { guest, desk, forwarder }
    }

    async fn client(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.forwarder.port())).await.unwrap()
    }

    /// A client and the guest's end of its connection.
    async fn pair(&self) -> (TcpStream, DuplexStream) {
        let client = self.client().await;
        self.guest.arrived.notified().await;
        (client, self.guest.end())
    }

    async fn is_refused(&self) -> bool {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.forwarder.port())).await.is_err()
    }
}

/// Reads until the end, or the failure, of a connection.
async fn rest(mut from: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = timeout(Duration::from_secs(20), from.read_to_end(&mut all)).await.expect("it ends");
    all
}

#[tokio::test]
async fn both_ways_are_forwarded_and_end_one_by_one() {
    let scene = Scene::new(true, Limits::default());
    let (mut client, mut guest) = scene.pair().await;
    let sent = vec![7; 100_000];
    let inward = async {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let ((), received) = tokio::join!(inward, rest(&mut guest));
    assert!(received == sent);
    // The client has ended its half; the guest has not.
    guest.write_all(b"answer").await.unwrap();
    drop(guest);
    assert_eq!(rest(client).await, b"answer");
}

#[tokio::test]
async fn all_connections_and_the_port_end_with_the_machine() {
    let scene = Scene::new(true, Limits::default());
    let (first, _guest) = scene.pair().await;
    let (second, _other) = scene.pair().await;
    assert_eq!(scene.desk.connections(), 2);
    scene.guest.ended.send_replace(Some(Ending::PoweredOff));
    assert_eq!((rest(first).await, rest(second).await), (Vec::new(), Vec::new()));
    assert!(scene.is_refused().await);
}

#[tokio::test]
async fn a_stopped_forwarder_has_closed_its_port_and_gives_the_lease_back() {
    let scene = Scene::new(true, Limits::default());
    let (client, _guest) = scene.pair().await;
    let port = scene.forwarder.port();
    scene.forwarder.stop().await;
    ports().lease_exactly(port).unwrap();
    assert!(rest(client).await.is_empty());
}

#[tokio::test]
async fn a_guest_that_does_not_answer_closes_its_client_and_holds_up_nobody() {
    let limits = Limits { connect_max: Duration::from_millis(50), ..Limits::default() };
    let scene = Scene::new(false, limits);
    let (first, second) = (scene.client().await, scene.client().await);
    assert!(rest(first).await.is_empty() && rest(second).await.is_empty());
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_until_there_is_a_place() {
    let scene = Scene::new(true, Limits { connections_max: 2, ..Limits::default() });
    let (first, guest) = scene.pair().await;
    let (_second, _other) = scene.pair().await;
    assert!(rest(scene.client().await).await.is_empty());
    drop(guest);
    assert!(rest(first).await.is_empty());
    // The place is free when the connection's task is gone.
    while scene.desk.connections() == 2 {
        tokio::task::yield_now().await;
    }
    scene.pair().await;
}

#[tokio::test]
async fn who_is_not_admitted_is_closed_without_a_byte_and_takes_no_place() {
    let admission = Admission::of(|address| address != Ipv4Addr::new(127, 0, 0, 2));
    let scene =
        Scene::new(true, Limits { admission, connections_per_second: 1, ..Limits::default() });
    for _ in 0..3 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into()).unwrap();
        let client = socket.connect((Ipv4Addr::LOCALHOST, scene.forwarder.port()).into()).await;
        assert!(rest(client.unwrap()).await.is_empty());
    }
    let (mut client, mut guest) = scene.pair().await;
    guest.write_all(b"SSH").await.unwrap();
    client.read_exact(&mut [0; 3]).await.unwrap();
}

#[tokio::test]
async fn connections_beyond_the_pace_are_closed() {
    let scene = Scene::new(true, Limits { connections_per_second: 1, ..Limits::default() });
    let (_first, _guest) = scene.pair().await;
    assert!(rest(scene.client().await).await.is_empty());
}

/// A connection without sockets, so that the clock can jump: the client's end, the guest's end, and how it ended.
fn relayed(
    idle_max: Option<Duration>,
) -> (DuplexStream, DuplexStream, impl Future<Output = (io::Result<()>, Duration)>) {
    let (client, outer) = tokio::io::duplex(1024);
    let (guest, inner) = tokio::io::duplex(1024);
    let begun = Instant::now();
    (client, guest, async move { (relay(outer, inner, idle_max).await, begun.elapsed()) })
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_ends_and_one_that_speaks_does_not() {
    let (mut client, mut guest, relay) = relayed(Some(Duration::from_secs(30)));
    let talk = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(20)).await;
            client.write_all(b"x").await.unwrap();
            guest.read_exact(&mut [0]).await.unwrap();
        }
    };
    let ((result, took), ()) = tokio::join!(relay, talk);
    assert_eq!((result.unwrap_err().kind(), took.as_secs()), (io::ErrorKind::TimedOut, 130));
}
