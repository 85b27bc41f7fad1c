"""From a plugin file to its endpoints."""

import asyncio
import os
import sys
import tempfile
import textwrap
import unittest
from types import SimpleNamespace

from plugincore import loading


class LoadingTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.modules = set(sys.modules)

    def tearDown(self):
        for name in set(sys.modules) - self.modules:
            del sys.modules[name]

    def load(self, code, name="sample.py", **parameters):
        path = os.path.join(self.directory, name)
        with open(path, "w") as file:
            file.write("from plugincore import BasePlugin\n" + textwrap.dedent(code))
        args = SimpleNamespace(log=None, level="INFO")
        return asyncio.run(loading.load(path, parameters, {"auth": {"apikey": "k"}}, args))

    def check(self, code, names, failures=(), **parameters):
        """``code`` gives endpoints of these names, and failures that say these words."""
        endpoints, failed = self.load(code, **parameters)
        self.assertEqual([endpoint.name for endpoint in endpoints], list(names))
        self.assertEqual(len(failed), len(failures), failed)
        for failure, words in zip(failed, failures):
            self.assertIn(words, f"{failure['class']} {failure['error']}")
        return endpoints

    def test_a_class_is_called_by_its_name_in_lower_case(self):
        self.check("class HelloWorld(BasePlugin):\n def request_handler(self, **d): pass", ["helloworld"])

    def test_route_path_names_it(self):
        self.check(
            "class A(BasePlugin):\n def request_handler(self, **d): pass", ["other"], route_path="other"
        )

    def test_an_assigned_name_wins(self):
        code = """
        class A(BasePlugin):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self._plugin_id = "mine"
            def request_handler(self, **data): pass
        """
        self.check(code, ["mine"], route_path="other")

    def test_several_classes_are_several_plugins_and_imported_ones_are_none(self):
        code = """
        from plugincore.baseplugin import BasePlugin as Base
        class One(BasePlugin):
            def request_handler(self, **data): pass
        class Two(One): pass
        class Other: pass
        """
        self.check(code, ["one", "two"])

    def test_a_second_name_for_a_class_is_no_second_plugin(self):
        self.check("class A(BasePlugin):\n def request_handler(self, **d): pass\nB = A", ["a"])

    def test_a_broken_class_does_not_stop_a_good_one(self):
        code = """
        import sys
        class Bad(BasePlugin):
            def __init__(self, **kwargs): raise ValueError("no key")
        class Worse(BasePlugin):
            def __init__(self, **kwargs): sys.exit(3)
        class Late(BasePlugin):
            async def initialize(self, **kwargs): raise OSError("no net")
            def request_handler(self, **data): pass
        class Empty(BasePlugin): pass
        class Good(BasePlugin):
            def request_handler(self, **data): pass
        """
        failures = [
            "Bad ValueError: no key", "Worse SystemExit: 3", "Late OSError: no net",
            "Empty Broken: class Empty has no request_handler",
        ]
        self.check(code, ["good"], failures)

    def test_a_file_that_cannot_be_read_is_an_error_with_its_line(self):
        with self.assertRaises(SyntaxError):
            self.load("class A(BasePlugin:")
        with self.assertRaises(ModuleNotFoundError):
            self.load("import no_such_module")

    def test_constructor_and_initialize_get_the_same(self):
        code = """
        class A(BasePlugin):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.first = kwargs
            async def initialize(self, **kwargs):
                self.second = kwargs
            def request_handler(self, **data): pass
        """
        plugin = self.check(code, ["a"], limit=5)[0].plugin
        for kwargs in (plugin.first, plugin.second):
            self.assertEqual(kwargs["limit"], 5)
            self.assertEqual(kwargs["config"].auth.apikey, "k")
            self.assertEqual(kwargs["args"].level, "INFO")
            self.assertTrue(callable(kwargs["log"].warning))
        self.assertEqual(plugin.args["limit"], 5)
        self.assertEqual(plugin.config["auth"]["apikey"], "k")

    def test_the_spellings_of_the_documents_work(self):
        code = """
        class Example(BasePlugin):
            def request_hanlder(**args: dict) -> tuple:
                return (200, {'example': 'Hi from Example.py'})
        class Other(BasePlugin):
            async def initilaize(self, **kwargs): self.ready = True
            def request_handler(self, **data): return self.ready
        """
        example, other = self.check(code, ["example", "other"])
        self.assertEqual(example.handler(a=1), (200, {"example": "Hi from Example.py"}))
        self.assertEqual(example.receiver, "")
        self.assertEqual((other.handler(), other.receiver), (True, "self"))

    def test_a_plugin_of_a_wrapped_handle_request_is_called_through_it(self):
        code = """
        class A(BasePlugin):
            async def handle_request(self, **data):
                return 200, ["wrapped", await super().handle_request(**data)]
            def request_handler(self, **data): return 200, "inner"
        """
        endpoint = self.check(code, ["a"])[0]
        self.assertEqual(asyncio.run(endpoint.handler()), (200, ["wrapped", (200, "inner")]))

    def test_a_file_named_like_a_module_of_python_does_not_hide_it(self):
        endpoints, _ = self.load("class A(BasePlugin):\n def request_handler(self, **d): pass", "json.py")
        self.assertEqual(len(endpoints), 1)
        import json

        self.assertEqual(json.loads("1"), 1)

    def test_the_server_is_told_methods_and_time_limit(self):
        code = """
        class A(BasePlugin):
            methods = ("get", "PATCH")
            timeout_secs = 2
            def request_handler(self, **data): pass
        class B(BasePlugin):
            methods = "post"
            def request_handler(self, **data): pass
        """
        a, b = (endpoint.description() for endpoint in self.check(code, ["a", "b"]))
        self.assertEqual(a, {"name": "a", "class": "A", "methods": ["GET", "PATCH"], "timeout_secs": 2})
        self.assertEqual((b["methods"], b["timeout_secs"]), (["POST"], None))

    def test_a_time_limit_that_is_none_is_the_fault_of_its_class_alone(self):
        code = """
        class Base(BasePlugin):
            def request_handler(self, **data): pass
        class A(Base): timeout_secs = "5"
        class B(Base): timeout_secs = float("inf")
        class C(Base): timeout_secs = 0
        class D(Base): timeout_secs = True
        class E(Base): timeout_secs = float("nan")
        class F(Base): timeout_secs = -1
        class G(Base): timeout_secs = 10 ** 5000
        class H(Base): timeout_secs = [5]
        """
        self.check(code, ["base"], [f"{name} Broken: timeout_secs is" for name in "ABCDEFGH"])

    def test_the_worker_has_a_log_of_its_own(self):
        code = """
        class A(BasePlugin):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.log = print
            def request_handler(self, **data): pass
        """
        endpoint = self.check(code, ["a"])[0]
        self.assertIs(endpoint.log, print)
        self.assertEqual(endpoint.worker_log.name, "a")


if __name__ == "__main__":
    unittest.main()
