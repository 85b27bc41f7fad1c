"""What the author of a Gatehouse plugin imports.

>>> from plugincore import BasePlugin, Response
"""

from plugincore.baseplugin import BasePlugin
from plugincore.response import Response

__all__ = ["BasePlugin", "Response"]
