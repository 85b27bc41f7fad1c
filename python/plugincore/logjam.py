"""Lines for the server's log.

A line goes to standard error as ``<severity|name>text``; the server reads it, adds the time and writes
it down with the plugin's name.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Severities as syslog numbers them.
LEVELS = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}

#: What is more detailed than this is not sent at all; set from the server's configuration.
_threshold = LEVELS["INFO"]


def set_level(level: str) -> None:
    """Leaves out what is more detailed than ``level``."""
    global _threshold
    _threshold = LEVELS.get(level.upper(), LEVELS["INFO"])


class LogJam:
    """A log with the plugin's name: call it, or one of its methods."""

    __slots__ = ("name",)

    def __init__(self, *, name: str, **_: Any) -> None:
        self.name = name

    def __call__(self, *message: Any) -> None:
        """The same as :meth:`info`."""
        self._write(6, message)

    def debug(self, *message: Any) -> None:
        """What a developer wants to know."""
        self._write(7, message)

    def info(self, *message: Any) -> None:
        """What an operator wants to know."""
        self._write(6, message)

    def warning(self, *message: Any) -> None:
        """Something is odd; it goes on."""
        self._write(4, message)

    warn = warning

    def error(self, *message: Any) -> None:
        """Something failed."""
        self._write(3, message)

    def critical(self, *message: Any) -> None:
        """Something failed that much depends on."""
        self._write(2, message)

    def exception(self, *message: Any) -> None:
        """An error with the traceback of the exception that is being handled."""
        self._write(3, message)
        if sys.exc_info()[0] is not None:
            import traceback

            self._write(3, (traceback.format_exc().rstrip(),))

    def _write(self, severity: int, message: tuple[Any, ...]) -> None:
        if severity > _threshold:
            return
        start = f"<{severity}|{self.name}>"
        text = " ".join(map(str, message))
        lines = "".join(f"{start}{line}\n" for line in text.splitlines() or [""])
        # One write, so that lines of several threads do not mix.
        try:
            sys.stderr.write(lines)
            sys.stderr.flush()
        except Exception:
            pass  # The plugin has closed or replaced it: a lost line is no reason to fail a call.
