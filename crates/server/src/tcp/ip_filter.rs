//! Which addresses may connect.
//!
//! Invariant: an IPv4 address is judged the same when it comes mapped into IPv6.

use std::fmt;
use std::net::IpAddr;

use crate::config::IpNetwork;

/// One entry of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpRule {
    /// Every address.
    Any,
    /// An address, or those that begin alike (`10.0.0.0/8`).
    Network(IpNetwork),
    /// From one to another, both included (`10.0.0.5-10.0.0.9`).
    Range(IpAddr, IpAddr),
}

impl IpRule {
    /// Reads an entry as written; `None` when it means nothing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("any") {
            return Some(Self::Any);
        }
        let Some((first, last)) = text.split_once('-') else {
            return IpNetwork::parse(text).map(Self::Network);
        };
        let address = |text: &str| text.trim().parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        let (first, last) = (address(first)?, address(last)?);
        (first.is_ipv4() == last.is_ipv4() && first <= last).then_some(Self::Range(first, last))
    }

    fn names(&self, address: IpAddr) -> bool {
        match self {
            Self::Any => false,
            Self::Network(network) => network.contains(address),
            Self::Range(first, last) => {
                first.is_ipv4() == address.is_ipv4() && (*first..=*last).contains(&address)
            }
        }
    }
}

impl fmt::Display for IpRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Network(network) => network.fmt(f),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// Both lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpFilter {
    /// Who is kept out.
    pub denied: Vec<IpRule>,
    /// Who may come in though everybody is kept out.
    pub allowed: Vec<IpRule>,
}

impl IpFilter {
    /// Whether `address` may connect: where `any` is denied, only who is allowed; else who is not denied by name.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let names = |list: &[IpRule]| list.iter().any(|rule| rule.names(address));
        if self.denied.contains(&IpRule::Any) {
            self.allowed.contains(&IpRule::Any) || names(&self.allowed)
        } else {
            !names(&self.denied)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{IpFilter, IpRule};

    fn check(denied: &[&str], allowed: &[&str], address: &str, expected: bool) {
        let list = |texts: &[&str]| texts.iter().map(|text| IpRule::parse(text).unwrap()).collect();
        let filter = IpFilter { denied: list(denied), allowed: list(allowed) };
        assert_eq!(filter.admits(address.parse().unwrap()), expected, "{filter:?} {address}");
    }

    #[test]
    fn where_any_is_denied_only_who_is_allowed_passes() {
        check(&["any"], &["10.0.0.1"], "10.0.0.1", true);
        check(&["any"], &["10.0.0.1"], "10.0.0.2", false);
        check(&["any", "10.0.0.1"], &["ANY"], "10.0.0.1", true);
        check(&["any"], &[], "10.0.0.1", false);
        check(&["any"], &["10.0.0.0/8"], "::ffff:10.1.1.1", true);
        check(&["any"], &["2001:db8::/32"], "2001:db8::5", true);
        check(&["any"], &["2001:db8::/32"], "2001:db9::5", false);
    }

    #[test]
    fn else_who_is_not_denied_by_name_passes() {
        check(&[], &["any"], "10.0.0.1", true);
        check(&[], &[], "10.0.0.1", true);
        check(&["10.0.0.1"], &["any"], "10.0.0.1", false);
        check(&["10.0.0.1"], &["10.0.0.1"], "10.0.0.1", false);
        check(&["10.0.0.5-10.0.0.9"], &[], "10.0.0.9", false);
        check(&["10.0.0.5-10.0.0.9"], &[], "::ffff:10.0.0.5", false);
        check(&["10.0.0.5-10.0.0.9"], &[], "10.0.0.10", true);
        check(&["2001:db8::1-2001:db8::f"], &[], "2001:db8::8", false);
        check(&["0.0.0.0/0"], &[], "::1", true);
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for text in ["", "-", "10.0.0.9-10.0.0.5", "10.0.0.1-::1", "10.0.0.0/33", "host", "1-2"] {
            assert_eq!(IpRule::parse(text), None, "{text}");
        }
    }
}
