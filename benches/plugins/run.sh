#!/bin/sh
# Installs what the measurement compares with, builds the server, and measures.
#
#   benches/plugins/run.sh                     everything; writes docs/benchmarks.md
#   benches/plugins/run.sh --only tiny,post    some rows; prints only
#   benches/plugins/run.sh --quick             short and rough; prints only
#   benches/plugins/run.sh --help              all options
#
# Safe to repeat. Debian packages come from apt when we may use it; otherwise the one command to run
# is printed. Python packages go into .bench, never elsewhere. PYTHON names another interpreter.
set -eu

# One version for all: what is compared must not change from one day to the next unseen.
PEERS="pluginserver==0.10.5 granian uvicorn uvloop httptools psutil aiohttp aiohttp_cors"
# What makes a worker of ours faster, where it is installed.
FAST="uvloop orjson"

has() {
    command -v "$1" >/dev/null 2>&1
}

# Debian's own interpreter where there is one: every server here runs on the same.
python=${PYTHON:-/usr/bin/python3}
[ -x "$python" ] || has "$python" || python=python3

missing_packages() {
    # Only the program is wanted; it is not in the PATH of every user.
    has nginx || [ -x /usr/sbin/nginx ] || echo nginx
    has wrk || echo wrk
    has taskset || echo util-linux
    { has "$python" && "$python" -c 'import ensurepip, venv' 2>/dev/null; } || echo python3-venv
}

install_packages() {
    packages=$(missing_packages | tr '\n' ' ' | sed 's/ $//')
    [ -n "$packages" ] || return 0
    command="apt-get update && apt-get install -y --no-install-recommends $packages"
    if [ "$(id -u)" != 0 ] || ! has apt-get; then
        echo "bench: these packages are missing: $packages. As root, run:" >&2
        echo "    $command" >&2
        exit 1
    fi
    echo "bench: installing $packages"
    export DEBIAN_FRONTEND=noninteractive
    # Debian starts nginx when it is installed; nobody asked for that.
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

cd "$(dirname "$0")/../.."
for argument in "$@"; do
    case $argument in
        -h | --help) exec "$python" benches/plugins/bench.py "$@" ;;
        --gatehouse*) built=yes ;;
    esac
done
mkdir -p .bench
install_packages
# $PEERS and $FAST are lists of words that we made ourselves.
# shellcheck disable=SC2086
make_venv .bench/venv $PEERS
# shellcheck disable=SC2086
make_venv .bench/fast $FAST
[ "${built:-no}" = yes ] || cargo build --release --locked --package gatehouse
exec "$python" benches/plugins/bench.py "$@"
