//! Who really asks, when the peer is a proxy. Pure.

use std::net::IpAddr;

use http::HeaderMap;

use crate::config::IpNetwork;

/// The client of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Its address, as far as it is known.
    pub ip: IpAddr,
    /// Whether `ip` is the client's. A trusted proxy may name somebody who cannot be understood: `ip` is
    /// the proxy's then, and must not be taken for the client's, or strangers would be local.
    pub is_known: bool,
}

/// The client: the peer, or, when the peer is a trusted proxy, the last address in `X-Forwarded-For` that
/// is not a trusted proxy itself. (Earlier ones can be made up by the client.)
#[must_use]
pub fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNetwork]) -> Client {
    let peer = peer.to_canonical();
    let mut client = Client { ip: peer, is_known: true };
    if trusted.is_empty() || !is_trusted(peer, trusted) {
        return client;
    }
    let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    for line in lines.iter().rev() {
        for part in String::from_utf8_lossy(line.as_bytes()).rsplit(',') {
            let Some(address) = parse(part.trim()) else {
                return Client { is_known: false, ..client };
            };
            client.ip = address;
            if !is_trusted(address, trusted) {
                return client;
            }
        }
    }
    client
}

/// Whether the peer is a trusted proxy that says that its own client speaks TLS.
#[must_use]
pub fn came_by_tls(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNetwork]) -> bool {
    let says_so = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"https");
    is_trusted(peer.to_canonical(), trusted)
        && headers.get("x-forwarded-proto").is_some_and(says_so)
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
        let shown = if found.is_known { found.ip.to_string() } else { format!("{}?", found.ip) };
        assert_eq!(shown, expected, "{peer} {forwarded:?}");
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
    fn only_a_trusted_proxy_says_that_its_client_speaks_tls() {
        let trusted = [IpNetwork { address: "10.0.0.0".parse().unwrap(), prefix_bits: 8 }];
        let check = |peer: &str, says: &'static str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-proto", http::HeaderValue::from_static(says));
            let found = came_by_tls(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(found, expected, "{peer} {says}");
        };
        check("10.1.2.3", "HTTPS", true);
        check("10.1.2.3", "http", false);
        check("192.0.2.1", "https", false);
        assert!(!came_by_tls("10.1.2.3".parse().unwrap(), &HeaderMap::new(), &trusted));
    }

    #[test]
    fn what_the_client_made_up_itself_does_not_count() {
        check("10.1.2.3", &["127.0.0.1, 198.51.100.7, 10.9.9.9"], "198.51.100.7");
        check("10.1.2.3", &["127.0.0.1", "198.51.100.7"], "198.51.100.7");
    }

    #[test]
    fn a_client_that_cannot_be_understood_is_not_the_proxy() {
        check("10.1.2.3", &["nonsense"], "10.1.2.3?");
        check("::1", &["\u{e9}, nonsense"], "::1?");
        check("::1", &["\u{e9}, 198.51.100.7"], "198.51.100.7");
    }
}
