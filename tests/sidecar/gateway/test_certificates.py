"""Public TLS: which certificate is shown, what is spoken, reload, and who is not let in."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

import pytest

from meshsdk_sidecar.gateway import certificate_files as module
from meshsdk_sidecar.gateway import entrance
from meshsdk_sidecar.gateway.certificate_files import BadCertificate, CertificateFiles, read_certificate
from meshsdk_sidecar.gateway.config import CertificateSection
from tests.sidecar.gateway.conftest import get
from tests.sidecar.proxy.ends import Client, until


def names(client: Client) -> set[str]:
    found = client.writer.get_extra_info("peercert")
    return {name for _, name in found["subjectAltName"]}


SHOP, WILD = {"shop.example.com", "www.example.com"}, {"*.example.org", "example.org"}


# --- handshakes -------------------------------------------------------------------------------------------


async def test_the_certificate_is_that_of_the_host(rig):
    for host, shown in (
        ("shop.example.com", SHOP),
        ("WWW.example.com", SHOP),
        ("a.example.org", WILD),
        ("example.org", WILD),
        (None, SHOP),
    ):
        assert names(await rig.client(host)) == shown, host
    first = rig.certificates.find("shop.example.com")
    assert first is not rig.certificates.find("example.org")
    assert all(rig.certificates.find(address) is first for address in ("127.0.0.1", "::1", None))


@pytest.mark.parametrize("host", ["evil.example.com", "a.b.example.org", "example.com"])
async def test_a_host_of_nobody_is_refused_in_the_handshake(rig, host):
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        await rig.client(host)
    await rig.settled()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")  # old versions are what this is about
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_versions_are_refused(rig, issuer, version):
    old = issuer.client()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = version
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        await rig.client(context=old)


async def test_ciphers_without_forward_secrecy_or_authentication_are_refused(rig, issuer):
    for ciphers in ("AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384"):
        weak = issuer.client()
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers(ciphers)
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            await rig.client(context=weak)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_what_is_spoken(rig, issuer, version):
    context = issuer.client()
    context.minimum_version = context.maximum_version = version
    client = await rig.client(context=context)
    assert (await client.ask(get())).status == 200
    cipher, _, _ = client.writer.get_extra_info("cipher")
    assert "GCM" in cipher or "CHACHA20" in cipher


async def test_clear_text_is_no_handshake(rig):
    client = await rig.plain(rig.https)
    await client.send(get())
    assert b"HTTP" not in await client.rest()
    await rig.settled()


async def test_a_handshake_that_is_not_finished_is_ended(rig, monkeypatch):
    monkeypatch.setattr(entrance, "HANDSHAKE", 0.05)
    client = await rig.plain(rig.https)
    await client.send(b"\x16\x03\x01\x02\x00")
    assert await client.closed()
    await rig.settled()
    assert rig.plane.refusals["gateway", "handshake"] == 1


async def test_where_too_many_are_unfinished_the_oldest_goes(rig, monkeypatch):
    monkeypatch.setattr(entrance, "WAITING", 2)
    oldest, *others = [await rig.plain(rig.https) for _ in range(3)]
    assert await oldest.closed()
    assert (await rig.ask()).status == 200  # the next oldest made room
    for client in others:
        client.reset()
    await until(lambda: sum(rig.front.clients._open.values()) == 1)


async def test_one_client_may_have_so_many_connections(make):
    rig = await make(limits={"connections_per_client": 2})
    first, second = await rig.client(), await rig.plain(rig.https)  # the second one has said nothing yet
    with pytest.raises(ConnectionError):
        await rig.client()
    assert await (await rig.plain()).closed()
    assert rig.plane.refusals["gateway", "connections"] == 1
    second.reset()
    await until(lambda: sum(rig.front.clients._open.values()) == 1)
    await rig.client()
    assert (await first.ask(get())).status == 200


# --- reload -----------------------------------------------------------------------------------------------


@pytest.fixture
def own(issuer, file, monkeypatch, tmp_path):
    """A certificate of the test's own, first in the file, looked at often."""
    monkeypatch.setattr(module, "PERIOD", 0.01)
    monkeypatch.setattr(issuer, "folder", tmp_path)
    file["certificates"][0] = issuer.issue("own", "shop.example.com")
    return file["certificates"][0]


async def test_a_certificate_that_changes_is_shown_and_no_connection_ends(make, own, issuer):
    rig = await make()
    following = asyncio.create_task(rig.files.follow())
    before = await rig.client()
    assert names(before) == {"shop.example.com"}
    issuer.issue("own", "shop.example.com", "new.example.com")
    await until(lambda: rig.certificates.find("new.example.com") is not None)
    assert names(await rig.client("new.example.com")) == {"shop.example.com", "new.example.com"}
    assert names(await rig.client(None)) == {"shop.example.com", "new.example.com"}
    assert (await before.ask(get())).status == 200
    following.cancel()


