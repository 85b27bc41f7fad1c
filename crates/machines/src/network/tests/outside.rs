//! What leaves for the outside, and what does not. Permitted addresses are led by a detour to a listener of this
//! test, behind every check but the routing table's; `namespace` has the real thing.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use smoltcp::socket::udp;
use smoltcp::wire::{IpAddress, IpEndpoint};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket, UnixStream};

use super::super::outside::Outside;
use super::super::resolver::Resolvers;
use super::super::{NAME_SERVER, Network, NetworkPolicy};
use super::guest::Guest;

/// A public address, for which the detours stand in.
const PUBLIC: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(93, 184, 216, 34), 80);

fn internet() -> NetworkPolicy {
    NetworkPolicy { internet: true, ..NetworkPolicy::default() }
}

fn lan(policy: NetworkPolicy, detours: &[(SocketAddrV4, SocketAddr)]) -> (Network, Guest) {
    let mut outside = Outside::new(Arc::new(policy));
    outside.detours =
        detours.iter().map(|(from, to)| (SocketAddr::V4(*from), *to)).collect::<HashMap<_, _>>();
    lan_to(outside)
}

fn lan_to(outside: Outside) -> (Network, Guest) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Network::serve(ours, outside), Guest::new(theirs))
}

/// Waits until a connection that the guest began is decided; whether it is open.
async fn decided(guest: &mut Guest, handle: SocketHandle) -> bool {
    guest
        .until(|guest| match guest.socket(handle).state() {
            State::SynSent => None,
            state => Some(state == State::Established),
        })
        .await
}

#[tokio::test]
async fn a_permitted_connection_carries_both_ways_and_half_closes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_network, mut guest) = lan(internet(), &[(PUBLIC, listener.local_addr().unwrap())]);
    let handle = guest.dial(PUBLIC, 50_000);
    let question: Vec<u8> = (0..50_000_u32).flat_map(u32::to_be_bytes).collect();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        bytes.reverse();
        stream.write_all(&bytes).await.unwrap();
    };
    let mut sent = 0;
    let mut answer = Vec::new();
    let client = guest.until(|guest| {
        let socket = guest.socket(handle);
        if sent < question.len() && socket.can_send() {
            sent += socket.send_slice(&question[sent..]).unwrap();
            if sent == question.len() {
                socket.close();
            }
        }
        while socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), answer.extend_from_slice(bytes))).unwrap();
        }
        matches!(socket.state(), State::TimeWait | State::Closed).then_some(())
    });
    tokio::join!(server, client);
    answer.reverse();
    assert!(answer == question);
}

/// The guest is refused at once, and nobody was called: `to` leads to a listener that must stay alone.
async fn check_refused(policy: NetworkPolicy, to: SocketAddrV4, listener: &TcpListener) {
    let (_network, mut guest) = lan(policy, &[]);
    let handle = guest.dial(to, 50_000);
    let start = std::time::Instant::now();
    assert!(!decided(&mut guest, handle).await, "{to} was reached");
    assert!(start.elapsed().as_millis() < 900, "{to} was not refused at once");
    let came = tokio::time::timeout(std::time::Duration::from_millis(5), listener.accept()).await;
    assert!(came.is_err(), "somebody called for {to}");
}

#[tokio::test]
async fn loopback_private_and_metadata_are_refused_at_once() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let all = NetworkPolicy {
        internet: true,
        allow: vec!["0.0.0.0/0".parse().unwrap()],
        ..NetworkPolicy::default()
    };
    for address in [[127, 0, 0, 1], [127, 1, 2, 3], [10, 0, 2, 2], [10, 0, 2, 3]] {
        let to = SocketAddrV4::new(Ipv4Addr::from(address), port);
        check_refused(all.clone(), to, &listener).await;
    }
    for address in [[169, 254, 169, 254], [192, 168, 1, 1], [10, 0, 0, 1], [100, 64, 0, 1]] {
        let to = SocketAddrV4::new(Ipv4Addr::from(address), port);
        check_refused(internet(), to, &listener).await;
    }
    check_refused(NetworkPolicy::default(), PUBLIC, &listener).await;
    check_refused(NetworkPolicy::default(), SocketAddrV4::new(NAME_SERVER, 53), &listener).await;
}

