"""A whole worker process, spoken to as the server does."""

import json
import marshal
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import unittest

from plugincore import calls

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(calls.__file__)))


class Server:
    """The other end: a worker for ``code`` that has said hello."""

    def __init__(self, test, code, **changed):
        directory = tempfile.TemporaryDirectory()
        test.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, "sample.py")
        with open(path, "w") as file:
            file.write(
                "import asyncio, os, sys\nfrom plugincore import BasePlugin, Response\n"
                + textwrap.dedent(code)
            )
        ours, theirs = socket.socketpair()
        test.addCleanup(ours.close)
        ours.settimeout(10)
        self.socket = ours
        self.data = b""
        self.waiting = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "plugincore.worker"],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": PACKAGE, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        theirs.close()
        test.addCleanup(self.kill)
        hello = {
            "version": 1, "file": path, "parameters": {}, "config": {}, "args": {"log": None},
            "log_level": "INFO", "memory_bytes_max": 0, "reply_bytes_max": 1 << 20, "stop_secs": 60,
        }
        self.send((calls.HELLO, json.dumps({**hello, **changed})))
        kind, text = self.receive()
        assert kind == calls.HELLO, kind
        self.hello = json.loads(text)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def send(self, *messages):
        payload = marshal.dumps(list(messages), 2)
        self.socket.sendall(len(payload).to_bytes(4, "little") + payload)

    def receive(self):
        """The next message."""
        while not self.waiting:
            size = 4 + int.from_bytes(self.data[:4], "little") if len(self.data) >= 4 else 4
            if len(self.data) >= max(size, 5):
                self.waiting.extend(marshal.loads(self.data[4:size]))
                self.data = self.data[size:]
                continue
            more = self.socket.recv(1 << 20)
            if not more:
                raise EOFError
            self.data += more
        return self.waiting.pop(0)

    def ask(self, **variables):
        """The status and body of one plain call."""
        self.send(call(1, **variables))
        answer = self.receive()
        assert answer[0] == 1, answer
        return answer[1], answer[3]

    def is_alive(self, test):
        """The worker still answers its heartbeat."""
        self.send((calls.PING,))
        test.assertEqual(self.receive(), (calls.PING,))

    def stop(self, test):
        """The worker ends by itself when it is told to; gives what it has printed."""
        self.send((calls.STOP,))
        return self.ended(test)

    def ended(self, test):
        """The worker ends by itself; gives what it has printed."""
        output = self.process.communicate(timeout=10)[0].decode()
        test.assertEqual(self.process.returncode, 0, output)
        return output


def call(call_id, body=None, kind=0, headers=(), form=None, subpath=None, slot=0, **variables):
    """A call as the server writes it."""
    query = variables or None
    return (
        call_id, slot, "GET", "/sample", subpath, query, form, headers, "192.0.2.1", body, kind,
    )


