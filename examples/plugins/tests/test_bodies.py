"""What /bodies answers."""

import unittest
from unittest.mock import patch

from plugincore.testing import call

import bodies
from bodies import Bodies


@patch.object(bodies, "PAUSE_SECS", 0)
class BodiesTest(unittest.TestCase):
    def check(self, kind, status, body):
        self.assertEqual(call(Bodies, subpath=kind), (status, body))

    def test_each_kind(self):
        self.check("dict", 200, {"a": 1, "nested": {"b": [True, None]}})
        self.check("list", 200, [1, 2, 3])
        self.check("str", 200, "<h1>Text is HTML</h1>\n")
        self.check("json", 200, '{"already": "JSON"}')
        self.check("bytes", 200, bytes(range(16)))
        self.check("response", 201, {"id": 7})
        self.check("csv", 200, "name,age\nAda,36\n")
        self.check("stream", 200, "".join(f"line {number}\n" for number in range(5)))

    def test_events_are_written_as_such(self):
        _, body = call(Bodies, subpath="events")
        events = body.split("\n\n")
        self.assertEqual(events[0], 'data: {"tick":0}')
        self.assertEqual(events[5:], ["event: end\ndata: that was all", ""])

    def test_the_kinds_are_listed_and_an_unknown_one_is_not_found(self):
        self.check(None, 200, {"kinds": bodies.KINDS})
        self.check("", 200, {"kinds": bodies.KINDS})
        self.check("_dict", 404, {"kinds": bodies.KINDS})


if __name__ == "__main__":
    unittest.main()
