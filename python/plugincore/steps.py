"""Runs coroutines without a task each, as long as they do not wait.

Most ``async def`` handlers finish without ever waiting for anything; a task for each would cost more
than the handler. So a coroutine's first step is taken at once, under the name of a *spare* task: what
asks for the current task finds a real one. If the coroutine then waits, the spare becomes its task and
drives it to the end; if not, the spare is free for the next.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from asyncio import tasks as _tasks
from collections.abc import Coroutine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional

    Finish = Callable[[Any, Optional[BaseException]], None]

_NOTHING = object()


class _Driver(Coroutine):
    """What the spare task runs: first nothing, then the rest of one coroutine."""

    __slots__ = ("idle", "_loop", "_rest", "_finish", "_waits_for")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._rest: Any = None
        self._finish: Any = None
        self._waits_for: Any = _NOTHING
        self.idle: Any = None

    def take(self, coroutine: Any, waits_for: Any, finish: Finish) -> None:
        """Takes over ``coroutine``, which has stopped to wait for ``waits_for``."""
        self._rest = coroutine
        self._finish = finish
        self._waits_for = waits_for
        # It is done already where the coroutine has cancelled its own task: that comes through then.
        if self.idle is not None and not self.idle.done():
            self.idle.set_result(None)

    def send(self, value: Any) -> Any:
        waits_for = self._waits_for
        if waits_for is not _NOTHING:
            self._waits_for = _NOTHING
            return waits_for
        if self._rest is None:
            self.idle = self._loop.create_future()
            self.idle._asyncio_future_blocking = True
            return self.idle
        return self._step(self._rest.send, value)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        error = kind if value is None else value
        if self._rest is None:
            raise error
        waits_for, self._waits_for = self._waits_for, _NOTHING
        if getattr(waits_for, "_asyncio_future_blocking", False):
            waits_for._asyncio_future_blocking = False
        return self._step(self._rest.throw, error)

    def close(self) -> None:
        if self._rest is not None:
            self._rest.close()

    def __await__(self) -> Any:
        raise RuntimeError("a driver belongs to its task")

    def _step(self, step: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return step(argument)
        except StopIteration as end:
            self._finish(end.value, None)
        except BaseException as error:
            # SystemExit among them: a handler that asks the process to end fails its own call alone.
            self._finish(None, error)
        self._rest = None
        raise StopIteration


class Steps:
    """Starts coroutines; see the module's text."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._blank = contextvars.copy_context()
        self._renew()

    def _renew(self) -> None:
        self.context = self._blank.copy()
        self._driver = _Driver(self._loop)
        if sys.version_info >= (3, 11):
            self._spare = self._loop.create_task(self._driver, context=self.context)
        else:
            self._spare = self.context.run(self._loop.create_task, self._driver)
        # A spare that is dropped at the end of the process is no mistake worth a message.
        self._spare._log_destroy_pending = False

    def leave_no_trace(self) -> None:
        """Takes a new context where the last call has left variables in this one."""
        try:
            if len(self.context) == len(self._blank) and self.context == self._blank:
                return
        except Exception:
            pass  # A plugin's variable that cannot be compared is not what it was.
        self._spare.cancel()
        self._renew()

    def first(self, coroutine: Any) -> Any:
        """Takes the first step: returns ``(True, result)``, or ``(False, what it waits for)``."""
        loop, spare = self._loop, self._spare
        _tasks._enter_task(loop, spare)
        try:
            return False, self.context.run(coroutine.send, None)
        except StopIteration as end:
            if spare.cancelling():
                self._renew()  # It has cancelled its task and ended: the next needs a sound one.
            return True, end.value
        except BaseException:
            if spare.cancelling():
                self._renew()
            raise
        finally:
            _tasks._leave_task(loop, spare)

    def rest(self, coroutine: Any, waits_for: Any, finish: Finish) -> asyncio.Task:
        """Hands a coroutine that waits to its task; ``finish(result, error)`` is called at the end."""
        task = self._spare
        self._driver.take(coroutine, waits_for, finish)
        self._renew()
        return task
