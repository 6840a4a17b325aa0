"""Which hosts are mesh services."""

from __future__ import annotations

from types import ModuleType

import httpx
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.client.names import NoName, _remembered, destination


@pytest.mark.parametrize(
    ("url", "service"),
    [
        ("http://payments/charge", "payments"),
        ("http://payments", "payments"),
        ("http://PayMents/", "payments"),
        ("http://payments./", "payments"),
        ("http://payments.mesh/", "payments"),
        ("http://Payments.MESH./", "payments"),
        ("http://user:secret@payments/", "payments"),
        ("http://payments:80/", "payments"),  # httpx drops the scheme's own port
        ("http://a/", "a"),
        ("http://mesh/", "mesh"),
        ("http://bücher/", "xn--bcher-kva"),
    ],
)
def test_a_mesh_service(url: str, service: str) -> None:
    assert destination(httpx.URL(url))[0] == service


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "http://LOCALHOST./",
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://[fe80::1]/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://payments:8080/",
        "https://payments:8443/",
        "http://example.com/",
        "https://example.com./",
        "http://mesh.example.com/",
        "http://payments.mesh:8080/",
        "http://payments.meshes/",
    ],
)
def test_outside_the_mesh(url: str) -> None:
    assert destination(httpx.URL(url))[0] is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://payments/", "write http://payments"),
        ("ws://payments/", "write http://payments"),
        ("https://payments.mesh/", "write http://payments"),
        ("http://canary.payments.mesh/", "write payments.mesh"),
        ("http://pay%20ments/", "no service name"),
        ("http://pay%2fments/", "no service name"),
        ("http://-payments/", "no service name"),
        ("http://pay_ments-2/", "DNS label"),
        ("http://" + "a" * 64 + "/", "at most 63"),
        ("http://.mesh/", "no service name"),
        ("http:///path", "no service name"),
    ],
)
def test_refused_with_a_remedy(url: str, says: str) -> None:
    with pytest.raises(NoName) as caught:
        destination(httpx.URL(url))
    assert says in str(caught.value)


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("path", ["", "/", "/a%2Fb;c", "/größe?q=ä b", "/?", "?x", "/" + "long" * 100, "/#part"])
def test_the_raw_path_is_the_librarys(library: ModuleType, path: str) -> None:
    url = library.URL(f"http://payments{path}")
    for _ in range(2):
        assert destination(url) == ("payments", url.raw_path)


def test_few_urls_are_remembered_and_no_long_ones() -> None:
    before = _remembered.cache_info().currsize
    destination(httpx.URL("http://payments/" + "x" * 256))
    assert _remembered.cache_info().currsize == before
    destination(httpx.URL("http://u:secret@payments/0"))
    destination(httpx.URL("http://payments/0#" + "x" * 1000))
    assert _remembered.cache_info().currsize <= before + 1, "neither is part of what is remembered"
    for number in range(1000):
        assert destination(httpx.URL(f"http://payments/{number}")) == ("payments", b"/%d" % number)
    assert _remembered.cache_info().currsize == 256


# Invariant: any host httpx takes is a service of a valid name, outside, or refused; nothing else is raised.
@given(st.text(min_size=1, max_size=80))
def test_any_host(host: str) -> None:
    try:
        url = httpx.URL(scheme="http", host=host, path="/")
    except (httpx.InvalidURL, UnicodeError):
        return
    try:
        service, _ = destination(url)
    except NoName:
        return
    assert service is None or (service == service.lower() and 1 <= len(service) <= 63 and "." not in service)
