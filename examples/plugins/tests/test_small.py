"""What /hello and /keyed answer."""

import unittest

from plugincore.testing import call

from hello import Hello
from keyed import Keyed


class HelloTest(unittest.TestCase):
    def test_greets_by_name_and_the_world_otherwise(self):
        self.assertEqual(call(Hello, name="Ada"), (200, {"message": "Hello, Ada!"}))
        self.assertEqual(call(Hello), (200, {"message": "Hello, world!"}))


class KeyedTest(unittest.TestCase):
    def test_tells_its_secret(self):
        # Who may ask is decided by the server: the handler is only called for those.
        status, body = call(Keyed)
        self.assertEqual((status, body["client"]), (200, "127.0.0.1"))


if __name__ == "__main__":
    unittest.main()
