"""Invariant: a name or key that passes is stored by Consul under exactly this name (see test_consul for the proof)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk_registry import (
    ConsulAddress,
    Denied,
    Registration,
    check_key,
    check_prefix,
    check_registration,
    check_service,
)
from meshsdk_registry.token import TokenFile, token_source

GOOD = Registration("web", "web-1", "10.0.0.1", 80)


@pytest.mark.parametrize("name", ["", "my service", "a/b", "-a", "a?b", "ä", "a" * 300, "web\n"])
def test_a_bad_service_name_is_refused_with_one_that_works(name):
    with pytest.raises(ValueError, match="service name") as refused:
        check_service(name)
    suggestion = str(refused.value).split("such as '")[1].split("'")[0]
    assert check_service(suggestion) == suggestion


@pytest.mark.parametrize("name", ["web", "my_old.service", "A1"])
def test_names_others_registered_can_be_looked_up(name):
    assert check_service(name) == name


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"service": "my_service"}, "my-service"),
        ({"service": "a b"}, "a-b"),
        ({"id": ""}, "service id"),
        ({"id": "a/b"}, "service id"),
        ({"port": 0}, "1 to 65535"),
        ({"port": 65536}, "1 to 65535"),
        ({"address": "http://10.0.0.1"}, "not a URL"),
        ({"weight": 0}, "1 and more"),
        ({"ttl": 0}, "above 0"),
    ],
)
def test_a_bad_registration_is_refused_with_what_to_write(change, told):
    with pytest.raises(ValueError, match=told):
        check_registration(replace(GOOD, **change))


@pytest.mark.parametrize("address", ["", "10.0.0.1", "::1", "host.internal"])
def test_addresses_that_pass(address):
    assert check_registration(replace(GOOD, address=address)).address == address


@pytest.mark.parametrize(
    ("key", "instead"), [("/a", "'a'"), ("a//b", "'a/b'"), ("a/../b", "'a/b'"), ("./a", "'a'"), ("a\nb", "printed")]
)
def test_a_key_consul_would_change_is_refused(key, instead):
    with pytest.raises(ValueError, match=instead):
        check_key(key)


def test_the_empty_prefix_is_all_keys_but_no_key():
    assert check_prefix("") == ""
    with pytest.raises(ValueError, match="empty key"):
        check_key("")


@given(st.text())
def test_a_key_passes_or_is_refused_with_a_reason(key):
    try:
        assert check_prefix(key) == key
    except ValueError as refused:
        told = str(refused)
        assert any(words in told for words in ("write", "leave out"))


@pytest.mark.parametrize(
    ("url", "shown", "socket"),
    [
        ("http://127.0.0.1:8500", "http://127.0.0.1:8500", None),
        ("127.0.0.1:8500", "http://127.0.0.1:8500", None),
        ("localhost", "http://localhost:8500", None),
        ("https://consul.internal", "https://consul.internal:443", None),
        ("http://[::1]:8500/", "http://[::1]:8500", None),
        ("unix:///run/consul.sock", "unix:///run/consul.sock", "/run/consul.sock"),
    ],
)
def test_addresses_of_consul(url, shown, socket):
    address = ConsulAddress.parse(url)
    assert (address.url, address.socket) == (shown, socket)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://a:1",
        "http://",
        "http://a:x",
        "http://a:99999",
        "http://a:0",
        "http://a/path",
        "unix://rel",
        "a b:1",
        "http://user@a:1",
        "http://[::1",
    ],
)
def test_a_bad_address_says_what_to_write(url):
    with pytest.raises(ValueError, match=r"write 'http://127.0.0.1:8500'|leave out all but|absolute path"):
        ConsulAddress.parse(url)


@given(st.text())
def test_any_address_is_read_or_refused(url):
    try:
        assert ConsulAddress.parse(url).url
    except ValueError as refused:
        told = str(refused)
        assert told.startswith("Consul address")


def test_a_token_file_is_read_again_when_it_changes(tmp_path):
    path = tmp_path / "token"
    path.write_text("one\n")
    token = TokenFile(path)
    assert token() == "one"
    path.write_text("three\n")
    assert token() == "three"
    path.unlink()
    assert token() == "three"


@pytest.mark.parametrize("content", [None, "", "\n", b"\xff\xfe"])
def test_a_token_file_without_a_token_is_told(tmp_path, content):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(Denied, match=r"token file .*write the ACL token into it"):
        TokenFile(path)()


def test_two_sources_of_a_token_are_refused(tmp_path):
    with pytest.raises(ValueError, match="leave one out"):
        token_source("a", tmp_path)
    assert token_source(None, None)() is None
    assert token_source(lambda: "b", None)() == "b"
