//! What QEMU is told when it is started: a plan, and the arguments that follow from it. Nothing is done here.
//!
//! Invariant: a template and its clones get the same devices in the same order, or the clone could not take the
//! template's state over. Names of files in the machine's own folder are relative to it, so that they are short enough
//! for sockets however deep the folder lies.

use std::path::{Path, PathBuf};

use super::accelerator::Accelerator;
use super::program::Program;
use crate::image::Media;

/// The monitor's socket in the machine's folder. The server listens, and QEMU takes the listener over as its input.
pub(super) const MONITOR_SOCKET: &str = "qmp.sock";
/// The agent's socket in the machine's folder.
pub(super) const AGENT_SOCKET: &str = "agent.sock";
/// The network card's socket in the machine's folder.
pub(super) const NETWORK_SOCKET: &str = "net.sock";
/// Where the state of a snapshot goes through, in the machine's folder.
pub(super) const STATE_SOCKET: &str = "state.sock";
/// Written by QEMU, and what its process is recognised by: the argument names the folder.
pub(super) const PID_FILE: &str = "qemu.pid";
/// A disk of its own on top of the image's, in the folder of a template or a machine.
pub(super) const OVERLAY: &str = "disk.qcow2";
/// The guest's memory in a template.
pub(super) const TEMPLATE_MEMORY: &str = "memory";
/// Tells a disk image about its endpoint user.
pub(super) const SEED: &str = "seed.iso";
/// How much of the console is kept; a power of two.
pub(super) const CONSOLE_BYTES: usize = 64 * 1024;
/// Tells our images to take the guest's address without asking.
const STATIC_ADDRESS: &str = "gatehouse.ip=static";
/// Memory for translated code, in MiB; QEMU would take a good part of the machine's.
const TRANSLATION_MB: u32 = 128;

/// Where the guest's memory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Memory {
    /// The machine's own.
    Own,
    /// In a file of its folder, to be kept as part of a template.
    Template,
    /// As in the template in this folder; pages that are written become the machine's own.
    Clone(PathBuf),
}

/// A QEMU that is to be started.
#[derive(Debug, Clone)]
pub(super) struct Plan<'a> {
    pub(super) program: &'a Program,
    pub(super) accelerator: Accelerator,
    /// For people who look at the list of processes.
    pub(super) name: &'a str,
    /// Its folder.
    pub(super) directory: &'a Path,
    pub(super) media: &'a Media,
    pub(super) memory_mb: u32,
    pub(super) vcpus: u32,
    pub(super) memory: Memory,
    pub(super) disk: Disk,
}

/// How the disk is, of a machine that has one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Disk {
    /// Its least size in MiB; 0 for that of the image's.
    pub(super) size_mb: u32,
    /// The most that is read and written, both together; 0 for no limit.
    pub(super) bytes_per_second: u64,
    /// The most readings and writings; 0 for no limit.
    pub(super) operations_per_second: u64,
}

impl Plan<'_> {
    /// Whether a disk is made for it in its folder, on top of the image's.
    pub(super) fn has_overlay(&self) -> bool {
        match self.memory {
            Memory::Template => true,
            Memory::Own => self.disk.size_mb > 0,
            Memory::Clone(_) => false,
        }
    }
}

