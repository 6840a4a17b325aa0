"""Which hosts outside the mesh may be called. Invariant: where the default is to deny, no host passes that is not
listed by itself or below one that is, however it is written.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.core.egress import Egress, plain_host

LISTED = Egress(
    "deny",
    (
        "api.example.com",
        "*.storage.example.com",
        "*.tls.example.com:443",
        "10.0.0.7:8080",
        "[2001:db8::1]",
        "db:5432",
        "*.0.0.1",
    ),
)


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("api.example.com", 80),
        ("API.Example.COM.", 443),
        ("a.storage.example.com", 1),
        ("a.b.storage.example.com", 1),
        ("a.tls.example.com", 443),
        ("10.0.0.7", 8080),
        ("2001:DB8:0::1", 80),
        ("[2001:db8::1]", 443),
        ("db", 5432),
    ],
)
def test_what_is_listed_may_be_called(host, port):
    assert LISTED.permits(host, port)


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("example.com", 80),
        ("xapi.example.com", 80),
        ("api.example.com.evil.net", 80),
        ("storage.example.com", 1),
        ("xstorage.example.com", 1),
        ("a.tls.example.com", 80),
        ("10.0.0.7", 80),
        ("10.0.0.07", 8080),
        ("127.0.0.1", 80),
        ("2001:db8::2", 80),
        ("db", 80),
        ("*.storage.example.com", 1),
        ("a\0.storage.example.com", 1),
        ("evil.net/.storage.example.com", 1),
        ("evil.net#.storage.example.com", 1),
        ("user@a.storage.example.com", 1),
        (".storage.example.com", 1),
        ("a..storage.example.com", 1),
        ("2001:db8::1%eth0", 80),
        ("", 80),
        ("localhost", 80),
    ],
)
def test_nothing_else_may(host, port):
    assert not LISTED.permits(host, port)
    assert Egress().permits(host, port), "by default all may"
    assert not Egress("deny").permits(host, port)


@given(st.text(max_size=30) | st.text("a.*-:[]@/ A0", max_size=12), st.integers(1, 65535))
def test_any_host(host, port):
    plain = plain_host(host)
    listed = Egress("deny", ("a.a", "*.a", "0.0.0.0", f"[::]:{port}"))
    assert listed.permits(host, port) == (
        plain in {"a.a", "0.0.0.0", "[::]"} or (plain.endswith(".a") and not plain.startswith("["))
    )
    assert plain_host(plain) == plain
