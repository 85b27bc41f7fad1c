//! `proclist` and `systeminfo`.

use serde_json::{Value, json};
use sysinfo::{Disks, Networks, ProcessRefreshKind, ProcessesToUpdate, System};

/// The processes of this machine, by number.
pub(super) fn proclist() -> Value {
    let mut system = System::new();
    let kind = ProcessRefreshKind::nothing();
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind);
    let processes = system.processes().values();
    // Threads are listed as well; they are not processes.
    let mut procs: Vec<_> = processes
        .filter(|process| process.thread_kind().is_none())
        .map(|process| (process.pid().as_u32(), process.name().to_string_lossy().into_owned()))
        .collect();
    procs.sort_unstable();
    let procs: Vec<Value> =
        procs.into_iter().map(|(id, name)| json!({"id": id, "name": name})).collect();
    json!({ "procs": procs })
}

/// What this machine is and how it does.
pub(super) fn systeminfo() -> Value {
    let mut system = System::new();
    system.refresh_memory();
    system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
    let load = System::load_average();
    let disks: Vec<Value> = Disks::new_with_refreshed_list()
        .iter()
        .map(|disk| {
            json!({
                "device": disk.name().to_string_lossy(),
                "mountpoint": disk.mount_point().to_string_lossy(),
                "fstype": disk.file_system().to_string_lossy(),
                "total": disk.total_space(),
                "free": disk.available_space(),
            })
        })
        .collect();
    json!({
        "hostname": System::host_name(),
        "os": System::long_os_version(),
        "kernel": System::kernel_version(),
        "arch": std::env::consts::ARCH,
        "uptime_secs": System::uptime(),
        "cpu": {
            "count": system.cpus().len(),
            "model": system.cpus().first().map(sysinfo::Cpu::brand),
            "load": [load.one, load.five, load.fifteen],
        },
        "ram": {"total": system.total_memory(), "available": system.available_memory()},
        "swap": {"total": system.total_swap(), "free": system.free_swap()},
        "disk": disks,
        "net": addresses(),
        "agent": {"version": env!("CARGO_PKG_VERSION")},
    })
}

/// One row per address.
fn addresses() -> Value {
    let networks = Networks::new_with_refreshed_list();
    let mut rows: Vec<(String, String)> = networks
        .iter()
        .flat_map(|(name, data)| {
            let of_one = data.ip_networks().iter();
            of_one.map(|network| (name.clone(), format!("{}/{}", network.addr, network.prefix)))
        })
        .collect();
    rows.sort_unstable();
    rows.into_iter().map(|(iface, address)| json!({"iface": iface, "address": address})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_process_is_listed_once_and_threads_are_not() {
        let result = proclist();
        let ids: Vec<u64> =
            result["procs"].as_array().unwrap().iter().map(|p| p["id"].as_u64().unwrap()).collect();
        let own = u64::from(std::process::id());
        assert_eq!(ids.iter().filter(|id| **id == own).count(), 1);
        assert!(ids.is_sorted());
        assert!(result["procs"][0]["name"].is_string());
    }

    #[test]
    fn the_machine_is_told_with_memory_and_processors() {
        let info = systeminfo();
        assert!(info["ram"]["total"].as_u64() > Some(0) && info["cpu"]["count"].as_u64() > Some(0));
        for key in ["hostname", "os", "kernel", "arch"] {
            assert!(info[key].is_string(), "{key}: {info}");
        }
    }
}
