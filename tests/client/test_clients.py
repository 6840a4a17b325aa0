"""Invariant: whatever a mesh client is asked to build, now or again, is what httpx's own client builds of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.client import async_client, client, library
from meshsdk.testing import StaticDirectory

HOSTS = ["http://payments", "http://payments:80", "https://Pay.example:8443", "http://u:p@pay", "http://[::1]:81", ""]
TEXT = st.text(st.sampled_from("aZ0/%2?#&=+ ;:@[]é\\."), max_size=12)
URLS = st.one_of(st.builds(str.__add__, st.sampled_from(HOSTS), TEXT), TEXT, st.text(max_size=12))
GIVEN = st.fixed_dictionaries(
    {},
    optional={
        "params": st.dictionaries(TEXT, TEXT, max_size=2),
        "headers": st.sampled_from([{"Host": "other"}, {"accept": "text/plain", "x-a": "1"}]),
        "json": st.just({"amount": 7}),
        "timeout": st.sampled_from([None, 3.0]),
        "extensions": st.just({"target": b"*"}),
    },
)


on_both = pytest.mark.parametrize("module", [httpx, httpx2], ids=["httpx", "httpx2"])


@cache
def clients(module: ModuleType, base_url: str = "") -> tuple[Any, Any, Any]:
    """The library's own, ours, and ours for asyncio."""
    made, nobody = library(module), StaticDirectory({})
    return (
        module.Client(timeout=None, base_url=base_url),
        client(made.MeshTransport(nobody), base_url=base_url),
        async_client(made.AsyncMeshTransport(nobody), base_url=base_url),
    )


def built(http: Any, url: str, given: dict[str, Any]) -> Any:
    """What `http` makes of it."""
    try:
        request = http.build_request("POST", url, **given)
    except Exception as error:
        return type(error), str(error)
    return type(request), request.method, str(request.url), request.headers.raw, request.content, request.extensions


@on_both
@pytest.mark.parametrize("base", ["", "http://payments/v1/"])
@given(url=URLS, given=GIVEN)
def test_requests_are_those_of_httpx(module: ModuleType, base: str, url: str, given: dict[str, Any]) -> None:
    theirs, *ours = clients(module, base)
    expected = built(theirs, url, given)
    for http in ours:
        assert built(http, url, given) == expected
        assert built(http, url, given) == expected, "from memory"


@on_both
def test_a_url_is_taken_apart_once(module: ModuleType) -> None:
    _, http, other = clients(module)
    http.build_request("GET", "http://payments/once")
    before = http._parsed.cache_info()
    for again in (http, other):
        again.build_request("GET", "http://payments/once", headers={"x-a": "1"})
        again.build_request("GET", module.URL("http://payments/once"))
    after = http._parsed.cache_info()
    assert (after.hits - before.hits, after.misses - before.misses) == (2, 0)


CHANGES = {
    "headers": lambda http: setattr(http, "headers", {"x-a": "1"}),
    "a header": lambda http: http.headers.update({"user-agent": "another"}),
    "one header less": lambda http: http.headers.pop("accept", None),
    "a cookie": lambda http: http.cookies.set("session", "1"),
    "cookies": lambda http: setattr(http, "cookies", {"session": "2"}),
    "no cookies": lambda http: http.cookies.clear(),
    "parameters": lambda http: setattr(http, "params", {"page": "2"}),
    "a base": lambda http: setattr(http, "base_url", "http://orders/v2"),
    "a timeout": lambda http: setattr(http, "timeout", 3.0),
    "part of a timeout": lambda http: setattr(http.timeout, "read", 7.0),
}


@on_both
@given(changes=st.lists(st.sampled_from([*CHANGES]), max_size=4), url=st.sampled_from(["http://payments/x?y=1", "/x"]))
def test_so_they_are_after_what_the_client_says_has_changed(module: ModuleType, changes: list[str], url: str) -> None:
    made, nobody = library(module), StaticDirectory({})
    theirs, http = module.Client(timeout=None), client(made.MeshTransport(nobody))
    for change in (None, *changes):
        for each in (theirs, http):
            if change is not None:
                CHANGES[change](each)
        assert built(http, url, {}) == built(theirs, url, {})
        assert built(http, url, {"timeout": None}) == built(theirs, url, {"timeout": None})


