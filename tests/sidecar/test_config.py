"""The sidecar's file: what it comes to, and every mistake of it at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.errors import ConfigError
from meshsdk_sidecar.config import load


def read(tmp_path, text: str | bytes):
    file = tmp_path / "sidecar.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(file)


def mistakes(tmp_path, text: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path / 'sidecar.yaml'}: {len(lines)} mistake")
    return [line.strip() for line in lines]


def test_a_name_is_enough(tmp_path):
    config = read(tmp_path, "service: {name: legacy}")
    assert (config.service.port, config.outbound.port, config.admin.port) == (None, 15001, 15000)
    assert (config.outbound.address, config.consul.url) == ("127.0.0.1", None)


def test_everything_that_can_be_said(tmp_path):
    config = read(
        tmp_path,
        "service: {name: legacy, address: 10.0.0.7, port: 8080, protocol: http}\n"
        "outbound: {address: '::1', port: 1}\nadmin: {address: localhost, port: 2}\n"
        "consul: {url: unix:///run/consul.sock, token_file: /t, datacenter: dc2}\n",
    )
    assert config.service.address == "10.0.0.7"
    assert config.consul.datacenter == "dc2"


def test_all_mistakes_at_once_each_with_path_line_and_remedy(tmp_path):
    text = """\
service: {name: "Pay ments", address: 0.0.0.0, port: 0, protocol: tcp, health: {http: /h}}
inbound: {port: 15006}
upstreams: []
outbond: {port: 1}
outbound: {adress: x, port: "15001", address: 127.0.0.1:80}
consul: {url: ftp://x, token_file: }
admin: {port: 70000}
admin: {port: 1}
"""
    found = "\n".join(mistakes(tmp_path, text))
    for expected in (
        "service.name: 'Pay ments': write a DNS label: small letters, digits and dashes, such as legacy (line 1)",
        "service.address: '0.0.0.0': that is where a server listens; write the address callers reach it at",
        "service.port: 0: write 1 to 65535",
        "service.protocol: 'tcp': write 'http', the only one that is carried yet",
        "service.health: not served by this version of the sidecar; remove it",
        "inbound: not served by this version of the sidecar; remove it (line 2)",
        "upstreams: not served by this version of the sidecar; remove it (line 3)",
        "outbond: unknown key; did you mean outbound? (line 4)",
        "outbound.adress: unknown key; did you mean address? (line 5)",
        "outbound.port: '15001': write a whole number",
        "outbound.address: '127.0.0.1:80': write an IP address or a host name, the port apart",
        "consul.url: 'ftp://x': Consul address 'ftp://x': write 'http://127.0.0.1:8500'",
        "admin: written twice; keep one (line 8)",
    ):
        assert expected in found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("- a", "not keys and values; begin with `service: {name: …}`"),
        ("outbound: {port: 1}", "service: missing; write `service: {name: …}`"),
        ("service: {port: 1}", "service.name: missing"),
        ("service: [", "correct the YAML there"),
        (b"\xff\xfe", "not text in UTF-8"),
        ("service: {name: a}\noutbound: {port: }", "outbound.port: no value"),
        ("service: {name: a}\noutbound: {port: 15000}", "admin.port: 15000: outbound.port is the same"),
        ("service: {name: a, port: 15001}", "outbound.port: 15001: service.port is the same"),
        ("service: {name: a, address: 10.0.0}", "service.address: '10.0.0': write an IP address"),
    ],
)
def test_one_mistake(tmp_path, text, said):
    (line,) = mistakes(tmp_path, text)
    assert said in line


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml")


@given(st.binary(max_size=200) | st.text(alphabet="service:{}[]nameport,01 \n-&*'\"", max_size=80))
def test_any_bytes_are_a_config_or_a_config_error(tmp_path_factory, text):
    """Invariant: whatever the file holds, `load` returns or raises ConfigError; nothing else escapes."""
    file = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        load(file)
    except ConfigError as error:
        assert str(file) in str(error)  # noqa: PT017 - either outcome is right
