# Installs what a measurement compares with; read by the `run.sh` of each, from the root.
#
# Debian packages come from apt when we may use it; otherwise the one command to run is printed.
# Python packages go into .bench, never elsewhere. PYTHON names another interpreter.
# shellcheck shell=sh

has() {
    command -v "$1" >/dev/null 2>&1
}

# Debian's own interpreter where there is one: every server here runs on the same.
python=${PYTHON:-/usr/bin/python3}
[ -x "$python" ] || has "$python" || python=python3

# What everything here needs besides its own packages.
missing_basics() {
    has taskset || echo util-linux
    { has "$python" && "$python" -c 'import ensurepip, venv' 2>/dev/null; } || echo python3-venv
}

# install_packages PACKAGE…: those that are missing.
install_packages() {
    packages=$*
    [ -n "$packages" ] || return 0
    command="apt-get update && apt-get install -y --no-install-recommends $packages"
    if [ "$(id -u)" != 0 ] || ! has apt-get; then
        echo "bench: these packages are missing: $packages. As root, run:" >&2
        echo "    $command" >&2
        exit 1
    fi
    echo "bench: installing $packages"
    export DEBIAN_FRONTEND=noninteractive
    # Debian starts servers when they are installed; nobody asked for that.
    policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then policy=""; else
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    sh -c "$command" >.bench/apt.log 2>&1 || { tail -5 .bench/apt.log >&2; exit 1; }
    if [ -n "$policy" ]; then rm -f "$policy"; trap - EXIT; fi
}

# make_venv DIRECTORY PACKAGE…: anew when the interpreter or the packages changed. The stamp is
# written last: half is not done.
make_venv() {
    directory=$1
    shift
    wanted="$("$python" -c 'import sys; print(sys.version, sys.base_prefix)') $*"
    if [ -f "$directory/installed" ] && [ "$(cat "$directory/installed")" = "$wanted" ]; then
        return 0
    fi
    echo "bench: installing $* into $directory"
    rm -rf "$directory"
    "$python" -m venv "$directory"
    "$directory/bin/python3" -m pip install --quiet --disable-pip-version-check "$@"
    printf '%s\n' "$wanted" >"$directory/installed"
}
