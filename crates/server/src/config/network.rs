//! Ranges of addresses.
//!
//! Invariant: `prefix_bits` is never more than the address has.
//! Not here: who is believed because of them.

use std::fmt;
use std::net::IpAddr;

use super::IpNetwork;

impl IpNetwork {
    /// An address, or an address and its leading bits (`10.0.0.0/8`).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().ok()?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = bits.map_or(Some(bits_max), |bits| bits.trim().parse().ok())?;
        (prefix_bits <= bits_max).then_some(Self { address, prefix_bits })
    }

    /// Whether `address` is in it. An IPv4 address is the same when it comes mapped into IPv6.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (own, other) = (self.address.to_canonical(), address.to_canonical());
        // `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
        let mapped_bits = if own.is_ipv4() && self.address.is_ipv6() { 96 } else { 0 };
        let Some(bits) = self.prefix_bits.checked_sub(mapped_bits) else {
            return false;
        };
        let width: u8 = if own.is_ipv4() { 32 } else { 128 };
        let shift = u32::from(width.saturating_sub(bits));
        let leading = |address: IpAddr| number(address).checked_shr(shift).unwrap_or(0);
        own.is_ipv4() == other.is_ipv4() && leading(own) == leading(other)
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::IpNetwork;

    fn check(network: &str, address: &str, expected: bool) {
        let network = IpNetwork::parse(network).unwrap();
        assert_eq!(network.contains(address.parse().unwrap()), expected, "{network} {address}");
    }

    #[test]
    fn leading_bits_decide() {
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.0.0.1", "10.0.0.1", true);
        check("10.0.0.1", "10.0.0.2", false);
        check("0.0.0.0/0", "1.2.3.4", true);
        check("0.0.0.0/0", "2001:db8::1", false);
        check("2001:db8::/33", "2001:db8:7fff::", true);
        check("2001:db8::/33", "2001:db8:8000::", false);
        check("::/0", "2001::", true);
    }

    #[test]
    fn a_mapped_address_is_the_same_address() {
        check("10.0.0.0/8", "::ffff:10.1.2.3", true);
        check("::ffff:10.0.0.0/104", "10.1.2.3", true);
        check("::ffff:10.0.0.0/104", "11.1.2.3", false);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "a", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0/8", "1.2.3.4/-1"] {
            assert_eq!(IpNetwork::parse(text), None, "{text}");
        }
    }
}
