"""The server's configuration as plugins see it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping


class Config(dict):
    """A dictionary whose keys are attributes as well, at every level.

    Sections are found in any letter case: ``config.SSL`` and ``config["ssl"]`` are one section. A key
    that is also a method of ``dict`` (``items``, say) is reached by index.
    """

    def __init__(self, items: Mapping[str, Any] = {}, **more: Any) -> None:
        super().__init__()
        for key, value in {**items, **more}.items():
            self[key] = value

    def __setitem__(self, key: str, value: Any) -> None:
        if isinstance(value, dict) and not isinstance(value, Config):
            value = Config(value)
        super().__setitem__(key, value)

    def __missing__(self, key: str) -> Any:
        found = self._spelling(key)
        if found is None:
            raise KeyError(key)
        return super().__getitem__(found)

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or self._spelling(key) is not None

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            raise AttributeError(f"the configuration has no {key!r} here") from None

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``key``, or ``default``."""
        return self[key] if key in self else default

    def _spelling(self, key: object) -> Any:
        if not isinstance(key, str):
            return None
        wanted = key.lower()
        for known in self:
            if isinstance(known, str) and known.lower() == wanted:
                return known
        return None
