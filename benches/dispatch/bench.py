#!/usr/bin/env python3
"""Measures dispatch and what it is compared with.

Started by ``run.sh``, which installs them.

Not here: what is measured (``measure``), how (``turns``), with which servers (``kinds``).
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import signal
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Processes, numbers and tables are those of the other measurement.
sys.path.append(str(ROOT / "benches" / "plugins"))

import machine  # noqa: E402
import page  # noqa: E402
from kinds import Kinds  # noqa: E402
from measure import NAMES, Rows  # noqa: E402
from processes import Failed  # noqa: E402
from turns import Plan, Tool  # noqa: E402

PAGE = ROOT / "docs" / "benchmarks.md"
BENCH = ROOT / ".bench"
SUBJECT = "dispatch"
# What a server has open besides its agents.
SPARE_FILES = 1000


def arguments():
    """The command line."""
    about = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(prog="benches/dispatch/run.sh", description=about)
    parser.add_argument("--only", metavar="ROWS", help=f"some of {','.join(NAMES)}; prints only")
    parser.add_argument("--runs", type=int, help="turns of each server (5)")
    parser.add_argument("--secs", type=int, help="seconds of each turn (5)")
    parser.add_argument("--agents", type=int, help="parked agents (100000)")
    parser.add_argument("--full-agents", type=int, help="agents of the full table (10000)")
    parser.add_argument("--full-tasks", type=int, help="tasks of the full table (1000000)")
    quick = "2 turns of 1 s, 2000 parked agents, a table of 10000 tasks; prints only"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--gatehouse", metavar="FILE", help="measure this binary, build no other")
    parser.add_argument("--server-core", default="0", metavar="N", help="core of the servers (0)")
    parser.add_argument("--load-core", default="1", metavar="N", help="core of the load (1)")
    parser.add_argument("--data", metavar="DIR", help="where servers store; its disk is measured")
    parser.add_argument("--page", metavar="FILE", help="write into the page there")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else NAMES
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    options.rows = [name for name in NAMES if name in wanted]
    return options


def plan_of(options):
    """How long everything takes."""
    runs, secs, agents, full_agents, full_tasks = 5, 5, 100_000, 10_000, 1_000_000
    if options.quick:
        runs, secs, agents, full_agents, full_tasks = 2, 1, 2000, 100, 10_000
    return Plan(
        runs=options.runs or runs,
        secs=options.secs or secs,
        agents=options.agents or agents,
        full_agents=options.full_agents or full_agents,
        full_tasks=options.full_tasks or full_tasks,
        server_core=options.server_core,
        load_core=options.load_core,
    )


def prepare(plan):
    """Takes this process out of the servers' way; allows it and them enough open files."""
    cores = os.sched_getaffinity(0)
    if not {int(plan.server_core), int(plan.load_core)} <= cores or len(cores) < 2:
        raise Failed(f"two cores are needed; this process may use {sorted(cores)}")
    os.sched_setaffinity(0, {int(plan.load_core)})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = plan.agents + SPARE_FILES
    for most in ((wanted, max(hard, wanted)), (min(hard, wanted), hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, most)
            break
        except (ValueError, PermissionError):
            say(f"only {hard} files may be open: not all of {plan.agents} agents can be parked")
    # Ending politely leaves every `with` block, which ends the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if os.getloadavg()[0] > 0.5:
        say(f"other work is running (load average {os.getloadavg()[0]:.2f}): numbers are rough")


def say(line):
    """Progress; results alone go to standard output."""
    print(f"bench: {line}", file=sys.stderr, flush=True)


def built(name, given=None):
    """A program that was built."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    path = pathlib.Path(given or ROOT / target / "release" / name).resolve()
    if not path.is_file():
        raise Failed(f"there is no {name}; build it with cargo build --release")
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


def about(kinds, options):
    """What was measured, and on what."""
    versions = machine.ours(kinds.program, built_here=not options.gatehouse)
    for name, *command in (
        ("NATS", kinds.nats_server, "--version"),
        ("PostgreSQL", kinds.postgres_bin / "postgres", "--version"),
        ("Redis", "redis-server", "--version"),
    ):
        words = [word for word in machine.said(*command).replace("v=", "").split() if "." in word]
        versions[name] = words[0].lstrip("v") if words else "?"
    return machine.here(versions)


def main():
    """Measures, prints, writes."""
    options = arguments()
    plan, tool = plan_of(options), Tool(built("dispatch-load"))
    prepare(plan)
    BENCH.mkdir(exist_ok=True)
    # Not below the repository, where another user, who runs PostgreSQL, may not look.
    data = pathlib.Path(tempfile.mkdtemp(prefix="bench-dispatch-", dir=options.data or "/var/tmp"))
    try:
        data.chmod(0o755)
        program = built("gatehouse", options.gatehouse)
        kinds = Kinds(BENCH, program, data, plan.agents + SPARE_FILES)
        description = about(kinds, options)
        measured, failed = measure(Rows(kinds, tool, plan), options.rows)
    finally:
        shutil.rmtree(data, ignore_errors=True)
    raw = {"about": description, "plan": vars(plan), "rows": measured, "failed": failed}
    results = BENCH / "dispatch.json"
    results.write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
    print(page.text(description, measured, SUBJECT))
    whole = not options.only and not options.quick and not failed
    path = pathlib.Path(options.page) if options.page else PAGE if whole else None
    if path:
        old = path.read_text(encoding="utf-8") if path.exists() else page.empty(SUBJECT)
        how = f"{plan.runs} turns of {plan.secs} s each."
        path.write_text(page.page(description, measured, how, old, SUBJECT), encoding="utf-8")
        say(f"wrote {path.name}")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(f"bench: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
