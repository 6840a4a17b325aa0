"""Where Consul listens: an http, https or unix URL, read once and refused with what to write instead."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["ConsulAddress"]

_FORMS = "'http://127.0.0.1:8500', 'https://consul.internal:8501' or 'unix:///run/consul.sock'"


@dataclass(frozen=True, slots=True)
class ConsulAddress:
    """Consul's HTTP address.

    Attributes:
        url: as it is shown in messages.
        scheme: "http" or "https"; "http" for a unix socket.
        host: a name or address, IPv6 without brackets; "localhost" for a unix socket.
        port: 1 to 65535.
        socket: the path of a unix socket, or None.
    """

    url: str
    scheme: str
    host: str
    port: int
    socket: str | None = None

    @classmethod
    def parse(cls, url: str) -> ConsulAddress:
        """Read `url`; "host:port" means http, as in CONSUL_HTTP_ADDR. Raise ValueError saying what to write."""
        text = url.strip()
        if text.startswith("unix://"):
            path = text.removeprefix("unix://")
            if not path.startswith("/"):
                raise ValueError(f"Consul address {url!r}: write the socket's absolute path, as in {_FORMS}")
            return cls(text, "http", "localhost", 8500, path)
        return cls._tcp(url, text if "://" in text else f"http://{text}")

    @classmethod
    def _tcp(cls, given: str, text: str) -> ConsulAddress:
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"Consul address {given!r}: {error}; write {_FORMS}") from error
        if parts.scheme not in {"http", "https"} or not host or port == 0 or " " in text:
            raise ValueError(f"Consul address {given!r}: write {_FORMS}")
        if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username:
            raise ValueError(f"Consul address {given!r}: leave out all but scheme, host and port; write {_FORMS}")
        port = port or (443 if parts.scheme == "https" else 8500)
        shown = f"[{host}]" if ":" in host else host
        return cls(f"{parts.scheme}://{shown}:{port}", parts.scheme, host, port)
