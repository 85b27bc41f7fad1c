"""From what a handler returned to what is sent."""

import dataclasses
import datetime
import json
import marshal
import sys
import types
import unittest
from enum import Enum
from http import HTTPStatus

from plugincore import Response, answers
from plugincore.request import Headers, MultiDict

JSON, HTML = answers.JSON, answers.HTML


def check(test, returned, status, head, body):
    """``returned`` becomes this answer, and the answer fits into a frame."""
    found = answers.answer_of(returned)
    test.assertEqual(found, (status, head, body))
    marshal.dumps([found], 2)


class ShapesTest(unittest.TestCase):
    def test_each_type_has_its_content_type(self):
        check(self, (200, {"a": 1}), 200, JSON, b'{"a":1}')
        check(self, (200, [1, None]), 200, JSON, b"[1,null]")
        check(self, (200, "<p>é"), 200, HTML, "<p>é".encode())
        check(self, (200, '{"a": 1}'), 200, HTML, b'{"a": 1}')
        check(self, (200, b"\x00"), 200, answers.BYTES, b"\x00")
        check(self, (200, bytearray(b"x")), 200, answers.BYTES, b"x")
        check(self, (200, 5), 200, JSON, b"5")
        check(self, (200, None), 200, JSON, b"null")

    def test_a_bare_body_is_status_200(self):
        check(self, {"a": 1}, 200, JSON, b'{"a":1}')
        check(self, "text", 200, HTML, b"text")
        check(self, None, 200, JSON, b"null")

    def test_only_a_number_and_a_body_make_a_pair(self):
        check(self, (404, "gone"), 404, HTML, b"gone")
        check(self, (HTTPStatus.CREATED, {}), 201, JSON, b"{}")
        check(self, ("a", "b"), 200, JSON, b'["a","b"]')
        check(self, (200, "a", "b"), 200, JSON, b'[200,"a","b"]')

    def test_subclasses_are_what_they_derive_from(self):
        class Text(str):
            pass

        class Table(dict):
            pass

        check(self, (200, Text("x")), 200, HTML, b"x")
        check(self, (200, Table(a=Text("x"))), 200, JSON, b'{"a":"x"}')

    def test_headers_and_repeated_variables_can_be_returned(self):
        body = {"headers": Headers(("x-a", "1")), "query": MultiDict([("a", "1"), ("a", "2")])}
        check(self, (200, body), 200, JSON, b'{"headers":{"X-A":"1"},"query":{"a":"1"}}')

    def test_text_that_utf8_cannot_hold_is_replaced(self):
        check(self, (200, "a\ud800"), 200, HTML, b"a?")


class JsonTest(unittest.TestCase):
    def test_what_json_has_no_number_for_is_null(self):
        body = {"a": [float("nan"), float("inf"), 1.5], "b": (-float("inf"),)}
        self.assertEqual(json.loads(answers.encode_json(body)), {"a": [None, None, 1.5], "b": [None]})

    def test_keys_that_are_no_text_are_written_as_text(self):
        self.assertEqual(json.loads(answers.encode_json({1: "a", None: "b"})), {"1": "a", "null": "b"})

    def test_what_has_no_form_is_refused(self):
        circle = []
        circle.append(circle)
        for value in (object(), {"a": {1, 2}}, {(1, 2): 3}, circle, b"x", {"a": b"x"}):
            with self.assertRaises(answers.NotSerializable):
                answers.encode_json(value)

    def test_what_is_refused_does_not_depend_on_installed_packages(self):
        @dataclasses.dataclass
        class Point:
            x: int = 1

        for value in ({1, 2}, {"b": b"x"}, datetime.date(2020, 1, 2), Point(), object()):
            for encode in (answers._standard_encoder(), answers._fast_encoder()):
                with self.assertRaises(Exception):
                    encode(value)
            with self.assertRaises(answers.NotSerializable):
                answers.encode_json(value)

    def test_a_refused_value_leaves_nothing_behind(self):
        part = [object()]
        for _ in range(3):
            with self.assertRaises(answers.NotSerializable):
                answers.encode_json(part)
        part[0] = 1
        self.assertEqual(answers.encode_json(part), b"[1]")


