"""Starts servers, looks at what they use, and ends them with all their children.

Invariant: what is started here has ended when :class:`Servers` is left. Only processes that were
started here are ended, each by its id and only while it is still the same process.
Not here: how a server is configured (``servers``).
"""

import http.client
import os
import signal
import socket
import subprocess
import time

STARTS_WITHIN_SECS = 30
ENDS_WITHIN_SECS = 5
TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """Something cannot be measured; the text says why."""


def _stat(pid):
    """The fields of /proc/PID/stat behind the name, or None when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def _tree(root):
    """``{pid: when it started}`` of a process and all below it, the root first."""
    parents, started = {}, {}
    for name in os.listdir("/proc"):
        fields = _stat(name) if name.isdigit() else None
        if fields:
            parents.setdefault(int(fields[1]), []).append(int(name))
            started[int(name)] = fields[19]
    found, waiting = {}, [root]
    while waiting:
        pid = waiting.pop()
        if pid in started:
            found[pid] = started[pid]
            waiting += parents.get(pid, [])
    return found


def _same(pid, started):
    fields = _stat(pid)
    return bool(fields) and fields[19] == started and fields[0] != "Z"


class Running:
    """One server process, listening on ``port``."""

    def __init__(self, name, command, port, log, env):
        self.name, self.port, self.log = name, port, log
        self.began = time.perf_counter()
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env
            )

    def get(self, path, body=None):
        """The status and body of the answer to a GET, or to a POST of ``body``."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=STARTS_WITHIN_SECS)
        try:
            headers = {"content-type": "application/json"} if body else {}
            connection.request("POST" if body else "GET", path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def first_answer(self, path):
        """Asks until the answer is 200; returns the seconds since the process was started."""
        ask = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode()
        seen = b""
        while time.perf_counter() - self.began < STARTS_WITHIN_SECS:
            if self.process.poll() is not None:
                break
            try:
                with socket.create_connection(("127.0.0.1", self.port), STARTS_WITHIN_SECS) as peer:
                    peer.sendall(ask)
                    seen = peer.recv(64)
                if seen[9:12] == b"200":
                    return time.perf_counter() - self.began
            except OSError:
                pass
            time.sleep(0.0005)
        with open(self.log, encoding="utf-8", errors="replace") as log:
            said = log.read()[-2000:]
        raise Failed(f"{self.name} gave no answer to {path}; last: {seen!r}; it said:\n{said}")

    def pids(self):
        """The process and all below it, the first one first."""
        return list(_tree(self.process.pid))

    def cpu_secs(self):
        """Processor time that the process and all below it have used."""
        stats = [fields for fields in map(_stat, self.pids()) if fields]
        return sum(int(fields[11]) + int(fields[12]) for fields in stats) / TICKS

    def end(self):
        """Ends the process; what it left behind below it is ended too."""
        tree = _tree(self.process.pid) if self.process.poll() is None else {}
        if tree:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(ENDS_WITHIN_SECS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        for pid, started in tree.items():
            if _same(pid, started):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass


class Servers:
    """Running servers, ended together when the ``with`` block is left."""

    def __init__(self):
        self._running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for server in reversed(self._running):
            server.end()

    def start(self, spec, cores):
        """Starts what ``spec`` describes on ``cores``, as in ``0`` or ``0,1``."""
        command = ["taskset", "-c", cores, *spec.command]
        server = Running(spec.name, command, spec.port, spec.log, spec.env)
        self._running.append(server)
        return server


def busy_secs():
    """Processor time that everything on the machine has used, and what its host kept from it."""
    with open("/proc/stat", encoding="utf-8") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def rss_bytes(pid):
    """Resident memory of one process."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            line = next((line for line in file if line.startswith("VmRSS:")), "VmRSS: 0 kB")
    except OSError:
        return 0
    return int(line.split()[1]) * 1024
