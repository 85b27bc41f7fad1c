"""The bytes of the worker protocol, shared with ``crates/plugins/src/python/protocol_tests.rs``."""

import marshal
import os
import unittest
from pathlib import Path

from plugincore import calls as kinds

GOLDEN = Path(__file__).parents[2] / "testdata" / "worker"


def frames(data):
    """The messages of all frames in ``data``."""
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        yield from marshal.loads(data[at + 4 : at + 4 + length])
        at += 4 + length


class Golden(unittest.TestCase):
    def test_what_the_server_sends_is_what_the_worker_reads(self):
        headers = ("host", "localhost", "x-twice", "1", "x-twice", "2", "x-latin", "café")
        headers += ("content-type", "Application/Vnd.x+JSON; charset=utf-8")
        expected = [
            (kinds.HELLO, '{"version": 1}'),
            (
                7,
                2,
                "POST",
                "/caf%C3%A9/x?a=1&a=2&b=%C3%BC",
                "x",
                {"b": "ü", "a": "1"},
                ("text", "ü" * 200, "file", b"\x00\xff"),
                headers,
                "2001:db8::1",
                b'{"k": 1}',
                kinds.MUST_BE_JSON,
            ),
            (kinds.PING,),
            (kinds.CANCEL, 7),
            (kinds.CREDIT, 8, 1),
            (kinds.STOP,),
        ]
        self.assertEqual(list(frames((GOLDEN / "to_worker.bin").read_bytes())), expected)

    def test_what_the_worker_sends_is_what_the_server_reads(self):
        batches = [
            [(kinds.HELLO, '{"version": 1}')],
            [(kinds.PING,), (7, 200, "application/json", b'{"a":1}')],
            [
                (
                    8,
                    418,
                    [
                        ("x-tea", "café"),
                        ("set-cookie", "a=1"),
                        ("set-cookie", "b=2"),
                        ("x-split", "a\r\nb: c"),
                        ("content-length", "7"),
                    ],
                    b"",
                ),
                (kinds.STREAM_HEAD, 9, 200, "text/event-stream"),
                (kinds.STREAM_PIECE, 9, b"data: 1\n\n"),
                (kinds.STREAM_END, 9, None),
                (kinds.STREAM_END, 10, "it broke"),
            ],
        ]
        data = b"".join(
            len(payload).to_bytes(4, "little") + payload
            for payload in (marshal.dumps(batch, 2) for batch in batches)
        )
        path = GOLDEN / "from_worker.bin"
        if "GATEHOUSE_REWRITE" in os.environ:
            path.write_bytes(data)
        self.assertEqual(data, path.read_bytes(), f"{path.name}: GATEHOUSE_REWRITE=1 rewrites it")


if __name__ == "__main__":
    unittest.main()
