"""Keys are read from files and URLs, anew where they change, and kept while they cannot be read."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from meshsdk.tokens.keys import MAX_BYTES, KeySet
from meshsdk.tokens.source import KeySource
from tests.identity.certificates import issue
from tests.tokens.issuing import jwk, jwks


class Issuer:
    """A small HTTP server with a key set, which may fail in several ways."""

    def __init__(self) -> None:
        self.body = jwks()
        self.status = 200
        self.head = ""
        self.hang = False
        self.asked = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            if self.hang:
                await reader.read()  # until the other side gives up
            head = (
                f"HTTP/1.1 {self.status} X\r\nConnection: close\r\n{self.head}Content-Length: {len(self.body)}\r\n\r\n"
            )
            writer.write(head.encode() + self.body)
            await writer.drain()
        writer.close()


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    made = Issuer()
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"  # type: ignore[attr-defined]
    yield made
    server.close()


class Heard:
    """What a source published."""

    def __init__(self) -> None:
        self.keys: list[KeySet | None] = []

    @property
    def names(self) -> list[str]:
        """Of the keys that were read last."""
        last: Any = next((keys for keys in reversed(self.keys) if keys), None)
        return [key.kid for key in last.keys] if last else []


Follow = Callable[..., tuple[KeySource, Heard]]


@pytest.fixture
async def follow() -> AsyncIterator[Follow]:
    tasks: list[asyncio.Task[None]] = []

    def following(location: object, **timing: float) -> tuple[KeySource, Heard]:
        heard = Heard()
        usual = {"period": 60.0, "gap": 0.02, "file_period": 0.01, "timeout": 2.0}
        source = KeySource(str(location), heard.keys.append, rng=random.Random(1), **{**usual, **timing})
        tasks.append(asyncio.create_task(source.run()))
        return source, heard

    yield following
    for task in tasks:
        assert not task.done(), task
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not what():  # noqa: ASYNC110  # what it waits for has no event
            await asyncio.sleep(0.005)


# --- files ----------------------------------------------------------------------------------------------


async def test_a_file_is_read_anew_where_it_changes(tmp_path: Path, follow: Follow) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(jwks())
    _, heard = follow(file)
    await until(lambda: heard.names == ["RSA#0"])
    (tmp_path / "new").write_bytes(jwks(jwk("P-256")))
    (tmp_path / "new").replace(file)
    await until(lambda: heard.names == ["P-256#0"])
    assert len(heard.keys) == 2


async def test_a_file_that_breaks_costs_nothing_and_is_told_once(
    tmp_path: Path, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "meshsdk.tokens")
    file = tmp_path / "keys.json"
    _, heard = follow(file)
    await until(lambda: len(heard.keys) > 3)
    assert heard.keys[0] is None
    assert [record.message for record in caplog.records] == [
        f"the keys at {file} cannot be used, those read last stay in force: "
        f"[Errno 2] No such file or directory: '{file}'"
    ]
    file.write_bytes(jwks())
    await until(lambda: heard.names)
    file.write_bytes(b"half {")
    await until(lambda: heard.keys[-1] is None)
    assert heard.names == ["RSA#0"]
    file.write_bytes(jwks(jwk("P-256")))
    await until(lambda: heard.names == ["P-256#0"])
    assert caplog.records[-1].message == f"the keys at {file} can be read again"


@pytest.mark.parametrize("kind", ["folder", "pipe", "large", "zero"])
async def test_other_things_than_files_do_not_hold_up_the_loop(tmp_path: Path, follow: Follow, kind: str) -> None:
    file = tmp_path / "keys.json"
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "large":
        file.write_bytes(b" " * (MAX_BYTES + 1))
    else:
        file = Path("/dev/zero")
    before = open_files()
    _, heard = follow(file)
    await until(lambda: len(heard.keys) > 5)
    assert set(heard.keys) == {None}
    assert open_files() <= before + 2


def open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except FileNotFoundError:  # not on Linux
        return 0


# --- URLs -----------------------------------------------------------------------------------------------


async def test_a_url_is_asked_again_after_its_period(issuer: Any, follow: Follow) -> None:
    _, heard = follow(issuer.url, period=0.1)
    await until(lambda: heard.names == ["RSA#0"])
    issuer.body = jwks(jwk("P-256"))
    await until(lambda: heard.names == ["P-256#0"])


async def test_a_url_is_asked_for_an_unknown_key_but_not_all_the_time(issuer: Any, follow: Follow) -> None:
    source, heard = follow(issuer.url, gap=0.3)
    await until(lambda: heard.names)
    issuer.body = jwks(jwk("RSA", 1))
    while heard.names != ["RSA#1"]:
        source.ask()
        await asyncio.sleep(0.001)
    assert issuer.asked == 2
    await asyncio.sleep(0.35)  # one more may have been asked for while that was under way
    assert issuer.asked <= 3


@pytest.mark.parametrize("how", ["refused", "status", "redirect", "garbage", "hang", "large", "cut"])
async def test_a_url_that_fails_is_asked_again_and_the_last_keys_stay(issuer: Any, follow: Follow, how: str) -> None:
    source, heard = follow(issuer.url, timeout=0.2)
    await until(lambda: heard.names)
    good = issuer.body
    url = source.location
    if how == "refused":
        source.location = "http://127.0.0.1:1/jwks.json"
    elif how == "status":
        issuer.status = 503
    elif how == "redirect":
        issuer.status, issuer.head = 302, "Location: /other\r\n"
    elif how == "garbage":
        issuer.body = b"<html>"
    elif how == "hang":
        issuer.hang = True
    elif how == "large":
        issuer.body = b" " * (MAX_BYTES + 9)
    else:
        issuer.head = "Content-Length: 5000\r\n"
    source.ask()
    await until(lambda: heard.keys[-1] is None)
    assert heard.names == ["RSA#0"]
    source.location, issuer.status, issuer.body, issuer.head, issuer.hang = url, 200, good, "", False
    await until(lambda: heard.keys[-1] is not None)


async def test_a_url_nobody_can_ask_is_no_end(follow: Follow) -> None:
    _, heard = follow("http://a..b.invalid:1/x", period=0.01)
    await until(lambda: len(heard.keys) > 2)
    assert heard.names == []


@pytest.mark.parametrize("trusted", [True, False])
async def test_https_is_for_servers_this_machine_trusts(
    tmp_path: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trusted: bool
) -> None:
    root = issue("a root of our own")
    cert, key = issue("id", root).write(tmp_path, "id")
    roots, _ = (root if trusted else issue("another root")).write(tmp_path, "roots")
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)
    server = await asyncio.start_server(Issuer().answer, "127.0.0.1", 0, ssl=tls)
    async with server:
        _, heard = follow(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json")
        await until(lambda: heard.keys)
    assert heard.names == (["RSA#0"] if trusted else [])
    assert ("CERTIFICATE_VERIFY_FAILED" in caplog.text) is not trusted


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)


@pytest.mark.usefixtures("no_library")
async def test_without_the_library_it_is_said_what_to_install(
    tmp_path: Path, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(jwks())
    _, heard = follow(file)
    await until(lambda: len(heard.keys) > 1)
    assert "pip install 'meshsdk[jwt]'" in caplog.text
