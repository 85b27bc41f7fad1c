"""Network speeds, measured in the background: GET /netwatch.

    curl localhost:9192/netwatch               # speeds are there after the first interval
    curl localhost:9192/netwatch/lo            # one interface

Parameters (in [plugin_parms]): `netwatch = interval=float:2.5&source=/proc/net/dev`
"""

import asyncio
import time

from plugincore import BasePlugin


class Netwatch(BasePlugin):
    """A task reads the kernel's counters again and again; requests get its last result."""

    async def initialize(self, **kwargs):
        self.interval = float(kwargs.get("interval", 2.5))
        self.source = kwargs.get("source", "/proc/net/dev")
        self.speeds = {}
        # The first reading belongs here: where it fails, the plugin is not loaded and the log says why.
        self.last = (time.monotonic(), read_counters(self.source))
        self.task = asyncio.create_task(self.watch())

    async def watch(self):
        while True:
            await asyncio.sleep(self.interval)
            try:
                self.measure(time.monotonic(), read_counters(self.source))
            except (OSError, ValueError) as error:
                self.log.warning(f"reading {self.source}: {error}")

    def measure(self, now, counters):
        """Takes the difference to the last reading."""
        before, last = self.last
        secs = now - before
        for name, (received, sent) in counters.items():
            was_received, was_sent = last.get(name, (received, sent))
            # A counter that has gone back began anew: nothing can be said about it.
            self.speeds[name] = {
                "rx_bytes_per_sec": max(0, round((received - was_received) / secs)),
                "tx_bytes_per_sec": max(0, round((sent - was_sent) / secs)),
            }
        self.last = (now, counters)

    def terminate_plugin(self):
        self.task.cancel()

    def request_handler(self, **data):
        counters = self.last[1]
        interfaces = {
            name: {
                "rx_bytes": received,
                "tx_bytes": sent,
                **self.speeds.get(name, {"rx_bytes_per_sec": None, "tx_bytes_per_sec": None}),
            }
            for name, (received, sent) in counters.items()
        }
        wanted = data["subpath"]
        if not wanted:
            return 200, interfaces
        if wanted not in interfaces:
            return 404, {"error": f"there is no interface {wanted}"}
        return 200, interfaces[wanted]


def read_counters(source):
    """Bytes received and sent by each interface."""
    with open(source) as lines:
        rows = [line.split(":", 1) for line in lines if ":" in line]
    counters = {}
    for name, numbers in rows:
        columns = numbers.split()
        counters[name.strip()] = (int(columns[0]), int(columns[8]))
    return counters
