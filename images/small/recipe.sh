# The small image: kernel, busybox, dropbear, an SFTP server and the agent, all in memory.
# shellcheck shell=sh disable=SC2154

# A panic resets at once, and a reset ends the machine. On a busy host the emulated timer may be late, and the kernel
# would take it for broken. There is no IPv6 in a machine's network.
cmdline_common="console=ttyS0 quiet loglevel=3 panic=-1 no_timer_check ipv6.disable=1"

# The devices that a machine has; of kernels that have no such module it is built in.
modules="virtio_pci virtio_net virtio_console virtio-rng af_packet pvpanic-mmio pvpanic-pci"

# shellcheck source=images/small/dropbear.sh
. "$here/small/dropbear.sh"
# shellcheck source=images/small/sftp.sh
. "$here/small/sftp.sh"

make_root() {
    root=$work/root
    mkdir -p "$root"
    cp -R "$here/small/root/." "$root/"
    for directory in bin dev etc/dropbear home var/endpoint lib/modules proc root run sbin sys tmp usr/bin usr/lib usr/sbin var/log; do
        mkdir -p "$root/$directory"
    done
    ln -sf /run "$root/var/run"
    cp "$busybox" "$root/bin/busybox"
    "$busybox" --list | while read -r applet; do
        # What is ours, or of dropbear, stays; so does what would make packages out of nothing.
        case $applet in busybox | poweroff | reboot | halt | dpkg | dpkg-deb | rpm | rpm2cpio | linuxrc) continue ;; esac
        ln -s busybox "$root/bin/$applet"
    done
    ln -s /bin/busybox "$root/sbin/init"
    ln -s /sbin/init "$root/init"
    for program in halt reboot; do ln -s poweroff "$root/sbin/$program"; done
    build_dropbear "$root/usr/sbin/dropbear"
    ln -s ../sbin/dropbear "$root/usr/bin/dropbearkey"
    ln -s ../sbin/dropbear "$root/usr/bin/scp"
    # Where dropbear was told that it is.
    build_sftp_server "$root/usr/lib/sftp-server"
    compile "$root/usr/sbin/gatehouse-guest" "$here"/agent/*.c
    compile "$root/usr/bin/sudo" "$here/small/sudo.c"
    # shellcheck disable=SC2086
    add_modules "$root/lib/modules" $modules
    chmod -R u+w "$root"
    find "$root" -type d -exec chmod 0755 {} +
    chmod 0755 "$root"/bin/anweddol_container_setup.sh "$root"/sbin/poweroff "$root"/etc/rc "$root"/usr/share/udhcpc/default.script
    chmod 0600 "$root/etc/shadow"
    chmod 0700 "$root/root" "$root/etc/dropbear"
    chmod 1777 "$root/tmp"
    chmod 4755 "$root/usr/bin/sudo"
}

recipe() {
    check_compiler
    get_kernel
    extract "$work/busybox" busybox-static
    busybox=$work/busybox/bin/busybox
    [ -x "$busybox" ] || busybox=$work/busybox/usr/bin/busybox
    step "putting the file system together"
    make_root
    pack_initrd "$root" "$made/initrd"
    vmlinuz=$work/kernel/boot/vmlinuz-$kernel_version
    kernel=vmlinux
    if ! unpack_kernel "$vmlinuz" "$made/vmlinux"; then
        rm -f "$made/vmlinux"
        cp "$vmlinuz" "$made/vmlinuz"
        kernel=vmlinuz
    fi
    step "making the ISO"
    make_iso "$made/image.iso" "$vmlinuz" "$made/initrd" "$cmdline_common"
    cat >"$made/image.toml.head" <<EOF
name = "small"
description = "Debian $suite's cloud kernel ($kernel_package), busybox, dropbear; everything in memory"
kind = "kernel"
kernel = "$kernel"
initrd = "initrd"
cmdline = "$cmdline_common gatehouse.ip=static"
iso = "image.iso"
agent = true
host_key = "dropbear"
memory_mb_min = 96
EOF
}
