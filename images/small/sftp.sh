# Part of the small image's recipe: its SFTP server, which `scp` of OpenSSH 9 and later talks to.
# shellcheck shell=sh disable=SC2154

# OpenSSH's, as dropbear has none. Linked statically, as there is no library in the image, and without the cryptography
# that it does not use.
build_sftp_server() {
    version=$(apt_run apt-get --print-uris source openssh 2>/dev/null | awk '/\.dsc/ { print $2 }')
    # Made again when this file, the version or the compiler changes.
    key=$( (echo "$version"; "${CC:-cc}" --version; cat "$here/small/sftp.sh") | sha256sum | cut -c 1-16)
    if [ ! -x "$cache/sftp-server-$key" ]; then
        fetch_source openssh "$work/openssh"
        step "compiling the SFTP server"
        (
            cd "$work/openssh"
            # Debian's patches are newer than what autoconf made, and change nothing that is built here.
            touch aclocal.m4 configure config.h.in
            ./configure --without-openssl --without-zlib --without-pam --without-selinux --disable-security-key \
                --without-pie CFLAGS="-Os -ffunction-sections -fdata-sections" LDFLAGS="-static -Wl,--gc-sections" &&
                make -j"$(nproc)" sftp-server
        ) >"$work/make.log" 2>&1 || { tail -n 40 "$work/make.log" >&2; fail "cannot compile the SFTP server"; }
        cp "$work/openssh/sftp-server" "$work/sftp-server"
        "${STRIP:-strip}" "$work/sftp-server"
        mv "$work/sftp-server" "$cache/sftp-server-$key"
    fi
    cp "$cache/sftp-server-$key" "$1"
}
