"""What is read from which bytes, and in which words the rest is refused; each whole and byte by byte."""

from __future__ import annotations

import pytest

from meshsdk.wire.http1 import Incoming, ProtocolError, ResponseReader
from tests.wire.http1.reading import (
    CHUNKS,
    CODED,
    OK,
    OLD,
    SIZED,
    Read,
    accepted,
    cut,
    read,
    refused,
)


class TestFraming:
    """Where a body ends (RFC 9112, 6.3), and whether another request may follow."""

    @pytest.mark.parametrize(
        ("data", "body", "reusable"),
        [
            (OK + SIZED, b"ok", True),
            (OK + b"Content-Length:\t02 \t\r\n\r\nok", b"ok", True),
            (OK + b"Content-Length: 0\r\n\r\n", b"", True),
            (OK + b"Content-Length: %b2\r\n\r\nok" % (b"0" * 19), b"ok", True),
            (CODED + CHUNKS, b"ok", True),
            (CODED + b"1\r\no\r\n001\r\nk\r\n000\r\n\r\n", b"ok", True),
            (CODED + b"0000000000000000000000002\r\nok\r\n0\r\n\r\n", b"ok", True),
            (CODED + b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2, True),
            (CODED + b"0\r\n\r\n", b"", True),
            (CODED + b'2;a=b;c;d="e;f"\r\nok\r\n0;last\r\n\r\n', b"ok", True),
            (OK + b"transfer-ENCODING:CHUNKED \r\n\r\n" + CHUNKS, b"ok", True),
            (OK + b"\r\nok", b"ok", False),
            (OK + b"Connection: keep-alive\r\n\r\nok", b"ok", False),
            (OK + b"\r\n", b"", False),
            (b"HTTP/1.1 205 Reset Content\r\n" + SIZED, b"ok", True),
        ],
    )
    def test_body(self, data: bytes, body: bytes, reusable: bool) -> None:
        found = accepted(data)
        assert (found.status // 100, found.body, found.complete, found.reusable) == (2, body, True, reusable)

    @pytest.mark.parametrize("fields", [b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
    @pytest.mark.parametrize(
        ("method", "status"), [("HEAD", 200), ("HEAD", 404), ("HEAD", 204), ("GET", 204), ("GET", 304), ("HEAD", 304)]
    )
    def test_none(self, method: str, status: int, fields: bytes) -> None:
        found = accepted(b"HTTP/1.1 %d X\r\n%b\r\n" % (status, fields), method)
        assert (found.body, found.complete, found.reusable) == (b"", True, True)
        found = accepted(b"HTTP/1.1 %d X\r\n%b\r\n5\r\nhello" % (status, fields), method)
        assert (found.body, found.complete, found.reusable) == (b"", True, False)

    @pytest.mark.parametrize("data", [OK + b"Content-Length: 3\r\n\r\nok", CODED + b"2\r\nok\r\n0\r\n", CODED, OK, b""])
    def test_cut_short(self, data: bytes) -> None:
        found = accepted(data)
        assert (found.complete, found.reusable) == (False, False)

    @pytest.mark.parametrize("size", [64 * 1024, 64 * 1024 + 1, 64 * 1024 + 2, 200_000])
    @pytest.mark.parametrize("surplus", [b"", b"x", b"\r\n"])
    def test_large_bodies_are_counted(self, size: int, surplus: bytes) -> None:
        body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        data = OK + b"Content-Length: %d\r\n\r\n" % size + body + surplus
        for cuts in (
            [],
            [60],
            [60, size],
            [100, size // 2],
            [len(data) - len(surplus)],
            [len(data) - len(surplus) - 1],
        ):
            found = read(cut(data, cuts))
            assert isinstance(found, Read)
            assert (found.body, found.complete, found.reusable) == (body, True, not surplus)

    def test_large_bodies_without_length_end_with_the_connection(self) -> None:
        body = b"x" * 200_000
        for cuts in ([], [60], [20, 100_000]):
            found = read(cut(OK + b"\r\n" + body, cuts))
            assert isinstance(found, Read)
            assert (found.body, found.complete, found.reusable) == (body, True, False)

    def test_what_is_left(self) -> None:
        for head, body, left in (
            (OK + b"Content-Length: 100\r\n\r\n", b"x" * 40, 60),
            (OK + b"Content-Length: 200000\r\n\r\n", b"x" * 40, 199_960),
            (OK + b"\r\n", b"x", float("inf")),
            (CODED, b"2\r\no", 0),
        ):
            reader = ResponseReader()
            reader.expect("GET", Incoming())
            reader.feed(head + body)
            assert reader.left() == left

    def test_a_second_reply_over_the_same_connection(self) -> None:
        reader = ResponseReader()
        for method, data in (
            ("GET", OK + SIZED),
            ("HEAD", OK + b"Content-Length: 7\r\n\r\n"),
            ("GET", CODED + CHUNKS),
            ("GET", OK + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000),
            ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
            ("GET", b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + SIZED),
            ("GET", OLD + b"Connection: keep-alive\r\n" + SIZED),
        ):
            into = Incoming()
            reader.expect(method, into)
            reader.feed(data[:50])
            reader.feed(data[50:])
            assert (into.complete, reader.reusable) == (True, True)


class TestAfterTheReply:
    """Rule 4: the reply stands, and the connection is not used again."""

    @pytest.mark.parametrize(
        "surplus", [b"x", b"\r\n", b"\r", b"\n", b"\r\n\r\n", b"\0", OK + SIZED, b"z" * 20_000, b"0\r\n\r\n"]
    )
    @pytest.mark.parametrize(
        "reply",
        [
            OK + SIZED,
            OK + b"Content-Length: 0\r\n\r\n",
            CODED + CHUNKS,
            CODED + b"0\r\nT:\r\n\r\n",
            b"HTTP/1.1 204 X\r\n\r\n",
        ],
    )
    def test_surplus(self, reply: bytes, surplus: bytes) -> None:
        alone, more = accepted(reply), accepted(reply + surplus)
        assert alone.reusable
        assert (more.fields, more.body, more.trailers, more.complete) == (
            alone.fields,
            alone.body,
            alone.trailers,
            True,
        )
        assert not more.reusable
        for at in range(len(reply) - 6, len(reply) + 2):
            assert read(cut(reply + surplus, [at])) == more

    def test_large_chunked_reply_with_much_surplus(self) -> None:
        found = read([CODED + b"1;" + b"e" * 16_000 + b"\r\nx\r\n0\r\n\r\n" + b"\r\n" * 20_000])
        assert isinstance(found, Read)
        assert (found.body, found.complete, found.reusable) == (b"x", True, False)


class TestKeepAlive:
    """RFC 9112, 9.3; the same to GET, HEAD, and where the body is too large to be parsed."""

    @pytest.mark.parametrize(
        ("line", "fields", "kept"),
        [
            (OK, b"", True),
            (OK, b"Connection: keep-alive\r\n", True),
            (OK, b"Connection: closed\r\n", True),
            (OK, b"Connection: upgrade\r\nUpgrade: h2c\r\n", True),
            (OK, b"Connection: close\r\n", False),
            (OK, b"connection:\tCLOSE \r\n", False),
            (OK, b"Connection: x,close\r\n", False),
            (OK, b"Connection: close , x\r\n", False),
            (OK, b"Connection: close\r\nConnection: keep-alive\r\n", False),
            (OK, b"Connection: keep-alive\r\nConnection: close\r\n", False),
            (OK, b"Connection: keep-alive, close\r\n", False),
            (OLD, b"", False),
            (OLD, b"Connection: keep-alive\r\n", True),
            (OLD, b"Connection: Keep-Alive, x\r\n", True),
            (OLD, b"Connection: close\r\n", False),
            (OLD, b"Connection: keep-alive\r\nConnection: close\r\n", False),
            (OLD, b"Connection: close, keep-alive\r\n", False),
            (OLD, b"Proxy-Connection: keep-alive\r\n", False),
        ],
    )
    def test_connection(self, line: bytes, fields: bytes, kept: bool) -> None:
        assert accepted(line + fields + SIZED).reusable is kept
        assert accepted(line + fields + b"Content-Length: 2\r\n\r\n", "HEAD").reusable is kept
        assert accepted(line + fields + b"\r\n", "HEAD").reusable is kept
        large = read([line + fields + b"Content-Length: 99999\r\n\r\n", b"x" * 10, b"x" * 99989])
        assert isinstance(large, Read)
        assert (large.complete, large.reusable) == (True, kept)

    def test_chunks_in_http_1_0_are_read_and_end_the_connection(self) -> None:
        data = OLD + b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert (accepted(data + CHUNKS).body, accepted(data + CHUNKS).reusable) == (b"ok", False)
        assert not accepted(data, "HEAD").reusable

    def test_close_in_trailers(self) -> None:
        assert not accepted(CODED + b"0\r\nConnection: close\r\n\r\n").reusable

    def test_http_1_0_without_length_ends_with_the_connection(self) -> None:
        assert not accepted(OLD + b"Connection: keep-alive\r\n\r\nok").reusable


class TestHeads:
    def test_fields_as_they_came(self) -> None:
        found = accepted(
            b"HTTP/1.1 299 F\xc3\xbcr\tdich \r\nB:\r\na:  x  y\t\r\nB: \xff\r\n!#$%&'*+-.^_`|~9z: \r\n" + SIZED
        )
        assert (found.status, found.reason, found.version) == (299, b"F\xc3\xbcr\tdich ", "1.1")
        assert found.fields[:4] == [(b"B", b""), (b"a", b"x  y"), (b"B", b"\xff"), (b"!#$%&'*+-.^_`|~9z", b"")]

    @pytest.mark.parametrize("line", [b"HTTP/1.1 200\r\n", b"HTTP/1.1 200 \r\n"])
    def test_no_reason(self, line: bytes) -> None:
        assert accepted(line + SIZED).reason == b""

    @pytest.mark.parametrize("status", [200, 299, 599, 600, 999])
    def test_status(self, status: int) -> None:
        assert accepted(b"HTTP/1.1 %d X\r\n" % status + SIZED).status == status

    def test_trailers_are_kept_apart(self) -> None:
        found = accepted(CODED + b"2\r\nok\r\n0\r\nA: b \r\nA:\r\nC: d\r\n\r\n")
        assert found.fields == [(b"Transfer-Encoding", b"chunked")]
        assert found.trailers == [(b"A", b"b"), (b"A", b""), (b"C", b"d")]

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"\r\n" + OK + SIZED, r"the reply begins with b'\r\nHTTP/1.1 200 O', which is no HTTP"),
            (b"ICE/1.0 200 OK\r\n" + SIZED, r"the reply begins with b'ICE/1.0 200 OK\r\n', which is no HTTP"),
            (b"RTSP/1.0 200 OK\r\n" + SIZED, "the reply begins with b'RTSP/1.0 200 OK\\r', which is no HTTP"),
            (b"http/1.1 200 OK\r\n" + SIZED, "the reply begins with b'http/1.1 200 OK\\r', which is no HTTP"),
            (b"\x15\x03\x01\x00\x02\x02", r"the reply begins with b'\x15\x03\x01\x00\x02\x02', which is no HTTP"),
            (b"HTCPCP/1.0 418 I'm a teapot\r\n\r\n", "Expected HTTP/, RTSP/ or ICE/"),
            (b"HTTP/2.0 200 OK\r\n" + SIZED, "the reply is HTTP/2.0; only 1.1 and 1.0 are understood"),
            (b"HTTP/0.9 200 OK\r\n" + SIZED, "the reply is HTTP/0.9; only 1.1 and 1.0 are understood"),
            (b"HTTP/1.2 200 OK\r\n" + SIZED, "Invalid HTTP version"),
            (b"HTTP/01.1 200 OK\r\n" + SIZED, "Expected dot"),
            (b"HTTP/1.1\t200 OK\r\n" + SIZED, "Expected space after version"),
            (b"HTTP/1.1  200 OK\r\n" + SIZED, "Invalid status code"),
            (b"HTTP/1.1 20 OK\r\n" + SIZED, "Invalid status code"),
            (b"HTTP/1.1 2000 OK\r\n" + SIZED, "Invalid response status"),
            (b"HTTP/1.1 200OK\r\n" + SIZED, "Invalid response status"),
            (b"HTTP/1.1 099 OK\r\n" + SIZED, "the reply's status is 099"),
            (b"HTTP/1.1 200 a\0b\r\n" + SIZED, "the reply's reason phrase has control characters"),
            (b"HTTP/1.1 200 a\x7fb\r\n" + SIZED, "the reply's reason phrase has control characters"),
            (b"HTTP/1.1 200 OK\n" + SIZED, "Missing expected CR after response line"),
            (b"HTTP/1.1 200 OK\r" + SIZED, "Expected LF after CR"),
            (OK + b" A: b\r\n" + SIZED, "Unexpected space after start line"),
            (OK + b"A: b\r\n c\r\n" + SIZED, "Unexpected whitespace after header value"),
            (OK + b"A: b\r\n\tc\r\n" + SIZED, "Unexpected whitespace after header value"),
            (OK + b"A: b\n" + SIZED, "Missing expected CR after header value"),
            (OK + b"A: b\rc\r\n" + SIZED, "Missing expected LF after header value"),
            (OK + b"A: b\0\r\n" + SIZED, "Invalid header value char"),
            (OK + b"A: b\x0b\r\n" + SIZED, "Invalid header value char"),
            (OK + b"A: b\x7f\r\n" + SIZED, "Invalid header value char"),
            (OK + b"A : b\r\n" + SIZED, "Invalid header token"),
            (OK + b"A b: c\r\n" + SIZED, "Invalid header token"),
            (OK + b": b\r\n" + SIZED, "Invalid header token"),
            (OK + b"Ab\r\n" + SIZED, "Invalid header token"),
            (OK + b"A\xe9: b\r\n" + SIZED, "Invalid header token"),
        ],
    )
    def test_refused(self, data: bytes, words: str) -> None:
        assert refused(data) == words

    @pytest.mark.parametrize("line_end", [b"\r\n\n", b"\n\n", b"\n\r\n"])
    def test_heads_end_with_cr_lf_cr_lf_only(self, line_end: bytes) -> None:
        refused(OK + b"Content-Length: 2" + line_end + b"ok")


class TestConflicts:
    """Shapes two parsers may read differently."""

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            (b"Content-Length: 2\r\nContent-Length: 2\r\n", "Duplicate Content-Length"),
            (b"Content-Length: 2\r\nContent-Length: 3\r\n", "Duplicate Content-Length"),
            (b"Content-Length: 2, 2\r\n", "Invalid character in Content-Length"),
            (b"Content-Length: +2\r\n", "Invalid character in Content-Length"),
            (b"Content-Length: -2\r\n", "Invalid character in Content-Length"),
            (b"Content-Length: 0x2\r\n", "Invalid character in Content-Length"),
            (b"Content-Length: 1_0\r\n", "Invalid character in Content-Length"),
            (b"Content-Length: 2 2\r\n", "Invalid character in Content-Length"),
            (b"Content-Length: \r\n", "Empty Content-Length"),
            (b"Content-Length: 18446744073709551616\r\n", "Content-Length overflow"),
            (
                b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
                "Transfer-Encoding can't be present with Content-Length",
            ),
            (
                b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
                "Content-Length can't be present with Transfer-Encoding",
            ),
            (
                b"Content-Length: %b2\r\n" % (b"0" * 20),
                "Content-Length: b'000000000000000000002' has more than 20 digits",
            ),
            (
                b"Content-Length: %b\r\n" % (b"0" * 5000),
                "Content-Length: b'0000000000000000000000000000000000000000' has more than 20 digits",
            ),
            (b"Transfer-Encoding: \r\n", "Empty Transfer-Encoding"),
        ],
    )
    def test_length(self, fields: bytes, words: str) -> None:
        assert refused(OK + fields + b"\r\n" + CHUNKS) == words
        assert refused(OK + fields + b"\r\n", "HEAD") == words

    @pytest.mark.parametrize(
        "value",
        [
            *(b"gzip, chunked", b"chunked, gzip", b"identity", b"chunked,", b",chunked", b"chunked;a=b", b"xchunked"),
            *(b"chunked\t", b"chunked \t", b"chunked\t ", b"chun ked", b'"chunked"', b"chunked, chunked"),
        ],
    )
    def test_coding(self, value: bytes) -> None:
        words = refused(OK + b"Transfer-Encoding: " + value + b"\r\n\r\n" + CHUNKS)
        assert words == f"Transfer-Encoding: {value!r} is not understood; only `chunked`, once, is"

    @pytest.mark.parametrize("value", [b"chunked", b"\tchunked", b" \t chunked  ", b"Chunked "])
    def test_coding_that_is_understood(self, value: bytes) -> None:
        found = accepted(OK + b"Transfer-Encoding:" + value + b"\r\n\r\n" + CHUNKS)
        assert (found.body, found.complete) == (b"ok", True)

    def test_coded_twice(self) -> None:
        words = refused(OK + b"Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNKS)
        assert words == "Transfer-Encoding: b'chunked' is not understood; only `chunked`, once, is"

    @pytest.mark.parametrize("value", [b"chunked", b"gzip"])
    def test_coding_in_trailers(self, value: bytes) -> None:
        words = refused(CODED + b"0\r\nTransfer-Encoding: " + value + b"\r\n\r\n")
        assert words == "the trailers have Transfer-Encoding, which belongs into the head"

    def test_length_in_trailers(self) -> None:
        words = refused(CODED + b"0\r\nContent-Length: 5\r\n\r\n")
        assert words == "Content-Length can't be present with Transfer-Encoding"

    @pytest.mark.parametrize(
        ("chunks", "words"),
        [
            (b"\r\nok\r\n", "Invalid character in chunk size"),
            (b"0x2\r\nok\r\n", "Invalid character in chunk size"),
            (b"-2\r\nok\r\n", "Invalid character in chunk size"),
            (b" 2\r\nok\r\n", "Invalid character in chunk size"),
            (b"2 \r\nok\r\n", "Invalid character in chunk size"),
            (b"2 ;a\r\nok\r\n", "Invalid character in chunk size"),
            (b"2\nok\r\n", "Missing expected CR after chunk size"),
            (b"2\rok\r\n", "Expected LF after chunk size"),
            (b"2\r\nok\n", "Missing expected CR after chunk data"),
            (b"2\r\nokk\r\n", "Expected LF after chunk data"),
            (b"2\r\nok0\r\n", "Expected LF after chunk data"),
            (b"3\r\nok\r\n0\r\n", "Missing expected CR after chunk data"),
            (b"10000000000000000\r\nok\r\n", "Chunk size overflow"),
            (b"2;\r\nok\r\n", "Invalid character in chunk extensions"),
            (b"2;\x01\r\nok\r\n", "Invalid character in chunk extensions name"),
            (b"2;a=\xe9\r\nok\r\n", "Invalid character in chunk extensions value"),
            (b'2;a="b\r\nok\r\n', "Invalid character in chunk extensions quoted value"),
            (b"2;a\nok\r\n", "Missing expected CR after chunk extension name"),
            (b"2;a\rok\r\n", "Expected LF after chunk size"),
            (b"0\r\nA: b\n\r\n", "Missing expected CR after header value"),
            (b"0\r\nA: b\r\n c\r\n\r\n", "Unexpected whitespace after header value"),
            (b"0\r\nA : b\r\n\r\n", "Invalid header token"),
        ],
    )
    def test_chunks(self, chunks: bytes, words: str) -> None:
        assert refused(CODED + chunks + b"0\r\n\r\n") == words


def test_closed_reader_says_so() -> None:
    reader = ResponseReader()
    reader.expect("GET", Incoming())
    reader.close()
    with pytest.raises(ProtocolError, match="the connection is closed"):
        reader.feed(OK)


def test_nothing_comes_of_nothing() -> None:
    into = Incoming()
    reader = ResponseReader()
    reader.expect("GET", into)
    reader.feed(b"")
    assert (into.status, reader.ended()) == (0, False)
    reader.feed(OK + SIZED)
    reader.feed(b"")
    assert (into.complete, reader.reusable, reader.ended()) == (True, True, True)


@pytest.mark.parametrize(
    ("pieces", "taken"),
    [
        ([1], [1]),
        ([1, 2, 3], [6]),
        ([20_000, 20_000, 1], [20_000, 20_000, 1]),
        ([1, 20_000, 2], [20_003]),
    ],
)
def test_small_pieces_are_taken_together_and_large_ones_as_they_came(pieces: list[int], taken: list[int]) -> None:
    into = Incoming()
    body = b"0123456789" * 10_000
    into.pieces = [body[sum(pieces[:at]) : sum(pieces[: at + 1])] for at in range(len(pieces))]
    got = []
    while into.pieces:
        got.append(into.take())
    assert [len(piece) for piece in got] == taken
    assert b"".join(got) == body[: sum(pieces)]
