//! What works without any policy: connections to the guest, its address, the gateway.

use std::io;
use std::sync::Arc;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp::State;
use smoltcp::socket::{dhcpv4, icmp};
use smoltcp::wire::{EthernetAddress, Icmpv4Packet, Icmpv4Repr, IpAddress};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::super::outside::Outside;
use super::super::{GATEWAY, GUEST, NAME_SERVER, Network, NetworkPolicy};
use super::guest::Guest;
use super::lan;

/// Echoes what comes to `port` until the peer has ended, then ends too.
async fn echo(guest: &mut Guest, port: u16) {
    let handle = guest.listen(port);
    guest
        .until(|guest| {
            let socket = guest.socket(handle);
            if socket.can_recv() && socket.can_send() {
                let room = socket.send_capacity() - socket.send_queue();
                let bytes = socket.recv(|bytes| {
                    let count = bytes.len().min(room);
                    (count, bytes[..count].to_vec())
                });
                socket.send_slice(&bytes.unwrap()).unwrap();
            }
            if socket.state() == State::CloseWait && !socket.can_recv() {
                socket.close();
            }
            (!socket.is_open()).then_some(())
        })
        .await;
    guest.sockets.remove(handle);
}

#[tokio::test]
async fn bytes_go_to_the_guest_and_come_back_and_each_half_closes_by_itself() {
    let (network, mut guest) = lan(NetworkPolicy::default());
    let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_be_bytes).collect();
    let host = async {
        let (mut reader, mut writer) = tokio::io::split(network.connect(22).await.unwrap());
        let write = async {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let read = async { reader.read_to_end(&mut received).await.unwrap() };
        tokio::join!(write, read);
        received
    };
    let (received, ()) = tokio::join!(host, echo(&mut guest, 22));
    assert!(received == sent);
}

