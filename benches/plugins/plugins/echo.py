from plugincore.baseplugin import BasePlugin


class Echo(BasePlugin):
    async def request_handler(self, **data):
        return 200, {"name": data["name"]}
