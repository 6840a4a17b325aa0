"""Settings: arguments, then variables, then defaults; every mistake at once, each with its source."""

from __future__ import annotations

import pytest

from meshsdk.config import load
from meshsdk.errors import ConfigError


def test_arguments_win_over_variables_which_win_over_defaults() -> None:
    settings = load(
        {"service": "checkout", "port": 8001},
        {"MESH_PORT": "9000", "MESH_ZONE": "a", "MESH_TAGS": "x, y", "CONSUL_HTTP_ADDR": "10.0.0.1:8500"},
    )
    assert (settings.port, settings.zone, settings.tags) == (8001, "a", ("x", "y"))
    assert settings.consul_url == "http://10.0.0.1:8500"
    assert settings.first_wait == 2.0


def test_paths_can_be_turned_off_by_variable() -> None:
    settings = load({"service": "a"}, {"MESH_METRICS_PATH": "off", "MESH_READY_PATH": "/ready"})
    assert settings.metrics_path is None
    assert settings.ready_path == "/ready"


def test_state_lives_where_the_user_says() -> None:
    settings = load({"service": "a"}, {"XDG_CACHE_HOME": "/home/x/.cache", "MESH_RUNTIME_DIR": "/run/x"})
    assert str(settings.state_dir) == "/home/x/.cache/meshsdk/state"
    assert str(settings.runtime_dir) == "/run/x"


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load(
            {"service": "my service", "ttl": -1, "colour": "red", "consul_cert": "x.pem"},
            {"MESH_PORT": "eighty", "MESH_DRAIN_WAIT": "soon", "CONSUL_HTTP_ADDR": "ftp://x"},
        )
    text = str(caught.value)
    for part in (
        "my service",
        "MESH_PORT='eighty'",
        "MESH_DRAIN_WAIT='soon'",
        "colour",
        "ttl=-1",
        "ftp://x",
        "consul_key",
    ):
        assert part in text


@pytest.mark.parametrize("service", ["", "a b", "a/b", "-a", "A", "x" * 64, None, 7])
def test_names_that_cannot_be_hosts_are_refused(service: object) -> None:
    with pytest.raises(ConfigError, match="DNS label"):
        load({"service": service}, {"MESH_SERVICE": ""})


@pytest.mark.parametrize("port", [0, 65536, True, "80"])
def test_ports_are_numbers_in_range(port: object) -> None:
    with pytest.raises(ConfigError, match="1 to 65535"):
        load({"service": "a", "port": port}, {})


def test_mesh_port_is_ten_thousand_away() -> None:
    assert load({"service": "a", "port": 8001}, {}).mesh_port == 18001
    assert load({"service": "a", "port": 60001}, {}).mesh_port == 50001
    assert load({"service": "a", "port": 8001, "tls_port": 9}, {}).mesh_port == 9
    assert load({"service": "a"}, {}).mesh_port is None


def test_identity_by_variables() -> None:
    settings = load(
        {"service": "a"},
        {
            "MESH_IDENTITY": "files",
            "MESH_TLS_CERT": "c.pem",
            "MESH_TLS_KEY": "k.pem",
            "MESH_TLS_CA": "ca.pem",
            "MESH_FORWARD_CLIENT_CERT": "yes",
            "MESH_EXPLAIN_DENIALS": "0",
        },
    )
    assert (settings.identity, settings.tls_cert, settings.tls_key, settings.tls_ca) == (
        "files",
        "c.pem",
        "k.pem",
        "ca.pem",
    )
    assert settings.forward_client_cert
    assert not settings.explain_denials


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"identity": "vault"}, "auto, consul, files, off"),
        ({"identity": "files", "tls_cert": "c.pem"}, "tls_key, tls_ca not given"),
        ({"tls_cert": "c.pem"}, "read with identity='files' only"),
        ({"intention_default": "maybe"}, "consul, allow, deny"),
        ({"port": 8001, "tls_port": 8001}, "own port"),
        ({"tls_port": 70000}, "1 to 65535"),
        ({"explain_denials": "yes"}, "True or False"),
    ],
)
def test_wrong_identity_settings_are_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load({"service": "a", **given}, {})


def test_switches_by_variable_are_yes_or_no() -> None:
    with pytest.raises(ConfigError, match="MESH_EXPLAIN_DENIALS='maybe': give true or false"):
        load({"service": "a"}, {"MESH_EXPLAIN_DENIALS": "maybe"})


@pytest.mark.parametrize(
    ("given", "environ", "words"),
    [
        ({}, {"MESH_IDENTITY": "conusl"}, "^MESH_IDENTITY='conusl': give one of auto"),
        ({}, {"MESH_FIRST_WAIT": "-1"}, "^MESH_FIRST_WAIT=-1.0: give seconds"),
        ({"port": 8001}, {"MESH_TLS_PORT": "8001"}, "^MESH_TLS_PORT=8001: it is the application's own port"),
        ({"service": None}, {"MESH_SERVICE": "Big_Name"}, "^MESH_SERVICE='Big_Name': give a DNS label"),
        ({}, {"CONSUL_HTTP_ADDR": "foo://localhost"}, "^CONSUL_HTTP_ADDR='foo://localhost': give http"),
        ({}, {"MESH_IDENTITY": "files"}, "^MESH_IDENTITY='files' needs PEM files: MESH_TLS_CERT, MESH_TLS_KEY, MESH_"),
        ({"tls_key": "k"}, {"MESH_TLS_CERT": "c"}, "^MESH_TLS_CERT, tls_key and MESH_TLS_CA .* MESH_IDENTITY='files'"),
        ({}, {"CONSUL_CLIENT_KEY": "k.pem"}, "^CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY go together"),
        ({"identity": "conusl"}, {"MESH_IDENTITY": "off", "MESH_TLS_HOST": "h"}, "^identity='conusl'"),
    ],
)
def test_a_mistake_is_named_as_it_was_written(given: dict[str, object], environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load({"service": "a", **given}, environ)
