# Part of the small image's recipe: its SSH server.
# shellcheck shell=sh disable=SC2154

# Debian's dropbear refuses passwords over 100 characters, and those of machines have 120. Linked statically, as
# there is no library in the image.
build_dropbear() {
    version=$(apt_run apt-get --print-uris source dropbear 2>/dev/null | awk '/\.dsc/ { print $2 }')
    # Made again when this file, the version or the compiler changes.
    key=$( (echo "$version"; "${CC:-cc}" --version; cat "$here/small/dropbear.sh") | sha256sum | cut -c 1-16)
    if [ ! -x "$cache/dropbear-$key" ]; then
        fetch_source dropbear "$work/dropbear"
        step "compiling dropbear"
        sed -i 's/^#define DROPBEAR_MAX_PASSWORD_LEN .*/#define DROPBEAR_MAX_PASSWORD_LEN 512/' "$work/dropbear/sysoptions.h"
        grep -q 'DROPBEAR_MAX_PASSWORD_LEN 512' "$work/dropbear/sysoptions.h" || fail "dropbear's password limit was not found"
        # All connections come from one address, the gateway's, where they are counted already.
        cat >"$work/dropbear/localoptions.h" <<'EOF'
#define DROPBEAR_SMALL_CODE 0
#define DROPBEAR_SHA2_512_HMAC 1
#define DROPBEAR_SK_KEYS 0
#define MAX_UNAUTH_PER_IP 100
#define MAX_UNAUTH_CLIENTS 100
#define SFTPSERVER_PATH "/usr/lib/sftp-server"
#define DEFAULT_PATH "/usr/bin:/bin:/usr/sbin:/sbin"
#define DEFAULT_RECV_WINDOW 262144
EOF
        (
            cd "$work/dropbear"
            ./configure --enable-static --disable-zlib --disable-pam --disable-syslog --disable-lastlog --disable-utmp \
                --disable-utmpx --disable-wtmp --disable-wtmpx --disable-loginfunc --disable-pututline --disable-pututxline \
                CFLAGS="-O2 -fstack-protector-strong" && make -j"$(nproc)" PROGRAMS="dropbear dropbearkey scp" MULTI=1 STATIC=1
        ) >"$work/make.log" 2>&1 || { tail -n 40 "$work/make.log" >&2; fail "cannot compile dropbear"; }
        cp "$work/dropbear/dropbearmulti" "$work/dropbearmulti"
        "${STRIP:-strip}" "$work/dropbearmulti"
        mv "$work/dropbearmulti" "$cache/dropbear-$key"
    fi
    cp "$cache/dropbear-$key" "$1"
}
