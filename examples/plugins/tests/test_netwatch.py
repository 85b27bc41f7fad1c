"""What /netwatch measures."""

import asyncio
import tempfile
import unittest

from plugincore.testing import call

from netwatch import Netwatch, read_counters

FILE = """Inter-|   Receive                    |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs
    lo:    100       2    0    0    0     0          0         0      100       2    0
  eth0: 4000000000 9    0    0    0     0          0         0     2000       7    0
"""


class NetwatchTest(unittest.TestCase):
    def setUp(self):
        file = tempfile.NamedTemporaryFile("w")
        self.addCleanup(file.close)
        file.write(FILE)
        file.flush()
        self.parameters = {"source": file.name, "interval": 60}

    def test_counters_are_read(self):
        counters = read_counters(self.parameters["source"])
        self.assertEqual(counters, {"lo": (100, 100), "eth0": (4000000000, 2000)})

    def test_before_the_first_interval_there_are_counters_and_no_speeds(self):
        status, body = call(Netwatch, parameters=self.parameters)
        self.assertEqual((status, sorted(body)), (200, ["eth0", "lo"]))
        self.assertEqual(body["eth0"]["tx_bytes"], 2000)
        self.assertIsNone(body["eth0"]["tx_bytes_per_sec"])

    def test_one_interface_is_asked_for_by_name(self):
        status, body = call(Netwatch, subpath="lo", parameters=self.parameters)
        self.assertEqual((status, body["rx_bytes"]), (200, 100))
        self.assertEqual(call(Netwatch, subpath="eth9", parameters=self.parameters)[0], 404)

    def test_speed_is_difference_over_time_and_never_negative(self):
        async def measured():
            plugin = Netwatch()
            await plugin.initialize(**self.parameters)
            before = plugin.last[0]
            plugin.measure(before + 2, {"lo": (300, 100), "eth0": (5, 2000)})
            plugin.terminate_plugin()
            await asyncio.gather(plugin.task, return_exceptions=True)
            return plugin.speeds, plugin.task.cancelled()

        speeds, is_cancelled = asyncio.run(measured())
        self.assertEqual(speeds["lo"], {"rx_bytes_per_sec": 100, "tx_bytes_per_sec": 0})
        self.assertEqual(speeds["eth0"], {"rx_bytes_per_sec": 0, "tx_bytes_per_sec": 0})
        self.assertTrue(is_cancelled, "the task ends with the plugin")


if __name__ == "__main__":
    unittest.main()
