"""PEM files, watched: what is whole is taken, what is half written waits, and the old one stays."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from meshsdk.identity import Material, Trouble
from meshsdk.identity.providers import files
from meshsdk.identity.providers.files import FileProvider
from meshsdk.identity.providers.provider import Examine, examine_here
from tests.identity.certificates import NOW, Pair, issue, leaf
from tests.identity.conftest import WallClock

Found = list[Material | Trouble]


class Turns:
    """In the place of sleeping: each look waits until the test asks for one."""

    def __init__(self) -> None:
        self._asleep = asyncio.Event()
        self._turn = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        assert seconds == 1.0
        self._asleep.set()
        await self._turn.wait()
        self._turn.clear()

    async def next(self) -> None:
        self._asleep.clear()
        self._turn.set()
        await self._asleep.wait()

    async def first(self) -> None:
        await self._asleep.wait()


class Set:
    """Three files in a folder."""

    def __init__(self, folder: Path, ca: Pair) -> None:
        self.cert, self.key, self.ca = folder / "tls.crt", folder / "tls.key", folder / "ca.crt"
        self.write(leaf("web", ca), ca)

    def write(self, pair: Pair, *roots: Pair) -> None:
        self.cert.write_bytes(pair.pem)
        self.key.write_bytes(pair.key_pem())
        self.ca.write_bytes(b"".join(root.pem for root in roots))

    @staticmethod
    def cut_off(path: Path) -> bytes:
        """Leave half of a file; return the whole."""
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        return whole


@pytest.fixture
def pems(tmp_path: Path, ca: Pair) -> Set:
    return Set(tmp_path, ca)


Watching = Callable[[], object]


@asynccontextmanager
async def watching(
    pems: Set, wall: Callable[..., object] | None = None, examine: Examine = examine_here
) -> AsyncIterator[tuple[Found, Turns]]:
    found: Found = []
    turns = Turns()
    now: Any = wall or (lambda: NOW)
    provider = FileProvider(pems.cert, pems.key, pems.ca, examine=examine, now=now, sleep=turns.sleep)
    task = asyncio.create_task(provider.run(found.append))
    await turns.first()
    try:
        yield found, turns
    finally:
        assert not task.done()
        task.cancel()


def serials(found: Found) -> list[str]:
    return [one.serial if isinstance(one, Material) else one.words for one in found]


async def test_a_set_is_published_once(pems: Set):
    async with watching(pems) as (found, turns):
        await turns.next()
        await turns.next()
    [made] = found
    assert isinstance(made, Material)
    assert made.spiffe_id.service == "web"


async def test_a_renewal_is_followed_file_by_file(pems: Set, ca: Pair):
    """The certificate comes first and does not fit the key: refused, told once; then the key comes."""
    async with watching(pems) as (found, turns):
        newer = leaf("web", ca)
        pems.cert.write_bytes(newer.pem)
        await turns.next()
        await turns.next()
        pems.key.write_bytes(newer.key_pem())
        await turns.next()
    first, refused, second = found
    assert isinstance(refused, Trouble)
    assert refused.kind == "refused"
    assert refused.words == (
        f"files {pems.cert} (certificate), {pems.key} (key) and {pems.ca} (roots): key: not that of the first"
        " certificate: their public keys differ; give both of one issue"
    )
    assert isinstance(first, Material)
    assert isinstance(second, Material)
    assert first != second


@pytest.mark.parametrize("which", ["cert", "key", "ca"])
async def test_a_file_is_cut_off_while_it_is_written(pems: Set, ca: Pair, which: str):
    async with watching(pems) as (found, turns):
        whole = pems.cut_off(getattr(pems, which))
        await turns.next()
        getattr(pems, which).write_bytes(whole)
        await turns.next()
    assert [type(one) for one in found] == [Material, Trouble, Material]
    assert found[0] == found[2]


async def test_a_link_that_is_switched_over_counts_as_a_change(tmp_path: Path, ca: Pair):
    """As Kubernetes mounts secrets: same times and sizes are possible, other inodes are certain."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        made = Set(folder, ca)
        for path in (made.cert, made.key, made.ca):
            os.utime(path, (1, 1))
    link = tmp_path / "now"
    link.symlink_to(folders[0])
    pems = Set.__new__(Set)
    pems.cert, pems.key, pems.ca = (link / name for name in ("tls.crt", "tls.key", "ca.crt"))
    async with watching(pems) as (found, turns):
        (tmp_path / "next").symlink_to(folders[1])
        (tmp_path / "next").replace(link)
        await turns.next()
    assert len(set(serials(found))) == 2
    assert all(isinstance(one, Material) for one in found)


async def test_a_set_that_becomes_valid_later_is_taken_then(pems: Set, ca: Pair, wall: WallClock):
    pems.write(leaf("web", ca, start=NOW + timedelta(seconds=30)), ca)
    async with watching(pems, wall) as (found, turns):
        await turns.next()
        wall.forward(seconds=31)
        await turns.next()
    assert [type(one) for one in found] == [Trouble, Material]
    assert "is not valid before" in serials(found)[0]


async def test_a_set_that_is_refused_and_stays_as_it_is_is_not_examined_at_every_look(
    pems: Set, ca: Pair, wall: WallClock
):
    examined = []

    async def examine(*texts: str, **options: Any) -> Material:
        examined.append(texts)
        return await examine_here(*texts, **options)

    pems.write(leaf("web", ca, start=NOW + timedelta(minutes=30)), ca)
    async with watching(pems, wall, examine=examine) as (_, turns):
        await turns.next()
        await turns.next()
        assert len(examined) == 1
        wall.forward(seconds=5)
        await turns.next()
        assert len(examined) == 2
        wall.forward(days=-1)
        await turns.next()
        assert len(examined) == 3, "the clock was set back"


async def test_files_that_cannot_be_read(pems: Set):
    pems.key.unlink()
    async with watching(pems) as (found, turns):
        await turns.next()
        pems.key.mkdir()
        await turns.next()
    assert [type(one) for one in found] == [Trouble, Trouble]
    assert serials(found)[0] == f"{pems.key} cannot be read: No such file or directory"
    assert serials(found)[1] == f"{pems.key} cannot be read: Is a directory"


async def test_a_file_far_too_large_is_not_read(pems: Set):
    with pems.ca.open("wb") as file:
        file.truncate(files.MAX_BYTES + 1)
    async with watching(pems) as (found, _):
        assert "has 1048577 bytes, at most 1048576 are read" in serials(found)[0]


async def test_files_that_change_while_they_are_read(pems: Set, ca: Pair, monkeypatch: pytest.MonkeyPatch):
    read = Path.read_bytes
    newer = leaf("web", ca)

    def meddled(path: Path) -> bytes:
        content = read(path)
        if path == pems.ca:
            monkeypatch.undo()
            pems.write(newer, ca, issue("another"))
        return content

    monkeypatch.setattr(Path, "read_bytes", meddled)
    async with watching(pems) as (found, turns):
        await turns.next()
    assert [type(one) for one in found] == [Trouble, Material]
    assert serials(found)[0].endswith("they change while they are read")
    assert serials(found)[1] == f"{newer.certificate.serial_number:x}"


async def test_one_file_may_hold_certificate_and_key(tmp_path: Path, ca: Pair):
    web = leaf("web", ca)
    both, roots = tmp_path / "both.pem", tmp_path / "ca.pem"
    both.write_bytes(web.pem + web.key_pem())
    roots.write_bytes(ca.pem)
    pems = Set.__new__(Set)
    pems.cert = pems.key = both
    pems.ca = roots
    async with watching(pems) as (found, _):
        assert isinstance(found[0], Material)
