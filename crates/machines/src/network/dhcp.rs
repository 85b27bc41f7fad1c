//! Answers the guest's DHCP: one lease, always the same.
//!
//! Invariant: pure; one message gives at most one answer, and no state is kept, so nothing can be used up.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr,
    EthernetAddress,
};

use super::frame::udp_frame;
use super::{GATEWAY, GUEST, NAME_SERVER, PREFIX_BITS};

/// How long a lease is good, in seconds; longer than most machines live.
const LEASE_SECS: u32 = 24 * 60 * 60;

/// The option that names the name servers (RFC 2132, 3.8).
const NAME_SERVERS: [DhcpOption<'static>; 1] =
    [DhcpOption { kind: 6, data: &NAME_SERVER.octets() }];

/// The frame that answers a DHCP message; `None` where none is due.
pub(super) fn answer(message: &[u8]) -> Option<Vec<u8>> {
    let packet = DhcpPacket::new_checked(message).ok()?;
    let asked = DhcpRepr::parse(&packet).ok()?;
    let foreign = asked.server_identifier.is_some_and(|server| server != GATEWAY);
    let kind = match asked.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request if foreign => return None,
        DhcpMessageType::Request if wanted(&asked) == GUEST => DhcpMessageType::Ack,
        DhcpMessageType::Request => DhcpMessageType::Nak,
        DhcpMessageType::Inform => DhcpMessageType::Ack,
        _ => return None,
    };
    if !asked.client_hardware_address.is_unicast() {
        return None;
    }
    let reply = reply(&asked, kind);
    let mut bytes = vec![0; reply.buffer_len()];
    reply.emit(&mut DhcpPacket::new_unchecked(&mut bytes)).ok()?;
    // To everybody on the LAN: the guest has no address yet, and there is nobody else.
    udp_frame(
        EthernetAddress::BROADCAST,
        SocketAddrV4::new(GATEWAY, DHCP_SERVER_PORT),
        SocketAddrV4::new(Ipv4Addr::BROADCAST, DHCP_CLIENT_PORT),
        &bytes,
    )
}

/// The address that a request is for.
fn wanted(asked: &DhcpRepr<'_>) -> Ipv4Addr {
    asked.requested_ip.unwrap_or(asked.client_ip)
}

fn reply(asked: &DhcpRepr<'_>, kind: DhcpMessageType) -> DhcpRepr<'static> {
    let refused = kind == DhcpMessageType::Nak;
    let leased = !refused && asked.message_type != DhcpMessageType::Inform;
    DhcpRepr {
        message_type: kind,
        transaction_id: asked.transaction_id,
        secs: 0,
        client_hardware_address: asked.client_hardware_address,
        client_ip: if refused { Ipv4Addr::UNSPECIFIED } else { asked.client_ip },
        your_ip: if leased { GUEST } else { Ipv4Addr::UNSPECIFIED },
        server_ip: GATEWAY,
        router: (!refused).then_some(GATEWAY),
        subnet_mask: (!refused).then(|| Ipv4Addr::from_bits(u32::MAX << (32 - PREFIX_BITS))),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: asked.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(GATEWAY),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: leased.then_some(LEASE_SECS),
        renew_duration: None,
        rebind_duration: None,
        additional_options: if refused { &[] } else { &NAME_SERVERS },
    }
}
