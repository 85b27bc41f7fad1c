//! Tells what a frame of the guest asks for, before anything acts on it.
//!
//! Invariant: pure; what is not plainly a thing that is served here is [`Ask::Nothing`]. Only the guest's own address
//! is taken as a source, and only ours are answered for by ARP.
//! Not here: whether an outside address may be reached (`policy`).

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::phy::{Checksum, ChecksumCapabilities};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DHCP_SERVER_PORT, ETHERNET_HEADER_LEN, EthernetAddress,
    EthernetFrame, EthernetProtocol, EthernetRepr, IPV4_HEADER_LEN, IpProtocol, Ipv4Packet,
    Ipv4Repr, TcpPacket, UDP_HEADER_LEN, UdpPacket, UdpRepr,
};

use super::{GATEWAY, GATEWAY_MAC, GUEST, NAME_SERVER};

/// Port of name servers.
pub(super) const DNS_PORT: u16 = 53;
/// ICMP's echo request.
const ICMP_ECHO_REQUEST: u8 = 8;

/// The longest packet of this LAN.
pub(super) const MTU: usize = 1500;
/// The most that a datagram carries without being cut up.
pub(super) const DATAGRAM_BYTES_MAX: usize = MTU - IPV4_HEADER_LEN - UDP_HEADER_LEN;
/// How far a packet of ours may go.
const HOP_LIMIT: u8 = 64;

/// One flow of the guest towards somewhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    /// The guest's port.
    pub(super) from: u16,
    /// Where the guest wants to go.
    pub(super) to: SocketAddrV4,
}

/// What a frame asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask<'a> {
    /// Nothing that is served; the frame is dropped.
    Nothing,
    /// The guest asks for the hardware address of one of ours.
    WhoHas(Ipv4Addr),
    /// The guest tells its hardware address, which is the frame's source.
    IsAt,
    /// The stack answers: echo for our addresses, TCP and UDP that are for us.
    Stack,
    /// A DHCP message.
    Dhcp(&'a [u8]),
    /// A TCP segment for elsewhere.
    Segment {
        /// Which flow.
        flow: Flow,
        /// Whether it opens the flow.
        opens: bool,
    },
    /// A UDP datagram for elsewhere.
    Datagram {
        /// Which flow.
        flow: Flow,
        /// What it carries.
        payload: &'a [u8],
    },
}

/// Says what `bytes`, an Ethernet frame, ask for.
pub(super) fn ask(bytes: &[u8]) -> Ask<'_> {
    let Ok(frame) = EthernetFrame::new_checked(bytes) else { return Ask::Nothing };
    let for_us = frame.dst_addr() == GATEWAY_MAC;
    if !frame.src_addr().is_unicast() || !(for_us || frame.dst_addr() == EthernetAddress::BROADCAST)
    {
        return Ask::Nothing;
    }
    let payload = &bytes[EthernetFrame::<&[u8]>::header_len()..];
    match frame.ethertype() {
        EthernetProtocol::Arp => arp(payload),
        EthernetProtocol::Ipv4 => ipv4(payload, for_us),
        _ => Ask::Nothing,
    }
}

fn arp(bytes: &[u8]) -> Ask<'_> {
    let Ok(packet) = ArpPacket::new_checked(bytes) else { return Ask::Nothing };
    match ArpRepr::parse(&packet) {
        Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_protocol_addr: GUEST,
            target_protocol_addr: target,
            ..
        }) if is_ours(target) => match operation {
            ArpOperation::Request => Ask::WhoHas(target),
            ArpOperation::Reply => Ask::IsAt,
            ArpOperation::Unknown(_) => Ask::Nothing,
        },
        _ => Ask::Nothing,
    }
}

fn ipv4(bytes: &[u8], for_us: bool) -> Ask<'_> {
    let Ok(packet) = Ipv4Packet::new_checked(bytes) else { return Ask::Nothing };
    // Fragments are never made by a guest that keeps to the 1500 bytes of this LAN and finds its path's limit.
    if packet.version() != 4 || packet.more_frags() || packet.frag_offset() != 0 {
        return Ask::Nothing;
    }
    let to = packet.dst_addr();
    let payload = &bytes[usize::from(packet.header_len())..usize::from(packet.total_len())];
    if packet.next_header() == IpProtocol::Udp
        && let Ok(datagram) = UdpPacket::new_checked(payload)
        && datagram.dst_port() == DHCP_SERVER_PORT
        && (to == Ipv4Addr::BROADCAST || to == GATEWAY)
    {
        return Ask::Dhcp(udp_payload(payload, &datagram));
    }
    if !for_us || packet.src_addr() != GUEST {
        return Ask::Nothing;
    }
    match packet.next_header() {
        IpProtocol::Icmp if is_ours(to) && payload.first() == Some(&ICMP_ECHO_REQUEST) => {
            Ask::Stack
        }
        IpProtocol::Tcp => tcp(payload, to),
        IpProtocol::Udp => udp(payload, to),
        _ => Ask::Nothing,
    }
}

fn tcp(bytes: &[u8], to: Ipv4Addr) -> Ask<'_> {
    let Ok(segment) = TcpPacket::new_checked(bytes) else { return Ask::Nothing };
    let flow = Flow { from: segment.src_port(), to: SocketAddrV4::new(to, segment.dst_port()) };
    if flow.from == 0 || flow.to.port() == 0 {
        return Ask::Nothing;
    }
    if leaves(flow.to) {
        return Ask::Segment { flow, opens: segment.syn() && !segment.ack() && !segment.rst() };
    }
    if is_ours(to) { Ask::Stack } else { Ask::Nothing }
}

