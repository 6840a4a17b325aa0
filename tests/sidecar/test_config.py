"""The sidecar's file: what it comes to, and every mistake of it at once."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.config import load as settings_of
from meshsdk.errors import ConfigError
from meshsdk_sidecar.file import load


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
    assert (config.service.place, config.service.health.looks) == (None, True)
    assert {name: str(place) for name, place in config.listening().items()} == {
        "outbound": "127.0.0.1:15001",
        "admin": "127.0.0.1:15000",
    }
    assert set(config.overrides().values()) == {"legacy", None}
    assert (config.drain.app, config.limits.head, config.limits.body) == (10.0, 65536, None)


EVERYTHING = """\
service:
  name: legacy
  address: 10.0.0.7
  port: 8080
  protocol: http
  health: {http: /healthz, port: 8081, interval: 2s, timeout: 500ms, unhealthy: 2, healthy: 3}
  version: "2"
  zone: eu-1
  meta: {track: canary}
  tags: [blue]
inbound: {address: "::", port: 15006, advertise: 10.0.0.8}
outbound: {address: "::1", port: 1}
upstreams: [{service: payments, port: 9191}, {service: db, address: 127.0.0.2, port: 5433, protocol: tcp}]
admin: {socket: /run/legacy/admin.sock}
probes: {port: 15020}
consul:
  {url: "unix:///run/consul.sock", token_file: /t, datacenter: dc2, cacert: /ca, cert: /cert, key: /key}
identity: {source: files, cert: /c.pem, key: /k.pem, ca: /ca.pem}
drain: {wait: 0s, timeout: 1m, app: 1.5s}
limits:
  {head: 16KiB, body: 1MiB, head_timeout: 5s, stall_timeout: 30s, idle_timeout: 1m, connections: 5000}
"""


def test_everything_that_can_be_said(tmp_path):
    config = read(tmp_path, EVERYTHING)
    check = config.service.health
    assert (check.http, check.port, check.interval, check.timeout) == ("/healthz", 8081, 2.0, 0.5)
    assert (check.unhealthy, check.healthy, check.looks) == (2, 3, True)
    assert {name: str(place) for name, place in config.listening().items()} == {
        "inbound": "[::]:15006",
        "outbound": "[::1]:1",
        "upstreams.payments@127.0.0.1:9191": "127.0.0.1:9191",
        "upstreams.db@127.0.0.2:5433": "127.0.0.2:5433",
        "admin": "unix:/run/legacy/admin.sock",
        "probes": "0.0.0.0:15020",
    }
    assert [upstream.protocol for upstream in config.upstreams] == ["http", "tcp"]
    assert (config.limits.head, config.limits.body, config.limits.connections) == (16384, 1048576, 5000)
    assert (config.drain.wait, config.drain.timeout, config.drain.app) == (0.0, 60.0, 1.5)
    assert str(config.service.place) == "10.0.0.7:8080"


def test_all_of_it_reaches_the_settings(tmp_path):
    settings = settings_of(read(tmp_path, EVERYTHING).overrides(), {})
    assert (settings.service, settings.port, settings.address) == ("legacy", 15006, "10.0.0.8")
    assert (settings.version, settings.zone, settings.meta, settings.tags) == (
        "2",
        "eu-1",
        {"track": "canary"},
        ("blue",),
    )
    assert (settings.consul_url, settings.datacenter, settings.consul_key) == ("unix:///run/consul.sock", "dc2", "/key")
    assert (settings.identity, settings.tls_cert, settings.tls_ca) == ("files", "/c.pem", "/ca.pem")
    assert (settings.drain_wait, settings.drain_timeout) == (0.0, 60.0)


def test_json_has_places_too(tmp_path):
    assert read(tmp_path, json.dumps({"service": {"name": "legacy", "port": 80}})).service.port == 80
    (line,) = mistakes(tmp_path, '{\n\t"service": {"name": "legacy", "prot": 80}\n}')
    assert line == "service.prot: unknown key; did you mean port? (line 2, column 32)"
    # YAML's reader refuses half a surrogate pair; JSON's takes both for the one character they are.
    assert read(tmp_path, '{"service": {"name": "legacy", "meta": {"a": "\\ud83d\\ude00"}}}').service.meta == {
        "a": "\U0001f600"
    }


@pytest.mark.parametrize(
    ("text", "place", "looks"),
    [
        ("port: 80", "127.0.0.1:80", True),
        ("port: 80, health: none", "127.0.0.1:80", False),
        ("port: 80, health: {tcp: false}", "127.0.0.1:80", False),
        ("port: 80, protocol: tcp, health: {tcp: true, interval: 1s}", "127.0.0.1:80", True),
        ("port: 80, protocol: tcp, health: {http: /up, port: 81}", "127.0.0.1:80", True),
        ("socket: /run/app.sock", "unix:/run/app.sock", True),
    ],
)
def test_ways_to_the_app(tmp_path, text, place, looks):
    service = read(tmp_path, f"service: {{name: legacy, {text}}}").service
    assert (str(service.place), service.health.looks) == (place, looks)


def test_all_mistakes_at_once_each_with_path_place_and_remedy(tmp_path):
    text = """\
