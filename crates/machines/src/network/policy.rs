//! What a guest may reach.
//!
//! Invariant: an address is judged as it is dialled, after all names are resolved, so no name can be bent to an
//! address that is refused. Addresses of this host are refused by `route`, which asks the kernel.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU64;

use ipnet::{IpNet, Ipv4Net};

/// What a guest may reach beyond its own LAN. The default: nothing.
///
/// The loopback, this host's own addresses, multicast and the guest's LAN are out of reach whatever is set here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Whether public addresses may be reached, and names be resolved by this host's name servers.
    pub internet: bool,
    /// Networks that are opened whatever `internet` says, private ones too.
    pub allow: Vec<IpNet>,
    /// Networks that are closed whatever the others say, such as public addresses that lead back to this host.
    pub deny: Vec<IpNet>,
    /// The most that the guest sends, in bytes per second, all traffic together; `None` is as much as it can.
    pub upload_bytes_per_second: Option<NonZeroU64>,
    /// The most that the guest is sent, in bytes per second, all traffic together; `None` is as much as it takes.
    pub download_bytes_per_second: Option<NonZeroU64>,
}

/// Out of reach always: "this network", the loopback, the guest's LAN, multicast, reserved and broadcast.
const NEVER: [Ipv4Net; 5] = [
    net([0, 0, 0, 0], 8),
    net([127, 0, 0, 0], 8),
    net([10, 0, 2, 0], 24),
    net([224, 0, 0, 0], 4),
    net([240, 0, 0, 0], 4),
];

/// Not public (IANA's registry of special-purpose addresses): in reach only where allowed by name. Cloud providers
/// serve a machine's secrets at 169.254.169.254.
const NOT_PUBLIC: [Ipv4Net; 11] = [
    net([10, 0, 0, 0], 8),
    net([100, 64, 0, 0], 10),
    net([169, 254, 0, 0], 16),
    net([172, 16, 0, 0], 12),
    net([192, 0, 0, 0], 24),
    net([192, 0, 2, 0], 24),
    net([192, 88, 99, 0], 24),
    net([192, 168, 0, 0], 16),
    net([198, 18, 0, 0], 15),
    net([198, 51, 100, 0], 24),
    net([203, 0, 113, 0], 24),
];

impl NetworkPolicy {
    /// Whether the guest may reach an address, as far as the address alone tells.
    pub(super) fn permits(&self, address: Ipv4Addr) -> bool {
        let named = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&IpAddr::V4(address)));
        let within = |nets: &[Ipv4Net]| nets.iter().any(|net| net.contains(&address));
        if within(&NEVER) || named(&self.deny) {
            return false;
        }
        named(&self.allow) || (self.internet && !within(&NOT_PUBLIC))
    }
}

const fn net([a, b, c, d]: [u8; 4], bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(internet: bool, allow: &[&str], deny: &[&str]) -> NetworkPolicy {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        NetworkPolicy { internet, allow: nets(allow), deny: nets(deny), ..NetworkPolicy::default() }
    }

    fn check(policy: &NetworkPolicy, permitted: bool, addresses: &[&str]) {
        for address in addresses {
            assert_eq!(
                policy.permits(address.parse().unwrap()),
                permitted,
                "{address}, {policy:?}"
            );
        }
    }

    const PUBLIC: [&str; 9] = [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "126.255.255.255",
        "128.0.0.1",
        "172.32.0.0",
        "192.0.1.0",
        "223.255.255.255",
    ];
    const PRIVATE: [&str; 19] = [
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "169.254.0.1",
        "169.254.169.254",
        "172.16.0.0",
        "172.31.255.255",
        "192.0.0.0",
        "192.0.0.255",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "192.168.255.255",
        "198.18.0.0",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.7",
        "10.0.3.1",
    ];
    const NEVER: [&str; 12] = [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.255.255",
        "127.0.0.53",
        "10.0.2.2",
        "10.0.2.15",
        "10.0.2.255",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
    ];

    #[test]
    fn nothing_is_in_reach_unless_allowed() {
        let closed = NetworkPolicy::default();
        check(&closed, false, &PUBLIC);
        check(&closed, false, &PRIVATE);
        check(&closed, false, &NEVER);
    }

    #[test]
    fn the_internet_is_public_addresses_only() {
        let open = policy(true, &[], &[]);
        check(&open, true, &PUBLIC);
        check(&open, false, &PRIVATE);
        check(&open, false, &NEVER);
    }

    #[test]
    fn a_named_private_network_is_opened_and_no_other() {
        let some = policy(false, &["192.168.7.0/24", "10.0.0.0/8"], &[]);
        check(&some, true, &["192.168.7.1", "10.1.2.3"]);
        check(&some, false, &["192.168.8.1", "8.8.8.8", "169.254.169.254", "10.0.2.2"]);
    }

    #[test]
    fn even_everything_is_without_loopback_lan_and_multicast() {
        let all = policy(true, &["0.0.0.0/0", "127.0.0.0/8", "::/0"], &[]);
        check(&all, true, &PRIVATE);
        check(&all, false, &NEVER);
    }

    #[test]
    fn a_denied_network_is_closed_whatever_else_is_set() {
        let some = policy(true, &["10.0.0.0/8"], &["8.8.0.0/16", "10.9.0.0/16"]);
        check(&some, false, &["8.8.8.8", "10.9.1.1"]);
        check(&some, true, &["8.9.8.8", "10.8.1.1"]);
    }
}
