# Part of images/build: what images are made of.
# shellcheck shell=sh disable=SC2154

# Compiles a static program for the guest: $1 is the result, the rest are its sources.
compile() {
    target=$1
    shift
    # The C library warns that name services are loaded at run time; in the guest there are files only, built in.
    "${CC:-cc}" -std=gnu11 -D_GNU_SOURCE -Os -Wall -Wextra -fstack-protector-strong -static -s -o "$target" "$@" -lcrypt \
        2>"$work/cc.log" || { cat "$work/cc.log" >&2; fail "cannot compile $target"; }
}

check_compiler() {
    echo '#include <crypt.h>
int main(void) { return crypt("", "") == 0; }' >"$work/probe.c"
    "${CC:-cc}" -static -o "$work/probe" "$work/probe.c" -lcrypt >/dev/null 2>&1 && command -v make >/dev/null ||
        fail "a C compiler, make and the static C library are needed: apt-get install gcc make libc6-dev libcrypt-dev"
}

# Finds Debian's newest cloud kernel, extracts it into $work/kernel, and sets kernel_version and kernel_package.
get_kernel() {
    kernel_package=$(depends_on linux-image-cloud-amd64 linux-image-)
    [ -n "$kernel_package" ] || fail "Debian $suite has no cloud kernel"
    extract "$work/kernel" "$kernel_package"
    kernel_version=${kernel_package#linux-image-}
    [ -f "$work/kernel/boot/vmlinuz-$kernel_version" ] || fail "$kernel_package has no kernel"
}

# Prints the little-endian number of $3 bytes at offset $2 of file $1.
number_at() {
    od -An -v -tu"$3" -j "$2" -N "$3" "$1" | tr -d ' '
}

# Unpacks the kernel $1 to $2, for the hypervisor to start it directly (PVH), which saves the guest from unpacking
# itself. Fails where the kernel is packed in a way that is not known here.
unpack_kernel() {
    start=$((($(number_at "$1" 497 1) + 1) * 512 + $(number_at "$1" 584 4)))
    length=$(number_at "$1" 588 4)
    # The packed kernel is followed by its unpacked size, which lz4 takes for the beginning of another.
    tail -c "+$((start + 1))" "$1" | head -c "$((length - 4))" >"$work/packed"
    case $(od -An -tx1 -N 4 "$work/packed" | tr -d ' ') in
        02214c18) tool lz4 lz4 liblz4-1 && lz4 -qdc "$work/packed" >"$2" ;;
        1f8b*) gzip -dc <"$work/packed" >"$2" ;;
        28b52ffd) tool zstd zstd && zstd -qdc "$work/packed" >"$2" ;;
        fd377a58) xz -dc <"$work/packed" >"$2" ;;
        *) return 1 ;;
    esac
    rm "$work/packed"
    [ "$(od -An -tx1 -N 4 "$2" | tr -d ' ')" = 7f454c46 ]
}

# Puts kernel modules ($2...) and those that they need into the folder $1, numbered in the order in which they are to
# be loaded. A module that this kernel does not have is built in.
add_modules() {
    modules_into=$1
    shift
    mkdir -p "$modules_into" "$work/modules"
    for module in "$@"; do add_module "$module"; done
}

add_module() {
    [ ! -e "$work/modules/$1" ] || return 0
    : >"$work/modules/$1"
    found=$(find "$work/kernel/lib/modules" -name "$1.ko" -o -name "$1.ko.xz")
    [ -n "$found" ] || return 0
    case $found in
        *.xz) xz -dc "$found" >"$work/modules/$1" ;;
        *) cp "$found" "$work/modules/$1" ;;
    esac
    # The module says itself what has to be loaded before it, in names of which `-` and `_` are the same letter.
    for needed in $(tr '\000' '\n' <"$work/modules/$1" | sed -n 's/^depends=//p' | tr ',' ' '); do
        [ -n "$(find "$work/kernel/lib/modules" -name "$needed.ko*")" ] || needed=$(echo "$needed" | tr _ -)
        add_module "$needed"
    done
    # Without its signature, whose check takes time and proves nothing of an image that we make ourselves.
    number=$(find "$modules_into" -type f | wc -l)
    "${STRIP:-strip}" --strip-debug -o "$modules_into/$((number + 10))-$1.ko" "$work/modules/$1"
}

# Packs the folder $1 as an initial file system $2; everything in it belongs to root.
pack_initrd() {
    (cd "$1" && find . | sort | "$busybox" cpio -o -H newc -R 0:0 2>/dev/null) >"$2"
}

# Makes an ISO $1 that boots by BIOS: kernel $2, initial file system $3, command line $4; further paths are put in.
make_iso() {
    iso=$1
    tree=$work/iso
    mkdir -p "$tree/isolinux" "$tree/boot"
    tool xorriso xorriso libisoburn1 libburn4 libisofs6 libjte2
    extract "$work/boot" isolinux syslinux-common
    cp "$work/boot/usr/lib/ISOLINUX/isolinux.bin" "$work/boot/usr/lib/syslinux/modules/bios/ldlinux.c32" "$tree/isolinux/"
    cp "$2" "$tree/boot/vmlinuz"
    cp "$3" "$tree/boot/initrd"
    cat >"$tree/isolinux/isolinux.cfg" <<EOF
DEFAULT gatehouse
PROMPT 0
TIMEOUT 0
LABEL gatehouse
  KERNEL /boot/vmlinuz
  INITRD /boot/initrd
  APPEND $4
EOF
    shift 4
    for extra in "$@"; do cp "$extra" "$tree/"; done
    xorriso -as mkisofs -quiet -o "$iso" -V GATEHOUSE -J -r -b isolinux/isolinux.bin -c isolinux/boot.cat \
        -no-emul-boot -boot-load-size 4 -boot-info-table "$tree" 2>"$work/xorriso.log" ||
        { cat "$work/xorriso.log" >&2; fail "cannot make the ISO"; }
}
