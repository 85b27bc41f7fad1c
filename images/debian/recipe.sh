# The full Debian image: a system with systemd, apt and OpenSSH, as a disk and as a live ISO.
#
# Making it needs root: Debian's packages are configured in a chroot. Nothing is installed on this machine.
# shellcheck shell=sh disable=SC2154

# The kernel would take an emulated timer that is late on a busy host for broken; a panic resets at once, and ends the
# machine.
cmdline_common="console=ttyS0 quiet loglevel=3 panic=-1 no_timer_check net.ifnames=0 ipv6.disable=1"

packages="systemd-sysv,udev,dbus,openssh-server,sudo,ifupdown,udhcpc,iproute2,iputils-ping,procps,kmod,ca-certificates,curl,less,nano"

# The size of the disk in MiB: what the user sees. A machine's overlay takes what is written only.
disk_mb=4096
boot_mb=64

in_root() {
    chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive "$@" \
        >>"$work/chroot.log" 2>&1 || { tail -n 30 "$work/chroot.log" >&2; fail "in the new system: $*"; }
}

make_root() {
    root=$work/root
    mkdir -p "$cache/debootstrap"
    step "installing Debian $suite (some minutes)"
    [ -d "$work/tools/usr/share/debootstrap" ] && export DEBOOTSTRAP_DIR="$work/tools/usr/share/debootstrap"
    debootstrap --variant=minbase --keyring="$keyring" --cache-dir="$cache/debootstrap" --include="$packages" \
        "$suite" "$root" "$mirror" >"$work/debootstrap.log" 2>&1 ||
        { tail -n 30 "$work/debootstrap.log" >&2; fail "debootstrap failed"; }
    cat >"$root/etc/apt/sources.list" <<EOF
deb $mirror $suite main
deb $mirror $suite-updates main
deb $security_mirror $suite-security main
EOF
    # Services are not to be started in the chroot.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 0755 "$root/usr/sbin/policy-rc.d"
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    # The proxy of this machine's apt, where it has one, is for the building only.
    apt-config dump | grep -i '^Acquire::http' >"$root/etc/apt/apt.conf.d/99building" || true
    step "installing security updates"
    in_root apt-get -q update
    in_root apt-get -q -y --no-install-recommends upgrade
    configure_root
    clean_root
}

configure_root() {
    step "configuring"
    cp -R "$here/debian/root/." "$root/"
    cp -R "$work/kernel/lib/modules" "$root/lib/"
    in_root depmod "$kernel_version"
    compile "$root/usr/sbin/gatehouse-guest" "$here"/agent/*.c
    cp "$here/small/root/bin/anweddol_container_setup.sh" "$root/bin/"
    chmod 0755 "$root/usr/sbin/gatehouse-guest" "$root/bin/anweddol_container_setup.sh"
    chmod 0440 "$root/etc/sudoers.d/gatehouse"
    in_root groupadd --system ssh-login
    in_root useradd --create-home --shell /bin/sh --uid 1000 --groups ssh-login endpoint
    # The password of the guest contract, open until the machine is set up.
    endpoint_hash=$(sed -n 's/^endpoint:\([^:]*\):.*/\1/p' "$here/small/root/etc/shadow")
    in_root usermod --password "$endpoint_hash" endpoint
    in_root systemctl enable gatehouse-guest.service
    in_root systemctl disable apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service
    in_root systemctl mask getty@tty1.service serial-getty@ttyS0.service
}