fn udp(bytes: &[u8], to: Ipv4Addr) -> Ask<'_> {
    let Ok(datagram) = UdpPacket::new_checked(bytes) else { return Ask::Nothing };
    let flow = Flow { from: datagram.src_port(), to: SocketAddrV4::new(to, datagram.dst_port()) };
    if flow.from == 0 || flow.to.port() == 0 {
        return Ask::Nothing;
    }
    if leaves(flow.to) {
        return Ask::Datagram { flow, payload: udp_payload(bytes, &datagram) };
    }
    // Nobody listens there: the stack says so to the guest.
    if is_ours(to) { Ask::Stack } else { Ask::Nothing }
}

fn udp_payload<'a>(bytes: &'a [u8], datagram: &UdpPacket<&[u8]>) -> &'a [u8] {
    bytes.get(UDP_HEADER_LEN..usize::from(datagram.len())).unwrap_or_default()
}

fn is_ours(address: Ipv4Addr) -> bool {
    address == GATEWAY || address == NAME_SERVER
}

/// Whether something for this address leaves the LAN, be it by way of the name server.
fn leaves(to: SocketAddrV4) -> bool {
    to == SocketAddrV4::new(NAME_SERVER, DNS_PORT) || to.ip().octets()[..3] != GUEST.octets()[..3]
}

/// What is computed and what is believed: the socket to QEMU loses no bits, and a guest that sends wrong sums harms
/// only itself.
pub(super) fn checksums() -> ChecksumCapabilities {
    let mut sums = ChecksumCapabilities::ignored();
    sums.ipv4 = Checksum::Tx;
    sums.tcp = Checksum::Tx;
    sums.udp = Checksum::Tx;
    sums.icmpv4 = Checksum::Tx;
    sums
}

/// The hardware address that a frame comes from; it must be a frame that [`ask`] understood.
pub(super) fn source(bytes: &[u8]) -> Option<EthernetAddress> {
    EthernetFrame::new_checked(bytes).ok().map(|frame| frame.src_addr())
}

/// A frame that asks the guest for its hardware address.
pub(super) fn who_has_guest() -> Vec<u8> {
    arp_frame(ArpOperation::Request, GATEWAY, EthernetAddress::BROADCAST)
}

/// A frame that tells the guest at `mac` that `ours` is here.
pub(super) fn is_at(ours: Ipv4Addr, mac: EthernetAddress) -> Vec<u8> {
    arp_frame(ArpOperation::Reply, ours, mac)
}

fn arp_frame(operation: ArpOperation, ours: Ipv4Addr, mac: EthernetAddress) -> Vec<u8> {
    let arp = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: GATEWAY_MAC,
        source_protocol_addr: ours,
        target_hardware_addr: mac,
        target_protocol_addr: GUEST,
    };
    let mut bytes = vec![0; ETHERNET_HEADER_LEN + arp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    EthernetRepr { src_addr: GATEWAY_MAC, dst_addr: mac, ethertype: EthernetProtocol::Arp }
        .emit(&mut frame);
    arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

/// Writes the header of a frame that carries an IPv4 packet to the guest at `mac`.
pub(super) fn ipv4_header(mac: EthernetAddress, bytes: &mut [u8]) {
    EthernetRepr { src_addr: GATEWAY_MAC, dst_addr: mac, ethertype: EthernetProtocol::Ipv4 }
        .emit(&mut EthernetFrame::new_unchecked(bytes));
}

/// A frame with a datagram for the guest; `None` where it is too long for one.
pub(super) fn udp_frame(
    mac: EthernetAddress,
    from: SocketAddrV4,
    to: SocketAddrV4,
    payload: &[u8],
) -> Option<Vec<u8>> {
    if payload.len() > DATAGRAM_BYTES_MAX {
        return None;
    }
    let udp = UdpRepr { src_port: from.port(), dst_port: to.port() };
    let ipv4 = Ipv4Repr {
        src_addr: *from.ip(),
        dst_addr: *to.ip(),
        next_header: IpProtocol::Udp,
        payload_len: UDP_HEADER_LEN + payload.len(),
        hop_limit: HOP_LIMIT,
    };
    let mut bytes = vec![0; ETHERNET_HEADER_LEN + ipv4.buffer_len() + ipv4.payload_len];
    ipv4_header(mac, &mut bytes);
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[ETHERNET_HEADER_LEN..]);
    ipv4.emit(&mut packet, &checksums());
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &(*from.ip()).into(),
        &(*to.ip()).into(),
        payload.len(),
        |room| room.copy_from_slice(payload),
        &checksums(),
    );
    Some(bytes)
}

/// For a fuzz target: what `bytes` ask for stands within them, and leaves the LAN only where it says so.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let within = |part: &[u8]| part.is_empty() || bytes.as_ptr_range().contains(&part.as_ptr());
    match ask(bytes) {
        Ask::Nothing => return,
        Ask::WhoHas(address) => assert!(is_ours(address)),
        Ask::IsAt | Ask::Stack => {}
        Ask::Dhcp(payload) => assert!(within(payload)),
        Ask::Segment { flow, .. } => {
            assert!(leaves(flow.to) && flow.from > 0 && flow.to.port() > 0)
        }
        Ask::Datagram { flow, payload } => {
            assert!(leaves(flow.to) && flow.from > 0 && flow.to.port() > 0 && within(payload));
        }
    }
    let mac = source(bytes).filter(EthernetAddress::is_unicast);
    assert!(mac.is_some(), "an answer needs an address");
}
