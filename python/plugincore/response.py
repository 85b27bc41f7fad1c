"""An answer with headers and cookies of its own."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Mapping, Optional, Union


class Response:
    """``return Response(201, {"id": 7}, headers={"Location": "/thing/7"})``

    ``body`` is what a handler may return without this class as well: a dict, list, str, bytes or an
    (async) generator of pieces. ``headers`` is a mapping or pairs (repeated names are kept).
    ``content_type`` wins over one among the headers.
    ``cookies`` maps a name to its value, or to a dict with ``value`` and attributes
    (``path``, ``max_age``, ``secure``, ``httponly``, ``samesite``, …).
    """

    __slots__ = ("status", "body", "headers", "cookies", "content_type")

    def __init__(
        self,
        status: int = 200,
        body: Any = b"",
        headers: Union[Mapping[str, str], Iterable[tuple[str, str]]] = (),
        cookies: Mapping[str, Any] = {},
        content_type: Optional[str] = None,
    ) -> None:
        self.status = status
        self.body = body
        self.headers = list(headers.items() if hasattr(headers, "items") else headers)
        self.cookies = dict(cookies)
        self.content_type = content_type

    def set_cookie(self, name: str, value: str, **attributes: Any) -> None:
        """Adds a cookie; the attributes are those of :class:`http.cookies.Morsel`."""
        self.cookies[name] = {"value": value, **attributes}

    def header_pairs(self) -> list[tuple[str, str]]:
        """All headers, the cookies among them."""
        pairs = [(plain_text(name), plain_text(value)) for name, value in self.headers]
        if self.content_type is not None:
            pairs = [pair for pair in pairs if pair[0].lower() != "content-type"]
            pairs.append(("content-type", plain_text(self.content_type)))
        if self.cookies:
            pairs.extend(("set-cookie", line) for line in _cookie_lines(self.cookies))
        return pairs


def plain_text(value: Any) -> str:
    """``value`` as a ``str`` and nothing derived from it, which a frame could not hold."""
    return str.__str__(value) if isinstance(value, str) else str(value)


def _cookie_lines(cookies: Mapping[str, Any]) -> list[str]:
    from http.cookies import SimpleCookie

    jar: SimpleCookie = SimpleCookie()
    for name, given in cookies.items():
        attributes = dict(given) if isinstance(given, dict) else {"value": given}
        jar[name] = attributes.pop("value", "")
        for key, value in attributes.items():
            jar[name][key.replace("_", "-")] = value
    return [morsel.OutputString() for morsel in jar.values()]
