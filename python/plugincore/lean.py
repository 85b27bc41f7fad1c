"""Imports asyncio without OpenSSL, until somebody needs it.

``asyncio`` loads ``ssl`` when it is imported, and with it 4 MB of OpenSSL into every worker, though few
plugins speak TLS. It copes where there is no ``ssl``; so it is told that there is none, and when a
plugin (or a library of its) imports ``ssl`` for the first time, asyncio gets the real one after all.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Once:
    """Finds ``ssl`` the first time it is imported, and steps aside."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "ssl":
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec("ssl")
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            run(module)
            _give_to_asyncio(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def import_asyncio() -> None:
    """Imports asyncio; to be called before anything else does."""
    if "ssl" in sys.modules or "asyncio" in sys.modules:
        return
    sys.modules["ssl"] = None  # type: ignore[assignment]
    try:
        import asyncio  # noqa: F401
    finally:
        del sys.modules["ssl"]
    sys.meta_path.insert(0, _Once())


def _give_to_asyncio(ssl: Any) -> None:
    import importlib

    for name, module in list(sys.modules.items()):
        if name.startswith("asyncio.") and getattr(module, "ssl", ssl) is None:
            module.ssl = ssl
    # Its classes are built from what `ssl` has, so this one is run again; its names are looked up in the
    # module each time they are used.
    importlib.reload(sys.modules["asyncio.sslproto"])