class ResponseTest(unittest.TestCase):
    def test_status_headers_and_cookies_are_its_own(self):
        response = Response(201, {"id": 7}, headers={"Location": "/7"}, cookies={"a": "1"})
        response.set_cookie("b", "2", max_age=60, httponly=True)
        status, pairs, body = answers.answer_of(response)
        self.assertEqual((status, body), (201, b'{"id":7}'))
        self.assertEqual(pairs[0], ("Location", "/7"))
        self.assertIn(("set-cookie", "a=1"), pairs)
        self.assertIn(("content-type", JSON), pairs)
        cookie = [value for name, value in pairs if value.startswith("b=2")][0]
        self.assertIn("Max-Age=60", cookie)
        self.assertIn("HttpOnly", cookie)

    def test_repeated_headers_are_kept(self):
        _, pairs, _ = answers.answer_of(Response(headers=[("Link", "a"), ("Link", "b")]))
        self.assertEqual([value for name, value in pairs if name == "Link"], ["a", "b"])

    def test_its_own_content_type_wins(self):
        for response in (
            Response(body="x", content_type="text/plain"),
            Response(body="x", headers={"Content-Type": "text/plain"}),
            Response(body="x", headers={"Content-Type": "a/b"}, content_type="text/plain"),
        ):
            _, pairs, _ = answers.answer_of(response)
            kinds = [value for name, value in pairs if name.lower() == "content-type"]
            self.assertEqual(kinds, ["text/plain"])

    def test_a_status_that_is_none_is_refused(self):
        for status in (0, 199, 600, 1000, "200", None):
            with self.assertRaises(answers.NotSerializable):
                answers.answer_of(Response(status))
        for status in (0, 100, 101, 199, 600, 1000, True):
            with self.assertRaises(answers.NotSerializable):
                answers.answer_of((status, "body"))
        for status in (200, 599):
            self.assertEqual(answers.answer_of((status, "body"))[0], status)

    def test_text_of_any_kind_becomes_plain_text(self):
        class Kind(str, Enum):
            CSV = "text/csv"

        class Name(str):
            pass

        response = Response(headers={Name("X-A"): Name("1"), "X-B": 2}, content_type=Kind.CSV)
        found = answers.answer_of(response)
        self.assertEqual(found[1], [("X-A", "1"), ("X-B", "2"), ("content-type", "text/csv")])
        marshal.dumps([found], 2)


class AiohttpTest(unittest.TestCase):
    """With a stand-in of the same shape: its header names are a subclass of ``str``."""

    def setUp(self):
        class Name(str):
            pass

        class StreamResponse:
            status = 404
            content_type = "text/plain"
            cookies = {}
            headers = {Name("X-A"): Name("b"), Name("Content-Type"): "text/plain; charset=utf-8"}

        class Response(StreamResponse):
            body = b"gone"

        class FileResponse(StreamResponse):
            _path = "file"

        web = types.ModuleType("aiohttp.web")
        web.StreamResponse = StreamResponse
        self.bodiless = (StreamResponse(), FileResponse())
        before = sys.modules.get("aiohttp.web")
        sys.modules["aiohttp.web"] = web
        self.response = Response()

        def restore():
            if before is None:
                del sys.modules["aiohttp.web"]
            else:
                sys.modules["aiohttp.web"] = before

        self.addCleanup(restore)

    def test_status_headers_and_body_are_kept(self):
        pairs = [("X-A", "b"), ("Content-Type", "text/plain; charset=utf-8")]
        check(self, self.response, 404, pairs, b"gone")
        check(self, (200, self.response), 404, pairs, b"gone")
        self.response.body = None
        check(self, self.response, 404, pairs, b"")

    def test_one_that_writes_its_body_itself_is_refused_in_words(self):
        for response in self.bodiless:
            with self.assertRaisesRegex(answers.NotSerializable, "Response cannot be sent; return"):
                answers.answer_of(response)

    def test_its_status_is_checked_as_well(self):
        self.response.status = 101
        with self.assertRaises(answers.NotSerializable):
            answers.answer_of(self.response)


class PiecesTest(unittest.TestCase):
    def test_an_iterator_is_a_body_in_pieces(self):
        pieces = iter(["a"])
        self.assertEqual(answers.answer_of((200, pieces)), (200, answers.TEXT, pieces))

    def test_pieces_are_bytes(self):
        for piece, data in (("é", "é".encode()), (b"x", b"x"), ({"a": 1}, b'{"a":1}'), ("", b"")):
            self.assertEqual(answers.piece_of(piece, False), data)

    def test_pieces_of_an_event_stream_are_events(self):
        for piece, data in (
            ("a", b"data: a\n\n"),
            ("a\nb", b"data: a\ndata: b\n\n"),
            ("", b"data: \n\n"),
            ("event: x\ndata: y\n\n", b"event: x\ndata: y\n\n"),
            (b"raw", b"raw"),
            ({"a": 1}, b'data: {"a":1}\n\n'),
        ):
            self.assertEqual(answers.piece_of(piece, True), data)

    def test_an_event_stream_is_known_by_its_content_type(self):
        self.assertTrue(answers.is_event_stream("text/event-stream"))
        self.assertTrue(answers.is_event_stream([("Content-Type", "Text/Event-Stream; x=y")]))
        self.assertFalse(answers.is_event_stream([("X-A", "text/event-stream")]))


if __name__ == "__main__":
    unittest.main()
