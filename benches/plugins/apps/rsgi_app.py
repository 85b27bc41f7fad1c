"""The two handlers of the plugins, as one RSGI application for Granian."""

import json


async def app(scope, protocol):
    if scope.path == "/hello":
        answer = {"hello": "world"}
    else:
        answer = {"name": json.loads(await protocol())["name"]}
    protocol.response_str(200, [("content-type", "application/json")], json.dumps(answer))
