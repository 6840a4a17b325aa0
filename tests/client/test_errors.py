"""The mesh's errors as httpx errors."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import httpx
import httpx2
import pytest

from meshsdk import errors
from meshsdk.client import errors as client_errors
from meshsdk.client import library
from meshsdk.core.model import Failure, Phase

LIBRARIES = pytest.mark.parametrize("module", [httpx, httpx2], ids=lambda module: module.__name__)


def made(kind: type[errors.CallError]) -> errors.CallError:
    return kind(
        "it failed", service="payments", endpoint="10.0.0.1:80", attempts=2, reason="budget-empty", policy="p@1"
    )


def failed(phase: Phase, cause: BaseException | None = None) -> Failure:
    return Failure(phase, "reset", "", cause)


CASES: list[tuple[type[errors.CallError], Failure | None, str]] = [
    (errors.UnknownService, None, "ConnectError"),
    (errors.NoEndpoint, None, "ConnectError"),
    (errors.Overloaded, None, "ConnectError"),
    (errors.BreakerOpen, failed(Phase.WRITTEN), "ConnectError"),
    (errors.RateLimited, None, "ConnectError"),
    (errors.EgressDenied, None, "ConnectError"),
    (errors.DeadlineExceeded, None, "ConnectTimeout"),
    (errors.DeadlineExceeded, failed(Phase.NOT_CONNECTED), "ConnectTimeout"),
    (errors.DeadlineExceeded, failed(Phase.WRITTEN), "ReadTimeout"),
    (errors.DeadlineExceeded, failed(Phase.REPLY_STARTED), "ReadTimeout"),
    (errors.ConnectFailed, failed(Phase.NOT_CONNECTED), "ConnectError"),
    (errors.ConnectFailed, failed(Phase.NOT_CONNECTED, TimeoutError()), "ConnectTimeout"),
    (errors.ConnectionLost, failed(Phase.WRITTEN), "ReadError"),
    (errors.BadReply, failed(Phase.REPLY_STARTED), "RemoteProtocolError"),
    (errors.CallError, None, "TransportError"),
]


@LIBRARIES
@pytest.mark.parametrize(("kind", "failure", "theirs"), CASES)
def test_caught_by_either_name(kind: type[errors.CallError], failure: Failure | None, theirs: str, module: Any) -> None:
    request = module.Request("GET", "http://payments/")
    error = library(module).errors.matching(made(kind), request, failure)
    assert isinstance(error, kind)
    assert isinstance(error, getattr(module, theirs))
    assert isinstance(error, module.TransportError)
    assert error.request is request
    assert str(error) == str(made(kind))
    assert (error.service, error.endpoint, error.attempts) == ("payments", "10.0.0.1:80", 2)


@LIBRARIES
@pytest.mark.parametrize(("kind", "failure", "theirs"), CASES)
def test_pickling(kind: type[errors.CallError], failure: Failure | None, theirs: str, module: Any) -> None:
    request = module.Request("GET", "http://payments/")
    error = library(module).errors.matching(made(kind), request, failure)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.request.url == request.url
    assert str(pickle.loads(pickle.dumps(made(kind)))) == str(made(kind))


@LIBRARIES
def test_every_error_of_the_tree_has_its_kind(module: Any) -> None:
    def leaves(kind: type[errors.CallError]) -> list[type[errors.CallError]]:
        below = [sub for sub in kind.__subclasses__() if sub.__module__ == "meshsdk.errors"]
        return [leaf for sub in below for leaf in leaves(sub)] or [kind]

    for leaf in leaves(errors.CallError):
        request = module.Request("GET", "http://payments/")
        error = library(module).errors.matching(made(leaf), request)
        assert type(error) is not library(module).errors.CallFailed, leaf


def test_policy_error_pickles() -> None:
    error = errors.PolicyError("payments", ["a: b"])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_errors_of_one_library_are_not_the_others() -> None:
    ours, theirs = library(httpx).errors, library(httpx2).errors
    assert ours.DeadlineExceeded is client_errors.DeadlineExceeded
    assert issubclass(theirs.DeadlineExceeded, errors.DeadlineExceeded)
    assert issubclass(theirs.DeadlineExceeded, httpx2.ReadTimeout)
    assert not issubclass(theirs.DeadlineExceeded, httpx.HTTPError)
    assert theirs.DeadlineExceeded.__doc__ == ours.DeadlineExceeded.__doc__
    assert repr(theirs.BadReply) == "<class 'meshsdk.client.errors.httpx2.BadReply'>"
    with pytest.raises(AttributeError, match="none of: BadReply"):
        _ = theirs.BadReplay


def test_an_error_of_httpx2_is_unpickled_where_nobody_used_it_yet() -> None:
    request = httpx2.Request("GET", "http://payments/")
    error = library(httpx2).errors.matching(made(errors.Overloaded), request)
    program = "import pickle, sys; error = pickle.load(sys.stdin.buffer); print(type(error).__mro__[2], error)"
    run = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(error), capture_output=True, check=True)
    assert run.stdout.decode() == f"{type(error).__mro__[2]} {error}\n"


def test_httpx2_is_imported_by_nobody_but_its_user() -> None:
    program = "import sys, meshsdk, meshsdk.client; m = meshsdk.Mesh('a'); m.client(); print('httpx2' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert run.stdout == "False\n"
