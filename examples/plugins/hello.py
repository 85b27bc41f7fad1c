"""The smallest plugin: GET /hello.

    curl localhost:9192/hello
    curl 'localhost:9192/hello?name=Ada'
"""

from plugincore import BasePlugin


class Hello(BasePlugin):
    """Greets whoever the variable `name` names."""

    def request_handler(self, **data):
        return 200, {"message": f"Hello, {data.get('name', 'world')}!"}
