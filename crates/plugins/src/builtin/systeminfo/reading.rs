//! One reading of the system: processors, memory, disks, network, uptime, names.
//!
//! Not here: how often. Reading may wait for a disk.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use sysinfo::{Disks, MINIMUM_CPU_UPDATE_INTERVAL, Networks, System};

/// Over how long rates are taken.
const RATES_EVERY: Duration = Duration::from_secs(2);

/// Holds what the next reading is compared with.
pub(super) struct Reader {
    system: System,
    networks: Networks,
    disks: Disks,
    /// When the counters were last read.
    counted: Instant,
    /// Are there two readings of the counters yet?
    has_rates: bool,
    net: Value,
}

impl Reader {
    /// How long after [`Reader::new`] the first rates mean something.
    pub(super) const FIRST_RATES_AFTER: Duration = MINIMUM_CPU_UPDATE_INTERVAL;

    /// Takes the first reading of the counters.
    pub(super) fn new() -> Self {
        let mut system = System::new();
        system.refresh_cpu_all();
        Self {
            system,
            networks: Networks::new_with_refreshed_list(),
            disks: Disks::new_with_refreshed_list(),
            counted: Instant::now(),
            has_rates: false,
            net: Value::Null,
        }
    }

    /// Reads everything; one member per key.
    pub(super) fn read(&mut self) -> Map<String, Value> {
        if !self.has_rates || self.counted.elapsed() >= RATES_EVERY {
            self.count();
        }
        self.system.refresh_memory();
        let mut values = Map::new();
        values.insert("net".to_owned(), self.net.clone());
        values.insert("cpu".to_owned(), self.cpu());
        values.insert("uptime".to_owned(), uptime(System::uptime()));
        values.insert("disk".to_owned(), self.disk());
        values.insert("ram".to_owned(), self.ram());
        values.insert("info".to_owned(), info());
        values
    }

    fn count(&mut self) {
        self.system.refresh_cpu_usage();
        self.networks.refresh(true);
        self.disks.refresh(true);
        self.net = net(&self.networks, self.counted.elapsed());
        self.counted = Instant::now();
        self.has_rates = true;
    }

    fn cpu(&self) -> Value {
        let cpus = self.system.cpus();
        let load = System::load_average();
        let per_core: Vec<f64> = cpus.iter().map(|cpu| round(cpu.cpu_usage().into())).collect();
        json!({
            "model": cpus.first().map_or("", |cpu| cpu.brand()),
            "count": cpus.len(),
            "percent": round(self.system.global_cpu_usage().into()),
            "per_cpu": per_core,
            "load": [load.one, load.five, load.fifteen],
        })
    }

    fn ram(&self) -> Value {
        let (total, available) = (self.system.total_memory(), self.system.available_memory());
        json!({
            "total": total,
            "available": available,
            "used": self.system.used_memory(),
            "free": self.system.free_memory(),
            "percent": percent(total.saturating_sub(available), total),
            "swap": {
                "total": self.system.total_swap(),
                "used": self.system.used_swap(),
                "free": self.system.free_swap(),
            },
        })
    }

    fn disk(&self) -> Value {
        let rows = self.disks.iter().map(|disk| {
            let (total, free) = (disk.total_space(), disk.available_space());
            json!({
                "device": disk.name().to_string_lossy(),
                "mountpoint": disk.mount_point().to_string_lossy(),
                "fstype": disk.file_system().to_string_lossy(),
                "total": total,
                "used": total.saturating_sub(free),
                "free": free,
                "percent": percent(total.saturating_sub(free), total),
            })
        });
        rows.collect()
    }
}

/// One row per IPv4 address; per IPv6 address where an interface has no other.
fn net(networks: &Networks, over: Duration) -> Value {
    let mut names: Vec<_> = networks.iter().collect();
    names.sort_unstable_by_key(|(name, _)| *name);
    let mut rows = Vec::new();
    for (name, data) in names {
        let tx = rate(data.transmitted(), over);
        let rx = rate(data.received(), over);
        let has_v4 = data.ip_networks().iter().any(|network| network.addr.is_ipv4());
        for network in data.ip_networks().iter().filter(|n| n.addr.is_ipv4() == has_v4) {
            let address = format!("{}/{}", network.addr, network.prefix);
            rows.push(json!({ "iface": name, "address": address, "tx": tx, "rx": rx }));
        }
    }
    Value::Array(rows)
}

