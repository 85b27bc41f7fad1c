"""Sends back what it was sent: /echo, and everything below it.

    curl 'localhost:9192/echo/some/where?a=1&a=2'
    curl -d name=Ada -d name=Bob localhost:9192/echo
    curl --json '{"name": "Ada", "tags": [1, 2]}' localhost:9192/echo
    curl -F note=hi -F file=@README.md localhost:9192/echo
    curl -X PUT -H 'X-Mine: 1' -b a=b localhost:9192/echo
"""

from plugincore import BasePlugin

#: What the server adds to the variables of the request.
ADDED = ("request", "request_headers", "client_ip", "subpath", "log")


class Echo(BasePlugin):
    """Shows a request as a plugin sees it."""

    methods = ("GET", "POST", "PUT", "PATCH", "DELETE")

    async def request_handler(self, **data):
        request = data["request"]
        variables = {name: value for name, value in data.items() if name not in ADDED}
        return 200, {
            "method": request.method,
            "path": request.path,
            "subpath": data["subpath"],
            "variables": {name: _shown(value) for name, value in variables.items()},
            "repeated": {name: request.query.getall(name) for name in request.query},
            "form": {name: _shown(value) for name, value in (await request.post()).items()},
            "headers": data["request_headers"],
            "cookies": request.cookies,
            "content_type": request.content_type,
            "body_bytes": len(await request.read()),
            "client_ip": data["client_ip"],
        }


def _shown(value):
    """A file of a multipart form is bytes, for which JSON has no form."""
    return f"{len(value)} bytes" if isinstance(value, bytes) else value
