#!/usr/bin/env python3
"""Measures temporary machines.

Started by ``run.sh``, which builds everything.

Not here: what is measured (``rows``), how it is printed (``benches/dispatch/page``).
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Processes, numbers and tables are those of the other measurements.
sys.path += [str(ROOT / "benches" / "plugins"), str(ROOT / "benches" / "dispatch")]

import machine  # noqa: E402
import page  # noqa: E402
from processes import Failed  # noqa: E402
from rows import NAMES, Plan, Rows  # noqa: E402
from turns import Tool  # noqa: E402

PAGE = ROOT / "docs" / "benchmarks.md"
BENCH = ROOT / ".bench"
SUBJECT = "machines"


def arguments():
    """The command line."""
    about = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(prog="benches/machines/run.sh", description=about)
    parser.add_argument("--only", metavar="ROWS", help=f"some of {','.join(NAMES)}; prints only")
    parser.add_argument("--count", type=int, help="machines in a row (100)")
    parser.add_argument("--cold", type=int, help="machines that boot (5)")
    parser.add_argument("--burst", type=int, help="machines at once (10)")
    parser.add_argument("--held", type=int, help="machines that do nothing (50)")
    parser.add_argument("--secs", type=int, help="seconds of STAT, and of doing nothing (10)")
    quick = "5 in a row, 1 cold, 3 at once, 2 that do nothing, 2 s; prints only"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--gatehouse", metavar="FILE", help="measure this binary, build no other")
    parser.add_argument("--images", metavar="DIR", help="folder of images (.images)")
    parser.add_argument("--server-core", default="0,1", metavar="N", help="cores of servers (0,1)")
    parser.add_argument("--load-core", default="0,1", metavar="N", help="cores of the load (0,1)")
    parser.add_argument("--data", metavar="DIR", help="where servers keep their state")
    parser.add_argument("--page", metavar="FILE", help="write into the page there")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else NAMES
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    options.rows = [name for name in NAMES if name in wanted]
    return options


def plan_of(options):
    """How many and how long."""
    count, cold, burst, held, secs = (5, 1, 3, 2, 2) if options.quick else (100, 5, 10, 50, 10)
    return Plan(
        count=options.count or count,
        cold=options.cold or cold,
        burst=options.burst or burst,
        held=options.held or held,
        secs=options.secs or secs,
        server_core=options.server_core,
        load_core=options.load_core,
    )


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


def about(program, options):
    """What was measured, and on what."""
    versions = machine.ours(program, built_here=not options.gatehouse)
    versions["QEMU"] = machine.said("qemu-system-x86_64", "--version").split()[3]
    versions["OpenSSL"] = machine.said("openssl", "version").split()[1]
    return machine.here(versions)


def main():
    """Measures, prints, writes."""
    options = arguments()
    plan = plan_of(options)
    # Ending politely leaves every `with` block, which ends the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if os.getloadavg()[0] > 0.5:
        say(f"other work is running (load average {os.getloadavg()[0]:.2f}): numbers are rough")
    BENCH.mkdir(exist_ok=True)
    data = pathlib.Path(tempfile.mkdtemp(prefix="bench-machines-", dir=options.data or "/var/tmp"))
    try:
        # QEMU of a server that runs as root is somebody else.
        data.chmod(0o755)
        program = built("gatehouse", options.gatehouse)
        images = pathlib.Path(options.images or ROOT / ".images").resolve()
        description = about(program, options)
        tool = Tool(built("dispatch-load"))
        measured, failed = measure(Rows(program, images, data, tool, plan), options.rows)
    finally:
        shutil.rmtree(data, ignore_errors=True)
    raw = {"about": description, "plan": vars(plan), "rows": measured, "failed": failed}
    (BENCH / "machines.json").write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
    print(page.text(description, measured, SUBJECT))
    whole = not options.only and not options.quick and not failed
    path = pathlib.Path(options.page) if options.page else PAGE if whole else None
    if path:
        old = path.read_text(encoding="utf-8") if path.exists() else page.empty(SUBJECT)
        how = f"{plan.count} machines in a row, {plan.cold} that boot; STAT for {plan.secs} s."
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
