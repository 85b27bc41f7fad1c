"""How each server is configured and called: ours and those it is compared with.

Invariant: all of them listen on loopback only, and keep what they store below one directory, so
that all have the same disk.
Not here: running them (``processes``).
"""

import os
import pathlib
import pwd
import secrets
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass

from processes import STARTS_WITHIN_SECS, Failed

# Variables that would change what the servers do.
FOREIGN = ("GATEHOUSE", "PG", "NATS", "REDIS")


@dataclass
class Spec:
    """A server that can be started."""

    name: str
    command: list
    port: int
    log: pathlib.Path
    env: dict
    #: Of the account ``bench`` there, where one is needed.
    password: str = ""


def free_port():
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listening(server):
    """Waits until the server accepts connections; returns it."""
    until = time.monotonic() + STARTS_WITHIN_SECS
    while time.monotonic() < until and server.process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", server.port), 1).close()
            return server
        except OSError:
            time.sleep(0.02)
    said = server.log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise Failed(f"{server.name} does not listen; it said:\n{said}")


class Kinds:
    """Makes specifications.

    ``data`` is the directory below which everything is stored; ``connections`` is how many ours
    must take at once.
    """

    def __init__(self, bench, gatehouse, data, connections):
        self.program, self.data, self.connections = gatehouse, data, connections
        self.nats_server = bench / "nats" / "bin" / "nats-server"
        # Debian keeps each version's programs out of the PATH.
        debian = pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")
        newest = sorted(debian, key=lambda path: float(path.parts[4]))[-1:]
        initdb = newest[0] if newest else shutil.which("initdb") or "/usr/bin/initdb"
        self.postgres_bin = pathlib.Path(initdb).parent
        self.env = {
            name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)
        }

    def directory(self, name):
        """An empty one for that server."""
        directory = self.data / "".join(c if c.isalnum() else "-" for c in name)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        return directory

    def _run(self, command, **more):
        """Runs a program that prepares something, to its end."""
        words = [str(word) for word in command]
        run = subprocess.run(
            words, capture_output=True, text=True, timeout=120, check=False, env=self.env, **more
        )
        if run.returncode != 0:
            raise Failed(f"{words[0]} failed: {run.stdout[-500:]}{run.stderr[-500:]}")

    def gatehouse(self, name="gatehouse"):
        """Ours, with an account ``bench`` for an admin."""
        directory, password = self.directory(name), secrets.token_hex(16)
        database, config, port = directory / "tasks.db", directory / "gatehouse.ini", free_port()
        lines = ["[network]", "bindto=127.0.0.1", f"port={port}", "[log]", "access=off"]
        lines += ["level=warning", "[limits]", f"connections_max={self.connections}"]
        lines += ["[tasks]", f"database={database}"]
        config.write_text("\n".join(lines) + "\n")
        words = [self.program, "addaccount", database, "bench", "admin"]
        self._run(words, input=password + "\n")
        command = [str(self.program), "serve", "-i", str(config)]
        return Spec(name, command, port, directory / "log", self.env, password)

    def nats(self, name, sync_always=False):
        """One server for both: JetStream is on, and is not asked by requests and replies."""
        directory, port = self.directory(name), free_port()
        config = directory / "nats.conf"
        sync = ", sync_interval: always" if sync_always else ""
        config.write_text(
            f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{directory}/store"{sync} }}\n'
        )
        command = [str(self.nats_server), "-c", str(config)]
        return Spec(name, command, port, directory / "log", self.env)

    def redis(self):
        """Every command is in its file and synced before it is answered."""
        directory, port = self.directory("redis"), free_port()
        command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", directory]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        return Spec("redis", list(map(str, command)), port, directory / "log", self.env)

    def postgres(self):
        """As its packages configure it, which syncs each commit. It refuses to run as root."""
        directory, port, password = self.directory("postgresql"), free_port(), secrets.token_hex(16)
        cluster, secret = directory / "cluster", directory / "password"
        cluster.mkdir(mode=0o700)
        secret.write_text(password + "\n")
        as_user = []
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}"]
            as_user += ["--clear-groups", "--"]
            for path in (cluster, secret):
                os.chown(path, user.pw_uid, user.pw_gid)
        init = [self.postgres_bin / "initdb", "-D", cluster, "-U", "bench", "--locale=C"]
        init += ["--encoding=UTF8", "--auth=scram-sha-256", f"--pwfile={secret}"]
        self._run([*as_user, *init], cwd=directory)
        secret.unlink()
        command = [*as_user, self.postgres_bin / "postgres", "-D", cluster, "-p", port]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        words = list(map(str, command))
        return Spec("postgresql", words, port, directory / "log", self.env, password)
