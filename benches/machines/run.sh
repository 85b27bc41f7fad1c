#!/bin/sh
# Builds the server, the load and the small image, and measures temporary machines.
#
#   benches/machines/run.sh                      everything; writes into docs/benchmarks.md
#   benches/machines/run.sh --only stat,pool     some rows; prints only
#   benches/machines/run.sh --quick              few of everything, and rough; prints only
#   benches/machines/run.sh --help               all options
#
# Safe to repeat; QEMU and what builds the image are installed by scripts/setup.
set -eu

cd "$(dirname "$0")/../.."
. benches/install.sh

missing_packages() {
    has openssl || echo openssl
    missing_basics
}

for argument in "$@"; do
    case $argument in
        -h | --help) exec "$python" benches/machines/bench.py "$@" ;;
        --gatehouse*) built=yes ;;
        --images*) imaged=yes ;;
    esac
done
mkdir -p .bench
# What is missing is a list of words that we made ourselves.
# shellcheck disable=SC2046
install_packages $(missing_packages)
[ "${imaged:-no}" = yes ] || images/build small --if-changed >/dev/null
[ "${built:-no}" = yes ] || cargo build --release --locked --package gatehouse
cargo build --release --locked --package bench
exec "$python" benches/machines/bench.py "$@"
