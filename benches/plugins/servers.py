"""How each server is configured and called: ours and those it is compared with.

Invariant: all of them run the same interpreter, listen on loopback only, and log no requests.
Not here: running them (``processes``).
"""

import os
import pathlib
import shutil
import socket
from dataclasses import dataclass

HERE = pathlib.Path(__file__).resolve().parent
# Variables that would change what the interpreters do or where requests go.
FOREIGN = ("PYTHON", "GATEHOUSE", "GRANIAN", "UVICORN")


@dataclass
class Spec:
    """A server that can be started."""

    name: str
    command: list
    port: int
    log: pathlib.Path
    env: dict


def free_port():
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Kinds:
    """Makes specifications; ``bench`` is the directory of the virtual environments."""

    def __init__(self, bench, gatehouse, python):
        self.bench, self.program, self.python = bench, gatehouse, python
        self.venv = bench / "venv" / "bin"
        self.fast = bench / "fast" / "bin" / "python3"
        self._env = {
            name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)
        }

    def _spec(self, name, command):
        """A specification in an empty directory; ``command`` gets that directory and the port."""
        directory = self.bench / "run" / "".join(c if c.isalnum() else "-" for c in name)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        port = free_port()
        words = [str(word) for word in command(directory, port)]
        return Spec(name, words, port, directory / "log", self._env)

    @staticmethod
    def _write_plugins(directory, plugins, parameters):
        """Copies the plugins; returns the lines of the configuration that speak of them."""
        (directory / "plugins").mkdir()
        for plugin in plugins:
            shutil.copy(HERE / "plugins" / f"{plugin}.py", directory / "plugins")
        # The older program ends on an empty section.
        lines = ["[plugin_parms]"] if parameters else []
        return lines + [f"{name}={value}" for name, value in parameters.items()]

    def gatehouse(self, name="gatehouse", plugins=(), documents=None, fast=False, **parameters):
        """Ours. ``fast``: the workers' interpreter has uvloop and orjson."""

        def command(directory, port):
            lines = ["[network]", "bindto=127.0.0.1", f"port={port}"]
            lines += ["[log]", "access=off", "level=warning"]
            lines += ["[python]", f"interpreter={self.fast if fast else self.python}"]
            if plugins or documents:
                lines += ["[paths]"]
            if plugins:
                lines += [f"plugins={directory / 'plugins'}"]
            if documents:
                lines += [f"documents=doc:{documents}"]
            lines += self._write_plugins(directory, plugins, parameters)
            config = directory / "gatehouse.ini"
            config.write_text("\n".join(lines) + "\n")
            return [self.program, "serve", "-i", config]

        return self._spec(name, command)

    def pluginserver(self, plugins, **parameters):
        """The older program of the same documents, from PyPI."""

        def command(directory, port):
            lines = ["[network]", "bindto=127.0.0.1", f"port={port}"]
            lines += ["[paths]", f"plugins={directory / 'plugins'}"]
            lines += self._write_plugins(directory, plugins, parameters)
            config = directory / "pserve.ini"
            config.write_text("\n".join(lines) + "\n")
            return [self.venv / "python3", self.venv / "pserve", "-i", config, "-v", "ERROR"]

        return self._spec("pluginserver", command)

    def granian(self, name="granian", loop="auto"):
        """One worker, RSGI; ``auto`` takes uvloop, which is installed."""

        def command(_, port):
            words = [self.venv / "python3", "-m", "granian", "--interface", "rsgi"]
            words += ["--workers", "1", "--loop", loop, "--no-access-log", "--log-level", "error"]
            words += ["--working-dir", HERE / "apps", "--host", "127.0.0.1", "--port", port]
            return [*words, "rsgi_app:app"]

        return self._spec(name, command)

    def uvicorn(self):
        """One process, uvloop and httptools."""

        def command(_, port):
            words = [self.venv / "python3", "-m", "uvicorn", "--loop", "uvloop"]
            words += ["--http", "httptools", "--lifespan", "off", "--no-access-log"]
            words += ["--log-level", "error", "--app-dir", HERE / "apps"]
            return [*words, "--host", "127.0.0.1", "--port", port, "asgi_app:app"]

        return self._spec("uvicorn", command)

    def nginx(self, documents):
        """One worker process that sends files."""

        def command(directory, port):
            user = "user root;\n" if os.getuid() == 0 else ""
            temporary = "".join(
                f"    {kind}_temp_path {directory}/{kind};\n"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            config = directory / "nginx.conf"
            config.write_text(
                f"{user}daemon off;\nworker_processes 1;\npid {directory}/pid;\n"
                f"error_log {directory}/error.log;\nevents {{ worker_connections 4096; }}\n"
                f"http {{\n{temporary}"
                "    types { text/plain txt; }\n    default_type application/octet-stream;\n"
                "    sendfile on;\n    tcp_nopush on;\n    access_log off;\n"
                "    keepalive_timeout 75;\n    keepalive_requests 100000000;\n"
                f"    server {{\n        listen 127.0.0.1:{port};\n"
                f"        location /doc/ {{ alias {documents}/; }}\n    }}\n}}\n"
            )
            program = shutil.which("nginx") or "/usr/sbin/nginx"
            return [program, "-e", f"{directory}/error.log", "-p", directory, "-c", config]

        return self._spec("nginx", command)
