"""A plugin with a key of its own: GET /keyed.

There is no line about keys in here: the configuration says `keyed = auth_type=plugin&apikey=…` in
[plugin_parms], and the server refuses who has no key before the plugin hears of it.

    curl localhost:9192/keyed                                             # 403
    curl -H 'Authorization: Bearer open-sesame' localhost:9192/keyed
    curl -H 'X-Custom-Auth: open-sesame' localhost:9192/keyed
    curl -d apikey=open-sesame localhost:9192/keyed
"""

from plugincore import BasePlugin


class Keyed(BasePlugin):
    """Tells its secret to who has the key."""

    def request_handler(self, **data):
        return {"secret": "the cave is open", "client": data["client_ip"]}
