"""A server on loopback that does to each connection what a script says."""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

# Bytes of the shortest body that is not waited for: its reply is handed on at the head.
LONG = 16 * 1024 + 1


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, stopped: threading.Event) -> None:
        self.sock = sock
        self.stopped = stopped
        self._buffer = b""

    def request(self) -> tuple[bytes, bytes] | None:
        """Read one request: its head and its body; None when the client has closed."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        lowered = head.lower()
        if b"transfer-encoding: chunked" in lowered:
            return head, self._chunked()
        length = 0
        for line in lowered.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        while len(self._buffer) < length:
            if not self._more():
                return None
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return head, body

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def drip(self, data: bytes, pause: float) -> None:
        """Send a byte at a time until the client has had enough."""
        for value in data:
            if self.stopped.wait(pause):
                return
            self.sock.sendall(bytes([value]))

    def stall(self) -> None:
        """Say nothing more until the client closes or the test ends."""
        with contextlib.suppress(OSError):
            while not self.stopped.is_set() and self.sock.recv(65536):
                pass

    def until_left(self) -> None:
        """Read nothing and say nothing, until the client closes or the test ends."""
        poller = select.poll()
        poller.register(self.sock, select.POLLRDHUP)
        while not (self.stopped.is_set() or poller.poll(100)):
            pass

    def arrived(self) -> None:
        """Wait until the client's system has all that was sent (TIOCOUTQ: what is not acknowledged)."""
        eventually(lambda: struct.unpack("i", fcntl.ioctl(self.sock, termios.TIOCOUTQ, b"0000"))[0] == 0)

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _chunked(self) -> bytes:
        while not (self._buffer.endswith(b"0\r\n\r\n")):
            if not self._more():
                break
        rest, self._buffer, body = self._buffer, b"", b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        return body

    def _more(self) -> bool:
        data = self.sock.recv(65536)
        self._buffer += data
        return bool(data)


Script = Callable[[Peer], object]


@dataclass
class Server:
    """Listens on a port of its own; `heads` are the requests that came, `go_on` is for the script to wait for."""

    script: Script
    family: socket.AddressFamily = socket.AF_INET
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.host = "::1" if self.family == socket.AF_INET6 else "127.0.0.1"
        self._socket = socket.create_server((self.host, 0), family=self.family, backlog=1024)
        self.port = self._socket.getsockname()[1]
        self.go_on = threading.Event()
        self._stopped = threading.Event()
        self._open: set[Peer] = set()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def close(self) -> None:
        self._stopped.set()
        self.go_on.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.drop_connections()
        self._accepting.join(5)
        for thread in self._threads:
            thread.join(5)

    def drop_connections(self) -> None:
        """Close every open connection, as a restarting server does."""
        for peer in tuple(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(peer.sock, socket.SHUT_RDWR)  # which under TLS is another than was accepted

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            peer = Recording(sock, self._stopped, self)
            self._open.add(peer)
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: Recording) -> None:
        with peer.sock, contextlib.suppress(OSError):
            peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.script(peer)
        self._open.discard(peer)


class Recording(Peer):
    """Notes requests on the server."""

    def __init__(self, sock: socket.socket, stopped: threading.Event, server: Server) -> None:
        super().__init__(sock, stopped)
        self.server = server

    def request(self) -> tuple[bytes, bytes] | None:
        found = super().request()
        if found is not None:
            self.server.heads.append(found[0])
            self.server.bodies.append(found[1])
        return found


def reply(body: bytes = b"ok", status: int = 200, fields: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d Whatever\r\ncontent-length: %d\r\n%s\r\n" % (status, len(body), fields)
    return head + body


def answering(*replies: bytes) -> Script:
    """Answer requests one after the other, the last reply for ever."""

    def script(peer: Peer) -> None:
        left = list(replies) or [reply()]
        while peer.request() is not None:
            peer.send(left.pop(0) if len(left) > 1 else left[0])

    return script


def after_request(then: Script) -> Script:
    """Read one request, then do `then`."""

    def script(peer: Peer) -> None:
        peer.request()
        then(peer)

    return script


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """A port nobody listens on, and nobody else can take meanwhile."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextlib.contextmanager
def deaf_port() -> Iterator[int]:
    """A port whose queue is full: connecting neither succeeds nor fails (Linux drops the SYN)."""
    with socket.socket() as sock, contextlib.ExitStack() as stack:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
        yield sock.getsockname()[1]


def eventually(condition: Callable[[], bool], within: float = 5.0) -> None:
    """Wait for `condition`, at most `within` seconds."""
    until = time.monotonic() + within
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.005)
