"""The process that runs one plugin file: ``python -m plugincore.worker``.

Standard input is the socket to the server. The server says what to load (``HELLO``), the worker answers
with its endpoints, and from then on calls come and answers go until the server says ``STOP`` or is gone.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from types import SimpleNamespace

from plugincore import answers, loading, logjam
from plugincore import calls as kinds
from plugincore.calls import Calls
from plugincore.channel import Channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

#: The first thing either side says; a server of another version is refused.
PROTOCOL_VERSION = 1


class Worker:
    """The life of the process: hello, load, calls, stop."""

    def __init__(self, channel_socket: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._log = logjam.LogJam(name="worker")
        self._socket = channel_socket
        self._channel = Channel(
            channel_socket, self._loop, self._take, self._server_is_gone, kinds.unsendable
        )
        self._calls: Optional[Calls] = None
        self._endpoints: list[loading.Endpoint] = []
        self._hello: asyncio.Future = self._loop.create_future()
        self._end: asyncio.Future = self._loop.create_future()

    async def run(self) -> None:
        """Everything, from the first word to the last."""
        self._channel.open()
        hello = await self._hello
        if hello is not None and await self._load(hello):
            stop_kindly = await self._end
            if stop_kindly:
                await self._calls.finish()
            await self._terminate_plugins()
        self._channel.close()

    def _take(self, messages: list) -> None:
        for message in messages:
            try:
                if message[0] >= 0:
                    self._calls.begin(message)
                else:
                    self._control(message)
            except BaseException as error:
                # It must not take the messages after it along.
                self._not_taken(message, error)

    def _not_taken(self, message: tuple, error: BaseException) -> None:
        self._log.error(loading.traceback_of(error))
        if message[0] >= 0:
            body = answers.failure("the worker could not take the request")
            self._channel.send((message[0], 500, answers.JSON, body))

    def _control(self, message: tuple) -> None:
        kind = message[0]
        if kind == kinds.PING:
            self._channel.send(message)
        elif kind == kinds.CANCEL:
            self._calls.cancel(message[1])
        elif kind == kinds.CREDIT:
            self._calls.credit(message[1], message[2])
        elif kind == kinds.STOP:
            if not self._end.done():
                self._end.set_result(True)
            else:
                self._calls.cancel_all()
        elif kind == kinds.HELLO and not self._hello.done():
            self._hello.set_result(json.loads(message[1]))

    def _server_is_gone(self) -> None:
        for future in (self._hello, self._end):
            if not future.done():
                future.set_result(None)

    async def _load(self, hello: dict[str, Any]) -> bool:
        logjam.set_level(hello["log_level"])
        _end_with_the_server(self._socket, hello["stop_secs"])
        _limit_memory(hello["memory_bytes_max"])
        _make_importable(os.path.dirname(hello["file"]))
        outcome: dict[str, Any] = {"version": PROTOCOL_VERSION, "plugins": [], "failures": []}
        try:
            if hello["version"] != PROTOCOL_VERSION:
                raise RuntimeError(
                    f"this plugincore speaks version {PROTOCOL_VERSION} of the worker protocol, "
                    f"the server version {hello['version']}"
                )
            self._endpoints, outcome["failures"] = await loading.load(
                hello["file"],
                hello["parameters"],
                hello["config"],
                SimpleNamespace(**hello["args"]),
            )
            outcome["plugins"] = [endpoint.description() for endpoint in self._endpoints]
        except BaseException as error:
            outcome["failures"].append(loading.report(error, ""))
        self._calls = Calls(self._channel, self._endpoints, hello["reply_bytes_max"])
        self._channel.send((kinds.HELLO, json.dumps(outcome)))
        return bool(self._endpoints)

    async def _terminate_plugins(self) -> None:
        for endpoint in self._endpoints:
            try:
                outcome = endpoint.plugin.terminate_plugin()
                if hasattr(outcome, "__await__"):
                    await outcome
            except BaseException as error:
                endpoint.worker_log.error(loading.traceback_of(error))


def _end_with_the_server(channel_socket: socket.socket, stop_secs: float) -> None:
    """Ends this process some time after the server has gone, whatever a plugin is doing.

    The event loop sees the end as well and leaves in good order; a handler that blocks it would keep
    the process alive for ever, and nobody is left to end it from outside.
    """
    import _thread
    import select
    import time

    def wait() -> None:
        poll = select.poll()
        poll.register(channel_socket.fileno(), select.POLLRDHUP)
        poll.poll()
        time.sleep(stop_secs)
        os._exit(1)

    before = _thread.stack_size(256 * 1024)
    _thread.start_new_thread(wait, ())
    _thread.stack_size(before)


def _limit_memory(bytes_max: int) -> None:
    if bytes_max:
        try:
            import resource

            # Data, not address space: libraries map far more than they ever use.
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            limit = bytes_max if hard == resource.RLIM_INFINITY else min(bytes_max, hard)
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        except Exception as error:
            log = logjam.LogJam(name="worker")
            log.warning(f"the memory of the worker is not limited: {type(error).__name__}: {error}")


def _make_importable(directory: str) -> None:
    """Lets a plugin import the modules beside it; those of Python itself come first."""
    at = len(sys.path)
    for index, entry in enumerate(sys.path):
        if "site-packages" in entry or "dist-packages" in entry:
            at = index
            break
    sys.path.insert(at, directory)


def _take_socket() -> socket.socket:
    """The socket that standard input is, out of reach of the plugin and of its children."""
    sock = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    # A child that a plugin forks would keep the link open after this process has died.
    os.register_at_fork(after_in_child=sock.close)
    return sock


def _policy() -> None:
    try:
        import uvloop
    except ImportError:
        return
    uvloop.install()


async def _main() -> None:
    await Worker(_take_socket()).run()


def main() -> None:
    """Runs the worker until the server ends it."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
    # Ctrl-C in a terminal is the server's to handle; it ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _policy()
    asyncio.run(_main())


if __name__ == "__main__":
    main()
