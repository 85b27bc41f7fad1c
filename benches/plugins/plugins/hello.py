from plugincore.baseplugin import BasePlugin


class Hello(BasePlugin):
    async def request_handler(self, **data):
        return 200, {"hello": "world"}
