"""What is measured: one method per row, and the bar that each is held to.

A row returns ``{"title", "samples", "verdicts"}`` and, where there are any, ``facts``. Every row has servers of its
own, with an empty state.
Not here: how they are printed (``page``), the load (``crates/bench/src/machines.rs``).
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from kinds import Spec, free_port
from processes import Failed, Servers
from report import verdict

# The names of the rows, in the order of the report; each is a method of :class:`Rows`.
NAMES = ["row", "pool", "burst", "stat", "idle", "many"]
MEMORY_MB = 512
MIB, MB = 2**20, 1e6
CREATE_P50_MS_MAX, CREATE_P99_MS_MAX = 350, 600
POOL_P50_MS_MAX = 40
COMMAND_MS_MAX = 150
DESTROY_MS_MAX = 30
BURST_MS_MAX = 4000
STAT_RATIO_MAX, STAT_MORE_MS = 1.3, 1
STAT_CLIENTS, STAT_SHARE_MIN = 8, 0.8
PRIVATE_MIB_MAX = 64
IDLE_PERCENT_MAX = 3
SERVER_MIB_MAX = 30
POOL = 2
CORES = 2


@dataclass
class Plan:
    """How many, how long and where."""

    count: int
    cold: int
    burst: int
    held: int
    secs: int
    server_core: str
    load_core: str


def at_most(what, unit, value, bar):
    """A value that may not be more than ``bar``."""
    return verdict(what, unit, value, None, None, bar, True)


class Rows:
    """The rows. ``tool`` puts load on servers, which keep their state below ``data``."""

    def __init__(self, program, images, data, tool, plan):
        self.program, self.images, self.data = program, images, data
        self.tool, self.plan = tool, plan

    def _start(self, servers, name, memory_mb=MEMORY_MB, **settings):
        """A server; returns it, its words for a load, and the port of the encrypted protocol."""
        folder = self.data / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        port, classic = free_port(), free_port()
        lines = ["[network]", "bindto=127.0.0.1", f"port={port}", "[log]", "access=off"]
        lines += ["level=warning", "[containers]", f"state={folder}/state"]
        lines += [f"images={self.images}", "default_image=small", "bind_address=127.0.0.1"]
        lines += [f"listen_port={classic}", f"container_memory={memory_mb}", "container_vcpus=1"]
        lines += [f"max_allowed_running_container_domains={self.plan.held + self.plan.burst + POOL}"]
        lines += ["domain_type=qemu", "on_shutdown=stop", "wait_max_tryout=300"]
        lines += [f"{key}={value}" for key, value in settings.items()]
        lines += ["[containers.port_forwarding]", "port_range=10000-20000"]
        config = folder / "gatehouse.ini"
        config.write_text("\n".join(lines) + "\n")
        env = {key: value for key, value in os.environ.items() if not key.startswith("GATEHOUSE")}
        command = [str(self.program), "serve", "-i", str(config)]
        spec = Spec(name, command, port, folder / "log", env)
        server = servers.start(spec, self.plan.server_core)
        server.first_answer("/machines")
        words = ["--server", f"127.0.0.1:{port}", "--pid", server.process.pid]
        return server, words, classic

    def _load(self, command, *words, limit_secs=3600):
        return self.tool(self.plan, "machines", command, *words, limit_secs=limit_secs)

    def row(self):
        """One after the other by snapshot, and as many as wanted that boot, in turns."""
        with Servers() as servers:
            _, clones, _ = self._start(servers, "clones")
            _, cold, _ = self._start(servers, "cold", snapshot="false")
            # The first one makes the snapshot; it is not counted.
            first = self._load("create", *clones, "--count", 1)
            half = max(self.plan.count // 2, 1)
            turns = [self._load("create", *clones, "--count", half)]
            booted = self._load("create", *cold, "--count", self.plan.cold)
            turns.append(self._load("create", *clones, "--count", half))
        # Of two halves the worse counts: nothing is said of what was lucky.
        found = {
            what: {key: max(turn[what][key] for turn in turns) for key in ("p50_ms", "p99_ms")}
            for what in ("create", "first_command", "destroy")
        }
        create = found["create"]
        facts = [
            ("first machine of a server, which makes the snapshot", first["create"]["p50_ms"], "ms"),
            ("machine that boots: first SSH command, p50", booted["first_command"]["p50_ms"], "ms"),
            ("by snapshot: first SSH command, p99", found["first_command"]["p99_ms"], "ms"),
            ("by snapshot: DESTROY, p99", found["destroy"]["p99_ms"], "ms"),
        ]
        what = "CREATE by snapshot, one after the other"
        verdicts = [
            at_most(f"{what}: p50", "ms", create["p50_ms"], CREATE_P50_MS_MAX),
            at_most(f"{what}: p99", "ms", create["p99_ms"], CREATE_P99_MS_MAX),
            verdict(f"{what}: p50", "ms", create["p50_ms"], "cold boot of the same image",
                    booted["create"]["p50_ms"]),
            at_most("first SSH command after it: p50", "ms", found["first_command"]["p50_ms"],
                    COMMAND_MS_MAX),
            at_most("DESTROY, port closed: p50", "ms", found["destroy"]["p50_ms"], DESTROY_MS_MAX),
        ]
        samples = {"turns": turns, "cold": booted, "first": first}
        return {"title": what, "samples": samples, "facts": facts, "verdicts": verdicts}

    def pool(self):
        """One after the other from a pool that is full each time."""
        with Servers() as servers:
            _, words, _ = self._start(servers, "pool", pool=POOL)
            found = self._load("create", *words, "--count", self.plan.count, "--pool", POOL)
        what = "CREATE from the warm pool"
        verdicts = [
            at_most(f"{what}: p50", "ms", found["create"]["p50_ms"], POOL_P50_MS_MAX),
            at_most("first SSH command after it: p50", "ms", found["first_command"]["p50_ms"],
                    COMMAND_MS_MAX),
            at_most("DESTROY of such a machine: p50", "ms", found["destroy"]["p50_ms"],
                    DESTROY_MS_MAX),
        ]
        facts = [(f"{what}: p99", found["create"]["p99_ms"], "ms")]
        return {"title": what, "samples": found, "facts": facts, "verdicts": verdicts}

    def burst(self):
        """Many at once, until a command was answered in each."""
        with Servers() as servers:
            _, words, _ = self._start(servers, "burst")
            self._load("create", *words, "--count", 1)
            found = self._load("burst", *words, "--count", self.plan.burst)
        what = f"{self.plan.burst} CREATEs at once, all usable"
        facts = [(f"{what}: the half of them", found["p50_ms"], "ms")]
        verdicts = [at_most(what, "ms", found["max_ms"], BURST_MS_MAX)]
        return {"title": what, "samples": found, "facts": facts, "verdicts": verdicts}

    def _private_ms(self):
        """How long OpenSSL takes for one private operation, on a core of the load."""
        words = ["openssl", "speed", "-seconds", str(min(self.plan.secs, 5)), "rsa4096"]
        core = self.plan.load_core.split(",")[0]
        run = subprocess.run(["taskset", "-c", core, *words], capture_output=True, text=True,
                             timeout=120, check=False)
        line = re.search(r"^rsa +4096 bits +([0-9.]+)s", run.stdout, re.MULTILINE)
        if not line:
            raise Failed(f"openssl speed said: {run.stdout[-300:]}{run.stderr[-300:]}")
        return 1000 * float(line[1])

    def stat(self):
        """STAT by the encrypted protocol, with a client's key that is used again."""
        with Servers() as servers:
            server, _, classic = self._start(servers, "stat", classic="true",
                                             connections_per_address_max=64)
            words = ["--server", f"127.0.0.1:{classic}", "--pid", server.process.pid]
            before = self._private_ms()
            one, eight = (
                self._load("stat", *words, "--clients", clients, "--secs", self.plan.secs)
                for clients in (1, STAT_CLIENTS)
            )
            private = (before + self._private_ms()) / 2
        # What is left of both cores for the server, when the clients have done their part.
        allowed = 1000 / private * max(CORES - eight["load_cpu"], 0.1)
        what = f"STAT, {STAT_CLIENTS} clients"
        bar = STAT_RATIO_MAX * private + STAT_MORE_MS
        peer = "RSA-4096 by OpenSSL"
        verdicts = [
            at_most("STAT, 1 client: p50", "ms", one["p50_ms"], round(bar, 2)),
            verdict("STAT, 1 client: p50", "ms", one["p50_ms"], f"{peer}, one operation", private),
            verdict(what, "/s", eight["per_sec"], f"{peer}, on what the clients leave of 2 cores",
                    allowed, STAT_SHARE_MIN),
        ]
        facts = [
            (f"{what}: on both cores, RSA alone", 1000 * CORES / private, "/s"),
            (f"{what}: the server's cores", eight.get("server_cpu") or 0, ""),
            (f"{what}: the clients' cores", eight["load_cpu"], ""),
            (f"{what}: p99", eight["p99_ms"], "ms"),
        ]
        samples = {"private_ms": private, "one": one, "eight": eight}
        return {"title": what, "samples": samples, "facts": facts, "verdicts": verdicts}

    def idle(self):
        """A machine that somebody was logged in to, and that does nothing since."""
        with Servers() as servers:
            _, words, _ = self._start(servers, "idle")
            self._load("create", *words, "--count", 1)
            found = self._load("hold", *words, "--count", 2, "--idle-secs", self.plan.secs)
        what = f"clone of {MEMORY_MB} MB"
        verdicts = [
            at_most(f"{what}: memory of its own after a login", "MiB",
                    found["private_bytes"]["max"] / MIB, PRIVATE_MIB_MAX),
            at_most(f"{what}, idle", "% of a core", found["idle_percent"]["max"], IDLE_PERCENT_MAX),
        ]
        facts = [("server with 2 such machines, idle", found["server_idle_percent"], "% of a core")]
        return {"title": what, "samples": found, "facts": facts, "verdicts": verdicts}

    def many(self):
        """The server with many machines."""
        with Servers() as servers:
            _, words, _ = self._start(servers, "many", memory_mb=128)
            self._load("create", *words, "--count", 1)
            found = self._load("hold", *words, "--count", self.plan.held, "--idle-secs",
                               self.plan.secs)
        what = f"server with {self.plan.held} machines"
        facts = [
            ("server before its first machine but one", found["server_rss_before_bytes"] / MIB, "MiB"),
            (f"{what}: idle", found["server_idle_percent"], "% of a core"),
            ("each of these machines: idle, median", found["idle_percent"]["median"], "% of a core"),
            ("each of these, 128 MB: memory of its own", found["private_bytes"]["median"] / MIB,
             "MiB"),
        ]
        verdicts = [at_most(f"{what}: resident", "MiB", found["server_rss_bytes"] / MIB,
                            SERVER_MIB_MAX)]
        return {"title": what, "samples": found, "facts": facts, "verdicts": verdicts}
