"""What /echo sends back."""

import unittest

from plugincore.testing import call

from echo import Echo


class EchoTest(unittest.TestCase):
    def test_query_path_and_headers(self):
        status, body = call(Echo, subpath="a b/c", headers={"x-mine": "1", "cookie": "k=v"}, a="1")
        self.assertEqual(status, 200)
        self.assertEqual((body["method"], body["subpath"]), ("GET", "a b/c"))
        self.assertEqual(body["path"], "/echo/a b/c")
        self.assertEqual((body["variables"], body["repeated"]), ({"a": "1"}, {"a": ["1"]}))
        self.assertEqual(body["headers"]["X-Mine"], "1")
        self.assertEqual(body["cookies"], {"k": "v"})

    def test_a_json_body(self):
        headers = {"content-type": "application/json"}
        _, body = call(Echo, method="POST", headers=headers, body=b'{"a": [1], "b": "body"}', b="query")
        self.assertEqual(body["variables"], {"a": [1], "b": "query"})
        self.assertEqual((body["form"], body["body_bytes"]), ({}, 23))

    def test_a_form(self):
        headers = {"content-type": "application/x-www-form-urlencoded"}
        _, body = call(Echo, method="POST", headers=headers, body=b"a=1&a=2&b=x+y")
        self.assertEqual(body["variables"], {"a": "1", "b": "x y"})
        self.assertEqual(body["form"], {"a": "1", "b": "x y"})

    def test_a_file_is_counted(self):
        _, body = call(Echo, file=b"\x00\x01")
        self.assertEqual(body["variables"], {"file": "2 bytes"})


if __name__ == "__main__":
    unittest.main()
