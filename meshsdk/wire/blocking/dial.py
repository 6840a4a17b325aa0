"""Opens connections for threads: each address of a host name in turn within one bound, TLS, the check of the peer."""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from meshsdk.core.model import Endpoint
from meshsdk.wire.security import Security
from meshsdk.wire.sockets import AddressInfo, check_port, literal_address, prompt

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["NO_WAYS", "dial", "peer_of", "tls_of", "ways_of"]

# What sends, what receives so many bytes at most, and what says how many are here that no poll will tell of.
Ways: TypeAlias = "tuple[Callable[[Buffer], int], Callable[[int], bytes], Callable[[], int]]"
Wait = Callable[[socket.socket, int], int]


def dial(endpoint: Endpoint, security: Security | None, wait: Wait) -> socket.socket:
    """Open a connection; the socket does not block.

    The look-up of a host name itself blocks for as long as the system's resolver likes: Consul gives addresses.

    Args:
        wait: waits for one of the events of `select.poll`, and raises when the time is over.

    Raises:
        OSError: it could not be opened (ssl.SSLError and gaierror are of this kind too).
        UnicodeError: the host name cannot be one.
        PeerRejected: the peer is not who it should be; nothing was sent to it.
    """
    sock = _connected(endpoint, wait)
    try:
        prompt(sock)
        return _secured(sock, security, wait) if security is not None else sock
    except BaseException:
        sock.close()
        raise


def tls_of(sock: socket.socket) -> ssl.SSLObject | None:
    """What asyncio calls `ssl_object`: it goes on telling of the peer and the cipher when `sock` is closed.

    An `SSLSocket` forgets them then, and there is no public way to keep them: they are in its `_sslobj`, as in an
    `SSLObject`'s.
    """
    if not isinstance(sock, ssl.SSLSocket):
        return None
    told = ssl.SSLObject.__new__(ssl.SSLObject)
    told._sslobj = sock._sslobj  # type: ignore[attr-defined]  # noqa: SLF001
    return told


def ways_of(sock: socket.socket) -> Ways:
    """What sends on it, what receives, and how many bytes are here that nothing will be told of.

    An `SSLSocket` asks three times on the way to its `_sslobj` whether it is closed. Who uses these sees to that.
    """
    if isinstance(sock, ssl.SSLSocket):
        under: Any = sock._sslobj  # type: ignore[attr-defined]  # noqa: SLF001
        return under.write, under.read, under.pending
    return sock.send, sock.recv, int


def _closed(_: object) -> Any:
    raise OSError(errno.EBADF, os.strerror(errno.EBADF))


NO_WAYS: Final[Ways] = (_closed, _closed, int)
"""Of a socket that is closed."""


def peer_of(sock: socket.socket) -> Any:
    """The address at the other end; None where the connection broke at once, which is for its first use to tell."""
    try:
        return sock.getpeername()
    except OSError:
        return None


def _connected(endpoint: Endpoint, wait: Wait) -> socket.socket:
    check_port(endpoint.port)
    problem: OSError | None = None
    for info in _addresses(endpoint):
        try:
            return _connect(info, wait)
        except OSError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _connect(info: AddressInfo, wait: Wait) -> socket.socket:
    family, kind, protocol, _, where = info
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(where)
        if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            wait(sock, select.POLLOUT)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        _check(code)
    except BaseException:
        sock.close()
        raise
    return sock


def _check(code: int) -> None:
    if code:
        raise OSError(code, os.strerror(code))


def _secured(sock: socket.socket, security: Security, wait: Wait) -> ssl.SSLSocket:
    hostname = security.server_hostname or None
    # An end that TLS does not tell of is none: the reply may have been cut by somebody else (RFC 9112, 9.8).
    secured = security.context.wrap_socket(
        sock, server_hostname=hostname, do_handshake_on_connect=False, suppress_ragged_eofs=False
    )
    try:
        while True:
            try:
                secured.do_handshake()
                break
            except ssl.SSLWantReadError:
                wait(secured, select.POLLIN)
            except ssl.SSLWantWriteError:
                wait(secured, select.POLLOUT)
        if security.check is not None:
            security.check(secured)
    except BaseException:
        secured.close()
        raise
    return secured


def _addresses(endpoint: Endpoint) -> list[AddressInfo]:
    literal = literal_address(endpoint.address, endpoint.port)
    if literal is not None:
        return [literal]
    found = socket.getaddrinfo(endpoint.address, endpoint.port, type=socket.SOCK_STREAM)
    return [(*info[:4], tuple(info[4])) for info in found]
