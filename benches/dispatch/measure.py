"""What is measured: one method per row, and the bar that each is held to.

A row returns ``{"title", "samples", "verdicts"}`` and ``loads``, numbers of servers under load, or
``facts``, single values. ``verdicts`` compare ours with a peer's or with a fixed bar.
Not here: how they are printed (``page``).
"""

from kinds import listening
from processes import Servers
from report import verdict
from turns import CLIENTS, Commits, Load, in_turns, medians

# The names of the rows, in the order of the report; each is a method of :class:`Rows`.
NAMES = ["disk", "events", "roundtrip", "single", "parked", "full"]
OURS, FULL = "gatehouse", "gatehouse, full table"
ALWAYS = "JetStream, sync_interval: always"
MB = 1e6
EVENTS_PER_SEC_MIN = 30_000
ROUND_TRIPS_PER_SEC_MIN = 10_000
SINGLE_P50_MS_MAX = 1.5
PARKED_BYTES_MAX = 12 * 1024
IDLE_PERCENT_MAX = 2
DELIVERY_MS_MAX = 20
# What a full table may change.
FULL_SHARE = 0.2


def through(name, server, command, pairs=CLIENTS):
    """A load through another server."""
    where = ["--server", f"127.0.0.1:{server.port}"]
    return Load(name, server, [command, *where, "--pairs", pairs])


