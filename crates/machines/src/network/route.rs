//! Asks the kernel where an address leads: away, or to this host itself.
//!
//! Invariant: the answer is the routing table's own, at the moment of asking, so an address that the host got a
//! second ago, or a whole local prefix, is known. What cannot be told is an error, never a yes.

use std::io;
use std::net::Ipv4Addr;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

// From linux/netlink.h and linux/rtnetlink.h.
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const AF_INET: u8 = 2;
const RTA_DST: u16 = 1;
const RTN_UNICAST: u8 = 1;
/// A message's header.
const HEADER_BYTES: usize = 16;
/// Where a route's kind stands after the header.
const KIND_OFFSET: usize = HEADER_BYTES + 7;

/// Whether packets for `address` leave this host for one other: false for addresses of this host, for broadcast and
/// multicast, and where no route leads. Takes some microseconds and does not wait.
///
/// # Errors
/// When the kernel cannot be asked; a service sandbox must permit `AF_NETLINK`.
pub(super) fn leads_away(address: Ipv4Addr) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Without a protocol, netlink is about routes.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    send(&socket, &question(address), SendFlags::empty())?;
    let mut answer = [0; 4096];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    kind(&answer[..length])
        .map(|kind| kind == Some(RTN_UNICAST))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a route of an unknown form"))
}

fn question(address: Ipv4Addr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(36);
    bytes.extend(36_u32.to_ne_bytes());
    bytes.extend(RTM_GETROUTE.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and port: one question, one answer.
    bytes.extend([0; 8]);
    // The family, 32 bits of destination, and nothing else to choose by.
    bytes.extend([AF_INET, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(8_u16.to_ne_bytes());
    bytes.extend(RTA_DST.to_ne_bytes());
    bytes.extend(address.octets());
    bytes
}

/// The kind of the route that was found, `Some(None)` where there is none; `None` for an answer of another form.
fn kind(answer: &[u8]) -> Option<Option<u8>> {
    match u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?) {
        RTM_NEWROUTE => Some(Some(*answer.get(KIND_OFFSET)?)),
        NLMSG_ERROR => Some(None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_hosts_addresses_broadcast_and_multicast_do_not_lead_away() {
        // The whole of 127/8 is local, though no interface has but one address of it.
        for address in ["127.0.0.1", "127.9.9.9", "255.255.255.255", "224.0.0.1", "0.0.0.0"] {
            assert!(!leads_away(address.parse().unwrap()).unwrap(), "{address}");
        }
    }

    #[test]
    fn answers_of_another_form_are_not_taken() {
        assert_eq!(kind(&[]), None);
        assert_eq!(kind(&[0; 40]), None);
        let mut route = vec![0; KIND_OFFSET];
        route[4..6].copy_from_slice(&RTM_NEWROUTE.to_ne_bytes());
        assert_eq!(kind(&route), None);
        route.push(RTN_UNICAST);
        assert_eq!(kind(&route), Some(Some(RTN_UNICAST)));
    }
}
