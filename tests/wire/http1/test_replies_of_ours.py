"""Answers of our own are what h11 reads as such, and no field can break out of them."""

from __future__ import annotations

import h11
import pytest

from meshsdk.wire.http1 import answer, status_line


def read(data: bytes, method: str = "GET") -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "pay")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    head = client.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data[0] == b""
    return head.status_code, head.headers.raw_items(), body


def test_an_error() -> None:
    data = answer(400, b"no\n", [(b"Content-Type", b"text/plain")], close=True, version="1.1", head_only=False)
    assert data.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    fields = [(b"Content-Type", b"text/plain"), (b"content-length", b"3"), (b"connection", b"close")]
    assert read(data) == (400, fields, b"no\n")


def test_head_is_told_the_length_only() -> None:
    data = answer(200, b"hello", close=False, version="1.1", head_only=True)
    assert read(data, "HEAD") == (200, [(b"content-length", b"5")], b"")


@pytest.mark.parametrize("status", [204, 304])
def test_no_body_and_no_length(status: int) -> None:
    assert read(answer(status, b"", close=False, version="1.1", head_only=False)) == (status, [], b"")
    with pytest.raises(ValueError, match="has no body"):
        answer(status, b"x", close=False, version="1.1", head_only=False)


def test_an_empty_body_has_its_length() -> None:
    assert read(answer(200, b"", close=False, version="1.1", head_only=False))[1] == [(b"content-length", b"0")]


def test_http_1_0_is_told_that_the_connection_stays() -> None:
    kept = answer(200, b"", close=False, version="1.0", head_only=False)
    closed = answer(200, b"", close=True, version="1.0", head_only=False)
    assert (b"connection", b"keep-alive") in read(kept)[1]
    assert (b"connection", b"close") in read(closed)[1]


@pytest.mark.parametrize(
    "field",
    [
        (b"X", b"a\r\nY: b"),
        (b"X", b"a\0"),
        (b"X", b"a\n"),
        (b"X Y", b"a"),
        (b"", b"a"),
        (b"X:", b"a"),
        (b"Content-Length", b"1"),
        (b"connection", b"close"),
        (b"Transfer-Encoding", b"chunked"),
    ],
)
def test_no_field_breaks_out(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="the field"):
        answer(200, b"", [field], close=False, version="1.1", head_only=False)


def test_status_lines() -> None:
    assert status_line(200) == b"HTTP/1.1 200 OK\r\n"
    assert status_line(200, b"Fine") == b"HTTP/1.1 200 Fine\r\n"
    assert status_line(799) == b"HTTP/1.1 799 \r\n"  # RFC 9112, 4: the space stays
    assert status_line(503) is status_line(503)
    with pytest.raises(ValueError, match="no status"):
        status_line(99)
    with pytest.raises(ValueError, match="control characters"):
        status_line(200, b"OK\r\nX: y")


def test_interim_replies_are_no_answers() -> None:
    with pytest.raises(ValueError, match="has no body"):
        answer(100, b"", close=False, version="1.1", head_only=False)
