"""Invariant: a peer reads exactly the body that was given, whatever its pieces, or what was written is no whole one."""

from __future__ import annotations

from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsdk.wire.engine import InvalidRequest
from meshsdk.wire.http1 import BodyWriter, Framing


def written(length: int, *pieces: bytes, trailers: Any = (), **options: Any) -> bytes:
    writer = BodyWriter(length, **options)
    return b"".join([writer.piece(piece) for piece in pieces]) + writer.end(trailers)


class TestKnownLength:
    def test_pieces_are_sent_as_they_are(self) -> None:
        assert written(6, b"one", b"", b"two") == b"onetwo"
        assert written(0) == written(0, b"") == b""

    def test_a_piece_is_not_copied(self) -> None:
        piece = b"x" * 100
        assert BodyWriter(200).piece(piece) is piece

    @pytest.mark.parametrize(
        ("pieces", "words"),
        [
            ((b"one", b"two"), "Content-Length is 5 and the body has more bytes"),
            ((b"one",), "Content-Length is 5 and the body has 3 bytes"),
            ((), "Content-Length is 5 and the body has 0 bytes"),
        ],
    )
    def test_another_length_is_refused(self, pieces: tuple[bytes, ...], words: str) -> None:
        with pytest.raises(InvalidRequest, match=words):
            written(5, *pieces)

    def test_trailers_have_no_place(self) -> None:
        with pytest.raises(InvalidRequest, match="chunked body only"):
            written(3, b"one", trailers=[(b"digest", b"x")])


class TestChunks:
    def test_chunks(self) -> None:
        assert written(Framing.CHUNKED, b"one", b"", b"x" * 16) == b"3\r\none\r\n10\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n"
        assert written(Framing.CHUNKED) == b"0\r\n\r\n"

    def test_trailers(self) -> None:
        trailers = [(b"Digest", b"a b"), (b"x-cost", b"")]
        assert written(Framing.CHUNKED, b"1", trailers=trailers) == b"1\r\n1\r\n0\r\nDigest: a b\r\nx-cost: \r\n\r\n"

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            (b"a b", b"", "is no token"),
            (b"", b"", "is no token"),
            (b"x", b"a\r\nb: c", "control character"),
            (b"Content-Length", b"5", "cannot be a trailer"),
            (b"transfer-encoding", b"chunked", "cannot be a trailer"),
        ],
    )
    def test_a_trailer_that_cannot_be_one(self, name: bytes, value: bytes, words: str) -> None:
        with pytest.raises(InvalidRequest, match=words):
            written(Framing.CHUNKED, trailers=[(b"fine", b"1"), (name, value)])


@pytest.mark.parametrize("length", [1, 9])
def test_the_error_is_whose_body_it_is(length: int) -> None:
    """A server's reply that has not its length is no invalid request."""
    with pytest.raises(EOFError, match="Content-Length"):
        written(length, b"three", error=EOFError)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    pieces=st.lists(st.one_of(st.just(b""), st.binary(max_size=100)), max_size=8),
    said=st.one_of(st.just(Framing.CHUNKED), st.integers(0, 20), st.none()),
)
def test_the_body_is_read_as_it_was_given(pieces: list[bytes], said: int | None) -> None:
    body = b"".join(pieces)
    length = len(body) if said is None else said
    try:
        data = written(length, *pieces)
    except InvalidRequest:
        assert length not in (Framing.CHUNKED, len(body))
        return
    assert _read(length, data) == body


def _read(length: int, data: bytes) -> bytes:
    field = b"transfer-encoding: chunked" if length == Framing.CHUNKED else b"content-length: %d" % length
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"POST / HTTP/1.1\r\nhost: x\r\n" + field + b"\r\n\r\n" + data)
    assert isinstance(server.next_event(), h11.Request)
    body = b""
    while isinstance(event := server.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert server.trailing_data == (b"", False)
    return body
