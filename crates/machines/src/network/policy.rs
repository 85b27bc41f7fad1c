//! What a guest may reach.
//!
//! Invariant: an address is judged as it is dialled, after all names are resolved, so no name can be bent to an
//! address that is refused.

use ipnet::IpNet;

/// What a guest may reach beyond its own LAN. The default: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Whether public addresses may be reached, and names be resolved.
    pub internet: bool,
    /// Private networks that are opened nevertheless; never the loopback nor an address of this host.
    pub allow: Vec<IpNet>,
}