#[tokio::test]
async fn the_hosts_own_addresses_are_refused_even_where_all_is_allowed() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // The address from which this host would speak to the world, where it has a way there.
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = match probe.connect(PUBLIC).and_then(|()| probe.local_addr()) {
        Ok(SocketAddr::V4(own)) if !own.ip().is_loopback() => *own.ip(),
        _ => return eprintln!("SKIPPED: this host has no address but the loopback's"),
    };
    let allow = vec!["0.0.0.0/0".parse().unwrap()];
    let policy = NetworkPolicy { internet: true, allow, ..NetworkPolicy::default() };
    assert!(policy.permits(own), "only the routing table may be what refuses it");
    check_refused(policy, SocketAddrV4::new(own, port), &listener).await;
}

#[tokio::test]
async fn a_port_that_refuses_outside_refuses_inside() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (network, mut guest) = lan(internet(), &[(PUBLIC, closed)]);
    let handle = guest.dial(PUBLIC, 50_000);
    assert!(!decided(&mut guest, handle).await);
    guest.until(|_| network.shared.lock().is_idle().then_some(())).await;
}

#[tokio::test]
async fn a_reset_outside_is_a_reset_inside() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (network, mut guest) = lan(internet(), &[(PUBLIC, listener.local_addr().unwrap())]);
    let handle = guest.dial(PUBLIC, 50_000);
    let (accepted, open) = tokio::join!(listener.accept(), decided(&mut guest, handle));
    assert!(open);
    let (stream, _) = accepted.unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    let state = guest
        .until(|guest| {
            let state = guest.socket(handle).state();
            (state != State::Established).then_some(state)
        })
        .await;
    assert_eq!(state, State::Closed);
    guest.until(|_| network.shared.lock().is_idle().then_some(())).await;
}

#[tokio::test]
async fn many_connections_are_capped_and_given_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (network, mut guest) = lan(internet(), &[(PUBLIC, listener.local_addr().unwrap())]);
    let accepted = std::cell::RefCell::new(Vec::new());
    let accept = async {
        loop {
            let stream = listener.accept().await.unwrap();
            accepted.borrow_mut().push(stream);
        }
    };
    let guest_side = async {
        let mut open = Vec::new();
        for from in 0..300 {
            let full = network.shared.lock().flows_open() == 256;
            let handle = guest.dial(PUBLIC, 40_000 + from);
            let opened = guest
                .until(|guest| match guest.socket(handle).state() {
                    State::SynSent if !full => None,
                    state => Some(state == State::Established),
                })
                .await;
            if opened {
                open.push(handle);
            } else {
                guest.sockets.remove(handle);
            }
        }
        assert_eq!(open.len(), 256);
        for handle in open {
            guest.socket(handle).abort();
        }
        guest.until(|_| network.shared.lock().is_idle().then_some(())).await;
    };
    tokio::select! {
        () = guest_side => {}
        () = accept => {}
    }
    assert!(accepted.borrow().len() <= 257);
}

fn udp_socket(guest: &mut Guest, from: u16) -> SocketHandle {
    let buffer =
        || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 16 * 1024]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(from).unwrap();
    guest.sockets.add(socket)
}

fn send(guest: &mut Guest, handle: SocketHandle, to: SocketAddrV4, payload: &[u8]) {
    let to = IpEndpoint::new(IpAddress::Ipv4(*to.ip()), to.port());
    guest.sockets.get_mut::<udp::Socket<'_>>(handle).send_slice(payload, to).unwrap();
}

async fn receive(guest: &mut Guest, handle: SocketHandle) -> (Vec<u8>, IpEndpoint) {
    guest
        .until(|guest| {
            let socket = guest.sockets.get_mut::<udp::Socket<'_>>(handle);
            let (bytes, meta) = socket.recv().ok()?;
            Some((bytes.to_vec(), meta.endpoint))
        })
        .await
}

