"""The two handlers of the plugins, as one ASGI application for Uvicorn."""

import json


async def app(scope, receive, send):
    if scope["path"] == "/hello":
        answer = {"hello": "world"}
    else:
        body, more = b"", True
        while more:
            event = await receive()
            body += event.get("body", b"")
            more = event.get("more_body", False)
        answer = {"name": json.loads(body)["name"]}
    content = json.dumps(answer).encode()
    length = str(len(content)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})
