"""The WSGI adapter: bodies, their ends and their failures (PEP 3333)."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import httpx
import pytest

from meshsdk.server.answers import Answer
from meshsdk.server.inbound import Intake
from meshsdk.server.wsgi import MeshWSGI
from meshsdk.telemetry.context import current, remaining_deadline


def environ_of(path: str = "/", method: str = "GET", **more: Any) -> dict[str, Any]:
    environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": method}
    setup_testing_defaults(environ)
    return {**environ, **more}


class Started:
    """A server's start_response."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.exc_info: Any = None

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        self.status, self.headers, self.exc_info = status, headers, exc_info
        return lambda data: None


def hello(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("content-type", "text/plain"), ("content-length", "5")])
    return [b"hello"]


def finish(body: Iterable[bytes]) -> bytes:
    """What a server does with a body."""
    try:
        return b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()


def test_request_is_told_once(intake: Intake, told: Any) -> None:
    with httpx.Client(transport=httpx.WSGITransport(MeshWSGI(hello, intake)), base_url="http://test") as http:
        reply = http.post("/a?b=c", content=b"x")
    assert (reply.status_code, reply.text) == (200, "hello")
    event = told.only()
    assert (event.method, event.path, event.status, event.flag, event.error_type) == ("POST", "/a", 200, "", "")
    assert intake.in_flight == 0


def test_adapter_keeps_to_the_specification(intake: Intake) -> None:
    app = validator(MeshWSGI(validator(hello), intake))
    body = app(environ_of(QUERY_STRING="", SCRIPT_NAME=""), Started())
    assert finish(body) == b"hello"


def test_request_is_open_until_close(intake: Intake, told: Any) -> None:
    body = MeshWSGI(hello, intake)(environ_of(), Started())
    assert list(body) == [b"hello"]
    assert intake.in_flight == 1
    body.close()  # type: ignore[attr-defined]
    body.close()  # type: ignore[attr-defined]
    assert told.only().status == 200


def test_context_holds_in_the_handler_and_in_every_step(intake: Intake) -> None:
    deadlines: list[float | None] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        deadlines.append(remaining_deadline())  # a generator: this runs at the first step
        start_response("200 OK", [])
        yield b"1"
        deadlines.append(remaining_deadline())
        try:
            yield b"2"
        finally:
            deadlines.append(remaining_deadline())

    before = time.monotonic()
    body = MeshWSGI(app, intake)(environ_of(HTTP_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS="60000"), Started())
    steps = iter(body)
    assert current.get() is None
    assert next(steps) == b"1"
    assert current.get() is None
    assert next(steps) == b"2"
    body.close()  # type: ignore[attr-defined]
    assert len(deadlines) == 3
    assert all(deadline is not None and before + 59 < deadline < before + 61 for deadline in deadlines)


def test_generator_that_dies_half_way(intake: Intake, told: Any) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"half"
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        finish(MeshWSGI(app, intake)(environ_of(), Started()))
    assert (told.only().status, told.only().error_type) == (200, "OSError")


def test_close_of_the_application_is_called_and_may_fail(intake: Intake, told: Any) -> None:
    class Body:
        closed = 0

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"x"])

        def close(self) -> None:
            self.closed += 1
            raise RuntimeError("close")

    inner = Body()

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return inner

    with pytest.raises(RuntimeError, match="close"):
        finish(MeshWSGI(app, intake)(environ_of(), Started()))
    assert inner.closed == 1
    assert told.only().error_type == "RuntimeError"


def test_failure_before_the_reply(intake: Intake, told: Any) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        MeshWSGI(app, intake)(environ_of(), Started())
    assert (told.only().status, told.only().error_type) == (500, "ValueError")
    assert current.get() is None


def test_second_start_response_with_exc_info_wins(intake: Intake, told: Any) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        try:
            int("late")
        except ValueError:
            start_response("500 Oops", [], sys.exc_info())
        return [b"sorry"]

    started = Started()
    assert finish(MeshWSGI(app, intake)(environ_of(), started)) == b"sorry"
    assert isinstance(started.exc_info[1], ValueError)
    assert told.only().status == 500


def test_start_response_that_refuses_is_not_a_status(intake: Intake, told: Any) -> None:
    def refusing(status: str, headers: Any, exc_info: Any = None) -> Any:
        raise AssertionError("headers already sent")

    with pytest.raises(AssertionError, match="already sent"):
        MeshWSGI(hello, intake)(environ_of(), refusing)
    assert told.only().status == 500


def test_length_of_a_list_is_kept(intake: Intake) -> None:
    assert len(MeshWSGI(hello, intake)(environ_of(), Started())) == 1  # type: ignore[arg-type]


def test_file_goes_to_the_server_as_its_own_wrapper(intake: Intake, told: Any) -> None:
    source = io.BytesIO(b"file")

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return FileWrapper(source)

    body = MeshWSGI(app, intake)(environ_of(**{"wsgi.file_wrapper": FileWrapper}), Started())
    assert type(body) is FileWrapper
    assert intake.in_flight == 1
    body.close()
    assert source.closed
    assert told.only().status == 200


def test_file_wrapper_that_cannot_be_watched_ends_the_request(intake: Intake, told: Any) -> None:
    class Sealed:
        __slots__ = ()

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"file"])

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Sealed()

    body = MeshWSGI(app, intake)(environ_of(**{"wsgi.file_wrapper": Sealed}), Started())
    assert isinstance(body, Sealed)
    assert told.only().status == 200


def test_head_and_empty_bodies(intake: Intake, told: Any) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("204 No Content", [])
        return []

    assert finish(MeshWSGI(app, intake)(environ_of(method="HEAD"), Started())) == b""
    assert (told.only().method, told.only().status) == ("HEAD", 204)


def test_expired_request_never_reaches_the_application(intake: Intake, told: Any) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise AssertionError("must not run")

    started = Started()
    body = finish(MeshWSGI(app, intake)(environ_of(HTTP_GRPC_TIMEOUT="0S"), started))
    assert started.status == "504 Gateway Timeout"
    assert body.startswith(b"deadline exceeded: the caller gave this request 0 ms (grpc-timeout)")
    assert told.only().refused


def test_own_pages(make_intake: Any, told: Any) -> None:
    later: Future[Answer] = Future()
    later.set_result(Answer(200, b"counted"))
    app = MeshWSGI(hello, make_intake(pages={"/ready": lambda: Answer(200, b"ready\n"), "/metrics": lambda: later}))
    with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://test") as http:
        assert http.get("/ready").text == "ready\n"
        assert http.get("/metrics").text == "counted"
        assert http.head("/ready").headers["content-length"] == "6"
        assert http.put("/ready").status_code == 405
    assert told.events == []


def test_path_is_decoded_as_the_client_wrote_it(intake: Intake, told: Any) -> None:
    environ = environ_of("/caf\xc3\xa9", SCRIPT_NAME="/mounted")
    finish(MeshWSGI(hello, intake)(environ, Started()))
    assert told.only().path == "/mounted/café"
