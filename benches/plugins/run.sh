#!/bin/sh
# Installs what the measurement compares with, builds the server, and measures.
#
#   benches/plugins/run.sh                     everything; writes docs/benchmarks.md
#   benches/plugins/run.sh --only tiny,post    some rows; prints only
#   benches/plugins/run.sh --quick             short and rough; prints only
#   benches/plugins/run.sh --help              all options
#
# Safe to repeat; see benches/install.sh for what is installed where.
set -eu

# One version for all: what is compared must not change from one day to the next unseen.
PEERS="pluginserver==0.10.5 granian uvicorn uvloop httptools psutil aiohttp aiohttp_cors"
# What makes a worker of ours faster, where it is installed.
FAST="uvloop orjson"

cd "$(dirname "$0")/../.."
. benches/install.sh

missing_packages() {
    # Only the program is wanted; it is not in the PATH of every user.
    has nginx || [ -x /usr/sbin/nginx ] || echo nginx
    has wrk || echo wrk
    missing_basics
}

for argument in "$@"; do
    case $argument in
        -h | --help) exec "$python" benches/plugins/bench.py "$@" ;;
        --gatehouse*) built=yes ;;
    esac
done
mkdir -p .bench
# What is missing, $PEERS and $FAST are lists of words that we made ourselves.
# shellcheck disable=SC2046
install_packages $(missing_packages)
# shellcheck disable=SC2086
make_venv .bench/venv $PEERS
# shellcheck disable=SC2086
make_venv .bench/fast $FAST
[ "${built:-no}" = yes ] || cargo build --release --locked --package gatehouse
exec "$python" benches/plugins/bench.py "$@"
