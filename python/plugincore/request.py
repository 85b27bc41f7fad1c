"""A request as a plugin sees it: ``data["request"]`` and ``data["request_headers"]``.

Both are made for every call, so they hold what arrived and work things out only when asked.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Optional


class Headers:
    """The headers: a read-only mapping whose names match in any letter case.

    A repeated name gives its first value; :meth:`getall` gives all of them.
    """

    __slots__ = ("_flat", "_found")

    def __init__(self, flat: tuple[str, ...]) -> None:
        self._flat = flat
        self._found: Optional[dict[str, str]] = None

    def _table(self) -> dict[str, str]:
        if self._found is None:
            flat = self._flat
            # From the back, so that the first of repeated names stays.
            self._found = {
                flat[i].lower(): flat[i + 1] for i in range(len(flat) - 2, -1, -2)
            }
        return self._found

    def __getitem__(self, name: str) -> str:
        return self._table()[name.lower()]

    def get(self, name: str, default: Any = None) -> Any:
        """The first value of ``name``, or ``default``."""
        return self._table().get(name.lower(), default)

    def getall(self, name: str, default: Any = None) -> Any:
        """Every value of ``name`` in order, or ``default``."""
        wanted = name.lower()
        flat = self._flat
        values = [flat[i + 1] for i in range(0, len(flat), 2) if flat[i].lower() == wanted]
        return values if values else ([] if default is None else default)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._table()

    def __iter__(self) -> Iterator[str]:
        seen = set()
        for name in self._flat[::2]:
            if name.lower() not in seen:
                seen.add(name.lower())
                yield _title(name)

    def __len__(self) -> int:
        return len(self._table())

    def keys(self) -> list[str]:
        """The names, as ``Content-Type`` is written."""
        return list(self)

    def values(self) -> list[str]:
        """The first value of each name."""
        return [self[name] for name in self]

    def items(self) -> list[tuple[str, str]]:
        """Names and first values."""
        return [(name, self[name]) for name in self]

    def copy(self) -> dict[str, str]:
        """A plain dictionary."""
        return dict(self.items())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Headers):
            return self._table() == other._table()
        return isinstance(other, dict) and dict(self.items()) == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Headers({dict(self.items())!r})"


def _title(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))


class MultiDict(dict):
    """A dictionary of first values that remembers the repeated ones."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        super().__init__(reversed(pairs))
        self._pairs = pairs

    def getall(self, name: str, default: Any = None) -> Any:
        """Every value of ``name`` in order, or ``default``."""
        values = [value for key, value in self._pairs if key == name]
        return values if values else ([] if default is None else default)

    def getone(self, name: str, default: Any = None) -> Any:
        """The first value of ``name``, or ``default``."""
        return self.get(name, default)


class Transport:
    """Just enough of a transport to ask for the peer."""

    __slots__ = ("_peername",)

    def __init__(self, remote: str) -> None:
        self._peername = (remote, 0)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``peername`` as ``(address, 0)``; anything else is ``default``."""
        return self._peername if name == "peername" else default


class Request:
    """The request itself, shaped like the one of aiohttp."""

    __slots__ = ("_call", "_headers", "_query", "_post", "_store")

    def __init__(self, call: tuple[Any, ...], headers: Headers) -> None:
        self._call = call
        self._headers = headers
        self._query: Optional[MultiDict] = None
        self._post: Optional[MultiDict] = None
        self._store: dict[str, Any] = {}

    @property
    def method(self) -> str:
        """The method in capitals."""
        return self._call[2]

    @property
    def path_qs(self) -> str:
        """Path and query as they came."""
        return self._call[3]

    @property
    def raw_path(self) -> str:
        """The same as :attr:`path_qs`."""
        return self._call[3]

    @property
    def path(self) -> str:
        """The path, decoded, without the query."""
        from urllib.parse import unquote

        return unquote(self._call[3].partition("?")[0])

    @property
    def query_string(self) -> str:
        """What follows the question mark, as it came."""
        return self._call[3].partition("?")[2]

    @property
    def query(self) -> MultiDict:
        """The query variables, decoded."""
        if self._query is None:
            from urllib.parse import parse_qsl

            self._query = MultiDict(parse_qsl(self.query_string, keep_blank_values=True))
        return self._query

    @property
    def headers(self) -> Headers:
        """The headers."""
        return self._headers

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies that came along."""
        from http.cookies import CookieError, SimpleCookie

        jar: SimpleCookie = SimpleCookie()
        for line in self._headers.getall("cookie"):
            try:
                jar.load(line)
            except CookieError:
                continue
        return {name: morsel.value for name, morsel in jar.items()}

    @property
    def remote(self) -> str:
        """The client's address, trusted proxies taken into account."""
        return self._call[8]

    @property
    def host(self) -> str:
        """The ``Host`` header."""
        return self._headers.get("host", "")

    @property
    def match_info(self) -> dict[str, Optional[str]]:
        """``tail``: what follows the route."""
        return {"tail": self._call[4]}

    @property
    def content_type(self) -> str:
        """The media type without its parameters, in lower case."""
        value = self._headers.get("content-type")
        return value.partition(";")[0].strip().lower() if value else "application/octet-stream"

    @property
    def charset(self) -> Optional[str]:
        """The ``charset`` parameter of the content type."""
        for part in self._headers.get("content-type", "").split(";")[1:]:
            name, _, value = part.strip().partition("=")
            if name.strip().lower() == "charset":
                return value.strip().strip('"').lower() or None
        return None

    @property
    def content_length(self) -> Optional[int]:
        """How many bytes the body has."""
        return len(self._call[9] or b"") if self.body_exists else None

    @property
    def body_exists(self) -> bool:
        """Whether a body came along."""
        return bool(self._call[9])

    can_read_body = body_exists
    has_body = body_exists

    @property
    def transport(self) -> Transport:
        """Where ``get_extra_info("peername")`` is found."""
        return Transport(self._call[8])

    async def read(self) -> bytes:
        """The body's bytes."""
        return self._call[9] or b""

    async def text(self) -> str:
        """The body as text."""
        return (self._call[9] or b"").decode(self.charset or "utf-8")

    async def json(self, *, loads: Any = None) -> Any:
        """The body as JSON."""
        if loads is None:
            from json import loads
        return loads(await self.text())

    async def post(self) -> MultiDict:
        """The fields of a form body."""
        if self._post is None:
            form = self._call[6] or ()
            self._post = MultiDict(list(zip(form[::2], form[1::2])))
        return self._post

    def get(self, key: str, default: Any = None) -> Any:
        """What the plugin stored here for the length of the request."""
        return self._store.get(key, default)

    def __getitem__(self, key: str) -> Any:
        return self._store[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._store[key] = value

    def __contains__(self, key: str) -> bool:
        return key in self._store

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path_qs}>"
