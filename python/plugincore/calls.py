"""Requests in, answers out: the path that every call to a plugin takes.

It is written for many small calls: a batch of requests is one list, a plain handler is one Python call,
and all answers of a batch leave in one frame.
"""

from __future__ import annotations

import asyncio
import sys
from types import CoroutineType

from plugincore import answers
from plugincore.channel import FRAME_BYTES_MAX
from plugincore.loading import traceback_of
from plugincore.request import Headers, Request
from plugincore.steps import Steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional

    from plugincore.channel import Channel
    from plugincore.loading import Endpoint

# What the server says of a body: it is JSON, or it may be (a form's content type, or none at all).
MUST_BE_JSON = 1
MAY_BE_JSON = 2

#: Pieces of a body in pieces that may be under way before the server has passed one on.
PIECES_AHEAD = 16

# Kinds of messages that are no call (their first element) in both directions.
PING = -1
STREAM_HEAD = -2
STREAM_PIECE = -3
STREAM_END = -4
CANCEL = -5
CREDIT = -6
STOP = -7
HELLO = -8

_EAGER = sys.version_info >= (3, 11)


class BadBody(Exception):
    """The body is not what its content type says."""


class Calls:
    """The calls of one worker."""

    def __init__(self, channel: Channel, endpoints: list[Endpoint], reply_bytes_max: int) -> None:
        self._channel = channel
        self._endpoints = endpoints
        self._reply_bytes_max = reply_bytes_max
        self._loop = asyncio.get_running_loop()
        self._steps = Steps(self._loop)
        self._running: dict[int, asyncio.Task] = {}
        self._credits: dict[int, asyncio.Semaphore] = {}
        self._loads = _json_loads()

    def begin(self, call: tuple) -> None:
        """Runs one call as far as it goes without waiting."""
        call_id, slot, _, _, subpath, query, form, flat_headers, client_ip, body, kind = call
        endpoint = None
        steps = self._steps
        try:
            endpoint = self._endpoints[slot]
            if body is None:
                data = query or {}
            else:
                data = self._body_variables(body, kind, form)
                if query:
                    data.update(query)
            data.pop(endpoint.receiver, None)
            headers = Headers(flat_headers)
            data["subpath"] = subpath
            data["request_headers"] = headers
            data["client_ip"] = client_ip
            data["request"] = Request(call, headers)
            data["log"] = endpoint.log
            result = steps.context.run(endpoint.handler, **data)
            if type(result) is CoroutineType:
                if not _EAGER:
                    self._start_task(call_id, endpoint, result)
                    return
                done, value = steps.first(result)
                if not done:
                    task = steps.rest(result, value, self._finisher(call_id, endpoint))
                    self._running[call_id] = task
                    return
                result = value
            kind = type(result)
            if kind is not tuple and kind is not dict and hasattr(result, "__await__"):
                self._start_task(call_id, endpoint, result)
            else:
                self._answer(call_id, endpoint, result)
        except BadBody as error:
            self._channel.send((call_id, 400, answers.JSON, answers.failure(str(error))))
        except BaseException as error:
            self._fail(call_id, endpoint, error)
        steps.leave_no_trace()

    def cancel(self, call_id: int) -> None:
        """Ends a call that nobody waits for any more."""
        task = self._running.get(call_id)
        if task is not None:
            task.cancel()

    def cancel_all(self) -> None:
        """Ends every call: the server waits no longer."""
        for task in list(self._running.values()):
            task.cancel()

    def credit(self, call_id: int, pieces: int) -> None:
        """The server has passed on ``pieces`` of a body in pieces."""
        credits = self._credits.get(call_id)
        if credits is not None:
            for _ in range(pieces):
                credits.release()

    async def finish(self) -> None:
        """Waits for the calls that are still under way."""
        while self._running:
            await asyncio.wait(list(self._running.values()))

    def _body_variables(self, body: bytes, kind: int, form: Any) -> dict:
        if kind == MUST_BE_JSON or (kind == MAY_BE_JSON and body.lstrip()[:1] == b"{"):
            try:
                value = self._loads(body)
            except (ValueError, RecursionError) as error:
                if kind == MUST_BE_JSON:
                    raise BadBody(f"the body is not valid JSON: {error}") from None
            else:
                return value if type(value) is dict else {}
        if not form:
            return {}
        # From the back, so that the first of repeated fields stays.
        return {form[i]: form[i + 1] for i in range(len(form) - 2, -1, -2)}

    def _answer(self, call_id: int, endpoint: Endpoint, result: Any) -> None:
        status, head, body = answers.answer_of(result)
        if type(body) is not bytes:
            self._start_pieces(call_id, endpoint, status, head, body)
            return
        size = len(body)
        if size > self._reply_bytes_max:
            raise ReplyTooLarge(size, self._reply_bytes_max)
        if type(head) is not str:
            size += sum(len(name) + len(value) for name, value in head)
        self._channel.send((call_id, status, head, body), size)

    def _fail(self, call_id: int, endpoint: Optional[Endpoint], error: BaseException) -> None:
        """Answers a call that has failed; whatever the error is, this raises none."""
        try:
            if endpoint is not None and answers.is_aiohttp_response(error):
                # aiohttp's way to end a handler: `raise web.HTTPNotFound()`.
                self._answer(call_id, endpoint, error)
                return
        except BaseException as problem:
            error = problem
        try:
            message = self._report(endpoint, error)
        except BaseException:
            message = "the request failed"
        self._channel.send((call_id, 500, answers.JSON, answers.failure(message)))

    def _report(self, endpoint: Optional[Endpoint], error: BaseException) -> str:
        """Logs ``error``; gives what the client is told of it."""
        if endpoint is None:
            return "the worker has no such endpoint"
        if isinstance(error, (ReplyTooLarge, answers.NotSerializable)):
            message = f"{endpoint.name}: the answer cannot be sent: {error}"
            endpoint.worker_log.error(message)
        else:
            message = f"{endpoint.name}: {type(error).__name__} while handling the request"
            endpoint.worker_log.error(message)
            endpoint.worker_log.error(traceback_of(error))
        return message

    def _finisher(self, call_id: int, endpoint: Endpoint) -> Callable[[Any, Any], None]:
        def finish(result: Any, error: Any) -> None:
            self._running.pop(call_id, None)
            try:
                if error is None:
                    self._answer(call_id, endpoint, result)
                elif not isinstance(error, asyncio.CancelledError):
                    self._fail(call_id, endpoint, error)
                else:
                    message = f"{endpoint.name}: the request was cancelled"
                    self._channel.send((call_id, 500, answers.JSON, answers.failure(message)))
            except BaseException as problem:
                self._fail(call_id, endpoint, problem)

        return finish

    def _start_task(self, call_id: int, endpoint: Endpoint, awaitable: Any) -> None:
        finish = self._finisher(call_id, endpoint)

        async def run() -> tuple[Any, Any]:
            try:
                return await awaitable, None
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                return None, error

        def ended(task: asyncio.Task) -> None:
            if not task.cancelled():
                finish(*task.result())
                return
            try:
                if hasattr(awaitable, "close"):
                    awaitable.close()  # Cancelled before its first step: it would complain.
            finally:
                finish(None, asyncio.CancelledError())

        task = self._loop.create_task(run())
        task.add_done_callback(ended)
        self._running[call_id] = task

    def _start_pieces(
        self, call_id: int, endpoint: Endpoint, status: int, head: Any, body: Any
    ) -> None:
        self._credits[call_id] = asyncio.Semaphore(PIECES_AHEAD)
        self._channel.send((STREAM_HEAD, call_id, status, head))
        events = answers.is_event_stream(head)
        task = self._loop.create_task(self._send_pieces(call_id, events, body))
        self._running[call_id] = task

        # A callback, because a task that is cancelled before its first step never runs at all.
        def ended(task: asyncio.Task) -> None:
            self._credits.pop(call_id, None)
            self._running.pop(call_id, None)
            problem = "cancelled" if task.cancelled() else self._problem(endpoint, task.result())
            self._channel.send((STREAM_END, call_id, problem))

        task.add_done_callback(ended)

    async def _send_pieces(
        self, call_id: int, events: bool, body: Any
    ) -> Optional[BaseException]:
        """Sends all pieces; returns what went wrong, since a task does not hold a SystemExit."""
        credits = self._credits[call_id]
        try:
            try:
                async for piece in _each(body):
                    data = answers.piece_of(piece, events)
                    # An empty piece is none; a long one is several, each with its own credit.
                    for at in range(0, len(data), FRAME_BYTES_MAX):
                        await credits.acquire()
                        part = data[at : at + FRAME_BYTES_MAX]
                        self._channel.send((STREAM_PIECE, call_id, part), len(part))
            finally:
                close = getattr(body, "aclose", None)
                if close is not None:
                    await close()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            return error
        return None

    def _problem(self, endpoint: Endpoint, error: Optional[BaseException]) -> Optional[str]:
        if error is None:
            return None
        problem = f"{type(error).__name__} while sending the answer"
        endpoint.worker_log.error(f"{endpoint.name}: {problem}")
        endpoint.worker_log.error(traceback_of(error))
        return problem


def unsendable(message: tuple) -> tuple:
    """What is sent instead of a message that has no form on the wire."""
    body = answers.failure("the answer holds something that cannot be sent")
    if message[0] == STREAM_HEAD:
        return (STREAM_HEAD, message[1], 500, answers.JSON)
    if message[0] < 0:
        return (STREAM_END, message[1], "a piece of the answer cannot be sent")
    return (message[0], 500, answers.JSON, body)


class ReplyTooLarge(Exception):
    """The answer is longer than an answer may be."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"{size} bytes where {limit} are allowed ([limits] reply_bytes_max)")


async def _each(body: Any) -> Any:
    if hasattr(body, "__anext__"):
        async for piece in body:
            yield piece
    else:
        for piece in body:
            yield piece
            await asyncio.sleep(0)


def _json_loads() -> Callable[[bytes], Any]:
    try:
        import orjson

        return orjson.loads
    except ImportError:
        pass
    try:
        import msgspec

        return msgspec.json.Decoder().decode
    except ImportError:
        import json

        decode = json.JSONDecoder().decode
        # Bytes are decoded here: `json.loads` would guess UTF-16 and UTF-32, which JSON has left behind.
        return lambda body: decode(str(body, "utf-8"))
