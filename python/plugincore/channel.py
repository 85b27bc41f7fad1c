"""The worker's end of the socket to the server.

A frame is a length (32 bits, little-endian) and a list in the interpreter's own ``marshal`` format:
one C call turns a whole batch of requests into Python objects, and another turns the answers into
bytes. The server writes and reads only the plain types (None, int, str, bytes, tuple, list, dict).
Data from clients travels inside strings and bytes and is never itself unmarshalled.
"""

from __future__ import annotations

import marshal
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    import socket
    from typing import Callable

#: Version 2 has neither references nor short forms, so the server's reader stays small.
_FORMAT = 2
_READ_BYTES = 256 * 1024
#: Messages that carry at least this much get a frame of their own.
_LARGE_BYTES = 64 * 1024
#: What waits leaves before it is longer than this, and a body in pieces has none that are longer: only a
#: single answer makes a frame that is larger.
FRAME_BYTES_MAX = 256 * 1024
#: About what a message takes beside what it carries.
_MESSAGE_BYTES = 64


class Channel:
    """Frames in, frames out; what is sent during one turn of the loop leaves together."""

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        on_messages: Callable[[list], None],
        on_end: Callable[[], None],
        on_unsendable: Callable[[tuple], tuple],
    ) -> None:
        self._sock = sock
        self._loop = loop
        self._on_messages = on_messages
        self._on_end = on_end
        #: Gives what is sent instead of a message that has no form.
        self._on_unsendable = on_unsendable
        self._buffer = bytearray(_READ_BYTES)
        self._filled = 0
        self._out: list[tuple] = []
        self._out_bytes = 0
        self._backlog: deque = deque()
        self._flush_scheduled = False
        self._reading = False

    def open(self) -> None:
        """Begins to listen to the server."""
        self._sock.setblocking(False)
        self._loop.add_reader(self._sock.fileno(), self._readable)

    def close(self) -> None:
        """Sends what is left, as far as the socket takes it at once, and hangs up."""
        self._flush()
        self._loop.remove_reader(self._sock.fileno())
        if self._backlog:
            self._loop.remove_writer(self._sock.fileno())
            self._sock.setblocking(True)
            self._sock.settimeout(5)
            try:
                for part in self._backlog:
                    self._sock.sendall(part)
            except OSError:
                pass
        self._sock.close()

    def send(self, message: tuple, size: int = 0) -> None:
        """Sends ``message`` with whatever else this turn of the loop brings.

        ``size`` is how many bytes it carries; a large one gets a frame of its own.
        """
        if size >= _LARGE_BYTES:
            self._flush()
            self._write_frame([message])
            return
        size += self._out_bytes + _MESSAGE_BYTES
        if size > FRAME_BYTES_MAX:
            size -= self._out_bytes
            self._flush()
        self._out_bytes = size
        self._out.append(message)
        if not self._reading and not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _readable(self) -> None:
        try:
            count = self._sock.recv_into(memoryview(self._buffer)[self._filled :])
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            count = 0
        if count == 0:
            self._loop.remove_reader(self._sock.fileno())
            self._on_end()
            return
        self._filled += count
        # All frames leave the buffer before the first is looked into: whatever happens to one message, none
        # is seen twice and none is missed.
        try:
            frames = self._take_frames()
        except MemoryError:
            # The request does not fit, and will not the next time: the server starts another worker.
            self._loop.remove_reader(self._sock.fileno())
            self._on_end()
            return
        self._reading = True
        try:
            for messages in frames:
                self._on_messages(messages)
        finally:
            self._reading = False
            self._flush()

    def _take_frames(self) -> list[list]:
        frames = []
        view = memoryview(self._buffer)
        at = 0
        need = 4
        while self._filled - at >= 4:
            need = 4 + int.from_bytes(view[at : at + 4], "little")
            if self._filled - at < need:
                break
            frames.append(marshal.loads(view[at + 4 : at + need]))
            at += need
            need = 4
        rest = self._filled - at
        if need > len(view) or (len(view) > _READ_BYTES and need <= _READ_BYTES and rest == 0):
            # Room for one large frame, and back to the ordinary size after it.
            fresh = bytearray(max(need, _READ_BYTES))
            fresh[:rest] = view[at : self._filled]
            self._buffer = fresh
        elif at and rest:
            self._buffer[:rest] = bytes(view[at : self._filled])
        self._filled = rest
        return frames

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._out:
            messages, self._out, self._out_bytes = self._out, [], 0
            self._write_frame(messages)

    def _write_frame(self, messages: list[tuple]) -> None:
        try:
            payload = marshal.dumps(messages, _FORMAT)
        except ValueError:
            # One message has no form: the others must not be lost with it.
            if len(messages) > 1:
                for message in messages:
                    self._write_frame([message])
                return
            payload = marshal.dumps([self._on_unsendable(messages[0])], _FORMAT)
        self._write(len(payload).to_bytes(4, "little") + payload)

    def _write(self, data: bytes) -> None:
        if not self._backlog:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                return  # The server has gone; the reader sees it and ends the worker.
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
            self._loop.add_writer(self._sock.fileno(), self._writable)
        self._backlog.append(data)

    def _writable(self) -> None:
        while self._backlog:
            part = self._backlog[0]
            try:
                sent = self._sock.send(part)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._backlog.clear()
                break
            if sent < len(part):
                self._backlog[0] = memoryview(part)[sent:]
                return
            self._backlog.popleft()
        self._loop.remove_writer(self._sock.fileno())
