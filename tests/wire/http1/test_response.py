"""What is read from which bytes, and in which words the rest is refused; each whole and byte by byte."""

from __future__ import annotations

import pytest

from meshsdk.wire.http1 import Incoming, Limits, ProtocolError, ResponseReader
from tests.wire.http1.reading import Read, Refused, bytewise, cut, read

OK = b"HTTP/1.1 200 OK\r\n"
OLD = b"HTTP/1.0 200 OK\r\n"
CODED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SIZED = b"Content-Length: 2\r\n\r\nok"
CHUNKS = b"2\r\nok\r\n0\r\n\r\n"


def whole_and_bytewise(data: bytes, method: str = "GET", limits: Limits | None = None) -> Read | Refused:
    whole = read([data], method, limits)
    assert read(bytewise(data), method, limits) == whole
    return whole


def accepted(data: bytes, method: str = "GET", limits: Limits | None = None) -> Read:
    found = whole_and_bytewise(data, method, limits)
    assert isinstance(found, Read), found
    return found


def refused(data: bytes, method: str = "GET", limits: Limits | None = None) -> str:
    found = whole_and_bytewise(data, method, limits)
    assert isinstance(found, Refused), found
    return found.words


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
