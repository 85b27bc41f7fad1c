"""Turns one plugin file into endpoints.

The file is imported under its own name, every class in it that derives from ``BasePlugin`` is made and
initialised, and what went wrong is told class by class: one broken class does not stop the others.
"""

from __future__ import annotations

import importlib.util
import os
import sys

from plugincore.baseplugin import BasePlugin
from plugincore.configfile import Config
from plugincore.logjam import LogJam

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType, SimpleNamespace
    from typing import Any, Callable, Optional

#: The handler's name, and the spelling of it in the older program's example.
_HANDLER_NAMES = ("request_handler", "request_hanlder")
#: Likewise for the asynchronous initialisation.
_INITIALIZE_NAMES = ("initialize", "initilaize")


class Endpoint:
    """One plugin that can be called."""

    __slots__ = (
        "name", "plugin", "handler", "receiver", "log", "worker_log", "methods", "timeout_secs",
    )

    def __init__(self, name: str, plugin: Any, handler: Callable[..., Any], receiver: str) -> None:
        self.name = name
        self.plugin = plugin
        self.handler = handler
        #: What the handler calls its instance: a variable of that name cannot be passed.
        self.receiver = receiver
        #: What the worker itself says of this plugin, which may set its own to anything.
        self.worker_log = LogJam(name=name)
        self.log = getattr(plugin, "log", None) or self.worker_log
        # A single method may be written as a plain string.
        methods = (plugin.methods,) if isinstance(plugin.methods, str) else plugin.methods
        self.methods = [str(method).upper() for method in methods]
        self.timeout_secs: Optional[float] = _time_limit(plugin.timeout_secs)

    def description(self) -> dict[str, Any]:
        """What the server needs to know."""
        return {
            "name": self.name,
            "class": type(self.plugin).__name__,
            "methods": self.methods,
            "timeout_secs": self.timeout_secs,
        }


class Broken(Exception):
    """A plugin that cannot be used, and why."""


def _time_limit(given: Any) -> Optional[float]:
    if given is None:
        return None
    # True is a number for Python and a mistake here; no float holds an integer beyond `max`.
    if not isinstance(given, bool) and isinstance(given, (int, float)):
        if 0 < given <= sys.float_info.max:
            return float(given)
    shown = "a very large number" if isinstance(given, int) and given > 1 << 64 else repr(given)
    raise Broken(f"timeout_secs is {shown}, expected a finite number of seconds above 0")


async def load(
    path: str, parameters: dict[str, Any], config: dict[str, Any], args: SimpleNamespace
) -> tuple[list[Endpoint], list[dict[str, str]]]:
    """The endpoints of the file at ``path``, and a report for each class that failed."""
    module = _import(path)
    endpoints: list[Endpoint] = []
    failures: list[dict[str, str]] = []
    for plugin_class in _plugin_classes(module):
        try:
            endpoints.append(await _make(plugin_class, parameters, config, args))
        except BaseException as error:  # SystemExit among them: it must not end the others.
            failures.append(report(error, plugin_class.__name__))
    return endpoints, failures


def report(error: BaseException, where: str) -> dict[str, str]:
    """What went wrong, for the log (with traceback) and for the client (without)."""
    try:
        words = str(error)
    except BaseException:
        words = "(an error that cannot be described)"
    return {
        "class": where,
        "error": f"{type(error).__name__}: {words}",
        "traceback": traceback_of(error),
    }


def traceback_of(error: BaseException) -> str:
    """The lines that Python prints for ``error``; a class of the plugin's that fails at it ends nothing."""
    import traceback

    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__)
    except BaseException as problem:
        lines = [f"{type(error).__name__} (no traceback: {type(problem).__name__})"]
    return "".join(lines).rstrip()


def _import(path: str) -> ModuleType:
    stem = os.path.splitext(os.path.basename(path))[0]
    taken = stem in sys.modules or stem in getattr(sys, "stdlib_module_names", ())
    name = f"{stem}_plugin" if taken else stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _plugin_classes(module: ModuleType) -> list[type]:
    # A dictionary, because one class may have two names and is one plugin all the same.
    return list(
        {
            value: None
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, BasePlugin)
            and value.__module__ == module.__name__
        }
    )


async def _make(
    plugin_class: type, parameters: dict[str, Any], config: dict[str, Any], args: SimpleNamespace
) -> Endpoint:
    kwargs = {
        **parameters,
        "config": Config(config),
        "log": LogJam(name=plugin_class.__name__.lower()),
        "args": args,
        "prog_args": args,
    }
    plugin = plugin_class(**kwargs)
    for name in _INITIALIZE_NAMES:
        initialize = getattr(plugin, name, None)
        if callable(initialize):
            outcome = initialize(**kwargs)
            if hasattr(outcome, "__await__"):
                await outcome
            break
    endpoint_name = str(getattr(plugin, "_plugin_id", None) or plugin_class.__name__.lower())
    return Endpoint(endpoint_name, plugin, *_handler(plugin_class, plugin))


def _handler(plugin_class: type, plugin: Any) -> tuple[Callable[..., Any], str]:
    """What to call for a request, and the name of its instance parameter."""
    overrides = ("handle_request", "_check_auth")
    if any(getattr(plugin_class, name) is not getattr(BasePlugin, name) for name in overrides):
        return plugin.handle_request, "self"
    for name in _HANDLER_NAMES:
        function = getattr(plugin_class, name, None)
        if function is None or function is BasePlugin.request_handler:
            continue
        code = getattr(function, "__code__", None)
        bound = getattr(plugin, name)
        if code is None or getattr(bound, "__self__", None) is None:
            return bound, ""
        if code.co_argcount == 0 and not code.co_flags & 0x04:
            # `def request_handler(**args)`: written without an instance, so called without one.
            return function, ""
        return bound, code.co_varnames[0]
    raise Broken(f"class {plugin_class.__name__} has no request_handler method")
