"""A Consul that can be told to misbehave: it stands before a real one."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

__all__ = ["Moody"]

GARBAGE = b"<html>please log in to the hotel's network</html>"


class _Quiet(ThreadingHTTPServer):
    """Callers that hang up are what these tests are about."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class Moody:
    """Gives requests on to the Consul behind it, or does what its mood says.

    Args:
        behind: the URL of the real one.

    Attributes:
        mood: `fine`, `garbage`, `403`, `500` or `hanging`.
        asked: requests that came since the mood last changed.
    """

    def __init__(self, behind: str) -> None:
        self.behind = behind
        self.asked = 0
        self._mood = "fine"
        self._end = threading.Event()
        moody = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                moody.answer(self)

            def do_PUT(self) -> None:
                moody.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Quiet(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def mood(self) -> str:
        return self._mood

    @mood.setter
    def mood(self, mood: str) -> None:
        self._mood, self.asked = mood, 0

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Blocking queries are cut to half a second, so that a mood is felt soon."""
        status, headers, body = self._ask(handler)
        self.asked += 1
        match self._mood:
            case "garbage":
                status, headers, body = 200, {"content-type": "text/html"}, GARBAGE
            case "403":
                status, headers, body = 403, {}, b"Permission denied"
            case "500":
                status, headers, body = 500, {}, b"rpc error: No cluster leader"
            case "hanging":
                self._end.wait(30)
        handler.send_response(status)
        for name, value in headers.items():
            if name.lower().startswith("x-consul") or name.lower() == "content-type":
                handler.send_header(name, value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _ask(self, handler: BaseHTTPRequestHandler) -> tuple[int, Any, bytes]:
        path = re.sub(r"wait=[^&]*", "wait=500ms", handler.path)
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        request = urllib.request.Request(self.behind + path, body or None, method=handler.command)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    @contextmanager
    def running(self) -> Iterator[Self]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._end.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()
