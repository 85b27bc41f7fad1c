//! A guest that means harm: nothing panics, nothing grows without bound, and others are served meanwhile.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::super::frame::{ask, udp_frame};
use super::super::outside::Outside;
use super::super::{GATEWAY, GATEWAY_MAC, GUEST, NAME_SERVER, Network, NetworkPolicy};
use super::guest::{Guest, MAC};
use super::lan;

/// A frame from the guest around an IPv4 packet's payload.
fn packet(from: Ipv4Addr, to: Ipv4Addr, kind: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let ipv4 = Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: kind,
        payload_len: payload.len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; 14 + 20 + payload.len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    EthernetRepr { src_addr: MAC, dst_addr: GATEWAY_MAC, ethertype: EthernetProtocol::Ipv4 }
        .emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ipv4.emit(&mut packet, &ChecksumCapabilities::default());
    packet.payload_mut().copy_from_slice(payload);
    bytes
}

fn syn(from: Ipv4Addr, port: u16, to: SocketAddrV4) -> Vec<u8> {
    let segment = TcpRepr {
        src_port: port,
        dst_port: to.port(),
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(7),
        ack_number: None,
        window_len: 1000,
        window_scale: None,
        max_seg_size: Some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let mut bytes = vec![0; segment.buffer_len()];
    segment.emit(
        &mut TcpPacket::new_unchecked(&mut bytes),
        &from.into(),
        &(*to.ip()).into(),
        &ChecksumCapabilities::default(),
    );
    packet(from, *to.ip(), IpProtocol::Tcp, &bytes)
}

fn datagram(port: u16, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let mut bytes = udp_frame(GATEWAY_MAC, SocketAddrV4::new(GUEST, port), to, payload).unwrap();
    bytes[6..12].copy_from_slice(&MAC.0);
    bytes
}

fn arp(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: MAC,
        source_protocol_addr: sender,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let mut bytes = vec![0; 14 + 28];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    EthernetRepr {
        src_addr: MAC,
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Arp,
    }
    .emit(&mut frame);
    arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

const ELSEWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(93, 184, 216, 34), 80);

#[test]
fn only_what_is_served_is_taken_up() {
    let is = |frame: &[u8], wanted: &str| {
        let asked = format!("{:?}", ask(frame));
        assert!(asked.starts_with(wanted), "{asked} is not {wanted}");
    };
    is(&syn(GUEST, 1, ELSEWHERE), "Segment");
    is(&syn(GUEST, 1, SocketAddrV4::new(NAME_SERVER, 53)), "Segment");
    is(&syn(GUEST, 1, SocketAddrV4::new(NAME_SERVER, 54)), "Stack");
    is(&syn(GUEST, 1, SocketAddrV4::new(GATEWAY, 22)), "Stack");
    is(&datagram(1, ELSEWHERE, b"x"), "Datagram");
    is(&arp(GUEST, GATEWAY), "WhoHas(10.0.2.2)");
    is(&arp(GUEST, NAME_SERVER), "WhoHas(10.0.2.3)");
    // Other sources, other addresses of the LAN, itself, ports that do not exist.
    is(&syn(Ipv4Addr::new(10, 0, 2, 16), 1, ELSEWHERE), "Nothing");
    is(&syn(Ipv4Addr::LOCALHOST, 1, ELSEWHERE), "Nothing");
    is(&syn(GUEST, 1, SocketAddrV4::new(GUEST, 22)), "Nothing");
    is(&syn(GUEST, 1, SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 255), 22)), "Nothing");
    is(&syn(GUEST, 0, ELSEWHERE), "Nothing");
    is(&syn(GUEST, 1, SocketAddrV4::new(*ELSEWHERE.ip(), 0)), "Nothing");
    is(&arp(GUEST, GUEST), "Nothing");
    is(&arp(GUEST, Ipv4Addr::new(10, 0, 2, 7)), "Nothing");
    is(&arp(Ipv4Addr::new(10, 0, 2, 16), GATEWAY), "Nothing");
    is(&packet(GUEST, GATEWAY, IpProtocol::Icmp, &[0; 8]), "Nothing");
    is(&packet(GUEST, *ELSEWHERE.ip(), IpProtocol::Icmp, &[8, 0, 0, 0, 0, 0, 0, 0]), "Nothing");
    is(&packet(GUEST, *ELSEWHERE.ip(), IpProtocol::Igmp, &[0; 8]), "Nothing");
    // Fragments, the first of them and a later one; another version; another station; IPv6.
    for (at, value) in [(20, 0x20), (21, 1), (14, 0x65), (0, 0x54), (6, 0x53), (12, 0x86)] {
        let mut frame = syn(GUEST, 1, ELSEWHERE);
        frame[at] = value;
        is(&frame, "Nothing");
    }
    let whole = syn(GUEST, 1, ELSEWHERE);
    for length in 0..whole.len() {
        is(&whole[..length], "Nothing");
    }
}

