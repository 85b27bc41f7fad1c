from plugincore.baseplugin import BasePlugin


class Work(BasePlugin):
    """Keeps an interpreter busy; how long is the parameter ``rounds``."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.rounds = int(kwargs["rounds"])

    async def request_handler(self, **data):
        total = 0
        for number in range(self.rounds):
            total += number * number
        return 200, {"total": total}
