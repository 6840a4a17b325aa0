"""A server that speaks HTTP/2 from the first byte (RFC 9113, 3.3), and a proxy; both on loopback, in threads."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded

from tests.wire.scripted import Peer, Script, reply


@dataclass
class Asked:
    """One request as the server saw it."""

    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Http2:
    """Answers each request by `answer`, as a script for `tests.wire.scripted.Server`."""

    answer: Callable[[Http2Stream], None]
    requests: list[Asked] = field(default_factory=list)

    def __call__(self, peer: Peer) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        peer.send(connection.data_to_send())
        open_streams: dict[int, Asked] = {}
        while data := peer.sock.recv(65536):
            for event in connection.receive_data(data):
                self._hear(event, peer, connection, open_streams)
            peer.send(connection.data_to_send())

    def _hear(self, event: Any, peer: Peer, connection: H2Connection, open_streams: dict[int, Asked]) -> None:
        if isinstance(event, RequestReceived):
            open_streams[event.stream_id] = Asked(dict(event.headers))
        elif isinstance(event, DataReceived):
            open_streams[event.stream_id].body += event.data
            connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self.requests.append(open_streams.pop(event.stream_id))
            self.answer(Http2Stream(peer, connection, event.stream_id, self.requests[-1]))


@dataclass
class Http2Stream:
    """The server's end of one request."""

    peer: Peer
    connection: H2Connection
    number: int
    request: Asked

    def reply(self, status: int, body: bytes = b"ok", *fields: tuple[str, str]) -> None:
        self.connection.send_headers(self.number, [(":status", str(status)), *fields])
        self.connection.send_data(self.number, body, end_stream=True)

    def begin(self, body: bytes) -> None:
        """A head and a piece, and no end."""
        self.connection.send_headers(self.number, [(":status", "200")])
        self.connection.send_data(self.number, body)

    def reset(self) -> None:
        self.connection.reset_stream(self.number, ErrorCodes.INTERNAL_ERROR)

    def hang_up(self) -> None:
        self.peer.sock.shutdown(socket.SHUT_RDWR)


def proxying(seen: list[bytes]) -> Script:
    """A forward proxy for HTTP/1.1 (RFC 9112, 3.2.2), for bodies with a length; notes the request lines."""

    def script(peer: Peer) -> None:
        while (found := peer.request()) is not None:
            head, body = found
            line, _, fields = head.partition(b"\r\n")
            seen.append(line)
            method, url, version = line.split(b" ")
            there = urlsplit(url.decode())
            path = f"{there.path}?{there.query}" if there.query else there.path
            with socket.create_connection((there.hostname or "", there.port or 80), 5) as upstream:
                first = b"%s %s %s\r\nvia: 1.1 small\r\n" % (method, path.encode(), version)
                upstream.sendall(first + fields + b"\r\n\r\n" + body)
                answer = Peer(upstream, peer.stopped).request()
            if answer is None:
                peer.send(reply(b"", 502))
            else:
                peer.send(answer[0] + b"\r\n\r\n" + answer[1])

    return script
