"""What the numbers were made on and with. Never names of hosts, users or directories."""

import datetime
import os
import pathlib
import platform
import shutil
import subprocess


def said(*command):
    """The first line that a command prints, wherever it prints it."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return "not found"
    return next(iter((run.stdout + run.stderr).splitlines()), "").strip()


def _processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _packages(python, names):
    code = "import importlib.metadata as m, sys; print(*map(m.version, sys.argv[1:]))"
    return dict(zip(names, said(python, "-c", code, *names).split()))


def _commit():
    now = said("git", "rev-parse", "--short=10", "HEAD")
    changed = said("git", "status", "--porcelain", "--untracked-files=no", "crates", "python")
    return f"{now}, changed" if changed else now


def ours(program, built_here):
    """What was built. ``built_here``: ``program`` is of this commit."""
    of = _commit() if built_here else "a binary built elsewhere"
    return {
        "gatehouse": f"{said(program, '--version').split()[-1]} ({of})",
        "rustc": said("rustc", "--version").split()[1],
    }


def here(versions):
    """``{"machine", "date", "load", "versions"}``."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "machine": f"{os.cpu_count()} cores of {_processor()}, {memory:.0f} GiB of memory, "
        f"{platform.system()} {platform.release()} {platform.machine()}",
        "date": datetime.date.today().isoformat(),
        "load": os.getloadavg()[0],
        "versions": versions,
    }


def about(kinds, built_here):
    """All of it. ``built_here``: the binary is of this commit."""
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    peers = ["pluginserver", "aiohttp", "granian", "uvicorn", "uvloop", "httptools", "psutil"]
    versions = ours(kinds.program, built_here)
    versions["Python"] = said(kinds.python, "--version").split()[-1]
    versions |= _packages(kinds.venv / "python3", peers)
    fast = _packages(kinds.fast, ["uvloop", "orjson"])
    versions["orjson"] = fast.get("orjson", "?")
    versions["nginx"] = said(nginx, "-v").rpartition("/")[2]
    versions["wrk"] = said("wrk", "-v").split()[1].rpartition("/")[2]
    return here(versions)
