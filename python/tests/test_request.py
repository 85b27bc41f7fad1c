"""Headers, repeated variables, and the request object."""

import asyncio
import unittest

from plugincore.request import Headers, MultiDict, Request

FLAT = (
    "content-type", 'Application/JSON; charset="Latin-1"',
    "x-many", "one",
    "X-Many", "two",
    "host", "example.org:9192",
    "cookie", "a=1; b=two",
    "cookie", "c=3",
)


def request(**changed):
    """A request; ``changed`` names what is not as usual."""
    call = {
        "id": 7, "slot": 0, "method": "POST", "target": "/na%C3%AFve/a%20b?x=1&x=2&y=%C3%BC&z",
        "subpath": "a b", "query": None, "form": None, "headers": FLAT, "client": "192.0.2.7",
        "body": b'{"a": "\xe9"}', "kind": 1,
    }
    call.update(changed)
    return Request(tuple(call.values()), Headers(call["headers"]))


class HeadersTest(unittest.TestCase):
    def setUp(self):
        self.headers = Headers(FLAT)

    def test_names_match_in_any_letter_case(self):
        for name in ("Host", "host", "HOST"):
            self.assertEqual(self.headers[name], "example.org:9192")
            self.assertEqual(self.headers.get(name), "example.org:9192")
            self.assertIn(name, self.headers)
        self.assertNotIn("X-None", self.headers)
        self.assertEqual(self.headers.get("X-None", "-"), "-")
        with self.assertRaises(KeyError):
            self.headers["X-None"]

    def test_a_repeated_name_gives_its_first_value_and_all_when_asked(self):
        self.assertEqual(self.headers["x-many"], "one")
        self.assertEqual(self.headers.getall("X-MANY"), ["one", "two"])
        self.assertEqual(self.headers.getall("X-None"), [])
        self.assertEqual(self.headers.getall("X-None", None or ["d"]), ["d"])

    def test_it_becomes_a_dictionary_with_usual_names(self):
        expected = {
            "Content-Type": 'Application/JSON; charset="Latin-1"', "X-Many": "one",
            "Host": "example.org:9192", "Cookie": "a=1; b=two",
        }
        self.assertEqual(dict(self.headers), expected)
        self.assertEqual(self.headers.copy(), expected)
        self.assertEqual(self.headers, expected)
        self.assertEqual(len(self.headers), 4)
        self.assertEqual(list(self.headers.keys()), list(expected))
        self.assertEqual(list(self.headers.values()), list(expected.values()))


class MultiDictTest(unittest.TestCase):
    def test_the_first_value_counts_and_none_is_lost(self):
        many = MultiDict([("a", "1"), ("b", "2"), ("a", "3")])
        self.assertEqual(many["a"], "1")
        self.assertEqual(many.getone("a"), "1")
        self.assertEqual(many.getall("a"), ["1", "3"])
        self.assertEqual(many.getall("c"), [])
        self.assertEqual(dict(many), {"a": "1", "b": "2"})


class RequestTest(unittest.TestCase):
    def test_path_and_query_are_decoded_and_kept_as_they_came(self):
        it = request()
        self.assertEqual(it.path, "/naïve/a b")
        self.assertEqual(it.path_qs, "/na%C3%AFve/a%20b?x=1&x=2&y=%C3%BC&z")
        self.assertEqual(it.raw_path, it.path_qs)
        self.assertEqual(it.query_string, "x=1&x=2&y=%C3%BC&z")
        self.assertEqual(it.query, {"x": "1", "y": "ü", "z": ""})
        self.assertEqual(it.query.getall("x"), ["1", "2"])
        self.assertEqual(it.match_info["tail"], "a b")
        self.assertEqual(request(target="/plain").query, {})

    def test_who_asks_and_how(self):
        it = request()
        self.assertEqual((it.method, it.remote, it.host), ("POST", "192.0.2.7", "example.org:9192"))
        self.assertEqual(it.transport.get_extra_info("peername")[0], "192.0.2.7")
        self.assertEqual(it.transport.get_extra_info("socket", 5), 5)
        self.assertEqual(it.cookies, {"a": "1", "b": "two", "c": "3"})

    def test_the_content_type_is_taken_apart(self):
        self.assertEqual(request().content_type, "application/json")
        self.assertEqual(request().charset, "latin-1")
        bare = request(headers=())
        self.assertEqual(bare.content_type, "application/octet-stream")
        self.assertIsNone(bare.charset)

    def test_the_body_is_bytes_text_or_json(self):
        it = request()
        self.assertEqual(asyncio.run(it.read()), b'{"a": "\xe9"}')
        self.assertEqual(asyncio.run(it.text()), '{"a": "é"}')
        self.assertEqual(asyncio.run(it.json()), {"a": "é"})
        self.assertTrue(it.body_exists and it.can_read_body and it.has_body)
        self.assertEqual(it.content_length, 10)

    def test_a_body_that_did_not_come_is_empty(self):
        it = request(body=None)
        self.assertEqual(asyncio.run(it.read()), b"")
        self.assertFalse(it.body_exists)
        self.assertIsNone(it.content_length)

    def test_a_form_has_its_fields_with_the_first_of_repeated_ones(self):
        it = request(form=("a", "1", "file", b"\x00", "a", "2"))
        fields = asyncio.run(it.post())
        self.assertEqual(fields, {"a": "1", "file": b"\x00"})
        self.assertEqual(fields.getall("a"), ["1", "2"])
        self.assertEqual(asyncio.run(request(form=None).post()), {})

    def test_a_plugin_may_keep_things_in_it(self):
        it = request()
        it["user"] = 5
        self.assertEqual((it["user"], it.get("user"), it.get("none")), (5, 5, None))
        self.assertIn("user", it)


if __name__ == "__main__":
    unittest.main()
