"""whatever bytes a client sends, every request forwarded is one that both nginx and the app parse the same way, or nothing is forwarded.

Here with the reader for the proxy, and real nginx and Node. What the reader refuses may be read by them as it will;
what it accepts, both must accept and read as it does.
"""  # noqa: E501 - the first line is the invariant, word for word

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.sidecar.smuggling.corpus import SHAPES, Shape
from tests.sidecar.smuggling.witnesses import Seen, Witness, witnesses
from tests.wire.http1.asking import Heard, Request, ask
from tests.wire.http1.asks import ONE_BYTE_OFF, Sent, damaged, one_byte_off, sendings

LONG = settings.get_current_profile_name() == "long"
pytestmark = pytest.mark.timeout(0 if LONG else 300)  # a failure takes a while to be made small
FUZZ = settings(
    *([] if LONG else [settings(max_examples=40, deadline=None, derandomize=True, database=None)]),
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)

# What nginx does not serve, whatever it reads: 405.
UNSERVED = (b"CONNECT", b"TRACE")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Witness]]:
    with witnesses(tmp_path_factory.mktemp("witnesses")) as both:
        yield both


def accepted(data: bytes) -> tuple[list[Request], bytes]:
    """The requests that are complete, and the bytes up to the end of the last."""
    requests = [request for request in ask([data]).requests if request.complete]
    end = bisect_left(range(len(data)), len(requests), key=lambda end: _complete(ask([data[:end]])))
    return requests, data[:end]


def _complete(heard: Heard) -> int:
    return sum(request.complete for request in heard.requests)


def check(running: list[Witness], data: bytes) -> None:
    requests, part = accepted(data)
    if not requests:
        return
    for witness in running:
        found = witness.read(part)
        if any(map(_UNLIKE[witness.name], requests)):
            continue
        assert len(found) == len(requests), f"{witness.name} reads {found} of {part!r}"
        for request, seen in zip(requests, found, strict=True):
            if request.method in UNSERVED and seen == 405:
                continue
            assert isinstance(seen, Seen), f"{witness.name} answers {request} with {seen}"
            _same(request, seen, witness.name)


def _unlike_nginx(request: Request) -> bool:
    """Where nginx is stricter, or stops sooner, without reading anything else than we do.

    It looks for `close` anywhere in Connection, and reads no request after it; and it takes neither `_` nor `~` in an
    absolute target, which is passed on in origin form.
    """
    options = [value.lower() for name, value in request.fields if name.lower() == b"connection"]
    absolute = re.match(rb"(?i)https?://[^/?]*[_~]", request.target)
    return absolute is not None or (request.keeps_alive and any(b"close" in option for option in options))


def _unlike_node(request: Request) -> bool:
    """Node takes the body of a request for an upgrade for the other protocol; such an Upgrade is not passed on."""
    return request.length != 0 and not request.upgrade and any(name.lower() == b"upgrade" for name, _ in request.fields)


_UNLIKE = {"nginx": _unlike_nginx, "node": _unlike_node}


def _same(request: Request, seen: Seen, name: str) -> None:
    target = request.target.decode()
    absolute = re.fullmatch(r"(?i)https?://[^/?]*(.*)", target)
    host = (request.host or b"").decode()
    if absolute is not None and name == "nginx":  # which passes on a target in origin form
        target = absolute[1] if absolute[1].startswith("/") else "/" + absolute[1].removesuffix("?")
    assert (seen.method, seen.target, seen.body) == (request.method.decode(), target, request.body)
    if name == "nginx":
        assert seen.host == re.sub(r"(?<!:):[0-9]+$|\.$", "", re.sub(r":[0-9]+$", "", host)).lower()
    elif absolute is None and request.method != b"CONNECT":
        assert seen.host == host


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name.replace(" ", "-"))
def test_shape(running: list[Witness], shape: Shape) -> None:
    check(running, shape.data)


def test_one_byte_at_every_place(running: list[Witness]) -> None:
    """Those that have been mistaken for another, put in and put instead."""
    for data in ONE_BYTE_OFF:
        for variant in one_byte_off(data, b"\0\t\n\r ,:_" if LONG else b"\n\r:"):
            check(running, variant)


@FUZZ
@given(sent=sendings())
def test_valid_requests(running: list[Witness], sent: Sent) -> None:
    check(running, sent.data)


@FUZZ
@given(sent=damaged())
def test_damaged_requests(running: list[Witness], sent: Sent) -> None:
    check(running, sent.data)
