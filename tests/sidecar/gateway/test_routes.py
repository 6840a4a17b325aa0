"""Which route a request takes. Invariant: where one is carried, every reading of its path leads there."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsdk.core.paths import read
from meshsdk_sidecar.gateway.config import PathSection, RouteSection
from meshsdk_sidecar.gateway.routes import NoRoute, Routes, name_of


def route(host: str, to: str, *, strip: str | None = None, **path: str) -> RouteSection:
    return RouteSection(host=host, path=PathSection(**path), to=to, strip=strip)


ALL = [
    route("*", "any"),
    route("*.example.com", "wild", prefix="/w"),
    route("shop.example.com", "shop"),
    route("shop.example.com", "api", prefix="/api", strip="/api"),
    route("shop.example.com", "v2", prefix="/api/v2", strip="/api"),
    route("shop.example.com", "ping", exact="/api/v2"),
]


@pytest.mark.parametrize(
    ("host", "target", "to", "sent"),
    [
        ("shop.example.com", b"/", "shop", b"/"),
        ("shop.example.com", b"/apis?/api/", "shop", b"/apis?/api/"),
        ("shop.example.com", b"/api/v1?q", "api", b"/v1?q"),
        ("shop.example.com", b"/api/", "api", b"/"),
        ("shop.example.com", b"/api/v2/x", "v2", b"/v2/x"),
        ("shop.example.com", b"/api/v2?x", "ping", b"/api/v2?x"),
        ("shop.example.com", b"/api/v2/", "v2", b"/v2/"),
        ("a.example.com", b"/w", "wild", b"/w"),
        ("a.b.example.com", b"/w", "any", b"/w"),
        ("example.com", b"/", "any", b"/"),
        ("", b"/", "any", b"/"),
    ],
)
def test_the_most_specific_route_wins_in_any_order(host, target, to, sent):
    for order in itertools.islice(itertools.permutations(ALL), 0, None, 37):
        found, rest = Routes(order).find(host, target)
        assert (found.to, rest) == (to, sent)


def test_a_hosts_routes_are_its_own():
    routes = Routes(ALL)
    with pytest.raises(NoRoute) as caught:
        routes.find("a.example.com", b"/x")
    assert caught.value.status == 404
    with pytest.raises(NoRoute) as caught:
        Routes(ALL[1:]).find("example.net", b"/w")
    assert caught.value.status == 421


@settings(deadline=None)
@given(st.lists(st.sampled_from(["/", "//", "api", "a", "..", ".", "%2e", "%2f", "%5c", ";x", "%61", "%25", "v2"])))
def test_no_reading_of_what_is_carried_leads_elsewhere(parts):
    target = "/" + "".join(parts)
    routes = Routes(ALL)
    with contextlib.suppress(NoRoute):
        found, sent = routes.find("shop.example.com", target.encode())
        readings = read(target).readings
        for reading in readings:
            assert routes.find("shop.example.com", reading.encode())[0] is found
        # What is sent on means the same as what was asked, below what was stripped.
        cut = len(found.strip or "")
        assert read(sent.decode()).readings == tuple(reading[cut:] or "/" for reading in readings)


@pytest.mark.parametrize(
    ("authority", "name"),
    [(b"A.example.com:443", "a.example.com"), (b"a.", "a"), (b"[::1]:8", "[::1]"), (b"[::1]", "[::1]"), (None, "")],
)
def test_the_name_in_an_authority(authority, name):
    assert name_of(authority) == name
