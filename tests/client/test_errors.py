"""The mesh's errors as httpx errors."""

from __future__ import annotations

import pickle

import httpx
import pytest

from meshsdk import errors
from meshsdk.client import errors as client_errors
from meshsdk.client.errors import as_httpx
from meshsdk.core.model import Failure, Phase

REQUEST = httpx.Request("GET", "http://payments/")


def made(kind: type[errors.CallError]) -> errors.CallError:
    return kind(
        "it failed", service="payments", endpoint="10.0.0.1:80", attempts=2, reason="budget-empty", policy="p@1"
    )


def failed(phase: Phase, cause: BaseException | None = None) -> Failure:
    return Failure(phase, "reset", "", cause)


CASES: list[tuple[type[errors.CallError], Failure | None, type[httpx.TransportError]]] = [
    (errors.UnknownService, None, httpx.ConnectError),
    (errors.NoEndpoint, None, httpx.ConnectError),
    (errors.Overloaded, None, httpx.ConnectError),
    (errors.BreakerOpen, failed(Phase.WRITTEN), httpx.ConnectError),
    (errors.RateLimited, None, httpx.ConnectError),
    (errors.DeadlineExceeded, None, httpx.ConnectTimeout),
    (errors.DeadlineExceeded, failed(Phase.NOT_CONNECTED), httpx.ConnectTimeout),
    (errors.DeadlineExceeded, failed(Phase.WRITTEN), httpx.ReadTimeout),
    (errors.DeadlineExceeded, failed(Phase.REPLY_STARTED), httpx.ReadTimeout),
    (errors.ConnectFailed, failed(Phase.NOT_CONNECTED), httpx.ConnectError),
    (errors.ConnectFailed, failed(Phase.NOT_CONNECTED, TimeoutError()), httpx.ConnectTimeout),
    (errors.ConnectionLost, failed(Phase.WRITTEN), httpx.ReadError),
    (errors.BadReply, failed(Phase.REPLY_STARTED), httpx.RemoteProtocolError),
    (errors.CallError, None, httpx.TransportError),
]


@pytest.mark.parametrize(("kind", "failure", "httpx_kind"), CASES)
def test_caught_by_either_name(
    kind: type[errors.CallError], failure: Failure | None, httpx_kind: type[httpx.TransportError]
) -> None:
    error = as_httpx(made(kind), REQUEST, failure)
    assert isinstance(error, kind)
    assert isinstance(error, httpx_kind)
    assert isinstance(error, httpx.TransportError)
    assert error.request is REQUEST
    assert str(error) == str(made(kind))
    assert (error.service, error.endpoint, error.attempts) == ("payments", "10.0.0.1:80", 2)


@pytest.mark.parametrize(("kind", "failure", "httpx_kind"), CASES)
def test_pickling(
    kind: type[errors.CallError], failure: Failure | None, httpx_kind: type[httpx.TransportError]
) -> None:
    error = as_httpx(made(kind), REQUEST, failure)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.request.url == REQUEST.url
    assert str(pickle.loads(pickle.dumps(made(kind)))) == str(made(kind))


def test_every_error_of_the_tree_has_its_httpx_kind() -> None:
    def leaves(kind: type[errors.CallError]) -> list[type[errors.CallError]]:
        below = [sub for sub in kind.__subclasses__() if sub.__module__ == "meshsdk.errors"]
        return [leaf for sub in below for leaf in leaves(sub)] or [kind]

    for leaf in leaves(errors.CallError):
        assert type(as_httpx(made(leaf), REQUEST)) is not client_errors.CallFailed, leaf


def test_policy_error_pickles() -> None:
    error = errors.PolicyError("payments", ["a: b"])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