class Rows:
    """The rows. ``kinds`` makes servers, ``tool`` puts load on them, ``plan`` says how long."""

    def __init__(self, kinds, tool, plan):
        self.kinds, self.tool, self.plan = kinds, tool, plan

    def _start(self, servers, spec):
        return listening(servers.start(spec, self.plan.server_core))

    def _ours(self, servers, name=OURS):
        """Starts ours; returns it and the words that tell a load where and who it is."""
        spec = self.kinds.gatehouse(name)
        server = servers.start(spec, self.plan.server_core)
        server.first_answer("/healthz")
        words = ["--server", f"127.0.0.1:{spec.port}", "--admin", "bench"]
        return server, [*words, "--password", spec.password]

    def _row(self, title, loads):
        samples = in_turns(self.tool, self.plan, loads)
        return {"title": title, "loads": medians(samples), "samples": samples, "verdicts": []}

    def disk(self):
        """How many events the disk can make durable when 64 clients wait for each commit."""
        words = ["disk", "--dir", self.kinds.data, "--clients", CLIENTS]
        found = self.tool(self.plan, *words, "--secs", min(self.plan.secs, 3))
        facts = [
            (f"writes of {found['bytes']} bytes synced, {how}", found[how]["per_sec"], "/s")
            for how in ("appending", "overwriting")
        ]
        limit = f"the disk's limit with {CLIENTS} clients"
        facts.append((limit, found["limit_per_sec"], "events/s"))
        return {"title": "disk", "samples": found, "facts": facts, "verdicts": []}

    def events(self):
        """Events, each acknowledged when it is durable."""
        disks = [self.disk()]
        with Servers() as servers:
            ours, words = self._ours(servers)
            spec = self.kinds.postgres()
            program = self.kinds.postgres_bin / "pgbench"
            server = self._start(servers, spec)
            commits = Commits("PostgreSQL", server, program, spec.password)
            commits.prepare(self.plan)
            always = self._start(servers, self.kinds.nats("nats-always", True))
            plain = self._start(servers, self.kinds.nats("nats"))
            row = self._row(f"events, {CLIENTS} connections", [
                Load(OURS, ours, ["events", *words, "--connections", CLIENTS]),
                commits,
                through(ALWAYS, always, "jetstream-events"),
                through("JetStream, not synced", plain, "jetstream-events"),
            ])
        mine, found = row["loads"][OURS]["per_sec"], row["loads"]
        # Before and after: a disk that was slow for a moment is no excuse.
        disks.append(self.disk())
        limits = [disk["samples"]["limit_per_sec"] for disk in disks]
        bar = min(EVENTS_PER_SEC_MIN, max(limits))
        limit = "the disk's limit, the better of before and after"
        row["facts"] = [(limit, max(limits), "events/s")]
        row["verdicts"].append(verdict(row["title"], "/s", mine, None, None, bar))
        for peer, bar in (("PostgreSQL", 1.6), (ALWAYS, 5), ("JetStream, not synced", None)):
            rate = found[peer]["per_sec"]
            row["verdicts"].append(verdict(row["title"], "/s", mine, peer, rate, bar))
        return row

    def roundtrip(self):
        """Task and result, 64 admins and as many agents."""
        with Servers() as servers:
            ours, words = self._ours(servers)
            plain = self._start(servers, self.kinds.nats("nats"))
            always = self._start(servers, self.kinds.nats("nats-always", True))
            redis = self._start(servers, self.kinds.redis())
            trips = ["roundtrip", *words]
            row = self._row(f"round trips, {CLIENTS} × {CLIENTS}", [
                Load(OURS, ours, [*trips, "--admins", CLIENTS, "--agents", CLIENTS]),
                through("JetStream, default", plain, "jetstream"),
                through(ALWAYS, always, "jetstream"),
                through("Redis, appendfsync always", redis, "redis"),
                through("NATS, nothing stored", plain, "nats"),
                through("NATS, nothing stored, 8 × 8", plain, "nats", 8),
                Load("gatehouse, leases", ours, [*trips, "--lease", 60]),
                Load("gatehouse, 8 × 8", ours, [*trips, "--admins", 8, "--agents", 8]),
            ])
        mine, found = row["loads"][OURS]["per_sec"], row["loads"]
        add = row["verdicts"].append
        add(verdict(row["title"], "/s", mine, None, None, ROUND_TRIPS_PER_SEC_MIN))
        bars = {"JetStream, default": 1, ALWAYS: None, "Redis, appendfsync always": None}
        for peer, bar in bars.items():
            add(verdict(row["title"], "/s", mine, peer, found[peer]["per_sec"], bar))
        return row

    def single(self):
        """One admin and one agent: how long a task takes when nothing else happens."""
        with Servers() as servers:
            ours, words = self._ours(servers)
            plain = self._start(servers, self.kinds.nats("nats"))
            always = self._start(servers, self.kinds.nats("nats-always", True))
            redis = self._start(servers, self.kinds.redis())
            row = self._row("round trips, 1 × 1", [
                Load(OURS, ours, ["roundtrip", *words, "--admins", 1, "--agents", 1]),
                through("JetStream, default", plain, "jetstream", 1),
                through(ALWAYS, always, "jetstream", 1),
                through("Redis, appendfsync always", redis, "redis", 1),
            ])
        found = {name: load["p50_ms"] for name, load in row["loads"].items()}
        what = f"{row['title']}: p50"
        bar = verdict(what, "ms", found[OURS], None, None, SINGLE_P50_MS_MAX, True)
        row["verdicts"] = [bar] + [
            verdict(what, "ms", found[OURS], peer, found[peer]) for peer in found if peer != OURS
        ]
        return row

    def parked(self):
        """Agents that wait, and a server that has nothing to do."""
        with Servers() as servers:
            found = self._parked(*self._ours(servers))
        return {"title": "parked", "samples": found, **self._parked_report(found, OURS)}

    def _parked(self, server, words):
        words = ["parked", *words, "--pid", server.process.pid, "--agents", self.plan.agents]
        idle = 10 if self.plan.secs > 1 else 2
        return self.tool(self.plan, *words, "--idle-secs", idle, limit_secs=900)

    @staticmethod
    def _parked_report(found, who):
        title = f"{found['agents']:,} parked agents"
        delivery = found["delivery"]
        facts = [
            (f"{who}, {title}: resident", found["rss_parked_bytes"] / MB, "MB"),
            (f"{who}, before", found["rss_before_bytes"] / MB, "MB"),
            (f"{who}, {title}: delivery p50", delivery["p50_ms"], "ms"),
            (f"{who}, {title}: delivery at most", delivery["max_ms"], "ms"),
        ]
        if found["agents"] < found["agents_wanted"]:
            wanted = f"{found['agents_wanted']:,}"
            facts.append(("agents that were wanted, more than the limit of open files", wanted, ""))
        return {"facts": facts, "verdicts": [
            verdict(f"{title}: memory of each", "bytes", found["per_agent_bytes"], None, None,
                    PARKED_BYTES_MAX, True),
            verdict(f"{title}: idle", "% of a core", found["idle_cpu_percent"], None, None,
                    IDLE_PERCENT_MAX, True),
            verdict(f"{title}: delivery p99", "ms", delivery["p99_ms"], None, None,
                    DELIVERY_MS_MAX, True),
        ]}

    def full(self):
        """The same with a full table, against ours with an empty one."""
        plan = self.plan
        with Servers() as servers:
            full, full_words = self._ours(servers, FULL)
            words = ["--agents", plan.full_agents, "--tasks", plan.full_tasks]
            filled = self.tool(plan, "fill", *full_words, *words, limit_secs=3600)
            # Loads alternate; those of the empty one make it a little fuller.
            empty, empty_words = self._ours(servers)
            loads = []
            for kind, more in (
                ("events", ["--connections", CLIENTS]),
                ("roundtrip", ["--admins", CLIENTS, "--agents", CLIENTS]),
                ("roundtrip", ["--admins", 1, "--agents", 1]),
            ):
                title = kind if kind == "events" else f"{kind} {more[1]} × {more[1]}"
                loads.append(Load(f"{OURS}: {title}", empty, [kind, *empty_words, *more]))
                loads.append(Load(f"{FULL}: {title}", full, [kind, *full_words, *more]))
            row = self._row("full table", loads)
            row["samples"]["fill"] = filled
            parked = self._parked(full, full_words), self._parked(empty, empty_words)
        row["verdicts"] = self._full_verdicts(row["loads"]) + self._full_parked(*parked)
        row["facts"] = self._parked_report(parked[0], FULL)["facts"]
        row["facts"].append(("tasks in the full table", filled["tasks"], ""))
        row["samples"]["parked"] = parked
        return row

    @staticmethod
    def _full_verdicts(found):
        verdicts = []
        for name, load in found.items():
            if name.startswith(FULL):
                title, other = name.removeprefix(f"{FULL}: "), found[name.replace(FULL, OURS)]
                verdicts.append(verdict(f"full table, {title}", "/s", load["per_sec"], "empty",
                                        other["per_sec"], 1 - FULL_SHARE))
        return verdicts

    @staticmethod
    def _full_parked(full, empty):
        more = 1 + FULL_SHARE
        values = [("memory of each parked agent", "bytes", lambda found: found["per_agent_bytes"]),
                  ("delivery p50", "ms", lambda found: found["delivery"]["p50_ms"])]
        verdicts = [
            verdict(f"full table, {what}", unit, of(full), "empty", of(empty), more, True)
            for what, unit, of in values
        ]
        verdicts.append(verdict("full table, idle", "% of a core", full["idle_cpu_percent"], None,
                                None, IDLE_PERCENT_MAX, True))
        return verdicts