class CallsTest(unittest.TestCase):
    def test_the_hello_names_plugins_and_failures(self):
        server = Server(self, """
            class Bad(BasePlugin): pass
            class Good(BasePlugin):
                def request_handler(self, **data): return 200, {}
        """)
        self.assertEqual(server.hello["version"], 1)
        self.assertEqual([p["name"] for p in server.hello["plugins"]], ["good"])
        self.assertEqual([f["class"] for f in server.hello["failures"]], ["Bad"])
        self.assertEqual(server.ask(), (200, b"{}"))
        server.stop(self)

    def test_a_file_without_a_working_plugin_ends_the_worker(self):
        server = Server(self, "raise RuntimeError('no way')")
        self.assertEqual(server.hello["plugins"], [])
        self.assertIn("no way", server.hello["failures"][0]["error"])
        self.assertIn("sample.py", server.hello["failures"][0]["traceback"])
        self.assertEqual(server.process.wait(10), 0)

    def test_an_unknown_version_is_refused_in_words(self):
        server = Server(self, "", version=99)
        self.assertIn("version 99", server.hello["failures"][0]["error"])

    def test_a_batch_of_calls_is_answered_whole(self):
        server = Server(self, """
            class A(BasePlugin):
                async def request_handler(self, **data):
                    if data["n"] == "1":
                        await asyncio.sleep(0.01)
                    return 200, data["n"]
        """)
        server.send(*(call(n, n=str(n)) for n in range(3)))
        answers = sorted(server.receive() for _ in range(3))
        self.assertEqual([(a[0], a[3]) for a in answers], [(0, b"0"), (1, b"1"), (2, b"2")])

    def test_what_the_data_hold(self):
        server = Server(self, """
            class A(BasePlugin):
                async def request_handler(self, **data):
                    request = data.pop("request")
                    log = data.pop("log")
                    return 200, {**data, "method": request.method, "text": await request.text()}
        """)
        body = b'{"a": 1, "b": 2, "self": 3, "request": 4, "log": 5, "subpath": "x"}'
        server.send(call(1, body, calls.MUST_BE_JSON, ("host", "h"), subpath="s", b="q", client_ip="f"))
        status, answer = server.receive()[1::2]
        self.assertEqual((status, json.loads(answer)), (200, {
            "a": 1, "b": "q", "subpath": "s", "request_headers": {"Host": "h"},
            "client_ip": "192.0.2.1", "method": "GET", "text": body.decode(),
        }))
        server.send(call(2, b"f=1&f=2", form=("f", "1", "f", "2")))
        self.assertEqual(json.loads(server.receive()[3])["f"], "1")
        server.send(call(3, b"{nonsense", calls.MUST_BE_JSON))
        self.assertEqual(server.receive()[1], 400)

    def test_a_failing_handler_fails_its_call_alone(self):
        server = Server(self, """
            class A(BasePlugin):
                async def request_handler(self, how=None, **data):
                    if data.get("late"): await asyncio.sleep(0)
                    if how == "exit": sys.exit(3)
                    if how == "raise": raise ValueError("secret detail")
                    if how == "type": return 200, object()
                    if how == "long": return 200, b"x" * 2_000_000
                    return 200, "fine"
        """)
        for how in ("exit", "raise", "type", "long"):
            for late in ("", "1"):
                status, body = server.ask(how=how, late=late)
                self.assertEqual(status, 500, how)
                self.assertIn("error", json.loads(body))
                self.assertNotIn(b"secret", body)
        self.assertEqual(server.ask(), (200, b"fine"))
        output = server.stop(self)
        self.assertIn("<3|a>ValueError: secret detail", output)
        self.assertIn("sample.py", output)

    def test_a_log_that_cannot_be_written_fails_no_call(self):
        server = Server(self, """
            class A(BasePlugin):
                def request_handler(self, **data):
                    sys.stderr.close()
                    self.log("nobody hears this")
                    raise ValueError
        """)
        self.assertEqual(server.ask()[0], 500)
        self.assertEqual(server.ask()[0], 500)
        server.is_alive(self)

    def test_a_message_that_makes_no_sense_fails_alone(self):
        server = Server(self, """
            class A(BasePlugin):
                count = 0
                def request_handler(self, **data):
                    self.count += 1
                    return 200, str(self.count)
        """)
        server.send(call(1), call(2, slot=7), (3,), (calls.CREDIT,), call(4, "no bytes"), call(5))
        answers = [server.receive() for _ in range(5)]
        self.assertEqual([(a[0], a[1]) for a in answers], [(1, 200), (2, 500), (3, 500), (4, 200), (5, 200)])
        self.assertEqual([answers[0][3], answers[4][3]], [b"1", b"3"])
        server.is_alive(self)

    def test_a_plugins_own_log_is_its_own_affair(self):
        server = Server(self, """
            class A(BasePlugin):
                def __init__(self, **kwargs):
                    super().__init__(**kwargs)
                    self.log = "not a log"
                async def request_handler(self, late="", **data):
                    if late: await asyncio.sleep(0)
                    if late == "pieces": return self.pieces()
                    if data["log"] == "not a log": raise ValueError("it is mine")
                async def pieces(self):
                    yield "a"
                    raise ValueError("it is mine, too")
                def terminate_plugin(self): raise ValueError("to the end")
        """)
        for late in ("", "yes"):
            server.send(call(1, late=late), (calls.PING,))
            self.assertEqual(sorted(server.receive()[:2] for _ in range(2)), [(-1,), (1, 500)])
        server.send(call(1, late="pieces"))
        self.assertEqual([server.receive()[0] for _ in range(2)], [calls.STREAM_HEAD, calls.STREAM_PIECE])
        self.assertEqual(server.receive()[0], calls.STREAM_END)
        output = server.stop(self)
        for words in ("ValueError: it is mine", "ValueError: it is mine, too", "ValueError: to the end"):
            self.assertIn(f"<3|a>{words}\n", output)

    def test_an_error_that_cannot_be_described_fails_its_call_alone(self):
        server = Server(self, """
            class Odd(Exception):
                def __str__(self): raise SystemExit(3)
                __cause__ = property(lambda self: 1 / 0)
            class A(BasePlugin):
                async def request_handler(self, how="", **data):
                    if how == "late": await asyncio.sleep(0)
                    if how == "pieces": return self.pieces()
                    if how: raise Odd
                    return 200, "fine"
                async def pieces(self):
                    yield "a"
                    raise Odd
                def terminate_plugin(self): raise Odd
            class B(BasePlugin):
                def __init__(self, **kwargs): raise Odd
        """)
        self.assertIn("Odd: (an error that", server.hello["failures"][0]["error"])
        for how in ("now", "late"):
            self.assertEqual(server.ask(how=how)[0], 500)
        server.send(call(1, how="pieces"))
        kinds = [server.receive()[0] for _ in range(3)]
        self.assertEqual(kinds, [calls.STREAM_HEAD, calls.STREAM_PIECE, calls.STREAM_END])
        self.assertEqual(server.ask(), (200, b"fine"))
        self.assertIn("Odd (no traceback", server.stop(self))

    def test_a_context_variable_that_cannot_be_compared_harms_nobody(self):
        server = Server(self, """
            import contextvars
            class Odd:
                def __eq__(self, other): raise ValueError("ambiguous")
            var = contextvars.ContextVar("var")
            class A(BasePlugin):
                def initialize(self, **kwargs): self.first = Odd(); var.set(self.first)
                def request_handler(self, **data):
                    fresh = var.get() is self.first
                    var.set(Odd())
                    return 200, str(fresh)
        """)
        for _ in range(2):
            self.assertEqual(server.ask(), (200, b"True"))
            server.is_alive(self)

    def test_what_can_be_awaited_is_awaited(self):
        server = Server(self, """
            class A(BasePlugin):
                def request_handler(self, **data):
                    return asyncio.ensure_future(self.later())
                async def later(self):
                    await asyncio.sleep(0)
                    return 201, "later"
        """)
        self.assertEqual(server.ask(), (201, b"later"))

    def test_a_cancelled_call_is_told_to_its_handler(self):
        self.check_cancelled("")

    def test_the_same_where_each_coroutine_is_a_task(self):
        # As on Python before 3.11.
        self.check_cancelled("import plugincore.calls; plugincore.calls._EAGER = False")

    def check_cancelled(self, first_line):
        server = Server(self, first_line + textwrap.dedent("""
            class A(BasePlugin):
                ended = "no"
                async def request_handler(self, **data):
                    if data.get("look"): return 200, type(self).ended
                    try: await asyncio.sleep(60)
                    finally: type(self).ended = "yes"
        """))
        server.send(call(5), (calls.PING,))
        self.assertEqual(server.receive(), (calls.PING,))
        server.send((calls.CANCEL, 5), (calls.CANCEL, 77))
        self.assertEqual(server.receive()[:2], (5, 500))
        self.assertEqual(server.ask(look="1"), (200, b"yes"))
        # Before its first step, where it has one.
        server.send(call(6), (calls.CANCEL, 6))
        self.assertEqual(server.receive()[:2], (6, 500))
        self.assertNotIn("never awaited", server.stop(self))