@on_both
def test_a_request_changes_no_other_of_the_same_url(module: ModuleType) -> None:
    theirs, http, _ = clients(module)
    url = "http://payments/same"
    expected = built(theirs, url, {})
    for _ in range(2):
        changed = http.build_request("POST", url)
        changed.url = changed.url.copy_with(path="/other")
        changed.method = "PUT"
        changed.headers["accept"] = "text/plain"
        changed.headers["x-a"] = "1"
        changed.extensions["timeout"]["read"] = 1.0
        changed.extensions["target"] = b"*"
        changed.stream = object()
        assert built(http, url, {}) == expected


@on_both
def test_the_method_is_part_of_what_is_remembered(module: ModuleType) -> None:
    _, http, _ = clients(module)
    for method in ("GET", "get", "POST", "GET"):
        request = http.build_request(method, "http://payments/methods")
        assert request.method == method.upper()
        assert ("content-length" in request.headers) == (method == "POST")


@on_both
def test_few_are_remembered(module: ModuleType) -> None:
    http = client(library(module).MeshTransport(StaticDirectory({})))
    for number in range(1000):
        http.build_request("GET", f"http://payments/{number}")
        assert len(http._built) <= 256


@on_both
def test_what_is_looked_up_again_costs_nobody_its_place(module: ModuleType) -> None:
    http = client(library(module).MeshTransport(StaticDirectory({})))
    for number in range(256):
        http.build_request("GET", f"http://payments/{number}")
    before = {**http._built}
    http.build_request("GET", "http://payments/255")
    assert len(before) == 256
    assert http._built == before


@on_both
def test_threads_may_build_at_the_same_time(module: ModuleType) -> None:
    http = client(library(module).MeshTransport(StaticDirectory({})))
    urls = [f"http://payments/{number % 300}" for number in range(3000)]
    with ThreadPoolExecutor(4) as threads:
        requests = threads.map(lambda url: http.build_request("GET", url), urls)
        assert [str(request.url) for request in requests] == urls


AUTHS = {
    "none": ({}, "http://payments/", {}),
    "the client's": ({"auth": ("u", "p")}, "http://payments/", {}),
    "the call's": ({}, "http://payments/", {"auth": ("u", "q")}),
    "none for the call": ({"auth": ("u", "p")}, "http://payments/", {"auth": None}),
    "the URL's": ({}, "http://u:p%40@payments/", {}),
    "a name in the URL": ({}, "http://u@payments/", {}),
    "the client's before the URL's": ({"auth": ("x", "y")}, "http://u:p@payments/", {}),
    "a function": ({}, "http://payments/", {"auth": lambda request: request.headers.update({"x-a": "1"}) or request}),
}


@on_both
@pytest.mark.parametrize("how", AUTHS)
def test_the_authentication_is_httpx_s(module: ModuleType, how: str) -> None:
    options, url, given = AUTHS[how]
    _, http, _ = clients(module)
    ours = type(http)(**options)
    request = ours.build_request("GET", url)
    sent = {}
    for name, each in (("theirs", module.Client(**options)), ("ours", ours)):
        auth = given.get("auth", module.USE_CLIENT_DEFAULT)
        found = each._build_request_auth(request, auth)
        request.headers.pop("authorization", None)
        flow = found.sync_auth_flow(request)
        sent[name] = dict(next(flow).headers)
        flow.close()
    assert sent["ours"] == sent["theirs"]
    assert (found is ours._none) == (how == "none")


@on_both
def test_long_urls_are_not_remembered(module: ModuleType) -> None:
    _, http, _ = clients(module)
    before = http._parsed.cache_info()
    http.build_request("GET", f"http://payments/{'x' * 300}")
    assert http._parsed.cache_info() == before