service: {name: "Pay ments", address: 0.0.0.0, port: 0, protocol: udp, health: {htpp: /h, timeout: 1, unhealthy: 0}}
inbound: {port: 15006, advertise: "::"}
upstreams: [{service: db, prt: 1}, {port: 15001}, 7]
outbond: {port: 1}
outbound: {adress: x, port: "15001", address: 127.0.0.1:80}
consul: {url: ftp://x, token_file: }
identity: {source: vault}
drain: {wait: -1s}
limits: {head: 0, body: 64kb, connections: many}
probes: {}
admin: {address: 10.0.0.7, port: 70000}
admin: {port: 1}
"""
    found = mistakes(tmp_path, text)
    expected = [
        "service.name: 'Pay ments': write a DNS label: small letters, digits and dashes, such as legacy"
        " (line 1, column 11)",
        "service.address: '0.0.0.0': that is where a server listens; write the address it is reached at"
        " (line 1, column 30)",
        "service.port: 0: write 1 to 65535 (line 1, column 48)",
        "service.protocol: 'udp': write http or tcp (line 1, column 57)",
        "service.health.htpp: unknown key; did you mean http? (line 1, column 81)",
        "service.health.timeout: 1: a number without a unit; write 1s (line 1, column 91)",
        "service.health.unhealthy: 0: write 1 to 100 (line 1, column 103)",
        "inbound.advertise: '::': that is where a server listens; write the address it is reached at"
        " (line 2, column 24)",
        "upstreams[0].port: missing; write `port: 9191`, where the app reaches the service (line 3, column 13)",
        "upstreams[0].prt: unknown key; did you mean port? (line 3, column 27)",
        "upstreams[1].service: missing; write `service: payments`, the service behind the port (line 3, column 36)",
        "upstreams[2]: write keys and values below it (line 3, column 51)",
        "outbond: unknown key; did you mean outbound? (line 4, column 1)",
        "outbound.adress: unknown key; did you mean address? (line 5, column 12)",
        "outbound.port: '15001': write a whole number (line 5, column 23)",
        "outbound.address: '127.0.0.1:80': write an IP address or a host name, the port apart (line 5, column 38)",
        "consul.url: 'ftp://x': Consul address 'ftp://x': write 'http://127.0.0.1:8500'",
        "consul.token_file: no value; write one, or leave the key out (line 6, column 24)",
        "identity.source: 'vault': write auto, consul, files or off (line 7, column 12)",
        "drain.wait: '-1s': not a duration; write a number with one unit",
        "limits.head: 0: not a size; write bytes such as 65536, or a number with a unit, such as 64KiB or 1MiB"
        " (line 9, column 10)",
        "limits.body: '64kb': not a size",
        "limits.connections: 'many': write a whole number (line 9, column 31)",
        "probes.port: missing; write `port: 15020` (line 10, column 1)",
        "admin: written twice; keep one (line 12, column 1)",
    ]
    for line in expected:
        assert any(each.startswith(line) for each in found), (line, found)
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty; write at least `service: {name: …}`"),
        ("- a", "not keys and values; begin with `service: {name: …}`"),
        ("outbound: {port: 1}", "service: missing; write `service: {name: …}`"),
        ("service: {port: 1}", "service.name: missing"),
        ("service: [", "correct the YAML there"),
        ("service: legacy", "service: write keys and values below it (line 1, column 1)"),
        (b"\xff\xfe", "not text in UTF-8"),
        ("service: {name: a}\noutbound: {port: }", "outbound.port: no value"),
        ("service: {name: a}\nupstreams: {port: 1}", "upstreams: write a list, an item for each (line 2, column 1)"),
        ("service: {name: a, port: 1, socket: /s}", "service.socket: service.port is there too"),
        ("service: {name: a, socket: run/s}", "service.socket: 'run/s': write an absolute path"),
        (f"service: {{name: a, socket: /{'s' * 107}}}", "longer than 107 bytes"),
        ("service: {name: a, health: {http: /h}}", "service.health: there is nothing to look at"),
        ("service: {name: a, port: 1, health: off}", "service.health: 'off': write none, or keys and values below it"),
        ("service: {name: a, port: 1, health: {http: h}}", "service.health.http: 'h': write a path that begins with /"),
        ("service: {name: a, port: 1, health: {http: /h, tcp: true}}", "service.health.tcp: health.http is there too"),
        ("service: {name: a, port: 1, protocol: tcp, health: {http: /h}}", "the service's protocol is tcp"),
        ("service: {name: a, meta: {a: 1}}", "service.meta: keys and values: write keys with text"),
        ("service: {name: a, meta: {a key: x}}", "service.meta: keys and values: 'a key' is no key for Consul"),
        ("service: {name: a, meta: {1: x}}", "service.meta"),
        (f"service: {{name: a, meta: {{{', '.join(f'k{n}: x' for n in range(51))}}}}}", "more than 50, which Consul"),
        (f"service: {{name: a, meta: {{{'k' * 129}: x}}}}", "is no key for Consul; write 1 to 128 letters"),
        ("service: {name: a, meta: {consul-x: x}}", "'consul-x' is no key for Consul"),
        (f"service: {{name: a, meta: {{k: {'x' * 513}}}}}", "service.meta: keys and values: k: longer than 512 bytes"),
        ("service: {name: a, tags: [1]}", "service.tags: a list: write a list of words"),
        ("service: {name: a}\nadmin: {address: 0.0.0.0}", "admin.address: '0.0.0.0': whoever reaches these pages"),
        ("service: {name: a}\nadmin: {port: 1, socket: /s}", "admin.socket: admin.port is there too"),
        ("service: {name: a}\nconsul: {cert: /c}", "consul.cert: consul.cert and consul.key go together"),
        ("service: {name: a}\nidentity: {source: files, cert: /c}", "identity.source: files needs three PEM files"),
        ("service: {name: a}\nidentity: {ca: /c}", "identity.ca: files are read with `identity: {source: files}`"),
        ("service: {name: a, address: 10.0.0}", "service.address: '10.0.0': write an IP address"),
        ("service: {name: a, address: a..b}", "service.address: 'a..b': write an IP address or a host name"),
        (f"service: {{name: a, address: {'a' * 64}.b}}", "write an IP address or a host name"),
    ],
)
def test_one_mistake(tmp_path, text, said):
    (line,) = mistakes(tmp_path, text)
    assert said in line


A = "service: {name: a}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"{A}\noutbound: {{port: 15000}}",
            "admin.port: 127.0.0.1:15000: outbound.port is the same; give each its own",
        ),
        ("service: {name: a, port: 15001}", "outbound.port: 127.0.0.1:15001: service.port is the same"),
        ("service: {name: a, port: 15006}", "inbound.port: 0.0.0.0:15006: service.port is the same"),
        (
            "service: {name: a, port: 80}\nupstreams: [{service: b, port: 80}]",
            "upstreams[0].port: 127.0.0.1:80: service.port is the same; give each its own (line 2, column 26)",
        ),
        (
            f"{A}\nupstreams: [{{service: b, port: 80}}, {{service: c, port: 80, address: localhost}}]",
            "upstreams[1].port: localhost:80: upstreams[0].port is the same",
        ),
        (f"{A}\nprobes: {{port: 15000}}", "probes.port: 0.0.0.0:15000: admin.port is the same"),
        ("service: {name: a, socket: /s}\nadmin: {socket: /s}", "admin.socket: unix:/s: service.socket is the same"),
    ],
)
def test_two_at_one_place(tmp_path, text, said):
    (line,) = mistakes(tmp_path, text)
    assert said in line
    assert len(mistakes(tmp_path, f"{text}\nconsul: {{urll: x}}")) == 2, "found beside another mistake"


@pytest.mark.parametrize(
    "text",
    [
        "service: {name: a, address: 10.0.0.7, port: 15001}",
        "service: {name: a, port: 15006}\ninbound: {address: 10.0.0.7}",
        "service: {name: a, port: 15006}\ninbound: {address: '::'}",
        f"{A}\nupstreams: [{{service: b, port: 80}}, {{service: b, port: 80, address: 127.0.0.2}}]",
        f"{A}\ninbound: {{port: 15001}}",  # nothing listens there: there is no way to an app
    ],
)
def test_one_port_at_two_addresses(tmp_path, text):
    config = read(tmp_path, text)
    places = set(config.listening().values())
    assert {config.outbound.place, *(upstream.place for upstream in config.upstreams)} <= places


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