STREAM = """
    class A(BasePlugin):
        ended = 0
        async def request_handler(self, how="", **data):
            if how == "look": return 200, str(type(self).ended)
            if how == "plain": return 200, (f"{n} " for n in range(3))
            if how == "events": return Response(content_type="text/event-stream", body=self.pieces(how))
            return 200, self.pieces(how)
        async def pieces(self, how):
            try:
                for number in range(100):
                    yield str(number)
                    if how == "raise": raise ValueError("broken")
                    if how == "two" and number == 1: return
                    if how == "events": return
            finally:
                type(self).ended += 1
                if how == "badly": raise OSError("in the end")
"""


class StreamsTest(unittest.TestCase):
    def pieces(self, server, call_id):
        """Pieces up to the end of a stream, and what its end says."""
        found = []
        while True:
            message = server.receive()
            self.assertEqual(message[1], call_id)
            if message[0] == calls.STREAM_END:
                return found, message[2]
            self.assertEqual(message[0], calls.STREAM_PIECE)
            found.append(message[2])

    def begin(self, server, **variables):
        server.send(call(9, **variables))
        head = server.receive()
        self.assertEqual(head[:3], (calls.STREAM_HEAD, 9, 200))
        return head[3]

    def test_pieces_arrive_in_order_and_end(self):
        server = Server(self, STREAM)
        self.assertEqual(self.begin(server, how="two"), "text/plain; charset=utf-8")
        self.assertEqual(self.pieces(server, 9), ([b"0", b"1"], None))
        self.begin(server, how="plain")
        self.assertEqual(self.pieces(server, 9), ([b"0 ", b"1 ", b"2 "], None))
        self.assertEqual(self.begin(server, how="events"), [("content-type", "text/event-stream")])
        self.assertEqual(self.pieces(server, 9), ([b"data: 0\n\n"], None))

    def test_no_more_pieces_than_credits(self):
        server = Server(self, STREAM)
        self.begin(server)
        for number in range(calls.PIECES_AHEAD):
            self.assertEqual(server.receive(), (calls.STREAM_PIECE, 9, str(number).encode()))
        server.is_alive(self)
        server.send((calls.CREDIT, 9, 2))
        for number in (16, 17):
            self.assertEqual(server.receive(), (calls.STREAM_PIECE, 9, str(number).encode()))
        server.is_alive(self)
        server.send((calls.CREDIT, 9, 1000))
        self.assertEqual(len(self.pieces(server, 9)[0]), 100 - 18)

    def test_a_long_piece_is_several_and_an_empty_one_is_none(self):
        server = Server(self, """
            class A(BasePlugin):
                async def request_handler(self, **data): return 200, self.pieces()
                async def pieces(self):
                    for _ in range(100): yield b""
                    yield b"x" * (1 << 24)
        """)
        self.begin(server)
        size = 1 << 18
        for _ in range(calls.PIECES_AHEAD):
            self.assertEqual(server.receive(), (calls.STREAM_PIECE, 9, b"x" * size))
        server.is_alive(self)
        server.send((calls.CREDIT, 9, 100))
        self.assertEqual(self.pieces(server, 9), ([b"x" * size] * (64 - calls.PIECES_AHEAD), None))

    def test_an_error_breaks_it_off(self):
        server = Server(self, STREAM)
        self.begin(server, how="raise")
        self.assertEqual(self.pieces(server, 9), ([b"0"], "ValueError while sending the answer"))
        self.assertIn("ValueError: broken", server.stop(self))

    def test_a_cancelled_stream_ends_its_generator(self):
        server = Server(self, STREAM)
        self.begin(server)
        for _ in range(calls.PIECES_AHEAD):
            server.receive()
        server.send((calls.CANCEL, 9))
        self.assertEqual(server.receive(), (calls.STREAM_END, 9, "cancelled"))
        self.assertEqual(server.ask(how="look"), (200, b"1"))

    def test_a_generator_that_fails_in_its_end_still_ends_the_stream(self):
        server = Server(self, STREAM)
        self.begin(server, how="badly")
        for _ in range(calls.PIECES_AHEAD):
            server.receive()
        server.send((calls.CANCEL, 9))
        self.assertEqual(server.receive()[:2], (calls.STREAM_END, 9))
        server.stop(self)

    @unittest.skipUnless(calls._EAGER, "the call itself has not begun by then")
    def test_a_stream_cancelled_before_its_first_piece_leaves_nothing_behind(self):
        server = Server(self, STREAM)
        server.send(call(9), (calls.CANCEL, 9))
        self.assertEqual(server.receive()[0], calls.STREAM_HEAD)
        self.assertEqual(server.receive(), (calls.STREAM_END, 9, "cancelled"))
        server.stop(self)