#[tokio::test]
async fn datagrams_go_out_and_their_answers_come_back() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (_network, mut guest) = lan(internet(), &[(PUBLIC, server.local_addr().unwrap())]);
    let handle = udp_socket(&mut guest, 5000);
    let echo = async {
        let mut bytes = [0; 2000];
        loop {
            let (count, from) = server.recv_from(&mut bytes).await.unwrap();
            // What does not fit into one frame is lost, and the next is not.
            server.send_to(&[0; 1473], from).await.unwrap();
            server.send_to(&bytes[..count], from).await.unwrap();
        }
    };
    let client = async {
        for payload in [&b"one"[..], b"two", &[7; 1472]] {
            send(&mut guest, handle, PUBLIC, payload);
            let (bytes, from) = receive(&mut guest, handle).await;
            assert_eq!(bytes, payload);
            assert_eq!(from, IpEndpoint::new(IpAddress::Ipv4(*PUBLIC.ip()), PUBLIC.port()));
        }
    };
    tokio::select! { () = client => {}, () = echo => {} }
}

#[tokio::test]
async fn a_refused_datagram_is_answered_by_port_unreachable() {
    let (_network, mut guest) = lan(internet(), &[]);
    let handle = udp_socket(&mut guest, 5000);
    send(&mut guest, handle, SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 1), 9), b"psst");
    // ICMP (1), destination unreachable (3), port (3).
    guest.frame(|frame| frame.get(23) == Some(&1) && frame.get(34..36) == Some(&[3, 3])).await;
}

fn question() -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend(b"\x07example\x03org\x00\x00\x01\x00\x01");
    bytes
}

/// An outside whose name server is `server`.
fn with_name_server(server: SocketAddr) -> (Outside, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("nameserver {}\n", server.ip())).unwrap();
    let mut outside = Outside::new(Arc::new(internet()));
    outside.resolvers = Resolvers::at_port(file.path().into(), server.port());
    (outside, file)
}

#[tokio::test]
async fn names_are_asked_of_the_hosts_name_server_by_udp() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (outside, _file) = with_name_server(server.local_addr().unwrap());
    let (_network, mut guest) = lan_to(outside);
    let handle = udp_socket(&mut guest, 5000);
    let name_server = SocketAddrV4::new(NAME_SERVER, 53);
    // A change of a zone does not pass; the question after it does.
    let mut update = question();
    update[2] = 0x28;
    send(&mut guest, handle, name_server, &update);
    send(&mut guest, handle, name_server, &question());
    let answer = async {
        let mut bytes = [0; 512];
        let (count, from) = server.recv_from(&mut bytes).await.unwrap();
        assert_eq!(&bytes[..count], question());
        server.send_to(b"the answer", from).await.unwrap();
    };
    let ((), (bytes, from)) = tokio::join!(answer, receive(&mut guest, handle));
    assert_eq!(bytes, b"the answer");
    assert_eq!(from, IpEndpoint::new(IpAddress::Ipv4(NAME_SERVER), 53));
}

#[tokio::test]
async fn names_are_asked_of_the_hosts_name_server_by_tcp() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (outside, _file) = with_name_server(server.local_addr().unwrap());
    let (_network, mut guest) = lan_to(outside);
    let handle = guest.dial(SocketAddrV4::new(NAME_SERVER, 53), 50_000);
    let asked = question();
    let length = u16::try_from(asked.len()).unwrap();
    let answer = async {
        let (mut stream, _) = server.accept().await.unwrap();
        let mut bytes = vec![0; 2 + asked.len()];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes[2..], asked);
        stream.write_all(b"\0\x02ok").await.unwrap();
        // The zone's copy that is asked for next never gets here.
        assert!(stream.read(&mut [0]).await.is_err());
    };
    let client = async {
        assert!(decided(&mut guest, handle).await);
        let socket = guest.socket(handle);
        socket.send_slice(&length.to_be_bytes()).unwrap();
        socket.send_slice(&asked).unwrap();
        let mut zone = asked.clone();
        let kind = zone.len() - 3;
        zone[kind] = 252;
        guest.until(|guest| (guest.socket(handle).recv_queue() == 4).then_some(())).await;
        let socket = guest.socket(handle);
        socket.send_slice(&length.to_be_bytes()).unwrap();
        socket.send_slice(&zone).unwrap();
        guest.until(|guest| (!guest.socket(handle).is_open()).then_some(())).await;
    };
    tokio::join!(answer, client);
}
