"""The gateway's file: what it comes to, and every mistake of it at once."""

# ruff: noqa: E501 - a mistake is a line

from __future__ import annotations

import pytest
import yaml

from meshsdk.errors import ConfigError
from meshsdk_sidecar.gateway.file import load


def read(tmp_path, text: str):
    (tmp_path / "gateway.yaml").write_text(text)
    return load(tmp_path / "gateway.yaml")


def mistakes(tmp_path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    first, *lines = str(caught.value).splitlines()
    assert first.endswith(f"gateway.yaml: {len(lines)} mistake{'s' * (len(lines) != 1)}")
    return [line.strip() for line in lines]


def test_what_is_left_out(tmp_path, file):
    del file["listeners"]
    config = read(tmp_path, yaml.safe_dump(file))
    assert {name: str(place) for name, place in config.listening().items()} == {
        "listeners.https": "0.0.0.0:443",
        "admin": "127.0.0.1:15000",
    }
    file["listeners"] = {"http": {"address": ["0.0.0.0", "::"]}}
    assert str(read(tmp_path, yaml.safe_dump(file)).listening()["listeners.http[1]"]) == "[::]:80"
    assert (config.limits.requests_per_second, config.limits.connections_per_client) == (None, 512)
    assert config.headers.hsts == 31_536_000
    assert config.sidecar().overrides()["service"] == "edge"


def test_workers(tmp_path, file):
    text = yaml.safe_dump(file)
    assert read(tmp_path, text).workers == 1
    config = read(tmp_path, f"workers: 4\n{text}")
    assert (config.workers, config.meeting_port) == (4, 443)
    assert mistakes(tmp_path, f"workers: 0\nworker: 4\n{text}") == [
        "workers: 0: write 1 to 256 (line 1, column 1)",
        "worker: unknown key; did you mean workers? (line 2, column 1)",
    ]


def test_everything_at_once(tmp_path, issuer):
    shop = issuer.folder / "shop"
    found = mistakes(tmp_path, f"""\
service: {{name: Edge}}
listeners: {{https: {{port: 0}}, http: {{port: 15000}}}}
certificates:
  - {{cert: {shop}.pem, key: {issuer.folder}/wild.key}}
  - {{cert: /nowhere.pem, key: {shop}.key, hosts: ["*"]}}
routes:
  - {{host: "shop.example.com:443", to: shop}}
  - {{host: a.example.com, path: {{prefix: /a/}}, to: shop}}
  - {{host: b.example.com, path: {{prefix: /a, exact: /b}}, to: shop}}
  - {{host: c.example.com, path: {{prefix: /a}}, to: shop, strip: /b}}
  - {{host: d.example.com, to: pay.ments, strip: /}}
  - {{host: e.example.com, to: shop}}
  - {{host: e.example.com, path: {{prefix: /}}, to: other}}
headers: {{hsts: forever, frame: no, csp: "a\\nb", hide: server}}
limits: {{burst: 3, connections_per_client: 0}}
trusted_proxies: [10.0.0.1/8]
""")  # fmt: skip
    assert found == [
        "service.name: 'Edge': write a DNS label: small letters, digits and dashes, such as legacy (line 1, column 11)",
        "listeners.https.port: 0: write 1 to 65535 (line 2, column 21)",
        f"certificates[0].key: {issuer.folder}/wild.key is not the key of {shop}.pem; write the two that belong together "
        "(line 4, column " + str(len(f"  - {{cert: {shop}.pem, ") + 1) + ")",
        "certificates[1].hosts: a list: no certificate is for every host; write their names "
        "(line 5, column " + str(len(f"  - {{cert: /nowhere.pem, key: {shop}.key, ") + 1) + ")",
        "routes[0].host: 'shop.example.com:443': write a host name such as shop.example.com, *.example.com, or * for any; "
        "no port, no path (line 7, column 6)",
        "routes[1].path.prefix: '/a/': paths are compared in their normal form; write /a (line 8, column 34)",
        "routes[2].path.exact: path.prefix is there too; keep one of them, and write a route of its own for the other "
        "(line 9, column 46)",
        "routes[3].strip: not every path of this route begins with it; write /a, or a path above it (line 10, column 57)",
        "routes[4].to: 'pay.ments': write a DNS label: small letters, digits and dashes, such as legacy "
        "(line 11, column 27)",
        "routes[6]: routes[5] is for the same host and path; keep one of them (line 13, column 5)",
        "headers.hsts: 'forever': not a duration; write a number with one unit (ms, s, m or h), such as 250ms, 1.5s or 5m; "
        "off turns it off (line 14, column 11)",
        "headers.frame: 'no': write deny or same-origin; off turns it off (line 14, column 26)",
        "headers.csp: 'a\\nb': write a header's value in printable ASCII, on one line; off turns it off "
        "(line 14, column 37)",
        "headers.hide: 'server': write a list of header names, such as [server]; [] for none (line 14, column 50)",
        "limits.connections_per_client: 0: write 1 to 1000000; off turns it off (line 15, column 20)",
        "trusted_proxies: a list: '10.0.0.1/8' is no network; write one such as 10.0.0.0/8, host bits zero "
        "(line 16, column 1)",
    ]


def test_what_does_not_fit_together(tmp_path, issuer, file):
    file |= {"listeners": {"http": {"port": 443}}, "limits": {"burst": 3}}
    file["routes"] = [{"host": "other.example.net", "to": "x"}, {"host": "a.example.org", "to": "x"}]
    found = [line.partition(" (line")[0] for line in mistakes(tmp_path, yaml.safe_dump(file))]
    assert sorted(found) == [
        "limits.burst: without limits.requests_per_second nothing is limited; write that too, or remove burst",
        "listeners.http.port: 0.0.0.0:443: listeners.https.port is the same; give each its own",
        "routes[0].host: no certificate is for other.example.net; they are for *.example.org, example.org, "
        "shop.example.com, www.example.com",
    ]


def test_there_must_be_certificates_and_routes(tmp_path):
    assert mistakes(tmp_path, "service: {name: edge}") == [
        "certificates: missing; write at least one: `certificates: [{cert: FILE, key: FILE}]`",
        "routes: missing; write at least one: `routes: [{host: NAME, to: SERVICE}]`",
    ]