class EndTest(unittest.TestCase):
    CODE = """
        class A(BasePlugin):
            async def request_handler(self, **data):
                if data.get("wait"): await asyncio.sleep(0.05)
                return 200, "done"
            async def terminate_plugin(self):
                await asyncio.sleep(0)
                print("goodbye of A")
        class B(BasePlugin):
            def request_handler(self, **data): pass
            def terminate_plugin(self): raise ValueError("not today")
        class C(BasePlugin):
            def request_handler(self, **data): pass
            def terminate_plugin(self): print("goodbye of C")
    """

    def test_stop_lets_calls_finish_and_tells_every_plugin(self):
        server = Server(self, self.CODE)
        server.send(call(4, wait="1"), (calls.STOP,))
        self.assertEqual(server.receive()[:2], (4, 200))
        output = server.ended(self)
        for words in ("goodbye of A", "goodbye of C", "ValueError: not today"):
            self.assertIn(words, output)

    def test_the_end_of_the_server_is_the_end_of_the_worker(self):
        server = Server(self, self.CODE)
        server.socket.close()
        self.assertIn("goodbye of A", server.ended(self))

    def test_a_blocked_worker_whose_server_is_gone_ends_all_the_same(self):
        server = Server(self, """
            class A(BasePlugin):
                def request_handler(self, **data):
                    while True: pass
        """, stop_secs=0.1)
        server.send(call(1))
        server.socket.close()
        self.assertEqual(server.process.wait(10), 1)

    def test_a_forked_child_does_not_hold_the_link(self):
        server = Server(self, """
            import signal
            class A(BasePlugin):
                def request_handler(self, **data):
                    child = os.fork()
                    if not child:
                        signal.pause()
                    return 200, str(child)
        """)
        status, child = server.ask()
        self.addCleanup(os.kill, int(child), signal.SIGKILL)
        server.process.kill()
        with self.assertRaises(EOFError):
            server.receive()

    def test_a_memory_limit_stays_within_that_of_the_system(self):
        self.check_memory_limit(3 << 30, "", 2 << 30, "")
        self.check_memory_limit(1 << 30, "", 1 << 30, "")

    def test_a_memory_limit_that_cannot_be_set_is_a_warning(self):
        warning = "<4|worker>the memory of the worker is not limited: TypeError"
        self.check_memory_limit(1 << 30, "resource.setrlimit = None", 2 << 30, warning)

    def check_memory_limit(self, wanted, change, found, words):
        code = f"""
            import resource
            from plugincore.worker import _limit_memory
            resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
            {change}
            _limit_memory({wanted})
            print(resource.getrlimit(resource.RLIMIT_DATA)[0])
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={**os.environ, "PYTHONPATH": PACKAGE}, capture_output=True, text=True, timeout=60,
        )
        self.assertEqual(done.stdout.strip(), str(found), done.stderr)
        self.assertIn(words, done.stderr)

    def test_background_tasks_run_between_calls(self):
        server = Server(self, """
            class A(BasePlugin):
                async def initialize(self, **kwargs):
                    self.ready = asyncio.Event()
                    self.task = asyncio.create_task(self.work())
                async def work(self):
                    await asyncio.sleep(0.01)
                    self.ready.set()
                async def request_handler(self, **data):
                    await self.ready.wait()
                    return 200, "worked"
        """)
        self.assertEqual(server.ask(), (200, b"worked"))


if __name__ == "__main__":
    unittest.main()
