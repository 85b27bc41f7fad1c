"""From what a handler returned to what the server sends.

Every answer becomes ``(status, head, body)``: ``head`` is the content type, or a list of header pairs;
``body`` is bytes, or an (async) iterator for a body in pieces.
"""

from __future__ import annotations

import json
import math
import sys
from json import encoder as _encoder

from plugincore.request import Headers
from plugincore.response import Response, plain_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Union

    Head = Union[str, list]
    Answer = tuple[int, Head, Any]

JSON = "application/json"
HTML = "text/html; charset=utf-8"
BYTES = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"
EVENTS = "text/event-stream"


class NotSerializable(Exception):
    """The handler returned something that has no form on the wire."""


def _standard_encoder() -> Callable[[Any], bytes]:
    """The standard library's encoder without the object it makes for every call of ``json.dumps``."""

    def refuse(value: Any) -> Any:
        if isinstance(value, Headers):
            return value.copy()
        raise TypeError(f"an object of type {type(value).__name__} has no form in JSON")

    make = getattr(_encoder, "c_make_encoder", None)
    if make is None:
        plain = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=refuse)
        return lambda value: plain.encode(value).encode()

    text = _encoder.encode_basestring_ascii

    def encode(value: Any) -> bytes:
        # The markers (against cycles) are new for each value: a failed call leaves its own behind.
        parts = make({}, refuse, text, None, ":", ",", False, False, False)(value, 0)
        return "".join(parts).encode()

    return encode


def _fast_encoder() -> Callable[[Any], bytes]:
    """orjson's encoder where it is installed, else the standard one.

    What the standard one refuses is refused with orjson as well: whether an answer works must not hang
    on a package. (msgspec's cannot be told to refuse sets and bytes, so it only reads; see ``calls``.)
    """
    try:
        import orjson
    except ImportError:
        return _standard_encoder()
    option = (
        orjson.OPT_PASSTHROUGH_SUBCLASS
        | orjson.OPT_PASSTHROUGH_DATETIME
        | orjson.OPT_PASSTHROUGH_DATACLASS
    )
    return lambda value: orjson.dumps(value, option=option)


_encode_exactly = _standard_encoder()
_encode_fast = _fast_encoder()


def encode_json(value: Any) -> bytes:
    """``value`` as JSON; what has no form there is :class:`NotSerializable`.

    A float that JSON cannot hold (infinite, or not a number) becomes ``null``.
    """
    try:
        return _encode_fast(value)
    except Exception:
        pass
    try:
        # Second opinion: the standard library takes more kinds of keys and of subclasses.
        return _encode_exactly(value)
    except ValueError:
        try:
            return _encode_exactly(_without_odd_floats(value))
        except Exception as error:
            raise NotSerializable(str(error)) from error
    except Exception as error:
        raise NotSerializable(str(error)) from error


def _without_odd_floats(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_odd_floats(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_odd_floats(inner) for inner in value]
    return value


def answer_of(result: Any) -> Answer:
    """The answer that ``result``, a handler's return value, means."""
    status = 200
    if type(result) is tuple and len(result) == 2 and isinstance(result[0], int):
        status, result = _status(result[0]), result[1]
    kind = type(result)
    if kind is dict or kind is list:
        return status, JSON, encode_json(result)
    if kind is str:
        return status, HTML, result.encode("utf-8", "replace")
    return _rarer_answer(status, result)


def _status(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 200 <= value <= 599:
        raise NotSerializable(f"{value!r} is no status code of an answer (200 to 599)")
    return int(value)


def _rarer_answer(status: int, result: Any) -> Answer:
    if isinstance(result, (bytes, bytearray, memoryview)):
        return status, BYTES, bytes(result)
    if isinstance(result, Response):
        return _own_response(result)
    if is_aiohttp_response(result):
        return _aiohttp_response(result)
    if hasattr(result, "__anext__") or hasattr(result, "__next__"):
        return status, TEXT, result
    if isinstance(result, str):
        return status, HTML, result.encode("utf-8", "replace")
    return status, JSON, encode_json(result)


def _own_response(response: Response) -> Answer:
    pairs = response.header_pairs()
    _, head, body = answer_of(response.body)
    if not any(name.lower() == "content-type" for name, _ in pairs):
        pairs.append(("content-type", head if isinstance(head, str) else BYTES))
    return _status(response.status), pairs, body


def is_aiohttp_response(result: Any) -> bool:
    """Whether ``result`` is a response of aiohttp, which need not be installed."""
    web = sys.modules.get("aiohttp.web")
    return web is not None and isinstance(result, web.StreamResponse)


def _aiohttp_response(response: Any) -> Answer:
    if not hasattr(response, "body"):
        # A FileResponse or a StreamResponse writes to aiohttp's own connection, and there is none.
        kind = type(response).__name__
        raise NotSerializable(f"an aiohttp {kind} cannot be sent; return its bytes or a generator")
    body = response.body
    if body is not None and not isinstance(body, (bytes, bytearray)):
        body = getattr(body, "_value", body)
    if body is not None and not isinstance(body, (bytes, bytearray, memoryview)):
        raise NotSerializable(f"an aiohttp response with a body of {type(body).__name__}")
    pairs = [(plain_text(name), plain_text(value)) for name, value in response.headers.items()]
    pairs.extend(("set-cookie", morsel.OutputString()) for morsel in response.cookies.values())
    if not any(name.lower() == "content-type" for name, _ in pairs):
        pairs.append(("content-type", plain_text(response.content_type)))
    return _status(response.status), pairs, bytes(body or b"")


def piece_of(piece: Any, events: bool) -> bytes:
    """One piece of a body in pieces; with ``events`` a plain value becomes a server-sent event."""
    if isinstance(piece, (bytes, bytearray, memoryview)):
        return bytes(piece)
    if isinstance(piece, str):
        if not events or piece.endswith("\n\n"):
            return piece.encode("utf-8", "replace")
        return "".join(f"data: {line}\n" for line in piece.splitlines() or [""]).encode() + b"\n"
    data = encode_json(piece)
    return b"data: " + data + b"\n\n" if events else data


def is_event_stream(head: Head) -> bool:
    """Whether the headers say that the body is a stream of events."""
    if isinstance(head, str):
        return head.startswith(EVENTS)
    return any(n.lower() == "content-type" and v.lower().startswith(EVENTS) for n, v in head)


def failure(message: str) -> bytes:
    """The body of an answer that reports an error."""
    return encode_json({"error": message})
