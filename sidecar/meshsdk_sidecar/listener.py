"""A listener of the sidecar: an ASGI application at an address, until the sidecar ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from meshsdk.errors import ConfigError

__all__ = ["listening", "url"]


class _Proxied(HttpToolsProtocol):
    """HTTP/1.1 as clients of a proxy speak it."""

    def on_headers_complete(self) -> None:
        """Give a request its destination before the application sees it.

        An absolute target names it and outranks the Host field (RFC 9112, 3.2.2). That of CONNECT is no URL, and
        uvicorn would break off: the application refuses it with words.
        """
        assert self.parser is not None  # it is calling us
        if self.parser.get_method() == b"CONNECT":
            self.url = b"/"
        elif not self.url.startswith((b"/", b"*")):
            target = httptools.parse_url(self.url)
            host = target.host + (b":%d" % target.port if target.port else b"")
            self.headers[:] = [field for field in self.headers if field[0] != b"host"] + [(b"host", host)]
            self.scope["scheme"] = target.schema.decode()
        super().on_headers_complete()


# A proxy adds nothing of its own to answers, and believes no forwarding header of its caller.
_SERVING: dict[str, Any] = {
    "http": _Proxied,
    "ws": "none",
    "lifespan": "off",
    "log_config": None,
    "log_level": "error",
    "access_log": False,
    "proxy_headers": False,
    "server_header": False,
    "date_header": False,
    "timeout_graceful_shutdown": 10,
}


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the sidecar owns the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def listening(app: Any, name: str, address: str, port: int) -> AsyncIterator[None]:
    """Serve while the context lasts, then finish what is in flight, for at most 10 s.

    Args:
        name: the section of the file that says where, for messages.

    Raises:
        ConfigError: the port is taken, or the address is not this machine's.
    """
    try:
        listener = socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {url(address, port)}: {_reason(error)}; "
            f"write another {name}.port or {name}.address, or end what listens there"
        ) from error
    # Accepted connections inherit it on Linux. asyncio sets it only where the protocol was named, as it was not here,
    # and the answers of a kept connection would wait up to 40 ms for an acknowledgement that is delayed.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = _Server(uvicorn.Config(app, **_SERVING))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await task
        listener.close()


def _reason(error: OSError) -> str:
    """The system's word for it: `create_server` adds the address once more."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def url(address: str, port: int) -> str:
    """Where a listener is, as people write it."""
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
