"""What is measured: one method per row, and the bar that each is held to.

A row returns ``{"title", "loads" | "facts", "verdicts"}``: ``loads`` are numbers of servers under
load, ``facts`` single values, ``verdicts`` compare ours with a peer's or with a fixed bar.
Not here: how they are printed (``report``).
"""

import json
import statistics
import threading
import time
import timeit

from load import Target, in_turns, medians, wrk
from processes import Failed, Servers, rss_bytes
from report import verdict

# The names of the rows, in the order of the report; each is a method of :class:`Rows`.
NAMES = [
    "tiny", "post", "workers", "systeminfo", "static", "markdown", "clients", "memory", "start",
]
OURS, OLD, FAST = "gatehouse", "pluginserver", "gatehouse, uvloop + orjson"
MB = 1e6
# How much memory of ours may grow by 1,000 clients and still be called flat: 128 KiB for each, which
# is twice the longest piece of a file that it reads at once.
FLAT_BYTES_MAX = 1000 * 128 * 1024


class Rows:
    """The rows. ``kinds`` makes servers, ``plan`` says how long, ``files`` is a directory."""

    def __init__(self, kinds, plan, files):
        self.kinds, self.plan, self.files = kinds, plan, files
        self.docs = files / "docs"
        self.docs.mkdir(parents=True, exist_ok=True)

    def _load(self, title, targets, bars, ours=OURS, latency=True, cores=None):
        """Measures targets in turns. ``bars``: peer → bar of the throughput, None for none."""
        samples = in_turns(self.plan, targets, cores)
        found = medians(samples)
        mine = found[ours]
        verdicts = [
            verdict(title, "req/s", mine["rps"], peer, found[peer]["rps"], bar)
            for peer, bar in bars.items()
        ]
        if latency:
            verdicts += [
                verdict(what, "ms", mine["p99_ms"], peer, found[peer]["p99_ms"], 1.0, True)
                for what, peer in ((f"{title}: p99", peer) for peer in bars)
            ]
        return {"title": title, "loads": found, "samples": samples, "verdicts": verdicts}

    def _python_servers(self, servers, plugin, path, expected, body=None):
        kinds, core = self.kinds, self.plan.server_core
        specs = [
            kinds.gatehouse(OURS, [plugin]),
            kinds.pluginserver([plugin]),
            kinds.granian(),
            kinds.uvicorn(),
            kinds.gatehouse(FAST, [plugin], fast=True),
            kinds.granian("granian, asyncio", "asyncio"),
        ]
        targets = [Target(servers.start(spec, core), path, body) for spec in specs]
        for target in targets:
            target.wait()
            target.check(expected)
        return targets

    def tiny(self):
        """GET of a tiny JSON answer from a Python plugin."""
        with Servers() as servers:
            targets = self._python_servers(servers, "hello", "/hello", {"hello": "world"})
            bars = {OLD: 3.0, "granian": 1.4, "uvicorn": None}
            return self._load("tiny JSON, GET", targets, bars)

    def post(self):
        """POST of 1 KB of JSON to a plugin that returns a member of it."""
        body = self.files / "body.json"
        body.write_bytes(body_of(1024))
        with Servers() as servers:
            expected = {"name": json.loads(body.read_bytes())["name"]}
            targets = self._python_servers(servers, "echo", "/echo", expected, body)
            bars = {OLD: 3.0, "granian": 1.4, "uvicorn": None}
            return self._load("1 KB JSON, POST", targets, bars)

    def workers(self):
        """Two workers against one, with two cores for servers, workers and load alike."""
        rows = [self._workers(100, 1.7), self._workers(1000, None)]
        merged = {"title": "two workers", "loads": {}, "samples": {}, "verdicts": []}
        for row in rows:
            for key in ("loads", "samples"):
                merged[key].update(row[key])
            merged["verdicts"] += row["verdicts"]
        return merged

    def _workers(self, work_us, bar):
        rounds = rounds_for(work_us)
        cores = self.plan.both_cores
        names = {count: f"{count} worker{'s' * (count > 1)}, {work_us} µs" for count in (1, 2)}
        with Servers() as servers:
            targets = []
            for count, name in names.items():
                work = f"workers=int:{count}&rounds=int:{rounds}"
                spec = self.kinds.gatehouse(name, ["work"], work=work)
                targets.append(Target(servers.start(spec, cores), "/work"))
                targets[-1].server.first_answer("/work")
            title = f"workers=2, {work_us} µs of Python, 2 cores"
            return self._load(title, targets, {names[1]: bar}, names[2], False, cores)

    def systeminfo(self):
        """The native `/systeminfo` against a plugin that reads the same with psutil."""
        with Servers() as servers:
            specs = [self.kinds.gatehouse(OURS), self.kinds.pluginserver(["systeminfo"])]
            running = [servers.start(spec, self.plan.server_core) for spec in specs]
            targets = [Target(server, "/systeminfo") for server in running]
            for target in targets:
                target.server.first_answer("/systeminfo")
                answer = json.loads(target.check())
                missing = {"net", "cpu", "uptime", "disk", "ram", "info"} - answer.keys()
                if missing:
                    raise Failed(f"{target.server.name} has no {missing} in /systeminfo")
            return self._load("/systeminfo", targets, {OLD: 15.0})

    def static(self):
        """Files of 10 KB and 1 MB against nginx."""
        sizes = {"10 KB file": (10 * 1024, 1.0), "1 MB file": (1024 * 1024, 0.9)}
        row = {"title": "static files", "loads": {}, "samples": {}, "verdicts": []}
        for title, (size, bar) in sizes.items():
            name = f"{size}.txt"
            (self.docs / name).write_bytes(text_of(size))
            with Servers() as servers:
                ours = self.kinds.gatehouse(OURS, documents=self.docs)
                specs = [ours, self.kinds.nginx(self.docs)]
                path = f"/doc/{name}"
                targets = [Target(servers.start(s, self.plan.server_core), path) for s in specs]
                for target in targets:
                    target.server.first_answer(path)
                    target.check(size=size)
                measured = self._load(title, targets, {"nginx": bar})
            for key in ("loads", "samples"):
                row[key] |= {f"{server}, {title}": n for server, n in measured[key].items()}
            row["verdicts"] += measured["verdicts"]
        return row

    def markdown(self):
        """A rendered page, which a cache holds, against a plain file of the same size."""
        (self.docs / "page.md").write_text(PAGE * 12)
        page, plain = "markdown page", "plain file of its size"
        with Servers() as servers:
            specs = [self.kinds.gatehouse(name, documents=self.docs) for name in (page, plain)]
            running = [servers.start(spec, self.plan.server_core) for spec in specs]
            running[0].first_answer("/doc/page.md")
            size = len(Target(running[0], "/doc/page.md").check())
            (self.docs / "same.txt").write_bytes(text_of(size))
            running[1].first_answer("/doc/same.txt")
            targets = [Target(running[0], "/doc/page.md"), Target(running[1], "/doc/same.txt")]
            targets[1].check(size=size)
            row = self._load("markdown page", targets, {plain: 0.8}, page, False)
        row["facts"] = [("rendered markdown page", size / 1e3, "KB")]
        return row

    def clients(self):
        """Memory of ours while 1,000 clients load the file of 1 MB."""
        (self.docs / "1048576.txt").write_bytes(text_of(1024 * 1024))
        with Servers() as servers:
            spec = self.kinds.gatehouse(OURS, documents=self.docs)
            target = Target(servers.start(spec, self.plan.server_core), "/doc/1048576.txt")
            target.server.first_answer(target.path)
            wrk(target, self.plan.secs, self.plan.load_core)
            pid = target.server.pids()[0]
            before = rss_bytes(pid)
            with Peak(pid) as peak:
                numbers = wrk(target, 2 * self.plan.secs, self.plan.load_core, 1000)
            time.sleep(0.5)
            after = rss_bytes(pid)
        growth = peak.bytes - before
        return {
            "title": "1,000 clients of a 1 MB file",
            "samples": numbers,
            "facts": [
                ("gatehouse before 1,000 clients", before / MB, "MB"),
                ("gatehouse at most during them", peak.bytes / MB, "MB"),
                ("gatehouse after them", after / MB, "MB"),
                ("1,000 clients: throughput", numbers["mb_s"], "MB/s"),
            ],
            "verdicts": [
                verdict("1,000 clients of a 1 MB file: memory grows by", "MB", growth / MB, None,
                        None, FLAT_BYTES_MAX / MB, True),
            ],
        }

    def memory(self):
        """Resident memory when idle and after load."""
        off = {"systeminfo": "enabled=bool:false"}
        bare = self.kinds.gatehouse("bare", **off)
        one = self.kinds.gatehouse("one", ["hello"], **off)
        old = self.kinds.pluginserver(["hello"])
        # What, server, path, is it the worker that is looked at, bar.
        cases = [
            ("server without plugins", bare, "/plugins", False, 15.0),
            ("worker of a small plugin", one, "/hello", True, 20.0),
            ("pluginserver, the same plugin", old, "/hello", False, None),
        ]
        facts, verdicts = [], []
        for what, spec, path, is_worker, bar in cases:
            with Servers() as servers:
                target = Target(servers.start(spec, self.plan.server_core), path)
                target.server.first_answer(path)
                for _ in range(100):
                    target.check()
                root, *below = target.server.pids()
                pids = below if is_worker else [root]
                idle = max(map(rss_bytes, pids)) / MB
                wrk(target, self.plan.secs, self.plan.load_core)
                loaded = max(map(rss_bytes, pids)) / MB
            facts += [(f"{what}, after 100 requests", idle, "MB")]
            facts += [(f"{what}, after {self.plan.secs} s of load", loaded, "MB")]
            if bar:
                verdicts.append(verdict(f"memory of the {what}", "MB", idle, None, None, bar, True))
        return {"title": "memory", "samples": {}, "facts": facts, "verdicts": verdicts}

    def start(self):
        """From starting the process to its first answer of 200."""
        three = ["hello", "echo", "clock"]
        core, both = self.plan.server_core, self.plan.both_cores
        bare, ours, old = "without Python", "three plugins", f"{OLD}, three plugins"
        cases = {
            (bare, core): (lambda: self.kinds.gatehouse("bare"), "/plugins"),
            (ours, core): (lambda: self.kinds.gatehouse("three", three), "/hello"),
            (old, core): (lambda: self.kinds.pluginserver(three), "/hello"),
            (ours, both): (lambda: self.kinds.gatehouse("three", three), "/hello"),
            (old, both): (lambda: self.kinds.pluginserver(three), "/hello"),
        }
        samples = {f"{name}, cores {cores}": [] for name, cores in cases}
        for run in range(self.plan.starts + 1):
            for (name, cores), (make, path) in cases.items():
                with Servers() as servers:
                    took = servers.start(make(), cores).first_answer(path)
                # The first round fills the caches of the disk.
                if run > 0:
                    samples[f"{name}, cores {cores}"].append(took * 1e3)
        found = {name: statistics.median(times) for name, times in samples.items()}

        def against_old(name, cores, bar):
            mine, peer = found[f"{name}, cores {cores}"], found[f"{old}, cores {cores}"]
            where = f"start to first answer, {name}" + ", 2 cores" * (cores == both)
            return verdict(where, "ms", mine, OLD, peer, bar, True)

        verdicts = [against_old(bare, core, 0.2), against_old(ours, core, 1.0)]
        verdicts.append(against_old(ours, both, None))
        return {"title": "start", "samples": samples, "facts": [], "verdicts": verdicts}


