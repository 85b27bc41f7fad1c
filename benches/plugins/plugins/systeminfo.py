import os
import socket
import time

import psutil
from plugincore.baseplugin import BasePlugin


class Systeminfo(BasePlugin):
    """What the machine is and how it does, read anew for each request."""

    async def request_handler(self, **data):
        names = os.uname()
        return 200, {
            "net": self.net(),
            "cpu": {
                "count": psutil.cpu_count(),
                "percent": psutil.cpu_percent(),
                "load": os.getloadavg(),
            },
            "uptime": {"seconds": time.time() - psutil.boot_time()},
            "disk": self.disk(),
            "ram": {**psutil.virtual_memory()._asdict(), "swap": psutil.swap_memory()._asdict()},
            "info": {
                "system": names.sysname,
                "node": names.nodename,
                "release": names.release,
                "version": names.version,
                "machine": names.machine,
            },
        }

    def net(self):
        counters = psutil.net_io_counters(pernic=True)
        return [
            {
                "iface": name,
                "address": address.address,
                "mask": address.netmask,
                "tx": counters[name].bytes_sent if name in counters else None,
                "rx": counters[name].bytes_recv if name in counters else None,
            }
            for name, addresses in psutil.net_if_addrs().items()
            for address in addresses
            if address.family == socket.AF_INET
        ]

    def disk(self):
        return [
            {"device": part.device, "mountpoint": part.mountpoint, "fstype": part.fstype}
            | psutil.disk_usage(part.mountpoint)._asdict()
            for part in psutil.disk_partitions()
        ]
