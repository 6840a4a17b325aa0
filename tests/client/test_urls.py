"""Invariant: whatever a mesh client is asked to build, now or again, is what httpx's own client builds of it."""

from __future__ import annotations

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
    first = http.build_request("GET", "http://payments/once")
    before = http._parsed.cache_info()
    for again in (http, other):
        again.build_request("GET", "http://payments/once")
        again.build_request("GET", httpx.URL("http://payments/once") if module is httpx else first.url)
    after = http._parsed.cache_info()
    assert (after.hits - before.hits, after.misses - before.misses) == (2, 0)


@on_both
def test_a_request_changes_no_other_of_the_same_url(module: ModuleType) -> None:
    _, http, _ = clients(module)
    changed = http.build_request("GET", "http://payments/same")
    changed.url = changed.url.copy_with(path="/other")
    assert http.build_request("GET", "http://payments/same").url == "http://payments/same"


@on_both
def test_long_urls_are_not_remembered(module: ModuleType) -> None:
    _, http, _ = clients(module)
    before = http._parsed.cache_info()
    http.build_request("GET", f"http://payments/{'x' * 300}")
    assert http._parsed.cache_info() == before