# What would be the same on all machines, and what only takes room.
clean_root() {
    in_root apt-get clean
    rm -rf "$root/var/lib/apt/lists"/* "$root/var/cache/apt"/*.bin "$root/var/log"/*.log "$root/var/log/apt" \
        "$root/usr/sbin/policy-rc.d" "$root/etc/apt/apt.conf.d/99building" "$root"/etc/ssh/ssh_host_* \
        "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/* "$root/boot"/*
    : >"$root/etc/machine-id"
    rm -f "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed"
    ln -s /etc/machine-id "$root/var/lib/dbus/machine-id"
    echo debian >"$root/etc/hostname"
    # sudo looks its own host up, and complains where it cannot.
    printf '127.0.0.1 localhost\n127.0.1.1 debian\n' >"$root/etc/hosts"
    : >"$root/etc/resolv.conf"
}

# The first programs of the system: loads what is needed to reach the root, and goes there. $1 is the result; $2,
# where given, is a packed root to run from memory.
make_initrd() {
    early=$work/early
    rm -rf "$early"
    mkdir -p "$early/bin" "$early/dev" "$early/proc" "$early/sys" "$early/new" "$early/memory" "$early/packed"
    cp "$busybox" "$early/bin/busybox"
    for applet in sh mount insmod sleep switch_root mkdir; do ln -s busybox "$early/bin/$applet"; done
    cp "$here/debian/init" "$early/init"
    chmod 0755 "$early/init"
    rm -rf "$work/modules"
    add_modules "$early/modules" virtio_pci virtio_blk virtio-rng ext4 loop squashfs overlay
    if [ -n "${2:-}" ]; then mv "$2" "$early/root.squashfs"; fi
    pack_initrd "$early" "$1"
}

make_disk() {
    step "making the disk"
    mke2fs -q -t ext4 -L root -E root_owner=0:0 -d "$root" "$work/root.ext4" "$((disk_mb - boot_mb - 2))M" >/dev/null
    mkfs.vfat -n BOOT -C "$work/boot.fat" "$((boot_mb * 1024))" >/dev/null
    cat >"$work/syslinux.cfg" <<EOF
DEFAULT gatehouse
PROMPT 0
TIMEOUT 0
LABEL gatehouse
  KERNEL /vmlinuz
  INITRD /initrd
  APPEND $cmdline_common root=/dev/vda2
EOF
    mcopy -i "$work/boot.fat" "$vmlinuz" ::vmlinuz
    mcopy -i "$work/boot.fat" "$work/initrd" ::initrd
    mcopy -i "$work/boot.fat" "$work/syslinux.cfg" ::syslinux.cfg
    syslinux --install "$work/boot.fat"
    raw=$work/disk.raw
    truncate -s "${disk_mb}M" "$raw"
    printf '%s\n' 'label: dos' "start=1MiB, size=${boot_mb}MiB, type=c, bootable" "start=$((boot_mb + 1))MiB, type=83" |
        sfdisk -q "$raw"
    dd if="$work/boot/usr/lib/syslinux/mbr/mbr.bin" of="$raw" bs=440 count=1 conv=notrunc 2>/dev/null
    dd if="$work/boot.fat" of="$raw" bs=1M seek=1 conv=notrunc,sparse 2>/dev/null
    dd if="$work/root.ext4" of="$raw" bs=1M seek=$((boot_mb + 1)) conv=notrunc,sparse 2>/dev/null
    qemu-img convert -c -O qcow2 "$raw" "$made/disk.qcow2"
    rm "$raw" "$work/root.ext4"
}

recipe() {
    [ "$(id -u)" = 0 ] || fail "the debian image is made as root (packages are configured in a chroot): sudo images/build debian"
    check_compiler
    tool debootstrap debootstrap
    tool mke2fs e2fsprogs libext2fs2 libss2 libcom-err2
    tool mkfs.vfat dosfstools
    tool mcopy mtools
    tool syslinux syslinux
    tool sfdisk fdisk libfdisk1
    tool qemu-img qemu-utils
    tool mksquashfs squashfs-tools liblzo2-2 libzstd1
    get_kernel
    extract "$work/busybox" busybox-static
    extract "$work/boot" isolinux syslinux-common
    busybox=$work/busybox/bin/busybox
    vmlinuz=$work/kernel/boot/vmlinuz-$kernel_version
    make_root
    make_initrd "$work/initrd"
    make_disk
    step "making the ISO"
    mksquashfs "$root" "$work/root.squashfs" -comp zstd -noappend -quiet -no-progress >"$work/squashfs.log" 2>&1 ||
        { cat "$work/squashfs.log" >&2; fail "cannot pack the live system"; }
    make_initrd "$work/initrd-live" "$work/root.squashfs"
    make_iso "$made/image.iso" "$vmlinuz" "$work/initrd-live" "$cmdline_common"
    cat >"$made/image.toml.head" <<EOF
name = "debian"
description = "Debian $suite with systemd, apt and OpenSSH ($kernel_package)"
kind = "disk"
disk = "disk.qcow2"
iso = "image.iso"
agent = true
host_key = "openssh"
memory_mb_min = 256
EOF
}