def test_what_is_half_written_is_not_used(own, issuer, caplog):
    found = CertificateFiles([CertificateSection(**own)])
    before = found.pairs[0]
    key = Path(own["key"]).read_bytes()
    issuer.issue("own", "new.example.com")
    new = Path(own["key"]).read_bytes()
    Path(own["key"]).write_bytes(key)
    assert not found.look()
    assert not found.look()
    Path(own["cert"]).rename(own["cert"] + ".off")
    assert not found.look()
    assert found.pairs[0] is before
    assert [record.message.partition(": ")[2].replace(own["key"], "KEY").replace(own["cert"], "CERT")
            for record in caplog.records if record.levelname == "ERROR"] == [
        "KEY is not the key of CERT; write the two that belong together",
        "CERT cannot be read: No such file or directory",
    ]  # fmt: skip
    Path(own["cert"] + ".off").rename(own["cert"])
    Path(own["key"]).write_bytes(new)
    assert found.look()
    assert found.pairs[0].hosts == ("new.example.com",)
    assert not found.look()


def test_hosts_that_a_new_certificate_is_not_for_are_warned_of(own, issuer, caplog):
    issuer.issue("own", "shop.example.com", "a.example.org", "*.example.net")
    other = issuer.issue("other", "*.example.org")
    found = CertificateFiles([CertificateSection(**each) for each in (own, other)])
    issuer.issue("own", "shop.example.com", "new.example.com")
    assert found.look()
    assert "no certificate is for *.example.net any more: who asks for it is refused in the handshake" in caplog.text
    caplog.clear()
    issuer.issue("own", "shop.example.com", "new.example.com")
    assert found.look()
    assert "no certificate is for" not in caplog.text


def test_one_that_ends_soon_is_warned_of(own, issuer, caplog):
    issuer.issue("own", "shop.example.com", days=10)
    CertificateFiles([CertificateSection(**own)])
    assert "a certificate ends soon" in caplog.text


# --- files that cannot be used ----------------------------------------------------------------------------


def why(**section) -> tuple[str, str]:
    with pytest.raises(BadCertificate) as caught:
        read_certificate(CertificateSection(**section))
    return caught.value.key, str(caught.value)


def test_what_cannot_be_shown_is_refused_in_words(own, issuer, tmp_path):
    junk = tmp_path / "junk"
    junk.write_text("junk")
    nameless = issuer.issue("nameless")
    assert why(**own | {"cert": str(junk)}) == (
        "cert",
        f"{junk} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)",
    )
    assert why(**own | {"key": str(junk)})[1].startswith(f"{junk} holds no private key in PEM form")
    assert why(**own | {"key": "/nowhere"}) == ("key", "/nowhere cannot be read: No such file or directory")
    assert why(**own | {"key": nameless["key"]})[1].startswith(f"{nameless['key']} is not the key of")
    assert why(**nameless)[1].endswith("is for no host (no DNS name among its alternative names)")
    assert why(**own, hosts=("a.example.net",)) == (
        "hosts", f"{own['cert']} is not for a.example.net, but for shop.example.com",
    )  # fmt: skip
    os.truncate(junk, 2 << 20)
    assert "has 2097152 bytes" in why(**own | {"cert": str(junk)})[1]


@pytest.mark.parametrize("odd", [b"\x30\x03\x82\x05a", b"\x30\x05\x82\x03\xe9ab", b"\x30\x04\xa3\x02\x30\x00"])
def test_names_that_nobody_can_read_are_refused_at_the_start_and_later(own, issuer, odd, caplog):
    found = CertificateFiles([CertificateSection(**own)])
    before = found.pairs
    issuer.issue("own", odd=odd)
    assert not found.look()
    assert found.pairs is before
    words = f"{own['cert']} does not say in due form which hosts it is for: "
    assert f"the certificate in force stays: {words}" in caplog.text
    key, said = why(**own)
    assert (key, said.startswith(words)) == ("cert", True)


def test_a_key_with_a_password_is_refused_without_asking(own, tmp_path):
    from cryptography.hazmat.primitives import serialization as pem

    key = pem.load_pem_private_key(Path(own["key"]).read_bytes(), None)
    locked = tmp_path / "locked.key"
    form = pem.PrivateFormat.PKCS8
    locked.write_bytes(key.private_bytes(pem.Encoding.PEM, form, pem.BestAvailableEncryption(b"secret")))
    assert "encrypted" in why(**own | {"key": str(locked)})[1]


def test_hosts_may_be_fewer_than_the_certificates(issuer):
    section = {"cert": str(issuer.folder / "wild.pem"), "key": str(issuer.folder / "wild.key")}
    assert read_certificate(CertificateSection(**section, hosts=("a.example.org",))).hosts == ("a.example.org",)