class Peak:
    """The most memory that a process had while the ``with`` block ran."""

    def __init__(self, pid):
        self.bytes = rss_bytes(pid)
        self._pid, self._end = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self):
        while not self._end.wait(0.05):
            self.bytes = max(self.bytes, rss_bytes(self._pid))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()


def rounds_for(work_us):
    """How many rounds of the plugin `work` take that long on this interpreter."""
    loop = "total = 0\nfor number in range(1000):\n    total += number * number"
    # The quickest of many: whatever else runs makes it slower, never quicker.
    secs = min(timeit.repeat(loop, number=10, repeat=50)) / 10
    return round(work_us / (secs * 1e6) * 1000)


def text_of(size):
    """That many bytes of text."""
    line = b"The quick brown fox jumps over the lazy dog, and then once more for luck.\n"
    return (line * (size // len(line) + 1))[:size]


def body_of(size):
    """That many bytes of JSON, with members of several kinds."""
    body = {
        "name": "gatehouse",
        "id": 1234567,
        "price": 19.95,
        "active": True,
        "tags": [f"tag-{number}" for number in range(10)],
        "owner": {"name": "somebody", "mail": "somebody@example.org", "groups": [1, 2, 3]},
        "text": "",
    }
    body["text"] = "x" * (size - len(json.dumps(body)))
    return json.dumps(body).encode()


PAGE = """# A page

Some *text* with `code`, a [link](https://example.org), and a list:

- one
- two, **bold**

| key | value |
|-----|-------|
| a   | 1     |
| b   | 2     |

```python
def answer(question: str) -> int:
    return 42  # of course
```

"""
