"""Workers of one instance: they find each other, tell dead from silent, and leave nothing behind."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshsdk.server import workers as module
from meshsdk.server.workers import SERVING, Workers


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder with a short path, as unix sockets need it."""
    folder = Path(tempfile.mkdtemp(prefix="w"))
    yield folder
    shutil.rmtree(folder)


class Sibling:
    """Another worker: its socket goes by another pid."""

    def __init__(self, folder: Path, pid: int, answers: dict[str, str]) -> None:
        self.path = folder / f"{pid}.sock"
        self.answers = answers
        self.asked: list[str] = []
        self.server: Any = None

    async def __aenter__(self) -> Sibling:
        self.server = await asyncio.start_unix_server(self.answer, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def answer(self, reader: Any, writer: Any) -> None:
        text = (await reader.read(-1)).decode()
        self.asked.append(text)
        writer.write(self.answers.get(text.partition("\n")[0], "").encode())
        writer.close()


async def opened(base: Path, **answers: Any) -> Workers:
    workers = Workers(base, "shop-vm-1", {"state": lambda _: SERVING, **answers})
    await workers.open()
    return workers


async def test_alone(base: Path) -> None:
    workers = await opened(base)
    folder = base / "shop-vm-1"
    assert (folder / f"{os.getpid()}.sock").exists()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert await workers.any_serving() is False
    await workers.close()
    assert list(folder.iterdir()) == []


async def test_what_nobody_was_there_to_hear_waits_for_the_next(base: Path) -> None:
    """A single worker is recycled: its successor begins when it is gone."""
    first = await opened(base)
    await first.tell_one("inherit", "counted\nso far")
    await first.close()
    heard: list[str] = []
    second = await opened(base, inherit=lambda text: heard.append(text) or "kept")
    assert heard == ["counted\nso far"]
    await second.ask("state")
    await second.close()
    assert heard == ["counted\nso far"], "once"
    assert list((base / "shop-vm-1").iterdir()) == []


async def test_one_that_begins_hears_it_where_none_serves(base: Path) -> None:
    workers = await opened(base)
    async with Sibling(base / "shop-vm-1", 1, {"state": "starting", "inherit": "kept"}):
        await workers.tell_one("inherit", "counted")
    await workers.close()
    assert list((base / "shop-vm-1").glob("*.inherit")) == []


@pytest.mark.parametrize(("state", "serving"), [("serving", True), ("draining", False), ("starting", False)])
async def test_states_of_another(base: Path, state: str, serving: bool) -> None:
    workers = await opened(base)
    async with Sibling(base / "shop-vm-1", 1, {"state": state}):
        assert await workers.any_serving() is serving
    await workers.close()


async def test_real_pair_answers_and_inherits(base: Path) -> None:
    """Two real ends: the second process's socket is the same code under another pid."""
    heard: list[str] = []
    one = await opened(base, inherit=lambda text: heard.append(text) or "kept", metrics=lambda _: "numbers")
    (base / "shop-vm-1" / f"{os.getpid()}.sock").rename(base / "shop-vm-1" / "1.sock")
    other = await opened(base)
    assert await other.ask("metrics") == ["numbers"]
    assert await other.ask("nonsense") == ["unknown question 'nonsense'"]
    await other.tell_one("inherit", "two\nlines\n" + "x" * 300_000)
    assert heard == ["two\nlines\n" + "x" * 300_000]
    await one.close()
    await other.close()


async def test_socket_of_a_dead_worker_is_removed(base: Path) -> None:
    workers = await opened(base)
    stale = base / "shop-vm-1" / "1.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    assert await workers.any_serving() is False
    assert not stale.exists()
    await workers.close()


async def test_silent_worker_counts_while_its_process_lives(base: Path) -> None:
    workers = await opened(base)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)  # noqa: ASYNC220
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(base / "shop-vm-1" / f"{child.pid}.sock"))
        silent.listen()
        assert await workers.any_serving() is True
        child.kill()
        child.wait()
        assert await workers.any_serving() is False
    assert child.stdin is not None
    child.stdin.close()
    await workers.close()


async def test_long_instance_gets_a_short_folder(base: Path) -> None:
    workers = Workers(base, "s" * 63 + "-" + "h" * 60 + "-8000", {"state": lambda _: SERVING})
    await workers.open()
    (folder,) = base.iterdir()  # noqa: ASYNC240
    assert len(folder.name) == 12
    await workers.close()


@pytest.mark.parametrize("why", ["none", "long", "foreign", "shared", "no unix sockets"])
async def test_without_a_folder_a_process_is_alone_and_says_why(
    base: Path, why: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    place: Path | None = base
    if why == "none":
        place = None
    elif why == "long":
        place = base / ("x" * 100)
    elif why == "foreign":
        monkeypatch.setattr(module.os, "getuid", lambda: 12345)
    elif why == "shared":
        (base / "shop-vm-1").mkdir()
        (base / "shop-vm-1").chmod(0o777)
    else:
        monkeypatch.delattr(module.socket, "AF_UNIX")
    workers = Workers(place, "shop-vm-1", {})
    with caplog.at_level(logging.WARNING):
        await workers.open()
    assert await workers.ask("state") == []
    assert "each one registers, deregisters and shows metrics for itself" in caplog.text
    expected = {
        "none": "no runtime folder",
        "long": "too long for a unix socket",
        "foreign": "must belong to this user alone",
        "shared": "must belong to this user alone",
        "no unix sockets": "no unix sockets",
    }
    assert expected[why] in caplog.text
    await workers.close()


async def test_forked_child_lets_go_of_the_socket(base: Path) -> None:
    workers = await opened(base)
    listener = workers._socket
    assert listener is not None
    server = workers._server
    workers.forget()
    assert listener.fileno() == -1
    assert server is not None
