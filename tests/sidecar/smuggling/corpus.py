"""Requests that parsers are known to read in different ways, and what becomes of each here.

As data, for the reader alone, for nginx and Node beside it, and for the whole proxy. A shape that is refused names the
status; one that is not says how many requests it is. What is refused must reach no application, not in part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["HIDDEN", "PLAIN", "SHAPES", "Shape"]


@dataclass(frozen=True)
class Shape:
    """What a client sends.

    Attributes:
        data: the bytes; `HIDDEN` is in what an attacker wants to be read as a request of its own.
        status: of the refusal; 0 where all of it is read.
        requests: how many are read before the refusal, or in all.
        kind: of the refusal.
    """

    name: str
    data: bytes
    status: int = 0
    requests: int = 0
    kind: str = ""


HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: mesh\r\n\r\n"
PLAIN = b"GET /plain HTTP/1.1\r\nHost: mesh\r\n\r\n"
LINE = b"POST /charge HTTP/1.1\r\n"
HEAD = LINE + b"Host: mesh\r\n"
CODED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"2\r\nok\r\n0\r\n\r\n"


def _post(fields: bytes, body: bytes) -> bytes:
    return HEAD + fields + b"\r\n\r\n" + body


def _get(line: bytes, fields: bytes = b"Host: mesh\r\n") -> bytes:
    return line + b"\r\n" + fields + b"\r\n"


def _refused(status: int, kind: str, shapes: dict[str, bytes], requests: int = 0) -> Iterator[Shape]:
    for name, data in shapes.items():
        yield Shape(name, data, status, requests, kind)


def _read(requests: int, shapes: dict[str, bytes]) -> Iterator[Shape]:
    for name, data in shapes.items():
        yield Shape(name, data, requests=requests)


_HIDING = b"0\r\n\r\n" + HIDDEN
_LENGTHS = {
    "length and coding": _post(b"Content-Length: %d\r\nTransfer-Encoding: chunked" % len(_HIDING), _HIDING),
    "coding and length": _post(b"Transfer-Encoding: chunked\r\nContent-Length: %d" % len(_HIDING), _HIDING),
    "coding and a length of nothing": _post(b"Transfer-Encoding: chunked\r\nContent-Length: 0", _HIDING),
    "two lengths": _post(b"Content-Length: 2\r\nContent-Length: 36", b"ok" + HIDDEN),
    "two equal lengths": _post(b"Content-Length: 2\r\nContent-Length: 2", b"ok"),
    "two lengths, one in other case": _post(b"Content-Length: 2\r\ncontent-length: 0", b"ok"),
    "equal lengths in a list": _post(b"Content-Length: 2, 2", b"ok"),
    "lengths in a list": _post(b"Content-Length: 2, 36", b"ok" + HIDDEN),
    "length with plus": _post(b"Content-Length: +2", b"ok"),
    "length with minus": _post(b"Content-Length: -2", b"ok"),
    "length of minus nothing": _post(b"Content-Length: -0", HIDDEN),
    "length with a space inside": _post(b"Content-Length: 2 0", b"ok" + HIDDEN),
    "length in hexadecimal": _post(b"Content-Length: 0x2", b"ok"),
    "length with an underscore": _post(b"Content-Length: 1_0", b"ok" + HIDDEN),
    "length with a point": _post(b"Content-Length: 2.0", b"ok"),
    "length with an exponent": _post(b"Content-Length: 2e0", b"ok"),
    "length in letters": _post(b"Content-Length: two", b"ok"),
    "length in Arabic digits": _post("Content-Length: ٢".encode(), b"ok"),
    "length in superscript, of Latin-1": _post(b"Content-Length: \xb2", b"ok"),
    "length that is empty": _post(b"Content-Length:", HIDDEN),
    "length of a space": _post(b"Content-Length:  ", HIDDEN),
    "length with a comma at its end": _post(b"Content-Length: 2,", b"ok"),
    "length in quotes": _post(b'Content-Length: "2"', b"ok"),
    "length of 2**64 + 2": _post(b"Content-Length: 18446744073709551618", b"ok" + HIDDEN),
    "length with many zeros": _post(b"Content-Length: " + b"0" * 40 + b"2", b"ok" + HIDDEN),
    "coding in HTTP/1.0": b"POST /charge HTTP/1.0\r\nHost: mesh\r\nTransfer-Encoding: chunked\r\n\r\n" + _HIDING,
    "chunked, chunked": _post(b"Transfer-Encoding: chunked, chunked", CHUNKS),
    "chunked twice": _post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", CHUNKS),
    "chunked, then another": _post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip", _HIDING),
    "chunked, identity": _post(b"Transfer-Encoding: chunked, identity", _HIDING),
    "chunked, gzip": _post(b"Transfer-Encoding: chunked, gzip", _HIDING),
    "coding of nothing": _post(b"Transfer-Encoding:", _HIDING),
    "coding of a comma": _post(b"Transfer-Encoding: chunked,", _HIDING),
    "coding after a comma": _post(b"Transfer-Encoding: ,chunked", _HIDING),
    "coding in quotes": _post(b'Transfer-Encoding: "chunked"', _HIDING),
    "coding with a space inside": _post(b"Transfer-Encoding: chu nked", _HIDING),
    "coding with Latin-1 before": _post(b"Transfer-Encoding: \xa0chunked", _HIDING),
    "coding with Latin-1 behind": _post(b"Transfer-Encoding: chunked\xff", _HIDING),
    "CONNECT with a body": b"CONNECT mesh:80 HTTP/1.1\r\nHost: mesh:80\r\nContent-Length: 2\r\n\r\nok",
    "CONNECT with chunks": b"CONNECT mesh:80 HTTP/1.1\r\nHost: mesh:80\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "TRACE with a body": b"TRACE / HTTP/1.1\r\nHost: mesh\r\nContent-Length: 2\r\n\r\nok",
}
_CODINGS = {
    "gzip, chunked": _post(b"Transfer-Encoding: gzip, chunked", CHUNKS),
    "gzip alone": _post(b"Transfer-Encoding: gzip", b"ok"),
    "identity": _post(b"Transfer-Encoding: identity", HIDDEN),
    "identity, chunked": _post(b"Transfer-Encoding: identity, chunked", CHUNKS),
    "xchunked": _post(b"Transfer-Encoding: xchunked", _HIDING),
    "chunkedx": _post(b"Transfer-Encoding: chunkedx", _HIDING),
    "cow, then chunked": _post(b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked", CHUNKS),
}
_LINES = {
    "a CR in a value": _post(b"X: a\rTransfer-Encoding: chunked", HIDDEN),
    "a CR before a name": _post(b"X: a\r\n\rTransfer-Encoding: chunked", _HIDING),
    "CR CR LF": _post(b"X: a\r\r\nY: b", b""),
    "an LF ends a field": _post(b"X: a\nContent-Length: 36", HIDDEN),
    "an LF ends the request line": b"GET / HTTP/1.1\nHost: mesh\r\n\r\n",
    "an LF ends the head": HEAD + b"X: a\r\n\nGET /hidden HTTP/1.1\r\n\r\n",
    "LF alone throughout": HIDDEN.replace(b"\r\n", b"\n"),
    "CR alone throughout": HIDDEN.replace(b"\r\n", b"\r") + b"\r\n\r\n",
    "an LF before the request": b"\n" + PLAIN,
    "a CR before the request": b"\r" + PLAIN,
    "NUL in a value": _post(b"X: a\0b", b""),
    "NUL in a name": _post(b"X\0Y: a", b""),
    "NUL after chunked": _post(b"Transfer-Encoding: chunked\0", _HIDING),
    "a vertical tab before chunked": _post(b"Transfer-Encoding: \x0bchunked", _HIDING),
    "a form feed before chunked": _post(b"Transfer-Encoding:\x0cchunked", _HIDING),
    "backspace in a value": _post(b"X: a\x08", b""),
    "DEL in a value": _post(b"X: a\x7f", b""),
    "a space before the colon": _post(b"Content-Length : 36", HIDDEN),
    "a tab before the colon": _post(b"Transfer-Encoding\t: chunked", _HIDING),
    "a space in a name": _post(b"Transfer Encoding: chunked", _HIDING),
    "a folded field": _post(b"X: a\r\n b", b""),
    "a folded coding": _post(b"Transfer-Encoding:\r\n chunked", _HIDING),
    "folded with a tab": _post(b"X: a\r\n\tContent-Length: 36", HIDDEN),
    "a folded first field": LINE + b" Host: mesh\r\nHost: mesh\r\n\r\n",
    "a name with nothing in it": _post(b": a", b""),
    "no colon": _post(b"Content-Length 36", HIDDEN),
    "a name in brackets": _post(b"(Content-Length): 36", HIDDEN),
    "a name in Latin-1": _post(b"Content-Length\xe9: 36", HIDDEN),
    "a name with a no-break space": _post(b"Content-Length\xa0: 36", HIDDEN),
    "a name with a slash": _post(b"a/b: c", b""),
    "a name with a quote": _post(b'"Content-Length: 36', HIDDEN),
    "a double of Content-Length": _post(b"Content_Length: 36", HIDDEN),
    "a double of Transfer-Encoding": _post(b"Transfer_Encoding: chunked", _HIDING),
    "a double of Host": _post(b"HOST_: a\r\nhost: mesh\r\nX_Forwarded_For: ::1", b""),
    "a double of X-Forwarded-For": _post(b"X_Forwarded_For: ::1", b""),
    "length with a tab inside": _post(b"Content-Length: 2\t0", b"ok" + HIDDEN),
    "a tab before a length": _post(b"Content-Length:\t2", b"ok"),
    "a tab behind a length": _post(b"Content-Length: 2\t", b"ok"),
    "a tab before chunked": _post(b"Transfer-Encoding:\tchunked", _HIDING),
    "a tab behind chunked": _post(b"Transfer-Encoding: chunked\t", _HIDING),
    "a tab behind Host": LINE + b"Host: mesh\t\r\n\r\n",
    "a tab in Connection": _post(b"Connection: te,\tclose", b""),
    "HTTP/0.9 with a field, in one line": b"GET /\n!: HTTP/1.1\r\nHost: mesh\r\n\r\n",  # llhttp takes this one
    "many empty lines first": b"\r\n" * 9 + PLAIN,
    "TLS to a plain port": bytes.fromhex("160301020001000001fc0303"),
    "a space before the method": b" " + PLAIN,
    "a method in brackets": PLAIN.replace(b"GET", b"(GET)"),
    "a tab after the method": _get(b"GET\t/ HTTP/1.1"),
    "a tab after the target": _get(b"GET /\tHTTP/1.1"),
    "two spaces after the method": _get(b"GET  / HTTP/1.1"),
    "two spaces after the target": _get(b"GET /  HTTP/1.1"),
    "a space after the version": _get(b"GET / HTTP/1.1 "),
    "no target": _get(b"GET HTTP/1.1 HTTP/1.1 x"),
    "an empty target": _get(b"GET  HTTP/1.1"),
    "a space in the target": _get(b"GET /a b HTTP/1.1"),
    "a version in small letters": _get(b"GET / http/1.1"),
    "a version without a point": _get(b"GET / HTTP/11"),
    "a version of two digits": _get(b"GET / HTTP/1.10"),
    "a version with a zero before": _get(b"GET / HTTP/01.1"),
    "a version with a comma": _get(b"GET / HTTP/1,1"),
    "another protocol": _get(b"GET / HTTQ/1.1"),
    "a request in a request line": b"GET / HTTP/1.1 GET /hidden HTTP/1.1\r\nHost: mesh\r\n\r\n",
}
_HOSTS = {
    "no Host": _get(b"GET / HTTP/1.1", b""),
    "no Host with an absolute target": _get(b"GET http://mesh/ HTTP/1.1", b""),
    "two Hosts": _get(b"GET / HTTP/1.1", b"Host: mesh\r\nHost: other\r\n"),
    "two equal Hosts": _get(b"GET / HTTP/1.1", b"Host: mesh\r\nhost: mesh\r\n"),
    "two Hosts in HTTP/1.0": _get(b"GET / HTTP/1.0", b"Host: mesh\r\nHost: other\r\n"),
    "an empty Host": _get(b"GET / HTTP/1.1", b"Host:\r\n"),
    "a Host of a space": _get(b"GET / HTTP/1.1", b"Host:  \r\n"),
    "a Host with a path": _get(b"GET / HTTP/1.1", b"Host: mesh/admin\r\n"),
    "a Host with a question": _get(b"GET / HTTP/1.1", b"Host: mesh?x\r\n"),
    "a Host with a fragment": _get(b"GET / HTTP/1.1", b"Host: mesh#x\r\n"),
    "a Host with a backslash": _get(b"GET / HTTP/1.1", b"Host: mesh\\other\r\n"),
    "a Host with a user": _get(b"GET / HTTP/1.1", b"Host: mesh@other\r\n"),
    "a Host with a space": _get(b"GET / HTTP/1.1", b"Host: mesh other\r\n"),
    "Hosts in a list": _get(b"GET / HTTP/1.1", b"Host: mesh,other\r\n"),
    "a Host that is encoded": _get(b"GET / HTTP/1.1", b"Host: m%65sh\r\n"),
    "a Host in Latin-1": _get(b"GET / HTTP/1.1", b"Host: m\xe9sh\r\n"),
    "a Host with two points": _get(b"GET / HTTP/1.1", b"Host: mesh..local\r\n"),
    "a Host that begins with a point": _get(b"GET / HTTP/1.1", b"Host: .mesh\r\n"),
    "a Host with two ports": _get(b"GET / HTTP/1.1", b"Host: mesh:80:81\r\n"),
    "a Host with a port in letters": _get(b"GET / HTTP/1.1", b"Host: mesh:http\r\n"),
    "a Host with no port behind its colon": _get(b"GET / HTTP/1.1", b"Host: mesh:\r\n"),
    "a Host with port 0": _get(b"GET / HTTP/1.1", b"Host: mesh:0\r\n"),
    "a Host with port 65536": _get(b"GET / HTTP/1.1", b"Host: mesh:65536\r\n"),
    "a Host of half an address": _get(b"GET / HTTP/1.1", b"Host: [::1\r\n"),
    "a Host of no address": _get(b"GET / HTTP/1.1", b"Host: [mesh]\r\n"),
    "a Host with a zone": _get(b"GET / HTTP/1.1", b"Host: [fe80::1%25eth0]\r\n"),
    "a Host of 300 bytes": _get(b"GET / HTTP/1.1", b"Host: " + b"m" * 300 + b"\r\n"),
    "a user in the target": _get(b"GET http://user@mesh/ HTTP/1.1"),
    "a user and a password in the target": _get(b"GET http://mesh:80@other/ HTTP/1.1"),
    "an absolute target without a host": _get(b"GET http:///hidden HTTP/1.1"),
    "an absolute target with a backslash": _get(b"GET http://mesh\\@other/ HTTP/1.1"),
    "CONNECT with a user": _get(b"CONNECT user@mesh:80 HTTP/1.1"),
}
_TARGETS = {
    "a fragment": _get(b"GET /a#b HTTP/1.1"),
    "a path without a slash": _get(b"GET hidden HTTP/1.1"),
    "a question first": _get(b"GET ?x HTTP/1.1"),
    "another scheme": _get(b"GET ftp://mesh/ HTTP/1.1"),
    "a scheme without slashes": _get(b"GET http:mesh HTTP/1.1"),
    "a scheme with one slash": _get(b"GET http:/mesh HTTP/1.1"),
    "UTF-8": _get("GET /é HTTP/1.1".encode()),
    "an asterisk with GET": _get(b"GET * HTTP/1.1"),
    "an asterisk and more": _get(b"OPTIONS *x HTTP/1.1"),
    "an authority with GET": _get(b"GET mesh:80 HTTP/1.1"),
    "half an escape": _get(b"GET /%a HTTP/1.1"),
    "an escape of no digits": _get(b"GET /%zz?a HTTP/1.1"),
    "a percent sign at the end": _get(b"GET http://mesh/100% HTTP/1.1"),
    "an escaped NUL": _get(b"GET /a%00b HTTP/1.1"),
    "above the root": _get(b"GET /../hidden HTTP/1.1"),
    "above the root, at the end": _get(b"GET /a/../.. HTTP/1.1"),
    "above the root, in escapes": _get(b"GET /a/%2e%2E/.%2e/hidden HTTP/1.1"),
    "above the root, with escaped slashes": _get(b"GET /a%2f..%2F..%2fhidden HTTP/1.1"),
    "above the root, past empty names": _get(b"GET /a//../../hidden HTTP/1.1"),
    "above the root, past a dot": _get(b"GET /./../hidden HTTP/1.1"),
    "above the root, in an absolute target": _get(b"GET http://mesh/../hidden HTTP/1.1"),
    "CONNECT without a port": _get(b"CONNECT mesh HTTP/1.1"),
}
_CHUNKS = {
    "an LF after a size": CODED + b"2\nok\r\n0\r\n\r\n",
    "an LF after a chunk": CODED + b"2\r\nok\n0\r\n\r\n",
    "an LF after the last size": CODED + b"2\r\nok\r\n0\n\r\n",
    "a CR after a size": CODED + b"2\rxok\r\n0\r\n\r\n",
    "an LF in an extension": CODED + b"2;a\nok\r\n0\r\n\r\n",
    "a CR in an extension": CODED + b"2;a\rb\r\nok\r\n0\r\n\r\n",
    "a size in hexadecimal's dress": CODED + b"0x2\r\nok\r\n0\r\n\r\n",
    "a size with a sign": CODED + b"+2\r\nok\r\n0\r\n\r\n",
    "a size with an underscore": CODED + b"0_2\r\nok\r\n0\r\n\r\n",
    "a size below nothing": CODED + b"-1\r\nok\r\n0\r\n\r\n",
    "a size of nothing": CODED + b"\r\nok\r\n0\r\n\r\n",
    "a size that is no number": CODED + b"G\r\nok\r\n0\r\n\r\n",
    "a space before a size": CODED + b" 2\r\nok\r\n0\r\n\r\n",
    "a space after a size": CODED + b"2 \r\nok\r\n0\r\n\r\n",
    "a tab after a size": CODED + b"2\t\r\nok\r\n0\r\n\r\n",
    "a space before an extension": CODED + b"2 ;a\r\nok\r\n0\r\n\r\n",
    "an extension without a name": CODED + b"2;\r\nok\r\n0\r\n\r\n",
    "an extension without a value": CODED + b"2;a=\r\nok\r\n0\r\n\r\n",
    "an extension with an open quote": CODED + b'2;a="\r\nok\r\n0\r\n\r\n',
    "an extension with NUL": CODED + b"2;a\0\r\nok\r\n0\r\n\r\n",
    "a size of 2**64 + 2": CODED + b"10000000000000002\r\nok\r\n0\r\n\r\n",
    "a size of 2**64 - 1": CODED + b"ffffffffffffffff\r\nok\r\n0\r\n\r\n",
    "a size with a zero too many": CODED + b"00000000000000002\r\nok\r\n0\r\n\r\n",
    "a chunk that is longer": CODED + b"2\r\noke\r\n0\r\n\r\n",
    "a chunk that is shorter": CODED + b"3\r\nok\r\n0\r\n\r\n" + HIDDEN,
    "a chunk without its end": CODED + b"2\r\nok0\r\n\r\n" + HIDDEN,
    "two CRs after a chunk": CODED + b"2\r\nok\r\r\n0\r\n\r\n",
    "a trailer that frames": CODED + b"0\r\nContent-Length: 36\r\n\r\n" + HIDDEN,
    "a trailer that codes": CODED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n" + HIDDEN,
    "a trailer that routes": CODED + b"0\r\nHost: other\r\n\r\n",
    "a trailer's double": CODED + b"0\r\nContent_Length: 36\r\n\r\n" + HIDDEN,
    "extensions without end": CODED + b"0;" + b"a" * 20_000 + b"\r\n\r\n",
}
_TRAILERS = {
    "an LF at the very end": CODED + b"2\r\nok\r\n0\r\n\n",
    "a folded trailer": CODED + b"0\r\nX: a\r\n b\r\n\r\n",
    "a trailer without a colon": CODED + b"0\r\nX\r\n\r\n",
    "a trailer with a space before the colon": CODED + b"0\r\nX : a\r\n\r\n",
    "a trailer with NUL": CODED + b"0\r\nX: a\0\r\n\r\n",
    "a trailer that ends with LF": CODED + b"0\r\nX: a\n\r\n",
    "a trailer with a CR": CODED + b"0\r\nX: a\rb\r\n\r\n",
    "a request among the trailers": CODED + b"0\r\nGET /hidden HTTP/1.1\r\nHost: mesh\r\n\r\n",
}
_CONNECTION = {
    "Connection names Host": _post(b"Connection: host", b""),
    "Connection names Content-Length": _post(b"Connection: close, Content-Length\r\nContent-Length: 2", b"ok"),
    "Connection names Transfer-Encoding": _post(b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked", CHUNKS),
    "Connection names Authorization": _post(b"Connection: authorization\r\nAuthorization: Bearer x", b""),
    "Connection names X-Forwarded-For": _post(b"Connection: close\r\nConnection: X-Forwarded-For", b""),
    "Connection names Cookie": _post(b"Connection: keep-alive,cookie", b""),
    "Connection with a quote": _post(b'Connection: "close"', b""),
    "Connection with two words": _post(b"Connection: close keep-alive", b""),
    "Upgrade to nothing": _post(b"Connection: upgrade\r\nUpgrade:", b""),
    "Upgrade to two words": _post(b"Connection: upgrade\r\nUpgrade: web socket", b""),
}
_VERSIONS = {
    "HTTP/0.9": b"GET /hidden\r\n\r\n",
    "HTTP/0.9 and CONNECT": b"GET /\r\nCONNECT HTTP/1.0\r\n\r\n",  # llhttp takes it for two requests
    "HTTP/0.9 and a request": b"GET /\r\n" + HIDDEN,
    "HTTP/0.9 with fields": b"GET /\r\nHost: mesh\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": _get(b"GET / HTTP/1.2"),
    "HTTP/1.9": _get(b"GET / HTTP/1.9"),
    "HTTP/0.9, named": _get(b"GET / HTTP/0.9"),
    "HTTP/2.0": _get(b"GET / HTTP/2.0"),
    "HTTP/3.0": _get(b"GET / HTTP/3.0"),
}
_METHODS = {
    "a method in small letters": _get(b"get / HTTP/1.1"),
    "an unknown method": _get(b"STEAL / HTTP/1.1"),
    "a method of RTSP": _get(b"DESCRIBE / HTTP/1.1"),
    "PRI in HTTP/1.1": _get(b"PRI / HTTP/1.1"),
    "a longer method": _get(b"GETT / HTTP/1.1"),
}
_GOOD = {
    "a request": PLAIN,
    "a field in every kind of token": _post(b"!#$%&'*+-.^`|~1aZ: v", b""),
    "an underscore": _post(b"x_request: 1", b""),
    "a value in Latin-1": _post(b"X: caf\xe9", b""),
    "an empty value": _post(b"X:", b""),
    "spaces around values": _post(b"X: \t a b\t \r\nContent-Length:  2 ", b"ok"),
    "a length in zeros": _post(b"Content-Length: 0002", b"ok"),
    "a length of nothing": _post(b"Content-Length: 0", b""),
    "GET with a body": HEAD.replace(b"POST", b"GET") + b"Content-Length: 36\r\n\r\n" + HIDDEN,
    "chunks": CODED + CHUNKS,
    "chunks, shouted": _post(b"TRANSFER-ENCODING: CHUNKED", CHUNKS),
    "chunks in digits of both cases": CODED + b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n",
    "chunks with zeros before": CODED + b"0002\r\nok\r\n0000\r\n\r\n",
    "an extension": CODED + b"2;a=b\r\nok\r\n0\r\n\r\n",
    "a trailer": CODED + b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n",
    "an empty line first": b"\r\n" + PLAIN,
    "an absolute target": _get(b"GET http://mesh/plain HTTP/1.1"),
    "an absolute target of another host": _get(b"GET http://other/plain HTTP/1.1"),
    "a target as browsers send it": _get(b'GET /a|b"<>{}^`[]\\?c=/?:@&d=%20 HTTP/1.1'),
    "escapes and dots": _get(b"GET /a%20b/%2e/c/../d..e?f=%&g=/../..%00 HTTP/1.1"),
    "two slashes": _get(b"GET //mesh/a HTTP/1.1"),
    "an address": _get(b"GET / HTTP/1.1", b"Host: [::1]:8080\r\n"),
    "HTTP/1.0": _get(b"GET / HTTP/1.0", b""),
    "close among options": _post(b"Connection: te, close", b""),
    "empty options": _post(b"Connection: ,te,,", b""),
}
_SEVERAL = {
    "two requests": PLAIN + PLAIN,
    "a body and a request": _post(b"Content-Length: 2", b"ok") + PLAIN,
    "chunks and a request": CODED + CHUNKS + PLAIN,
    "an empty line between": _post(b"Content-Length: 2", b"ok\r\n") + PLAIN,
}
_LARGE = {
    "a large field": _post(b"X: " + b"a" * 40_000, b""),
    "many fields": _post(b"\r\n".join(b"X-%d: a" % number for number in range(300)), b""),
    "a large head": _post(b"\r\n".join(b"X-%d: " % number + b"a" * 1_000 for number in range(80)), b""),
}

SHAPES = [
    *_refused(400, "framing", _LENGTHS),
    *_refused(501, "framing", _CODINGS),
    *_refused(400, "syntax", _LINES),
    *_refused(400, "host", _HOSTS),
    *_refused(400, "target", _TARGETS),
    *_refused(400, "framing", _CHUNKS, requests=1),
    *_refused(400, "syntax", _TRAILERS, requests=1),
    *_refused(400, "connection", _CONNECTION),
    *_refused(505, "version", _VERSIONS),
    *_refused(501, "method", _METHODS),
    *_refused(417, "expect", {"another expectation": _post(b"Expect: 200-ok", b"")}),
    *_refused(413, "size", {"a length of 2**63": _post(b"Content-Length: 9223372036854775808", b"ok")}),
    *_refused(414, "size", {"a large target": _get(b"GET /" + b"a" * 20_000 + b" HTTP/1.1")}),
    *_refused(431, "size", _LARGE),
    *_refused(400, "framing", {"a fault behind a request": PLAIN + _LENGTHS["two lengths"]}, requests=1),
    *_read(1, _GOOD),
    *_read(2, _SEVERAL),
    *_read(1, {"a request behind a close": _post(b"Connection: close", HIDDEN)}),
]
