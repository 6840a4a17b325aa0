"""The WSGI adapter: a plain WSGI callable around the application (PEP 3333)."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from meshsdk.errors import AccessDenied
from meshsdk.identity.peer import wsgi_peer
from meshsdk.server.answers import Answer, method_not_allowed
from meshsdk.server.beginning import Beginning
from meshsdk.server.inbound import Intake, Page, ServedRequest
from meshsdk.server.prefix import rooted
from meshsdk.server.sniffing import verified_of
from meshsdk.server.verified import Verified
from meshsdk.telemetry.context import current

__all__ = ["ROUTE", "MeshWSGI", "WSGIApp"]

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

ROUTE = "meshsdk.route"
"""Key of the environ under which a framework's hook leaves the route's template."""

# CGI has these two under names of their own (RFC 3875, 4.1.2 and 4.1.3); PEP 3333 lets them be empty for not sent.
_UNPREFIXED = ((b"content-type", "CONTENT_TYPE"), (b"content-length", "CONTENT_LENGTH"))

_XFCC = "HTTP_X_FORWARDED_CLIENT_CERT"

# Scraping asks every worker, and each has a quarter of a second; a page that takes longer will not come.
_PAGE_WAIT = 5.0


class MeshWSGI:
    """A WSGI application with the mesh around it.

    A deadline bounds the handler's outgoing calls; a thread cannot be cancelled, so the handler itself runs on.

    Args:
        app: the application.
        intake: where requests come in.
        beginning: waited for before a request is judged; None waits for nothing.
    """

    def __init__(self, app: WSGIApp, intake: Intake, beginning: Beginning | None = None) -> None:
        self.app = app
        self._intake = intake
        self._beginning = beginning or Beginning("", 0.0)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request."""
        connection = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
        caller = None if connection is None else verified_of(connection)
        if caller is not None and caller.expired:
            return _hang_up(connection, start_response)
        if isinstance(connection, socket.socket) and not isinstance(connection, ssl.SSLSocket):
            _in_clear_text(environ)
        path = _path(environ)
        routed = rooted(_decoded(environ.get("PATH_INFO", ""))) if environ.get("SCRIPT_NAME") else ""
        page = self._intake.pages.get(routed or path)
        if page is not None:
            return self._own(page, environ, start_response)
        if not self._beginning.over:
            self._beginning.wait()
        request = self._admit(path, routed, environ, caller)
        if request.refusal is not None:
            request.status = request.refusal.status
            request.end()
            return _reply(request.refusal, environ, start_response)
        if request.forged:
            del environ[_XFCC]
        if request.certificate is not None:
            environ[_XFCC] = request.certificate.decode("ascii")
        return self._serve(request, environ, start_response)

    def _serve(self, request: ServedRequest, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def starting(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
            write = start_response(status, headers, *exc_info)
            request.status = int(status[:3])
            return write

        token = current.set(request.inbound)
        try:
            body = self.app(environ, starting)
        except AccessDenied as error:
            if request.status is not None:
                _end(request, environ, error)
                raise
            body = _reply(Answer(403, f"access denied: {error}\n".encode()), environ, starting)
        except BaseException as error:
            _end(request, environ, error)
            raise
        finally:
            current.reset(token)
        return _watched(body, request, environ)

    def _admit(self, path: str, routed: str, environ: Environ, caller: Verified | None) -> ServedRequest:
        port = environ.get("SERVER_PORT", "")
        return self._intake.admit(
            environ["REQUEST_METHOD"],
            path,
            _headers(environ),
            scheme=environ["wsgi.url_scheme"],
            server=(environ.get("SERVER_NAME", ""), int(port) if port.isdecimal() else None),
            client=environ.get("REMOTE_ADDR", ""),
            peer=wsgi_peer(environ) if caller is None else caller.peer,
            target=environ.get("RAW_URI") or environ.get("REQUEST_URI") or _quoted(environ),
            routed=routed,
        )

    def _own(self, page: Page, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self._intake.seen()
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            return _reply(method_not_allowed(environ["REQUEST_METHOD"]), environ, start_response)
        made = page()
        answer = made.result(_PAGE_WAIT) if isinstance(made, Future) else made
        return _reply(answer, environ, start_response)


class _Body:
    """The reply's body: each step runs within the request's context, and close() ends the request."""

    def __init__(self, body: Iterable[bytes], request: ServedRequest, environ: Environ) -> None:
        self._body = body
        self._steps = iter(body)
        self._request = request
        self._environ = environ

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        token = current.set(self._request.inbound)
        try:
            return next(self._steps)
        except StopIteration:
            raise
        except BaseException as error:
            _end(self._request, self._environ, error)
            raise
        finally:
            current.reset(token)

    def close(self) -> None:
        """PEP 3333: the server calls this at the end of every request, also of one that was broken off."""
        token = current.set(self._request.inbound)
        error: BaseException | None = None
        try:
            if (close := getattr(self._body, "close", None)) is not None:
                close()
        except BaseException as raised:
            error = raised
            raise
        finally:
            current.reset(token)
            _end(self._request, self._environ, error)


class _SizedBody(_Body):
    """A body of known length: servers derive Content-Length from a length of one (PEP 3333)."""

    def __len__(self) -> int:
        return len(self._body)  # type: ignore[arg-type]


def _watched(body: Iterable[bytes], request: ServedRequest, environ: Environ) -> Iterable[bytes]:
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type) and isinstance(body, wrapper):
        return _file(body, request, environ)
    return (_SizedBody if isinstance(body, (list, tuple)) else _Body)(body, request, environ)


def _file(body: Any, request: ServedRequest, environ: Environ) -> Iterable[bytes]:
    """Servers send a file without copying only when they get their own wrapper back: its close() is taken over."""
    inner = getattr(body, "close", None)

    def close() -> None:
        try:
            if inner is not None:
                inner()
        finally:
            _end(request, environ, None)

    try:
        body.close = close
    except AttributeError:  # a wrapper in C: its end cannot be seen, so the request ends here
        _end(request, environ, None)
    return body  # type: ignore[no-any-return]


def _end(request: ServedRequest, environ: Environ, error: BaseException | None) -> None:
    request.route = environ.get(ROUTE, "")
    request.end(error)


def _in_clear_text(environ: Environ) -> None:
    """A server whose port takes both says https for all; a proxy before it may say so with right."""
    if environ["wsgi.url_scheme"] == "https" and "HTTP_X_FORWARDED_PROTO" not in environ:
        environ["wsgi.url_scheme"] = "http"
        environ.pop("HTTPS", None)


def _hang_up(connection: Any, start_response: StartResponse) -> Iterable[bytes]:
    """End a connection whose caller's certificate has expired, without an answer: callers try those again elsewhere.

    A server closes it when it can no longer write; the socket's own `shutdown` would take TLS away under it.
    """
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    start_response("403 Forbidden", [("Content-Length", "0")])
    return [b""]


def _quoted(environ: Environ) -> str:
    """The request target where the server does not keep it: decoded once, so `%2f` and `/` are no longer apart."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return quote(path.encode("latin-1"), safe="/:@!$&'()*+,;=~-._")


def _path(environ: Environ) -> str:
    """The path as the client wrote it."""
    return _decoded(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))


def _decoded(path: str) -> str:
    """PEP 3333 hands over UTF-8 bytes as Latin-1 text."""
    return path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace")


@lru_cache(1024)  # clients choose the names: the same few dozen, and a bound for those who invent more
def _header_name(key: str) -> bytes:
    return key[5:].replace("_", "-").lower().encode("latin-1")


def _headers(environ: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    headers = [
        (_header_name(name), value.encode("latin-1", "replace"))
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    for name, key in _UNPREFIXED:
        if value := environ.get(key):
            headers.append((name, value.encode("latin-1", "replace")))
    return headers


def _reply(answer: Answer, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    headers = [(name.decode(), value.decode()) for name, value in answer.headers]
    start_response(answer.status_line, headers)
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else answer.body]
