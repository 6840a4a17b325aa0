"""Heads before the reply (1xx), the upgrade in its place (101), and every limit at its bound and one beyond."""

from __future__ import annotations

import pytest

from meshsdk.wire.http1 import Incoming, Limits, ResponseReader
from tests.wire.http1.reading import (
    CODED,
    OK,
    SIZED,
    Refused,
    accepted,
    read,
    refused,
    whole_and_bytewise,
)


class TestInterim:
    """1xx: any number of heads before the reply's (RFC 9110, 15.2), whatever they say of themselves."""

    @pytest.mark.parametrize("status", [100, 102, 103, 104, 150, 199])
    @pytest.mark.parametrize(
        "fields",
        [
            b"",
            b"Link: </a>\r\n",
            b"Content-Length: 0\r\n",
            b"Content-Length: 38\r\n",  # the length of the head that follows
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
            b"Connection: upgrade\r\nUpgrade: h2c\r\n",
        ],
    )
    def test_it_ends_with_its_head(self, status: int, fields: bytes) -> None:
        found = accepted(b"HTTP/1.1 %d X\r\n%b\r\n" % (status, fields) * 2 + OK + SIZED)
        assert (found.status, found.fields, found.body) == (200, [(b"Content-Length", b"2")], b"ok")
        assert (found.complete, found.reusable, found.continued) == (True, True, status == 100)

    def test_its_reason_and_version_are_its_own(self) -> None:
        found = accepted(b"HTTP/1.0 100 Go on\r\n\r\n" + OK + SIZED)
        assert (found.reason, found.version, found.reusable) == (b"OK", "1.1", True)

    def test_said_before_the_reply(self) -> None:
        into = Incoming()
        reader = ResponseReader()
        reader.expect("POST", into)
        reader.feed(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        assert not reader.continued
        reader.feed(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert (reader.continued, into.status) == (True, 0)
        reader.feed(OK + SIZED)
        assert (into.status, into.complete) == (200, True)
        reader.expect("POST", Incoming())
        assert not reader.continued

    @pytest.mark.parametrize("start", [b"RTSP/1.0 200 OK", b"ICE/1.0 200 OK", b"\r\nHTTP/1.1 200", b"okHTTP/1.1 200 O"])
    def test_what_follows_is_http_again(self, start: bytes) -> None:
        data = start + b"\r\n" + SIZED
        words = refused(b"HTTP/1.1 100 Continue\r\n\r\n" + data)
        assert words == f"the reply begins with {data[:16]!r}, which is no HTTP"

    def test_refused_like_any_head(self) -> None:
        assert refused(b"HTTP/1.1 100 X\r\nA : b\r\n\r\n" + OK + SIZED) == "Invalid header token"
        conflict = b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert "can't be present" in refused(b"HTTP/1.1 103 X\r\n" + conflict + OK + SIZED)


class TestUpgrade:
    """101: the bytes after its head are the new protocol's."""

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("surplus", [b"", b"\r\n\r\nraw", OK + SIZED, b"\0" * 300])
    @pytest.mark.parametrize(
        "fields",
        [
            b"Upgrade: x\r\nConnection: upgrade\r\n",
            b"",
            b"Upgrade: x\r\nConnection: upgrade\r\nContent-Length: 2\r\n",
            b"Content-Length: 2\r\n",
            b"Transfer-Encoding: chunked\r\n",
        ],
    )
    def test_surplus_is_handed_over(self, fields: bytes, surplus: bytes, method: str) -> None:
        found = accepted(b"HTTP/1.1 101 Switching Protocols\r\n" + fields + b"\r\n" + surplus, method)
        assert (found.status, found.body, found.surplus) == (101, b"", surplus)
        assert (found.complete, found.reusable) == (True, False)

    def test_after_100(self) -> None:
        found = accepted(b"HTTP/1.1 100 X\r\n\r\nHTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw")
        assert (found.status, found.surplus, found.continued) == (101, b"raw", True)

    def test_upgrade_offered_with_another_status(self) -> None:
        found = accepted(b"HTTP/1.1 426 X\r\nUpgrade: h2c\r\nConnection: upgrade\r\n" + SIZED)
        assert (found.status, found.body, found.reusable) == (426, b"ok", True)


class TestLimits:
    """Each at its bound, and one beyond."""

    def test_head(self) -> None:
        data = OK + b"A: " + b"x" * 100 + b"\r\n" + b"Content-Length: 0\r\n\r\n"
        assert accepted(data, limits=Limits(head=len(data))).complete
        assert refused(data, limits=Limits(head=len(data) - 1)) == f"the reply's head is over {len(data) - 1} bytes"

    def test_head_counts_interim_heads_and_not_the_body(self) -> None:
        heads = b"HTTP/1.1 103 X\r\nA: b\r\n\r\n" * 7 + OK + b"Content-Length: 99\r\n\r\n"
        data = heads + b"x" * 99
        assert accepted(data, limits=Limits(head=len(heads))).body == b"x" * 99
        assert refused(data, limits=Limits(head=len(heads) - 1)) == f"the reply's head is over {len(heads) - 1} bytes"

    def test_interim_heads_without_end(self) -> None:
        flood = b"HTTP/1.1 100 Continue\r\n\r\n" * (Limits().head // 25 + 1)
        assert refused(flood) == "the reply's head is over 131072 bytes"

    def test_a_head_that_never_ends(self) -> None:
        assert read([OK + b"A: " + b"x" * (Limits().head - len(OK) - 3)], fin=False).status == 0  # type: ignore[union-attr]
        found = read([OK + b"A: " + b"x" * (Limits().head - len(OK) - 2)])
        assert isinstance(found, Refused)
        assert found.words == "the reply's head is over 131072 bytes"

    def test_field(self) -> None:
        data = OK + b"Name: " + b"x" * 96 + b"\r\n" + SIZED
        assert accepted(data, limits=Limits(field=100)).complete
        assert refused(data, limits=Limits(field=99)) == "a header field of the reply is over 99 bytes"

    def test_fields(self) -> None:
        data = OK + b"A: b\r\n" * 9 + SIZED
        assert len(accepted(data, limits=Limits(fields=10)).fields) == 10
        assert refused(data, limits=Limits(fields=9)) == "the reply has more than 9 header fields"

    def test_fields_are_counted_anew_for_each_head(self) -> None:
        data = (b"HTTP/1.1 103 X\r\n" + b"A: b\r\n" * 9 + b"\r\n") * 3 + OK + b"A: b\r\n" * 8 + SIZED
        assert accepted(data, limits=Limits(fields=9)).complete
        assert refused(data, limits=Limits(fields=8)) == "the reply has more than 8 header fields"

    def test_chunk_extensions(self) -> None:
        line = CODED + b"1;" + b"e" * 998
        assert accepted(line, limits=Limits(framing=1000)).status == 200
        assert (
            refused(line + b"e", limits=Limits(framing=1000)) == "more than 1000 bytes of chunk extensions or trailers"
        )

    @pytest.mark.parametrize("size", [1, 9])
    def test_chunks_are_credited(self, size: int) -> None:
        """16 bytes for each, and twice the body."""
        chunks = (b"%d;" % size + b"e" * 30 + b"\r\n" + b"x" * size + b"\r\n") * 100
        framing = 100 * (36 - 16 - 2 * size)
        for over in (0, 1):
            found = read([CODED, chunks, b"1;"[: 1 + over]], limits=Limits(framing=framing + 1))
            assert isinstance(found, Refused) is bool(over)

    def test_trailers(self) -> None:
        # "0\r\n", the field and "\r\n", less the last chunk's 16
        for over in (0, 1):
            field = b"A: " + b"x" * (1000 + 16 - 3 - 3 - 2 - 2 + over) + b"\r\n"
            found = whole_and_bytewise(CODED + b"0\r\n" + field + b"\r\n", limits=Limits(framing=1000))
            assert isinstance(found, Refused) is bool(over)

    def test_small_chunks_are_no_breach(self) -> None:
        found = accepted(CODED + b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n")
        assert found.body == b"x" * 5000

    def test_extensions_on_small_chunks_are(self) -> None:
        data = CODED + (b"1;" + b"e" * 40 + b"\r\nx\r\n") * 1000
        assert refused(data) == "more than 16384 bytes of chunk extensions or trailers"

    def test_defaults(self) -> None:
        assert Limits() == Limits(head=131072, field=65536, fields=500, framing=16384)
