"""Calling a plugin in a test."""

import unittest

from plugincore import BasePlugin, Response
from plugincore.testing import call


class Sample(BasePlugin):
    """Answers what the variable `how` says."""

    ended = 0

    async def initialize(self, **kwargs):
        self.ready = kwargs.get("ready")

    async def request_handler(self, how="", **data):
        request = data["request"]
        if how == "raise":
            raise ValueError("seen by the test")
        if how == "stream":
            return 200, self.pieces()
        if how == "response":
            return Response(201, {"a": 1}, headers={"X-A": "b"})
        return 200, {
            "ready": self.ready, "config": self.config.a.b, "subpath": data["subpath"],
            "host": data["request_headers"]["host"], "method": request.method, "path": request.path_qs,
            "text": await request.text(), "post": await request.post(), "extra": data.get("extra"),
        }

    async def pieces(self):
        for piece in ("a", b"b", "c"):
            yield piece

    async def terminate_plugin(self):
        type(self).ended += 1


class CallTest(unittest.TestCase):
    def ask(self, **arguments):
        status, body = call(
            Sample,
            config={"a": {"b": 1}},
            parameters={"ready": 5},
            headers={"Host": "h", **arguments.pop("headers", {})},
            **arguments,
        )
        self.assertEqual(status, 200)
        return body

    def test_everything_reaches_the_plugin(self):
        body = self.ask(method="PUT", subpath="x", body=b"text", extra=[1])
        self.assertEqual(body, {
            "ready": 5, "config": 1, "subpath": "x", "host": "h", "method": "PUT",
            "path": "/sample/x", "text": "text", "post": {}, "extra": [1],
        })

    def test_bodies_become_variables_as_in_the_server(self):
        body = self.ask(headers={"Content-Type": "application/json"}, body=b'{"extra": {"a": 2}}')
        self.assertEqual((body["extra"], body["path"]), ({"a": 2}, "/sample"))
        form = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
        body = self.ask(headers=form, body=b"extra=1&extra=2&b=")
        self.assertEqual((body["extra"], body["post"]), ("1", {"extra": "1", "b": ""}))
        self.assertEqual(self.ask(headers=form, body=b"extra=1", extra="query")["extra"], "query")

    def test_streams_are_put_together_and_responses_taken_apart(self):
        self.assertEqual(call(Sample, how="stream"), (200, "abc"))
        self.assertEqual(call(Sample, how="response"), (201, {"a": 1}))

    def test_an_exception_reaches_the_test_and_the_plugin_is_ended(self):
        before = Sample.ended
        with self.assertRaisesRegex(ValueError, "seen by the test"):
            call(Sample, how="raise")
        self.assertEqual(Sample.ended, before + 1)


if __name__ == "__main__":
    unittest.main()
