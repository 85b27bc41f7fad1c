# Part of images/build: packages from Debian, verified by apt, without touching the machine's own package lists.
#
# apt runs with folders of its own under $cache, so that it needs no root, knows only the suite below whatever this
# machine runs, and refuses what Debian's keys have not signed.
# shellcheck shell=sh

suite=${GATEHOUSE_DEBIAN_SUITE:-bookworm}
mirror=${GATEHOUSE_DEBIAN_MIRROR:-http://deb.debian.org/debian}
security_mirror=${GATEHOUSE_DEBIAN_SECURITY_MIRROR:-http://deb.debian.org/debian-security}
keyring=${GATEHOUSE_DEBIAN_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
# Package lists older than this are fetched again, in minutes.
lists_age_max=720

apt_run() {
    apt_command=$1
    shift
    "$apt_command" \
        -o "Dir::State=$apt/state" -o "Dir::State::lists=$apt/lists" -o Dir::State::status=/dev/null \
        -o "Dir::Cache=$apt/cache" -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o APT::Sandbox::User= -o APT::Install-Recommends=0 \
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o Debug::NoLocking=1 -o Acquire::Retries=3 -q "$@"
}

# Makes the lists of what Debian has, unless they are fresh.
prepare_apt() {
    for program in apt-get apt-cache dpkg-deb dpkg-source; do
        command -v "$program" >/dev/null || fail "$program is missing: images are built on Debian or a relative \
(packages apt, dpkg, dpkg-dev)"
    done
    [ -f "$keyring" ] || fail "$keyring is missing: install the package debian-archive-keyring"
    apt=$cache/apt-$suite
    mkdir -p "$apt/lists/partial" "$apt/state" "$apt/cache/archives/partial" "$cache/packages"
    for kind in deb deb-src; do
        echo "$kind [signed-by=$keyring] $mirror $suite main"
        echo "$kind [signed-by=$keyring] $security_mirror $suite-security main"
    done >"$apt/sources.list.new"
    if cmp -s "$apt/sources.list.new" "$apt/sources.list" &&
        [ -n "$(find "$apt/updated" -mmin "-$lists_age_max" 2>/dev/null)" ]; then
        return 0
    fi
    mv "$apt/sources.list.new" "$apt/sources.list"
    step "fetching Debian's package lists ($suite)"
    if apt_run apt-get --error-on=any update >"$work/apt.log" 2>&1; then
        touch "$apt/updated"
    elif [ -e "$apt/updated" ]; then
        step "the package lists cannot be renewed; going on with those of $(date -r "$apt/updated" +%Y-%m-%d)"
    else
        cat "$work/apt.log" >&2
        fail "Debian's package lists cannot be fetched from $mirror; is there a network?"
    fi
}

# Downloads packages into the cache and prints their files, one per line.
fetch() {
    for package in "$@"; do
        file=$(apt_run apt-get --print-uris download "$package" 2>"$work/apt.log" | awk '{ print $2 }')
        [ -n "$file" ] || { cat "$work/apt.log" >&2; fail "Debian $suite has no package $package"; }
        # apt verifies what it downloads; what it has downloaded was moved here whole.
        if [ ! -f "$cache/packages/$file" ]; then
            step "downloading $package"
            rm -rf "$work/download"
            mkdir "$work/download"
            (cd "$work/download" && apt_run apt-get download "$package" >"$work/apt.log" 2>&1) ||
                { cat "$work/apt.log" >&2; fail "cannot download $package"; }
            mv "$work/download"/*.deb "$cache/packages/$file"
        fi
        echo "$cache/packages/$file"
    done
}

# Extracts packages ($2...) into the folder $1, without running anything of theirs.
extract() {
    into=$1
    shift
    mkdir -p "$into"
    fetch "$@" >"$work/files"
    while read -r file; do
        dpkg-deb -x "$file" "$into"
    done <"$work/files"
}

# Extracts the source of package $1 into the folder $2, with Debian's patches.
fetch_source() {
    rm -rf "$work/source"
    mkdir "$work/source"
    step "downloading the source of $1"
    (cd "$work/source" && apt_run apt-get source --download-only "$1" >"$work/apt.log" 2>&1) ||
        { cat "$work/apt.log" >&2; fail "cannot download the source of $1"; }
    # apt has checked the sums of all parts against the signed lists, hence no second check with keys that may lack.
    dpkg-source --no-check -x "$work/source"/*.dsc "$2" >"$work/dpkg.log" 2>&1 ||
        { cat "$work/dpkg.log" >&2; fail "cannot unpack the source of $1"; }
}

# Prints the package that the meta package $1 depends on and whose name begins with $2.
depends_on() {
    apt_run apt-cache depends "$1" | awk -v prefix="$2" '/Depends:/ && index($2, prefix) == 1 { print $2; exit }'
}

# Sees to it that a program is there: this machine's own, else from packages ($2...) into a folder of the build.
tool() {
    program=$1
    shift
    if command -v "$program" >/dev/null; then return 0; fi
    extract "$work/tools" "$@"
    PATH=$PATH:$work/tools/usr/bin:$work/tools/usr/sbin:$work/tools/bin:$work/tools/sbin
    LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$work/tools/usr/lib/x86_64-linux-gnu:$work/tools/lib/x86_64-linux-gnu
    export PATH LD_LIBRARY_PATH
    command -v "$program" >/dev/null || fail "$program is missing, and Debian's package has not brought it"
}
