"""Invariant: what is accepted is written back letter by letter, and never holds a character that could mean more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshsdk.identity.spiffe import SpiffeId

words = st.text("abcXYZ019.-_/%:@?# é\n", max_size=12)
near = st.builds(lambda domain, path: f"spiffe://{domain}{path}", words, words) | st.text()
parts = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}", fullmatch=True)


@given(near)
def test_parse(text: str):
    try:
        identity = SpiffeId.parse(text)
    except ValueError:
        return
    assert str(identity) == text
    assert SpiffeId.parse(str(identity)) == identity
    assert not set("%:@?# \n") & set(text.removeprefix("spiffe://"))
    assert ".." not in identity.path.split("/")


@given(parts, parts, parts)
def test_of_service(datacenter: str, service: str, namespace: str):
    identity = SpiffeId.parse(str(SpiffeId.of_service("example.org", datacenter, service, namespace)))
    assert (identity.namespace, identity.datacenter, identity.service) == (namespace, datacenter, service)
