"""Sockets for httpcore whose every wait is bounded by the `Progress` of the send they carry.

httpcore hands the values of a request's `timeout` extension through to the stream untouched, so a `Progress` travels
there in place of seconds: no context variable, and a pooled connection always serves the send that uses it now. A
plain number comes from a user who reads an upgraded connection.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from typing import Any, cast

import anyio
import httpcore

from meshsdk.core.model import Endpoint
from meshsdk.wire.progress import Progress
from meshsdk.wire.security import PeerRejected, Secure, Security

__all__ = ["AsyncBackend", "AsyncStream", "Backend", "Stream"]


class Stream(httpcore.NetworkStream):
    """A blocking connection."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: Any = None) -> bytes:
        """Read what is there, at most `max_bytes`; nothing means that the peer closed."""
        if not isinstance(timeout, Progress):
            return self._inner.read(max_bytes, timeout)
        data = self._inner.read(max_bytes, timeout.for_read())
        timeout.received(data)
        return data

    def write(self, buffer: bytes, timeout: Any = None) -> None:
        """Write all of `buffer`."""
        self._inner.write(buffer, timeout.for_write() if isinstance(timeout, Progress) else timeout)

    def close(self) -> None:
        """Close the socket."""
        self._inner.close()

    def start_tls(self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: Any = None) -> Stream:
        """Wrap the connection in TLS."""
        seconds = timeout.for_connect() if isinstance(timeout, Progress) else timeout
        return Stream(self._inner.start_tls(ssl_context, server_hostname, seconds))

    def get_extra_info(self, info: str) -> Any:
        """`socket`, `client_addr`, `server_addr`, `ssl_object` or `is_readable`."""
        return self._inner.get_extra_info(info)


class AsyncStream(httpcore.AsyncNetworkStream):
    """A connection of asyncio or trio."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: Any = None) -> bytes:  # noqa: ASYNC109 - httpcore's interface
        """Read what is there, at most `max_bytes`; nothing means that the peer closed."""
        if not isinstance(timeout, Progress):
            return await self._inner.read(max_bytes, timeout)
        data = await self._inner.read(max_bytes, timeout.for_read())
        timeout.received(data)
        return data

    async def write(self, buffer: bytes, timeout: Any = None) -> None:  # noqa: ASYNC109
        """Write all of `buffer`."""
        await self._inner.write(buffer, timeout.for_write() if isinstance(timeout, Progress) else timeout)

    async def aclose(self) -> None:
        """Close the socket."""
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: Any = None,  # noqa: ASYNC109
    ) -> AsyncStream:
        """Wrap the connection in TLS."""
        seconds = timeout.for_connect() if isinstance(timeout, Progress) else timeout
        return AsyncStream(await self._inner.start_tls(ssl_context, server_hostname, seconds))

    def get_extra_info(self, info: str) -> Any:
        """`socket`, `client_addr`, `server_addr`, `ssl_object` or `is_readable`."""
        return self._inner.get_extra_info(info)


class Backend(httpcore.NetworkBackend):
    """Connects to one endpoint, whatever host stands in the request's URL."""

    def __init__(self, endpoint: Endpoint, service: str = "", secure: Secure | None = None) -> None:
        self._endpoint = endpoint
        self._service = service
        self._secure = secure
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,  # noqa: ARG002
        port: int,
        timeout: Any = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Stream:
        """Open a connection, trying each address of a host name in turn within one bound.

        The look-up of a host name itself blocks for as long as the system's resolver likes: Consul gives addresses.
        """
        _check(self._endpoint)
        remaining = iter(_addresses(self._endpoint))
        address = next(remaining)
        while True:
            try:
                port = self._endpoint.port
                stream = self._inner.connect_tcp(address, port, timeout.for_connect(), local_address, socket_options)
            except httpcore.ConnectError:
                following = next(remaining, None)
                if following is None:
                    raise
                address = following
            else:
                return self._secured(stream, timeout)

    def _secured(self, stream: httpcore.NetworkStream, timeout: Any) -> Stream:
        try:
            security = _security(self._secure, self._endpoint, self._service)
            if security is not None:
                stream = stream.start_tls(security.context, security.server_hostname or None, timeout.for_connect())
                _check_peer(security, stream.get_extra_info("ssl_object"))
        except BaseException:
            stream.close()
            raise
        timeout.connected()
        return Stream(stream)


class AsyncBackend(httpcore.AsyncNetworkBackend):
    """The same for asyncio and trio; a host name's addresses are raced (RFC 8305), and its look-up is bounded too."""

    def __init__(self, endpoint: Endpoint, service: str = "", secure: Secure | None = None) -> None:
        self._endpoint = endpoint
        self._service = service
        self._secure = secure
        self._inner = cast(httpcore.AsyncNetworkBackend, httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002
        port: int,
        timeout: Any = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncStream:
        """Open a connection."""
        _check(self._endpoint)
        address, port = self._endpoint.address, self._endpoint.port
        try:
            stream = await self._inner.connect_tcp(address, port, timeout.for_connect(), local_address, socket_options)
        except UnicodeError as error:
            raise httpcore.ConnectError(f"{self._endpoint} is no address: {error}") from error
        try:
            security = _security(self._secure, self._endpoint, self._service)
            if security is not None:
                seconds = timeout.for_connect()
                stream = await stream.start_tls(security.context, security.server_hostname or None, seconds)
                _check_peer(security, stream.get_extra_info("ssl_object"))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await stream.aclose()
            raise
        timeout.connected()
        return AsyncStream(stream)


def _check(endpoint: Endpoint) -> None:
    if not 0 < endpoint.port < 65536:
        raise httpcore.ConnectError(f"{endpoint} is no address: ports are 1 to 65535")


def _addresses(endpoint: Endpoint) -> list[str]:
    try:
        found = socket.getaddrinfo(endpoint.address, endpoint.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"{endpoint} is no address: {error}") from error
    # One result is taken by its own name, which keeps the zone of a link-local IPv6 address.
    return [endpoint.address] if len(found) == 1 else [str(info[4][0]) for info in found]


def _security(secure: Secure | None, endpoint: Endpoint, service: str) -> Security | None:
    if secure is None:
        return None
    try:
        return secure(endpoint, service)
    except (OSError, PeerRejected) as error:
        raise httpcore.ConnectError(str(error)) from error


def _check_peer(security: Security, connection: Any) -> None:
    """Before the first byte of the request: httpcore sends it on what is returned to it."""
    if security.check is None:
        return
    try:
        security.check(connection)
    except PeerRejected as error:
        raise httpcore.ConnectError(str(error)) from error
