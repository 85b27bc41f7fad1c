"""One answer of each kind: GET /bodies/<kind>.

    curl localhost:9192/bodies                 # which kinds there are
    curl -i localhost:9192/bodies/dict
    curl -i localhost:9192/bodies/response     # headers and cookies of its own
    curl -N localhost:9192/bodies/stream       # five lines, one every fifth of a second
    curl -N localhost:9192/bodies/events       # the same as server-sent events
"""

import asyncio
import json

from plugincore import BasePlugin, Response

#: Seconds between two pieces of a stream.
PAUSE_SECS = 0.2


class Bodies(BasePlugin):
    """Shows what a handler may return."""

    async def request_handler(self, **data):
        kind = data["subpath"]
        make = getattr(self, f"_{kind}", None) if kind in KINDS else None
        if make is None:
            return (200 if not kind else 404), {"kinds": KINDS}
        return make()

    def _dict(self):
        return 200, {"a": 1, "nested": {"b": [True, None]}}

    def _list(self):
        return [1, 2, 3]  # Without a status it is 200.

    def _str(self):
        return 200, "<h1>Text is HTML</h1>\n"

    def _json(self):
        # Text that is JSON stays text: it is sent as it is, as text/html.
        return 200, json.dumps({"already": "JSON"})

    def _bytes(self):
        return 200, bytes(range(16))

    def _response(self):
        response = Response(
            201,
            {"id": 7},
            headers={"Location": "/bodies/dict", "Cache-Control": "no-store"},
            cookies={"seen": "1"},
        )
        response.set_cookie("theme", "dark", path="/", max_age=3600, samesite="Lax")
        return response

    def _csv(self):
        return Response(body="name,age\nAda,36\n", content_type="text/csv; charset=utf-8")

    def _stream(self):
        return 200, self._lines()

    def _events(self):
        return Response(body=self._ticks(), content_type="text/event-stream")

    async def _lines(self):
        for number in range(5):
            yield f"line {number}\n"
            await asyncio.sleep(PAUSE_SECS)

    async def _ticks(self):
        for number in range(5):
            yield {"tick": number}  # A plain value becomes one event.
            await asyncio.sleep(PAUSE_SECS)
        yield "event: end\ndata: that was all\n\n"  # A whole event is sent as it is.


KINDS = ["dict", "list", "str", "json", "bytes", "response", "csv", "stream", "events"]
