"""Puts load on servers, one after the other in turns, and reads what came of it.

Invariant: two servers are compared only by numbers from the same turns.
Not here: which servers and paths (``rows``).
"""

import json
import pathlib
import resource
import statistics
import subprocess
import time
from dataclasses import dataclass

from processes import STARTS_WITHIN_SECS, Failed, busy_secs

SCRIPT = pathlib.Path(__file__).resolve().parent / "wrk.lua"
CONNECTIONS = 32
WARM_UP_SECS = 1


@dataclass
class Plan:
    """How long and where."""

    runs: int
    secs: int
    starts: int
    server_core: str
    load_core: str

    @property
    def both_cores(self):
        """Where servers and load share everything."""
        return f"{self.server_core},{self.load_core}"


@dataclass
class Target:
    """A running server and what is asked of it."""

    server: object
    path: str
    #: A file that is sent as a POST.
    body: object = None

    def check(self, expected=None, size=None):
        """Asks once; refuses an answer that is not what is measured."""
        status, answer = self.server.get(self.path, self.body and self.body.read_bytes())
        right = status == 200
        if expected is not None:
            right = right and json.loads(answer) == expected
        if size is not None:
            right = right and len(answer) == size
        if not right:
            raise Failed(f"{self.server.name} answers {self.path} {status}: {answer[:200]!r}")
        return answer

    def wait(self):
        """Asks until the server listens."""
        until = time.monotonic() + STARTS_WITHIN_SECS
        while True:
            try:
                return self.check()
            except OSError:
                if time.monotonic() > until or self.server.process.poll() is not None:
                    raise Failed(f"{self.server.name} does not listen; see {self.server.log}")
                time.sleep(0.05)


def wrk(target, secs, cores, connections=CONNECTIONS):
    """Runs wrk once; returns its numbers."""
    url = f"http://127.0.0.1:{target.server.port}{target.path}"
    command = ["taskset", "-c", cores, "wrk", "-t1", f"-c{connections}", f"-d{secs}s"]
    command += ["--timeout", "30s", "--latency", "-s", str(SCRIPT), url]
    if target.body:
        command += ["--", str(target.body)]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    server_used, all_used, began = target.server.cpu_secs(), busy_secs(), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        output, _ = process.communicate(timeout=secs + 60)
    except BaseException:
        process.kill()
        process.wait()
        raise
    took = time.perf_counter() - began
    server_used, all_used = target.server.cpu_secs() - server_used, busy_secs() - all_used
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    load_used = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    line = next((line for line in output.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise Failed(f"wrk said nothing about {target.server.name}: {output[-500:]}")
    result = json.loads(line.removeprefix("RESULT "))
    if result["failed"] or result["timeouts"] or not result["requests"]:
        raise Failed(f"{target.server.name} {target.path} did not answer all requests: {result}")
    took_secs = result["duration_us"] / 1e6
    return {
        "rps": result["requests"] / took_secs,
        "mb_s": result["bytes"] / took_secs / 1e6,
        "p50_ms": result["p50_us"] / 1e3,
        "p99_ms": result["p99_us"] / 1e3,
        "server_cpu": server_used / took,
        "per_cpu": result["requests"] / max(server_used, 0.001),
        "load_cpu": load_used / took,
        "others_cpu": max(all_used - server_used - load_used, 0) / took,
    }


def in_turns(plan, targets, load_cores=None):
    """Measures all targets ``plan.runs`` times; returns ``{name: [numbers of each run]}``."""
    cores = load_cores or plan.load_core
    samples = {target.server.name: [] for target in targets}
    for run in range(plan.runs):
        # Who begins changes, so that nobody always follows the same neighbour.
        first = run % len(targets)
        for target in targets[first:] + targets[:first]:
            wrk(target, WARM_UP_SECS, cores)
            samples[target.server.name].append(wrk(target, plan.secs, cores))
    return samples


def medians(samples):
    """``{name: {number: median over the runs}}``, with the extremes of the throughput."""
    found = {}
    for name, runs in samples.items():
        found[name] = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        found[name]["rps_min"] = min(run["rps"] for run in runs)
        found[name]["rps_max"] = max(run["rps"] for run in runs)
    return found