/// Numbers that look random and are the same in every run (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(below).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.roll(256)).unwrap()
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut dhcp = vec![0; 300];
    dhcp[..4].copy_from_slice(&[1, 1, 6, 0]);
    dhcp[28..34].copy_from_slice(&MAC.0);
    dhcp[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    dhcp[240..250].copy_from_slice(&[53, 1, 3, 50, 4, 10, 0, 2, 15, 255]);
    vec![
        syn(GUEST, 40_000, ELSEWHERE),
        syn(GUEST, 40_001, SocketAddrV4::new(GATEWAY, 49_152)),
        datagram(40_000, ELSEWHERE, b"hello"),
        datagram(40_000, SocketAddrV4::new(NAME_SERVER, 53), &[0; 40]),
        datagram(68, SocketAddrV4::new(GATEWAY, 67), &dhcp),
        arp(GUEST, GATEWAY),
        packet(GUEST, GATEWAY, IpProtocol::Icmp, &[8, 0, 0, 0, 0, 7, 0, 1, 1, 2, 3]),
    ]
}

#[tokio::test]
async fn broken_frames_do_no_harm() {
    // Refused by the policy, so that nothing is sent into the world; the detour of the tests leads nowhere either.
    let (network, mut guest) = lan(NetworkPolicy::default());
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let seeds = seeds();
    for round in 0..20_000 {
        let mut frame = seeds[dice.roll(seeds.len())].clone();
        for _ in 0..dice.roll(6) {
            let at = dice.roll(frame.len());
            frame[at] = dice.byte();
        }
        if dice.roll(4) == 0 {
            frame.truncate(dice.roll(frame.len()));
        }
        if dice.roll(16) == 0 {
            frame.resize(1 + dice.roll(2000), dice.byte());
        }
        guest.raw(&frame);
        if round % 500 == 0 {
            guest.until(|_| Some(())).await;
        }
    }
    // It still serves.
    guest.listen(22);
    tokio::select! {
        connection = network.connect(22) => connection.map(drop).unwrap(),
        () = guest.forever() => unreachable!(),
    }
}

#[tokio::test]
async fn floods_are_bounded_and_a_connection_is_served_meanwhile() {
    let policy = NetworkPolicy { internet: true, ..NetworkPolicy::default() };
    let mut outside = Outside::new(Arc::new(policy));
    // A listener that never accepts: its backlog fills and further calls wait.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let sink = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    outside.detours.insert(ELSEWHERE.into(), listener.local_addr().unwrap());
    for port in 1..=2000 {
        let to = SocketAddrV4::new(*ELSEWHERE.ip(), 1000 + port);
        outside.detours.insert(to.into(), sink.local_addr().unwrap());
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    let network = Network::serve(ours, outside);
    let mut guest = Guest::new(theirs);
    for port in 1..=2000 {
        guest.raw(&syn(GUEST, 10_000 + port, ELSEWHERE));
        guest.raw(&datagram(port, SocketAddrV4::new(*ELSEWHERE.ip(), 1000 + port), b"x"));
        guest.raw(&arp(GUEST, GATEWAY));
    }
    guest.listen(22);
    tokio::select! {
        connection = network.connect(22) => connection.map(drop).unwrap(),
        () = guest.forever() => unreachable!(),
    }
    assert!(network.shared.lock().flows_open() <= 256);
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open < 256 + 64 + 32 + 50, "{open} files are open");
}

#[tokio::test]
async fn a_peer_that_is_not_qemu_is_let_go() {
    let (network, mut guest) = lan(NetworkPolicy::default());
    guest.listen(22);
    let mut connection = tokio::select! {
        connection = network.connect(22) => connection.unwrap(),
        () = guest.forever() => unreachable!(),
    };
    guest.raw_bytes(&u32::MAX.to_be_bytes());
    let mut byte = [0];
    let read = tokio::select! {
        read = connection.read(&mut byte) => read,
        () = guest.forever() => unreachable!(),
    };
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn a_guest_that_takes_nothing_stops_only_itself() {
    // Echo requests without end, of which no answer is ever read.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let network = Network::serve(ours, Outside::new(Arc::default()));
    let mut echo = vec![8, 0, 0, 0, 0, 7, 0, 1];
    echo.resize(1400, 7);
    let frame = packet(GUEST, GATEWAY, IpProtocol::Icmp, &echo);
    let mut bytes = u32::try_from(frame.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(frame);
    let mut sent = 0;
    // Ends when the network reads no more; at the latest far beyond what it may hold.
    while sent < 64 * 1024 * 1024 {
        match tokio::time::timeout(Duration::from_millis(200), theirs.writable()).await {
            Ok(ready) => ready.unwrap(),
            Err(_) => break,
        }
        if let Ok(count) = theirs.try_write(&bytes) {
            sent += count;
            // Whole frames only, however the socket's room ends.
            bytes.rotate_left(count);
        }
    }
    assert!(sent < 8 * 1024 * 1024, "{sent} bytes were taken");
    assert!(network.shared.lock().is_full());
}
