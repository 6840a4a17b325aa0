"""TLS to Consul: contexts that verify, and errors that name the file and what is wrong with it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from meshsdk.errors import ConfigError
from meshsdk.identity.contexts import consul_context
from tests.identity.certificates import NOW, Pair, issue


def shake(client: ssl.SSLContext, server: ssl.SSLContext, host: str = "127.0.0.1") -> ssl.SSLObject:
    """A handshake in memory; returns the client's end, raises what either end raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    ends[0].getpeercert()
    return ends[0]


def consul(folder: Path, ca: Pair, ask: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*issue("consul", ca).write(folder, "consul"))
    if ask:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=ca.pem.decode())
    return context


def test_consul_is_verified_against_the_ca(tmp_path: Path, ca: Pair):
    cacert, _ = ca.write(tmp_path, "ca")
    context = consul_context(NOW, cacert=cacert)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert shake(context, consul(tmp_path, ca)).version() == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(context, consul(tmp_path, issue("another ca")))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"10\.0\.0\.1"):
        shake(context, consul(tmp_path, ca), host="10.0.0.1")


def test_our_certificate_is_shown(tmp_path: Path, ca: Pair):
    cacert, _ = ca.write(tmp_path, "ca")
    cert, key = issue("us", ca).write(tmp_path, "us")
    server = consul(tmp_path, ca, ask=True)
    assert shake(consul_context(NOW, cacert=cacert, cert=cert, key=key), server).version() == "TLSv1.3"
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate"):
        shake(consul_context(NOW, cacert=cacert), server)


def test_certificate_and_key_in_one_file(tmp_path: Path, ca: Pair):
    us = issue("us", ca)
    both = tmp_path / "both.pem"
    both.write_bytes(us.pem + us.key_pem())
    cacert, _ = ca.write(tmp_path, "ca")
    shake(consul_context(NOW, cacert=cacert, cert=both, key=both), consul(tmp_path, ca, ask=True))


def test_the_systems_cas_are_trusted_without_one(tmp_path: Path, ca: Pair):
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(consul_context(NOW), consul(tmp_path, ca))


def test_an_expired_ca_beside_its_successor_is_no_mistake(tmp_path: Path, ca: Pair):
    old = issue("old ca", start=NOW - timedelta(days=9), end=NOW - timedelta(days=1))
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(old.pem + ca.pem)
    shake(consul_context(NOW, cacert=bundle), consul(tmp_path, ca))


Broken = Callable[[Path, Pair], dict[str, Path]]


def _with(ca: Pair, folder: Path, **files: bytes) -> dict[str, Path]:
    cert, key = issue("us", ca).write(folder, "us")
    paths = {"cert": cert, "key": key}
    for name, content in files.items():
        paths[name] = folder / f"given-{name}.pem"
        paths[name].write_bytes(content)
    return paths


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda d, ca: {"cacert": d / "none.pem"}, r"CA certificate .*none\.pem: cannot be read: No such file"),
        (lambda d, ca: {"cacert": d}, r"CA certificate .*: cannot be read: Is a directory"),
        (lambda d, ca: _with(ca, d, cacert=b"hello"), r"given-cacert\.pem: it holds no PEM certificate"),
        (lambda d, ca: _with(ca, d, cacert=b""), r"given-cacert\.pem: it holds no PEM certificate"),
        (
            lambda d, ca: _with(ca, d, cacert=issue("o", start=NOW - timedelta(9), end=NOW - timedelta(1)).pem),
            r"given-cacert\.pem: expired on \d{4}-\d\d-\d\d \d\d:\d\d UTC; give the CA",
        ),
        (
            lambda d, ca: _with(ca, d, cert=issue("o", ca, end=NOW - timedelta(minutes=1)).pem),
            r"given-cert\.pem: expired on .*; renew it",
        ),
        (
            lambda d, ca: _with(ca, d, cert=issue("o", ca, start=NOW + timedelta(minutes=1)).pem),
            r"given-cert\.pem: is not valid before .*clock",
        ),
        (lambda d, ca: _with(ca, d, cert=b"\x30\x82"), r"given-cert\.pem: it holds no PEM certificate"),
        (lambda d, ca: {**_with(ca, d), "key": d / "none"}, r"client key .*none: cannot be read: No such file"),
        (lambda d, ca: _with(ca, d, key=b"hello"), r"given-key\.pem: it holds no PEM private key"),
        (lambda d, ca: _with(ca, d, key=ca.key_pem()), r"given-key\.pem does not belong to .*us\.pem"),
        (lambda d, ca: _with(ca, d, key=ca.key_pem(b"secret")), r"given-key\.pem: it is encrypted"),
        (lambda d, ca: {"cert": d / "x"}, r"the client key \(CONSUL_CLIENT_KEY\) .* is missing"),
        (lambda d, ca: {"key": d / "x"}, r"the client certificate \(CONSUL_CLIENT_CERT\) .* is missing"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, ca: Pair, broken: Broken, message: str):
    with pytest.raises(ConfigError, match=message):
        consul_context(NOW, **broken(tmp_path, ca))
