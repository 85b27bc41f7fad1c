import datetime

from plugincore.baseplugin import BasePlugin


class Clock(BasePlugin):
    async def request_handler(self, **data):
        return 200, {"time": datetime.datetime.now().isoformat()}
