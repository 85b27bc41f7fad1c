//! Who really asks, when the peer is a proxy. Pure.

use std::net::{IpAddr, Ipv4Addr};

use http::HeaderMap;

use crate::config::IpNetwork;

/// Stands for a client that a proxy did not name in a way that can be understood.
pub const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The client's address: the peer's, or, when the peer is a trusted proxy, the last address in
/// `X-Forwarded-For` that is not a trusted proxy itself. (Earlier ones can be made up by the client.)
///
/// Where a trusted proxy names somebody that cannot be understood, the client is unknown
/// ([`UNKNOWN`]), and by no means the proxy: that would make strangers local.
#[must_use]
pub fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNetwork]) -> IpAddr {
    let peer = peer.to_canonical();
    if trusted.is_empty() || !is_trusted(peer, trusted) {
        return peer;
    }
    let mut client = peer;
    let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    for line in lines.iter().rev() {
        for part in String::from_utf8_lossy(line.as_bytes()).rsplit(',') {
            let Some(address) = parse(part.trim()) else { return UNKNOWN };
            client = address;
            if !is_trusted(address, trusted) {
                return client;
            }
        }
    }
    client
}

/// Some proxies add the port.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').split(']').next().unwrap_or(text);
    bare.parse()
        .ok()
        .or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))
        .map(|address: IpAddr| address.to_canonical())
}

fn is_trusted(address: IpAddr, trusted: &[IpNetwork]) -> bool {
    trusted.iter().any(|network| contains(network, address))
}

fn contains(network: &IpNetwork, address: IpAddr) -> bool {
    let bits = u32::from(network.prefix_bits);
    match (network.address.to_canonical(), address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
            net.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(net), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
            net.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peer: &str, forwarded: &[&str], expected: &str) {
        let trusted = [
            IpNetwork { address: "10.0.0.0".parse().unwrap(), prefix_bits: 8 },
            IpNetwork { address: "::1".parse().unwrap(), prefix_bits: 128 },
        ];
        let mut headers = HeaderMap::new();
        for line in forwarded {
            let line = http::HeaderValue::from_bytes(line.as_bytes()).unwrap();
            headers.append("x-forwarded-for", line);
        }
        let found = client_ip(peer.parse().unwrap(), &headers, &trusted);
        assert_eq!(found.to_string(), expected, "{peer} {forwarded:?}");
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        check("192.0.2.1", &["198.51.100.7"], "192.0.2.1");
        check("10.1.2.3", &["198.51.100.7"], "198.51.100.7");
        check("::1", &["2001:db8::5"], "2001:db8::5");
        check("::ffff:10.1.2.3", &["198.51.100.7:4711"], "198.51.100.7");
        check("10.1.2.3", &[], "10.1.2.3");
    }

    #[test]
    fn what_the_client_made_up_itself_does_not_count() {
        check("10.1.2.3", &["127.0.0.1, 198.51.100.7, 10.9.9.9"], "198.51.100.7");
        check("10.1.2.3", &["127.0.0.1", "198.51.100.7"], "198.51.100.7");
    }

    #[test]
    fn a_client_that_cannot_be_understood_is_not_the_proxy() {
        check("10.1.2.3", &["nonsense"], "0.0.0.0");
        check("::1", &["\u{e9}, nonsense"], "0.0.0.0");
        check("::1", &["\u{e9}, 198.51.100.7"], "198.51.100.7");
    }
}
