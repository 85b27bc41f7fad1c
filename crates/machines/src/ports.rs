//! Leases public ports to machines and forwards what arrives there.
