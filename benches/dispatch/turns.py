"""Puts load on servers, one after the other in turns, and reads what came of it.

Invariant: two servers are compared only by numbers from the same turns.
Not here: which servers and loads (``measure``).
"""

import json
import os
import pathlib
import re
import statistics
import subprocess
from dataclasses import dataclass

from processes import Failed

HERE = pathlib.Path(__file__).resolve().parent
WARM_UP_SECS = 1
CLIENTS = 64


@dataclass
class Plan:
    """How long, how much and where."""

    runs: int
    secs: int
    agents: int
    full_agents: int
    full_tasks: int
    server_core: str
    load_core: str


def run(command, limit_secs, env=None):
    """Runs a program to its end, within a limit; returns what it printed."""
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    try:
        output, complaint = process.communicate(timeout=limit_secs)
    except subprocess.TimeoutExpired:
        raise Failed(f"{command[3]} did not end within {limit_secs} s") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise Failed(complaint.strip()[-1000:] or f"{command[3]} failed")
    return output


@dataclass
class Load:
    """A load on a running server: who, and the words of ``dispatch-load``."""

    name: str
    server: object
    words: list

    def measure(self, tool, plan, secs):
        """Its numbers over ``secs``."""
        words = [*self.words, "--secs", secs, "--warm-up-secs", WARM_UP_SECS]
        words += ["--pid", self.server.process.pid]
        return tool(plan, self.words[0], *words[1:], limit_secs=secs + 120)


class Tool:
    """The program ``dispatch-load``, on the core of the load."""

    def __init__(self, program):
        self.program = program

    def __call__(self, plan, *words, limit_secs=120):
        command = ["taskset", "-c", plan.load_core, self.program, *words]
        return json.loads(run(command, limit_secs))


@dataclass
class Commits:
    """Rows inserted into PostgreSQL, a commit each."""

    name: str
    server: object
    program: pathlib.Path
    password: str

    def _env(self):
        return {**os.environ, "PGPASSWORD": self.password}

    def _connection(self):
        return ["-h", "127.0.0.1", "-p", self.server.port, "-U", "bench"]

    def prepare(self, plan):
        """Makes the table, as soon as the server lets us."""
        table = "CREATE TABLE events (id bigserial PRIMARY KEY, agent int NOT NULL, "
        table += "at timestamptz NOT NULL DEFAULT now(), body text NOT NULL)"
        psql = self.program.parent / "psql"
        words = ["taskset", "-c", plan.load_core, psql, *self._connection(), "-c", table]
        run([*words, "postgres"], 60, self._env())

    def measure(self, _, plan, secs):
        """Its numbers over ``secs``, after warming up."""
        self._bench(plan, WARM_UP_SECS)
        output = self._bench(plan, secs)
        rate = re.search(r"^tps = ([0-9.]+)", output, re.MULTILINE)
        mean = re.search(r"^latency average = ([0-9.]+) ms", output, re.MULTILINE)
        if not rate or not mean or re.search(r"failed transactions: [1-9]", output):
            raise Failed(f"pgbench said: {output[-1000:]}")
        return {"per_sec": float(rate[1]), "mean_ms": float(mean[1])}

    def _bench(self, plan, secs):
        words = ["taskset", "-c", plan.load_core, self.program, *self._connection(), "-n"]
        words += ["-c", CLIENTS, "-j", 1, "-M", "prepared", "-T", secs, "-f", HERE / "insert.sql"]
        return run([*words, "postgres"], secs + 60, self._env())


def in_turns(tool, plan, loads):
    """Measures all loads ``plan.runs`` times; returns ``{name: [numbers of each run]}``."""
    samples = {load.name: [] for load in loads}
    for turn in range(plan.runs):
        # Who begins changes, so that nobody always follows the same neighbour.
        first = turn % len(loads)
        for load in loads[first:] + loads[:first]:
            samples[load.name].append(load.measure(tool, plan, plan.secs))
    return samples


def medians(samples):
    """``{name: {number: median over the runs}}``, with the extremes of the rate."""
    found = {}
    for name, runs in samples.items():
        known = [key for key in runs[0] if all(run.get(key) is not None for run in runs)]
        found[name] = {key: statistics.median(run[key] for run in runs) for key in known}
        found[name]["per_sec_min"] = min(run["per_sec"] for run in runs)
        found[name]["per_sec_max"] = max(run["per_sec"] for run in runs)
    return found
