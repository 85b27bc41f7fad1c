"""Calls a plugin in a test, without a server.

>>> status, body = call(Hello, name="you")
"""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, Mapping, Optional
from urllib.parse import parse_qsl, urlencode

from plugincore import answers
from plugincore.configfile import Config
from plugincore.loading import _make
from plugincore.request import Headers, Request


def call(
    plugin_class: type,
    *,
    subpath: Optional[str] = None,
    method: str = "GET",
    headers: Mapping[str, str] = {},
    body: bytes = b"",
    config: Mapping[str, Any] = {},
    parameters: Mapping[str, Any] = {},
    **variables: Any,
) -> tuple[int, Any]:
    """Makes the plugin, initialises it, asks it once and ends it.

    A JSON or urlencoded ``body`` (by the content type in ``headers``) becomes variables as in the server;
    ``variables`` win over them. Other bodies are read by ``request``.
    Returns ``(status, body)``: the body of a JSON answer as objects, of a text as ``str``, else bytes.
    An exception of the handler is raised to the test.
    """
    return asyncio.run(
        _call(plugin_class, subpath, method, headers, body, config, parameters, variables)
    )


async def _call(
    plugin_class: type,
    subpath: Optional[str],
    method: str,
    headers: Mapping[str, str],
    body: bytes,
    config: Mapping[str, Any],
    parameters: Mapping[str, Any],
    variables: dict[str, Any],
) -> tuple[int, Any]:
    endpoint = await _make(
        plugin_class, dict(parameters), dict(config), SimpleNamespace(log=None, level="DEBUG")
    )
    try:
        flat = tuple(part for pair in headers.items() for part in pair)
        own_headers = Headers(flat)
        asked = variables
        form, variables = _with_body(own_headers, body, variables)
        path = f"/{endpoint.name}" + ("" if subpath is None else f"/{subpath}")
        query = urlencode({k: v for k, v in asked.items() if isinstance(v, (str, int, float))})
        target = f"{path}?{query}" if query else path
        line = (0, 0, method, target, subpath, None, form, flat, "127.0.0.1", body or None, 0)
        variables.pop(endpoint.receiver, None)
        result = endpoint.handler(
            **{
                **variables,
                "subpath": subpath,
                "request_headers": own_headers,
                "client_ip": "127.0.0.1",
                "request": Request(line, own_headers),
                "log": endpoint.log,
            }
        )
        if hasattr(result, "__await__"):
            result = await result
        return await _plain(result)
    finally:
        outcome = endpoint.plugin.terminate_plugin()
        if hasattr(outcome, "__await__"):
            await outcome


def _with_body(
    headers: Headers, body: bytes, variables: dict[str, Any]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The fields of a form, flat, and all variables."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" and body:
        value = json.loads(body)
        return (), {**(value if isinstance(value, dict) else {}), **variables}
    if kind == "application/x-www-form-urlencoded":
        fields = parse_qsl(body.decode(), keep_blank_values=True)
        return tuple(part for field in fields for part in field), {
            # From the back, so that the first of repeated fields stays.
            **dict(reversed(fields)),
            **variables,
        }
    return (), dict(variables)


async def _plain(result: Any) -> tuple[int, Any]:
    status, head, body = answers.answer_of(result)
    if not isinstance(body, bytes):
        events = answers.is_event_stream(head)
        pieces = body if hasattr(body, "__anext__") else _each(body)
        body = b"".join([answers.piece_of(piece, events) async for piece in pieces])
    kind = head if isinstance(head, str) else dict((k.lower(), v) for k, v in head)["content-type"]
    if kind.startswith(answers.JSON):
        return status, json.loads(body)
    return status, body.decode() if kind.startswith("text/") else body


async def _each(body: Any) -> Any:
    for piece in body:
        yield piece


__all__ = ["Config", "call"]