/// What QEMU is told.
pub(super) fn arguments(plan: &Plan<'_>) -> Vec<String> {
    let mut list = List::default();
    list.flag("-nodefaults").flag("-no-user-config").pair("-display", "none");
    list.pair("-name", plan.name);
    list.pair("-pidfile", plan.directory.join(PID_FILE).display());
    list.pair(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    machine(&mut list, plan);
    // After a reset the guest would be as new, with the endpoint's well-known password open to everybody.
    // However it ends, it stands still then, so that its last words can be read before its process is ended.
    list.pair("-action", "reboot=shutdown,shutdown=pause,panic=pause");
    list.pair("-chardev", "socket,id=monitor,fd=0,server=on,wait=off")
        .pair("-mon", "chardev=monitor,mode=control");
    list.pair("-device", "pvpanic").pair("-device", "vmgenid,guid=auto");
    list.pair(
        "-netdev",
        format_args!("stream,id=net0,server=on,addr.type=unix,addr.path={NETWORK_SOCKET}"),
    );
    list.pair("-device", "virtio-net-pci,netdev=net0,romfile=,mac=52:54:00:12:34:56");
    list.pair("-device", "virtio-serial-pci");
    list.pair("-chardev", format_args!("socket,id=agent,path={AGENT_SOCKET},server=on,wait=off"));
    list.pair("-device", "virtserialport,chardev=agent,name=org.gatehouse.agent.0");
    // A ring in memory: bounded whatever the guest prints, also while no server looks.
    list.pair("-chardev", format_args!("ringbuf,id=console,size={CONSOLE_BYTES}"));
    list.pair("-serial", "chardev:console");
    media(&mut list, plan);
    if matches!(plan.memory, Memory::Clone(_)) {
        list.pair("-incoming", "defer");
    }
    list.0
}

fn machine(list: &mut List, plan: &Plan<'_>) {
    let sata = if matches!(plan.media, Media::Iso(_)) { "on" } else { "off" };
    let backend = if plan.memory == Memory::Own { "" } else { ",memory-backend=mem0" };
    let machine = &plan.program.machine;
    list.pair(
        "-machine",
        format_args!("{machine},vmport=off,smbus=off,graphics=off,sata={sata}{backend}"),
    );
    list.pair(
        "-accel",
        match plan.accelerator {
            Accelerator::Kvm => "kvm".to_owned(),
            Accelerator::Tcg => format!("tcg,tb-size={TRANSLATION_MB}"),
        },
    );
    list.pair("-cpu", "max").pair("-smp", plan.vcpus).pair("-m", plan.memory_mb);
    let (path, mode) = match &plan.memory {
        Memory::Own => return,
        Memory::Template => (TEMPLATE_MEMORY.to_owned(), "share=on"),
        // Before `rom=off` was known, memory from a file that is opened read-only was read-only for the guest too.
        Memory::Clone(template) if plan.program.knows_rom() => {
            (escaped(&template.join(TEMPLATE_MEMORY)), "share=off,readonly=on,rom=off")
        }
        Memory::Clone(template) => (escaped(&template.join(TEMPLATE_MEMORY)), "share=off"),
    };
    let size = plan.memory_mb;
    list.pair(
        "-object",
        format_args!("memory-backend-file,id=mem0,size={size}M,mem-path={path},{mode}"),
    );
}

fn media(list: &mut List, plan: &Plan<'_>) {
    match plan.media {
        Media::Kernel { kernel, initrd, cmdline } => {
            // A clone's kernel is in its memory, and it is never booted again.
            if !matches!(plan.memory, Memory::Clone(_)) {
                list.pair("-kernel", kernel.display()).pair("-initrd", initrd.display());
                // Asking for the one address that there is would only take time.
                let known = cmdline.split_whitespace().any(|word| word == STATIC_ADDRESS);
                let rest = if known { "" } else { STATIC_ADDRESS };
                list.pair("-append", format!("{cmdline} {rest}").trim());
            }
        }
        Media::Iso(iso) => {
            let file = escaped(iso);
            list.pair(
                "-drive",
                format_args!("if=none,id=cd0,media=cdrom,format=raw,readonly=on,file={file}"),
            );
            list.pair("-device", "ide-cd,bus=ide.0,drive=cd0");
        }
        Media::Disk { disk, nocloud } => {
            // Where there is no overlay, changes go to a temporary file in the machine's folder that is gone with the
            // process.
            let (file, mode) = match &plan.memory {
                Memory::Clone(template) => (escaped(&template.join(OVERLAY)), "on"),
                Memory::Own | Memory::Template if plan.has_overlay() => (OVERLAY.to_owned(), "off"),
                Memory::Own | Memory::Template => (escaped(disk), "on"),
            };
            let limits = limits(plan.disk);
            list.pair(
                "-drive",
                format_args!(
                    "if=none,id=disk0,format=qcow2,discard=unmap,snapshot={mode}{limits},file={file}"
                ),
            );
            list.pair("-device", "virtio-blk-pci,drive=disk0");
            if *nocloud {
                let seed = match &plan.memory {
                    Memory::Clone(template) => escaped(&template.join(SEED)),
                    Memory::Own | Memory::Template => SEED.to_owned(),
                };
                // No CD: the kernels of some cloud images, Debian's among them, know no drive for it on this machine.
                list.pair(
                    "-drive",
                    format_args!("if=none,id=seed0,format=raw,readonly=on,file={seed}"),
                );
                list.pair("-device", "virtio-blk-pci,drive=seed0");
            }
        }
    }
}

fn limits(disk: Disk) -> String {
    [("bps", disk.bytes_per_second), ("iops", disk.operations_per_second)]
        .into_iter()
        .filter(|(_, limit)| *limit > 0)
        .map(|(what, limit)| format!(",throttling.{what}-total={limit}"))
        .collect()
}

/// A path inside a list of options, where a comma ends a value.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[derive(Default)]
struct List(Vec<String>);

impl List {
    fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.to_owned());
        self
    }

    fn pair(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.0.push(name.to_owned());
        self.0.push(value.to_string());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "-nodefaults -no-user-config -display none -name gatehouse-1 -pidfile /m/1/qemu.pid \
        -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny ";
    const MIDDLE: &str = "-action reboot=shutdown,shutdown=pause,panic=pause \
        -chardev socket,id=monitor,fd=0,server=on,wait=off -mon chardev=monitor,mode=control \
        -device pvpanic -device vmgenid,guid=auto \
        -netdev stream,id=net0,server=on,addr.type=unix,addr.path=net.sock \
        -device virtio-net-pci,netdev=net0,romfile=,mac=52:54:00:12:34:56 -device virtio-serial-pci \
        -chardev socket,id=agent,path=agent.sock,server=on,wait=off \
        -device virtserialport,chardev=agent,name=org.gatehouse.agent.0 \
        -chardev ringbuf,id=console,size=65536 -serial chardev:console ";

    fn check(
        version: (u32, u32),
        accelerator: Accelerator,
        media: &Media,
        memory: Memory,
        machine: &str,
        end: &str,
    ) {
        let program = Program::of_version(version.0, version.1);
        let plan = Plan {
            program: &program,
            accelerator,
            name: "gatehouse-1",
            directory: Path::new("/m/1"),
            media,
            memory_mb: 512,
            vcpus: 2,
            memory,
            disk: Disk::default(),
        };
        assert_eq!(arguments(&plan).join(" "), format!("{START}{machine} {MIDDLE}{end}"));
    }

    fn kernel() -> Media {
        Media::Kernel {
            kernel: "/i/vmlinuz".into(),
            initrd: "/i/initrd".into(),
            cmdline: "quiet".into(),
        }
    }

    #[test]
    fn a_kernel_boots_with_memory_of_its_own() {
        check(
            (10, 0),
            Accelerator::Tcg,
            &kernel(),
            Memory::Own,
            "-machine pc-q35-10.0,vmport=off,smbus=off,graphics=off,sata=off -accel tcg,tb-size=128 -cpu max -smp 2 -m 512",
            "-kernel /i/vmlinuz -initrd /i/initrd -append quiet gatehouse.ip=static",
        );
    }

    #[test]
    fn a_template_shares_its_memory_with_a_file() {
        check(
            (7, 2),
            Accelerator::Kvm,
            &kernel(),
            Memory::Template,
            "-machine pc-q35-7.2,vmport=off,smbus=off,graphics=off,sata=off,memory-backend=mem0 -accel kvm -cpu max -smp 2 \
             -m 512 -object memory-backend-file,id=mem0,size=512M,mem-path=memory,share=on",
            "-kernel /i/vmlinuz -initrd /i/initrd -append quiet gatehouse.ip=static",
        );
    }

    #[test]
    fn a_clone_opens_the_template_read_only_where_that_is_known() {
        let machine = |version: &str, mode: &str| {
            format!(
                "-machine pc-q35-{version},vmport=off,smbus=off,graphics=off,sata=off,memory-backend=mem0 \
                 -accel tcg,tb-size=128 -cpu max -smp 2 -m 512 \
                 -object memory-backend-file,id=mem0,size=512M,mem-path=/s,,/k/memory,{mode}"
            )
        };
        let clone = || Memory::Clone("/s,/k".into());
        let new = machine("8.2", "share=off,readonly=on,rom=off");
        check((8, 2), Accelerator::Tcg, &kernel(), clone(), &new, "-incoming defer");
        let old = machine("7.2", "share=off");
        check((7, 2), Accelerator::Tcg, &kernel(), clone(), &old, "-incoming defer");
    }

    #[test]
    fn a_disk_may_be_larger_than_its_image_and_slower_than_the_host() {
        let program = Program::of_version(10, 0);
        let media = Media::Disk { disk: "/i/d.qcow2".into(), nocloud: false };
        let disk = Disk { size_mb: 9, bytes_per_second: 1 << 20, operations_per_second: 50 };
        let drive = |memory: Memory, disk: Disk| {
            let (accelerator, directory) = (Accelerator::Tcg, Path::new("/m/1"));
            let media = &media;
            let plan = Plan {
                program: &program,
                accelerator,
                name: "",
                directory,
                media,
                memory_mb: 1,
                vcpus: 1,
                memory,
                disk,
            };
            let arguments = arguments(&plan);
            let at = arguments.iter().position(|word| word == "-drive").unwrap();
            arguments[at + 1]
                .strip_prefix("if=none,id=disk0,format=qcow2,discard=unmap,")
                .unwrap()
                .to_owned()
        };
        assert_eq!(drive(Memory::Own, Disk::default()), "snapshot=on,file=/i/d.qcow2");
        let limited = "throttling.bps-total=1048576,throttling.iops-total=50";
        assert_eq!(drive(Memory::Own, disk), format!("snapshot=off,{limited},file=disk.qcow2"));
        let clone = drive(Memory::Clone("/s/k".into()), disk);
        assert_eq!(clone, format!("snapshot=on,{limited},file=/s/k/disk.qcow2"));
        assert_eq!(drive(Memory::Template, Disk::default()), "snapshot=off,file=disk.qcow2");
    }

    #[test]
    fn a_cd_is_read_by_ahci_and_a_disk_is_never_written() {
        check(
            (10, 0),
            Accelerator::Tcg,
            &Media::Iso("/i/a,b.iso".into()),
            Memory::Own,
            "-machine pc-q35-10.0,vmport=off,smbus=off,graphics=off,sata=on -accel tcg,tb-size=128 -cpu max -smp 2 -m 512",
            "-drive if=none,id=cd0,media=cdrom,format=raw,readonly=on,file=/i/a,,b.iso -device ide-cd,bus=ide.0,drive=cd0",
        );
        check(
            (10, 0),
            Accelerator::Tcg,
            &Media::Disk { disk: "/i/d.qcow2".into(), nocloud: true },
            Memory::Own,
            "-machine pc-q35-10.0,vmport=off,smbus=off,graphics=off,sata=off -accel tcg,tb-size=128 -cpu max -smp 2 -m 512",
            "-drive if=none,id=disk0,format=qcow2,discard=unmap,snapshot=on,file=/i/d.qcow2 \
             -device virtio-blk-pci,drive=disk0 \
             -drive if=none,id=seed0,format=raw,readonly=on,file=seed.iso -device virtio-blk-pci,drive=seed0",
        );
        check(
            (10, 0),
            Accelerator::Tcg,
            &Media::Disk { disk: "/i/d.qcow2".into(), nocloud: false },
            Memory::Clone("/s/k".into()),
            "-machine pc-q35-10.0,vmport=off,smbus=off,graphics=off,sata=off,memory-backend=mem0 \
             -accel tcg,tb-size=128 -cpu max -smp 2 -m 512 \
             -object memory-backend-file,id=mem0,size=512M,mem-path=/s/k/memory,share=off,readonly=on,rom=off",
            "-drive if=none,id=disk0,format=qcow2,discard=unmap,snapshot=on,file=/s/k/disk.qcow2 \
             -device virtio-blk-pci,drive=disk0 -incoming defer",
        );
    }
}
