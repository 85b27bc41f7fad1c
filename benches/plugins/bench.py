#!/usr/bin/env python3
"""Measures the plugin server and what it is compared with.

Started by ``run.sh``, which installs them.

Not here: what is measured (``rows``), how (``load``), with which servers (``servers``).
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import signal
import sys

import load
import machine
import report
from processes import Failed
from rows import NAMES, Rows
from servers import Kinds

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
BENCH = ROOT / ".bench"
# 1,000 clients need as many files in wrk, and the server as many again.
FILES = 65536


def arguments(names):
    """The command line."""
    about = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(prog="benches/plugins/run.sh", description=about)
    parser.add_argument("--only", metavar="ROWS", help=f"some of {','.join(names)}; prints only")
    parser.add_argument("--runs", type=int, help="turns of each server (5)")
    parser.add_argument("--secs", type=int, help="seconds of each turn (5)")
    parser.add_argument("--starts", type=int, help="starts of each server (9)")
    quick = "2 turns of 1 s, 3 starts; prints only"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--gatehouse", metavar="FILE", help="measure this binary, build nothing")
    parser.add_argument("--server-core", default="0", metavar="N", help="core of the servers (0)")
    parser.add_argument("--load-core", default="1", metavar="N", help="core of wrk (1)")
    parser.add_argument("--page", metavar="FILE", help="write the page there, even of some rows")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else names
    unknown = [name for name in wanted if name not in names]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(names)}")
    options.rows = [name for name in names if name in wanted]
    return options


def plan_of(options):
    """How long everything takes."""
    runs, secs, starts = (2, 1, 3) if options.quick else (5, 5, 9)
    return load.Plan(
        runs=options.runs or runs,
        secs=options.secs or secs,
        starts=options.starts or starts,
        server_core=options.server_core,
        load_core=options.load_core,
    )


def prepare(plan):
    """Takes this process out of the servers' way; allows it enough open files."""
    cores = os.sched_getaffinity(0)
    if not {int(plan.server_core), int(plan.load_core)} <= cores or len(cores) < 2:
        raise Failed(f"two cores are needed; this process may use {sorted(cores)}")
    os.sched_setaffinity(0, {int(plan.load_core)})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    # Ending politely leaves every `with` block, which ends the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if os.getloadavg()[0] > 0.5:
        say(f"other work is running (load average {os.getloadavg()[0]:.2f}): numbers are rough")


def say(line):
    """Progress; results alone go to standard output."""
    print(f"bench: {line}", file=sys.stderr, flush=True)


def binary(options):
    """The server to be measured."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    path = pathlib.Path(options.gatehouse or ROOT / target / "release" / "gatehouse").resolve()
    if not path.is_file():
        raise Failed("there is no gatehouse to measure; build it with cargo build --release")
    return path


def measure(rows, wanted):
    """Measures the rows; one that fails is reported and does not stop the others."""
    measured, failed = {}, []
    for name in wanted:
        say(f"measuring {name}")
        try:
            measured[name] = getattr(rows, name)()
        except (Failed, OSError) as error:
            say(f"{name} failed: {error}")
            failed.append(name)
    return measured, failed


def main():
    """Measures, prints, writes."""
    options = arguments(NAMES)
    plan = plan_of(options)
    python = pathlib.Path(getattr(sys, "_base_executable", None) or sys.executable)
    kinds = Kinds(BENCH, binary(options), python)
    about = machine.about(kinds, built_here=not options.gatehouse)
    prepare(plan)
    measured, failed = measure(Rows(kinds, plan, BENCH / "files"), options.rows)
    shutil.rmtree(BENCH / "files", ignore_errors=True)
    raw = {"about": about, "plan": vars(plan), "rows": measured, "failed": failed}
    (BENCH / "results.json").write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
    print(report.text(about, measured))
    whole = not options.only and not options.quick and not failed
    path = pathlib.Path(options.page) if options.page else PAGE if whole else None
    if path:
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        settings = {**vars(plan), "warm_up": load.WARM_UP_SECS}
        path.write_text(report.page(about, measured, settings, old), encoding="utf-8")
        say(f"wrote {path.name}")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(f"bench: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
