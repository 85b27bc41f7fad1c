//! How many files the process may have open, and how many of them connections of each door.
//!
//! Invariant: all doors together have fewer connections than there are files, so that silent ones at one door leave the
//! others open. A connection to a machine or to a plugin needs files, too; those are what is kept back.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::config::Config;

/// Files of the server itself: databases, logs, workers, sockets that it listens on.
const OWN: usize = 128;
/// Files of a machine that runs: its folder, monitor, agent, network and port, and some connections to it.
const OF_MACHINE: usize = 16;

/// Connections at the SSH gateway.
const GATEWAY_MAX: usize = 1024;

/// The most connections of each door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// At the main port.
    pub http: usize,
    /// At the documented routes' own port.
    pub web: usize,
    /// At the classic door.
    pub classic: usize,
    /// At the SSH gateway.
    pub gateway: usize,
}

/// Raises the limit as far as the system lets it: the usual one of 1024 is for programs that use `select`.
pub(crate) fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
}

/// What is whose of the files that the process may have open now.
pub(crate) fn shares_now(config: &Config) -> Shares {
    let allowed = getrlimit(Resource::Nofile).current.and_then(|count| usize::try_from(count).ok());
    shares(config, allowed.unwrap_or(usize::MAX))
}

/// What of `files` is whose, as configured and not more than there is.
fn shares(config: &Config, files: usize) -> Shares {
    let files = files.saturating_sub(OWN);
    let wanted = config.limits.connections_max;
    let Some(containers) = &config.containers else {
        return Shares { http: wanted.min(files).max(1), web: 0, classic: 0, gateway: 0 };
    };
    // The classic door and what belongs to machines have at most half together, whatever is configured.
    let part = files / 8;
    let classic = containers.classic.as_ref().map_or(0, |it| it.connections_max.min(part));
    let gateway = containers.ssh_gateway_port.map_or(0, |_| GATEWAY_MAX.min(part));
    let web = containers.web_server.as_ref().map_or(0, |_| wanted.min(part));
    let machines = containers.machines.count_max.saturating_mul(OF_MACHINE).min(part);
    let left = files.saturating_sub(classic + gateway + web + machines);
    Shares { http: wanted.min(left).max(1), web, classic, gateway }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    fn of(text: &str, files: usize) -> Shares {
        let config = Config::embedded("f", text, &Overrides::default(), &|_| None).unwrap();
        shares(&config, files)
    }

    const ALL: &str = "
        [containers]
        ssh_gateway_port = 0
        [containers.web_server]
        listen_port = 0
    ";

    #[test]
    fn without_machines_all_but_a_few_are_for_http() {
        let alone = |http| Shares { http, web: 0, classic: 0, gateway: 0 };
        assert_eq!(of("", 20_000), alone(19_872));
        assert_eq!(of("", 1 << 20), alone(20_000));
        assert_eq!(of("", 64), alone(1));
    }

    #[test]
    fn silent_ones_at_one_door_leave_files_for_the_others() {
        for files in [300, 1024, 4096, 20_000, 1 << 20] {
            let Shares { http, web, classic, gateway } = of(ALL, files);
            assert!(http + web + classic + gateway < files, "{files}");
            assert!(
                classic > 0 && gateway > 0 && web > 0 && http >= (files / 8).min(20_000),
                "{files}"
            );
        }
        let enough = Shares { http: 20_000, web: 20_000, classic: 4096, gateway: 1024 };
        assert_eq!(of(ALL, 1 << 20), enough);
    }
}
