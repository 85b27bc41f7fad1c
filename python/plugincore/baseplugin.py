"""The class that every plugin derives from.

The server creates one instance for each plugin class of a file, awaits its ``initialize`` if there is
one, and then hands it requests. Who may ask is decided by the server before a plugin hears of it.
"""

from __future__ import annotations

from plugincore.logjam import LogJam

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Optional, Sequence

    from plugincore.configfile import Config


class BasePlugin:
    """One endpoint: ``/<class name in lower case>`` unless told otherwise.

    Another name is set by ``route_path`` in the plugin's parameters, or by assigning
    ``self._plugin_id`` after ``super().__init__(**kwargs)``.
    """

    #: The methods that the endpoint answers; HEAD comes with GET.
    methods: ClassVar[Sequence[str]] = ("GET", "POST")

    #: Seconds that one request may take; ``None`` leaves it to the server's configuration.
    timeout_secs: ClassVar[Optional[float]] = None

    def __init__(self, **kwargs: Any) -> None:
        self._plugin_id: str = str(kwargs.get("route_path") or type(self).__name__.lower())
        self._auth_type: Optional[str] = kwargs.get("auth_type") or kwargs.get("auth")
        #: The server's configuration: ``self.config["paths"]["plugins"]`` is ``self.config.paths.plugins``.
        self.config: Config = kwargs.get("config")
        self._apikey: Optional[str] = self._expected_key(kwargs)
        #: ``self.log("text")``, ``self.log.warning("text")``, …: lines of the server's log.
        self.log: LogJam = LogJam(name=self._plugin_id)
        kwargs["log"] = self.log
        #: What this plugin was given: its parameters, ``config``, ``log`` and ``args``.
        self.args: dict[str, Any] = kwargs

    def request_handler(self, **data: Any) -> Any:
        """Answers one request; every plugin has its own, ``def`` or ``async def``.

        Returns ``(status, body)`` or just the body.
        """
        raise NotImplementedError(f"{type(self).__name__} has no request_handler")

    async def handle_request(self, **data: Any) -> Any:
        """Checks the key and calls ``request_handler``; a subclass may wrap it."""
        if not self._check_auth(data):
            return 403, {"error": "unauthorized"}
        result = self.request_handler(**data)
        return await result if hasattr(result, "__await__") else result

    def terminate_plugin(self) -> Any:
        """Called once before the plugin goes, on reload and at the end; may be ``async def``."""

    def _get_plugin_id(self) -> str:
        return self._plugin_id

    def _get_client_ip(self, request: Any) -> str:
        return request.remote

    def _check_auth(self, data: dict[str, Any]) -> bool:
        """Whether the request in ``data`` carries this plugin's key, where it has one."""
        if not self._auth_type:
            return True
        headers = data.get("request_headers") or {}
        bearer = headers.get("Authorization") or ""
        given = (
            bearer[7:].strip()
            if bearer[:7].lower() == "bearer "
            else headers.get("X-Custom-Auth") or data.get("apikey")
        )
        if not given or not self._apikey:
            return False
        # Here and not above: it loads OpenSSL, and hardly any plugin comes this way.
        import hmac

        return hmac.compare_digest(str(given).encode(), str(self._apikey).encode())

    def _expected_key(self, kwargs: dict[str, Any]) -> Optional[str]:
        kind = str(self._auth_type or "").lower()
        if kind == "plugin":
            return kwargs.get("apikey")
        if kind == "global" and self.config is not None:
            return self.config.get("auth", {}).get("apikey")
        return None
