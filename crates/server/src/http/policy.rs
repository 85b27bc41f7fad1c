//! What the door goes by: the part of the configuration that a request meets. Swapped whole on reload.

use std::time::Duration;

use wire::Secret;

use super::activity::TimeLimits;
use super::cors::CorsPolicy;
use crate::config::{AccessLog, Config, IpNetwork};

/// The rules in force for requests that begin now.
#[derive(Debug)]
pub struct Policy {
    /// The global key.
    pub global_key: Option<Secret>,
    /// Pages of which origins may ask.
    pub cors: Option<CorsPolicy>,
    /// Whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<IpNetwork>,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Between two pieces of a body.
    pub body_timeout: Duration,
    /// What a connection may take; in force for those that are opened from now on.
    pub time_limits: TimeLimits,
    /// Which requests get a line.
    pub access_log: AccessLog,
}

impl Policy {
    /// The rules that `config` sets.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            global_key: config.apikey.clone(),
            cors: config.cors.as_ref().map(CorsPolicy::of),
            trusted_proxies: config.network.trusted_proxies.clone(),
            body_bytes_max: config.limits.body_bytes_max,
            body_timeout: config.limits.body_timeout,
            time_limits: TimeLimits {
                header: config.limits.header_timeout,
                idle: config.limits.idle_timeout,
            },
            access_log: config.log.access,
        }
    }
}