/// `1.5kbps`: bytes in a second, as the documents write them.
fn rate(bytes: u64, over: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
    let per_second = (bytes as f64 / over.as_secs_f64().max(0.001)).trunc();
    let units = [(1024.0 * 1024.0 * 1024.0, "gb"), (1024.0 * 1024.0, "mb"), (1024.0, "kb")];
    let unit = units.iter().find(|(factor, _)| per_second >= *factor);
    let (factor, name) = unit.unwrap_or(&(1.0, "b"));
    format!("{:?}{name}ps", round(per_second / factor))
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
    round(part as f64 * 100.0 / whole as f64)
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn uptime(seconds: u64) -> Value {
    let parts =
        [("day", seconds / 86_400), ("hour", seconds / 3600 % 24), ("minute", seconds / 60 % 60)];
    let said = |(unit, n): &(&str, u64)| format!("{n} {unit}{}", if *n == 1 { "" } else { "s" });
    let mut words: Vec<String> = parts.iter().filter(|(_, n)| *n > 0).map(said).collect();
    if words.is_empty() {
        words.push(said(&("second", seconds)));
    }
    json!({ "pretty": words.join(", "), "seconds": seconds })
}

fn info() -> Value {
    let uname = rustix::system::uname();
    let text = |name: &CStr| name.to_string_lossy().into_owned();
    json!({
        "sysname": text(uname.sysname()),
        "nodename": text(uname.nodename()),
        "release": text(uname.release()),
        "version": text(uname.version()),
        "machine": text(uname.machine()),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[track_caller]
    fn check_rate(bytes: u64, secs: u64, expected: &str) {
        assert_eq!(rate(bytes, Duration::from_secs(secs)), expected);
    }

    #[test]
    fn rates_are_written_as_in_the_documents() {
        check_rate(0, 2, "0.0bps");
        check_rate(10, 2, "5.0bps");
        check_rate(3 * 1024, 2, "1.5kbps");
        check_rate(1024 * 1024, 1, "1.0mbps");
        check_rate(5 * 1024 * 1024 * 1024 / 4, 1, "1.25gbps");
        check_rate(u64::MAX, 0, "17179869184000.0gbps");
    }

    #[track_caller]
    fn check_uptime(seconds: u64, pretty: &str) {
        assert_eq!(uptime(seconds), json!({ "pretty": pretty, "seconds": seconds }));
    }

    #[test]
    fn uptime_is_said_in_words_and_in_all_its_seconds() {
        check_uptime(0, "0 seconds");
        check_uptime(59, "59 seconds");
        check_uptime(61, "1 minute");
        check_uptime(90_061, "1 day, 1 hour, 1 minute");
        check_uptime(2 * 86_400 + 7200, "2 days, 2 hours");
    }

    fn proc_number(file: &str, label: &str) -> u64 {
        let text = fs::read_to_string(file).unwrap();
        let line = text.lines().find(|line| line.starts_with(label)).unwrap();
        let digits = line[label.len()..].trim_start_matches([' ', '\t', ':']);
        digits.split([' ', '.']).next().unwrap().parse().unwrap()
    }

    #[test]
    fn numbers_agree_with_the_kernels() {
        let values = Reader::new().read();
        let total = values["ram"]["total"].as_u64().unwrap();
        assert_eq!(total, proc_number("/proc/meminfo", "MemTotal") * 1024);
        let uptime = values["uptime"]["seconds"].as_u64().unwrap();
        assert!(uptime.abs_diff(proc_number("/proc/uptime", "")) <= 2);
        let cpus = fs::read_to_string("/proc/stat").unwrap();
        let cpus = cpus.lines().filter(|line| line.starts_with("cpu")).count() - 1;
        assert_eq!(values["cpu"]["count"], cpus);
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(values["info"]["release"], release.trim());
    }

    #[test]
    fn every_row_of_the_network_has_its_members() {
        let values = Reader::new().read();
        let rows = values["net"].as_array().unwrap();
        assert!(rows.iter().any(|row| row["address"] == "127.0.0.1/8"), "{rows:?}");
        for row in rows {
            let iface = row["iface"].as_str().unwrap();
            assert!(fs::exists(format!("/sys/class/net/{iface}")).unwrap());
            for rate in ["tx", "rx"] {
                assert!(row[rate].as_str().unwrap().ends_with("bps"));
            }
        }
    }

    #[test]
    fn a_percentage_of_nothing_is_nothing() {
        assert_eq!((percent(1, 0), percent(1, 3), percent(2, 2)), (0.0, 33.33, 100.0));
    }
}