#[tokio::test]
async fn a_port_where_nobody_listens_refuses_at_once() {
    let (network, mut guest) = lan(NetworkPolicy::default());
    let refused = tokio::select! {
        refused = network.connect(23) => refused,
        () = guest.forever() => unreachable!(),
    };
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_is_silent_is_given_up_after_ten_seconds() {
    let (network, _guest) = lan(NetworkPolicy::default());
    let start = tokio::time::Instant::now();
    let error = network.connect(22).await.unwrap_err();
    assert_eq!((error.kind(), start.elapsed().as_secs()), (io::ErrorKind::TimedOut, 10));
    assert_eq!(network.connect(0).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_guest_that_resets_is_an_error_not_an_end() {
    let (network, mut guest) = lan(NetworkPolicy::default());
    let handle = guest.listen(22);
    let mut connection = tokio::select! {
        connection = network.connect(22) => connection.unwrap(),
        () = guest.forever() => unreachable!(),
    };
    guest.socket(handle).abort();
    let mut byte = [0];
    let (read, ()) = tokio::join!(
        connection.read(&mut byte),
        guest.until(|guest| (guest.socket(handle).remote_endpoint().is_none()).then_some(()))
    );
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let written = connection.write(b"x").await;
    assert_eq!(written.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_dropped_connection_ends_at_the_guest_and_leaves_nothing() {
    let (network, mut guest) = lan(NetworkPolicy::default());
    let handle = guest.listen(22);
    let mut connection = tokio::select! {
        connection = network.connect(22) => connection.unwrap(),
        () = guest.forever() => unreachable!(),
    };
    connection.write_all(b"last words").await.unwrap();
    drop(connection);
    let mut heard = Vec::new();
    guest
        .until(|guest| {
            let socket = guest.socket(handle);
            while socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), heard.extend_from_slice(bytes))).unwrap();
            }
            (socket.state() == State::CloseWait).then(|| socket.close())
        })
        .await;
    assert_eq!(heard, b"last words");
    guest.until(|guest| (!guest.socket(handle).is_open()).then_some(())).await;
    guest.until(|_| network.shared.lock().is_idle().then_some(())).await;
}

#[tokio::test]
async fn without_its_qemu_a_connection_fails_and_no_new_one_is_had() {
    let (network, mut guest) = lan(NetworkPolicy::default());
    guest.listen(22);
    let mut connection = tokio::select! {
        connection = network.connect(22) => connection.unwrap(),
        () = guest.forever() => unreachable!(),
    };
    drop(guest);
    let read = connection.read(&mut [0]).await;
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    let refused = network.connect(22).await;
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn a_guest_whose_hardware_address_has_changed_is_found_again() {
    let (network, mut guest) = lan(NetworkPolicy::default());
    for mac in [1, 2, 3] {
        guest.set_mac(EthernetAddress([2, 0, 0, 0, 0, mac]));
        guest.listen(22);
        let start = std::time::Instant::now();
        tokio::select! {
            connection = network.connect(22) => connection.map(drop).unwrap(),
            () = guest.forever() => unreachable!(),
        }
        assert!(start.elapsed().as_millis() < 900, "a lost frame was waited for");
    }
}

#[tokio::test]
async fn a_network_is_attached_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.sock");
    let listener = UnixListener::bind(&path).unwrap();
    for _ in 0..2 {
        let network = Network::attach(&path, Arc::default()).await.unwrap();
        let mut guest = Guest::new(listener.accept().await.unwrap().0);
        guest.listen(22);
        tokio::select! {
            connection = network.connect(22) => connection.map(drop).unwrap(),
            () = guest.forever() => unreachable!(),
        }
    }
    drop(listener);
    assert!(Network::attach(&path, Arc::default()).await.is_err());
}

#[tokio::test]
async fn dhcp_gives_the_one_address_with_gateway_and_name_server() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let _network = Network::serve(ours, Outside::new(Arc::default()));
    let mut guest = Guest::without_address(theirs);
    let handle = guest.sockets.add(dhcpv4::Socket::new());
    let (address, router, servers) = guest
        .until(|guest| match guest.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll() {
            Some(dhcpv4::Event::Configured(lease)) => {
                Some((lease.address, lease.router, lease.dns_servers.to_vec()))
            }
            _ => None,
        })
        .await;
    assert_eq!((address.address(), address.prefix_len()), (GUEST, 24));
    assert_eq!((router, servers), (Some(GATEWAY), vec![NAME_SERVER]));
}

#[tokio::test]
async fn the_gateway_answers_echoes() {
    let (_network, mut guest) = lan(NetworkPolicy::default());
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 1024]);
    let mut socket = icmp::Socket::new(buffer(), buffer());
    socket.bind(icmp::Endpoint::Ident(7)).unwrap();
    let request = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 1, data: b"hello" };
    let room = socket.send(request.buffer_len(), IpAddress::Ipv4(GATEWAY)).unwrap();
    request.emit(&mut Icmpv4Packet::new_unchecked(room), &ChecksumCapabilities::default());
    let handle = guest.sockets.add(socket);
    let (answer, from) = guest
        .until(|guest| {
            let (bytes, from) = guest.sockets.get_mut::<icmp::Socket<'_>>(handle).recv().ok()?;
            Some((bytes.to_vec(), from))
        })
        .await;
    let packet = Icmpv4Packet::new_checked(&answer).unwrap();
    let answer = Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default()).unwrap();
    assert_eq!(answer, Icmpv4Repr::EchoReply { ident: 7, seq_no: 1, data: b"hello" });
    assert_eq!(from, IpAddress::Ipv4(GATEWAY));
}

#[tokio::test]
async fn an_idle_network_sets_no_timer_with_and_without_a_connection() {
    let (network, mut guest) = lan(NetworkPolicy::default());
    assert_eq!(network.shared.lock().turn(), None);
    guest.listen(22);
    let mut connection = tokio::select! {
        connection = network.connect(22) => connection.unwrap(),
        () = guest.forever() => unreachable!(),
    };
    connection.write_all(b"hello").await.unwrap();
    assert!(network.shared.lock().turn().is_some(), "what is under way may be lost");
    guest.until(|_| network.shared.lock().turn().is_none().then_some(())).await;
}
