"""The examination in another process: what it says is what the one in this process says, and it is never waited for
without end."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from meshsdk.identity import apart
from meshsdk.identity.apart import examine_apart
from meshsdk.identity.examination import examined
from meshsdk.identity.material import BadMaterial
from tests.identity.certificates import NOW, Pair, id_of, issue, leaf


def texts(pair: Pair, *roots: Pair) -> tuple[str, str, str]:
    return pair.pem.decode(), pair.key_pem().decode(), "".join(root.pem.decode() for root in roots)


async def test_it_finds_what_is_found_here(ca: Pair):
    given = texts(leaf("web", ca), ca, issue("another"))
    assert await examine_apart(*given, now=NOW) == examined(*given, now=NOW)


@pytest.mark.parametrize(
    "options",
    [{"now": NOW + timedelta(days=1)}, {"now": NOW, "trust_domain": "other.consul"}, {"now": NOW, "rooted": True}],
)
async def test_it_refuses_in_the_same_words(ca: Pair, options: dict[str, Any]):
    given = texts(leaf("web", ca), issue("another"))
    with pytest.raises(BadMaterial) as here:
        examined(*given, **options)
    with pytest.raises(BadMaterial) as there:
        await examine_apart(*given, **options)
    assert str(there.value) == str(here.value)


async def test_it_is_told_everything(ca: Pair):
    """What leads to no root passes where it may, and whatever is in the texts arrives."""
    given = texts(leaf("web", ca), issue("another"))
    found = await examine_apart(*given, now=NOW, trust_domain="test.consul", rooted=False)
    assert str(found.spiffe_id) == id_of("web")
    with pytest.raises(BadMaterial, match="certificate: no PEM certificate"):
        await examine_apart("\x00é\ud800\U0001f600" * 100_000, "", "", now=NOW)


async def test_many_at_once(ca: Pair):
    given = texts(leaf("web", ca), ca)
    found = await asyncio.gather(*(examine_apart(*given, now=NOW) for _ in range(4)))
    assert len(set(found)) == 1


def in_its_place(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(apart, "_COMMAND", (sys.executable, "-I", "-S", "-c", program))


@pytest.mark.parametrize(
    ("program", "how"),
    [
        ("", "ended with code 0"),
        ("import sys; sys.exit(3)", "ended with code 3"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by signal 9"),
        ("import sys; sys.stdin.read(); print('{\"chain_pem\": ')", "ended with code 0"),
    ],
    ids=["at once", "with a code", "killed", "in the middle"],
)
async def test_it_ends_without_an_answer(ca: Pair, monkeypatch: pytest.MonkeyPatch, program: str, how: str):
    in_its_place(monkeypatch, program)
    with pytest.raises(BadMaterial, match=f"^not examined: the process to do it {how} and gave no answer$"):
        await examine_apart("é" * 500_000, "", "", now=NOW)


HANGS = "import pathlib, os, time; pathlib.Path({!r}).write_text(str(os.getpid())); time.sleep(60)"


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_it_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    in_its_place(monkeypatch, HANGS.format(str(tmp_path / "pid")))
    monkeypatch.setattr(apart, "SECONDS", 1.0)
    with pytest.raises(BadMaterial, match=r"^not examined: the process to do it gave no answer within 1 s$"):
        await examine_apart("", "", "", now=NOW)
    assert not alive(int((tmp_path / "pid").read_text()))


async def test_nobody_waits_for_it_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    in_its_place(monkeypatch, HANGS.format(str(tmp_path / "pid")))
    task = asyncio.create_task(examine_apart("", "", "", now=NOW))
    end = time.monotonic() + 10
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert not alive(int((tmp_path / "pid").read_text()))


async def test_no_process_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(apart, "_COMMAND", (str(tmp_path / "python"),))
    with pytest.raises(BadMaterial, match=r"^not examined: no process to do it can be started: .*No such file"):
        await examine_apart("", "", "", now=NOW)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_no_descriptor_is_left(ca: Pair, monkeypatch: pytest.MonkeyPatch):
    before = descriptors()
    await examine_apart(*texts(leaf("web", ca), ca), now=NOW)
    in_its_place(monkeypatch, "")
    with pytest.raises(BadMaterial):
        await examine_apart("", "", "", now=NOW)
    await asyncio.sleep(0)  # transports close in the next turn
    assert descriptors() == before


LEAN = """
import asyncio, json, sys
from datetime import datetime
from meshsdk.identity import apart, holder
from meshsdk.identity.providers import consul, files
given = json.load(sys.stdin)
for _ in range(2):
    asyncio.run(apart.examine_leanly(*given, now=datetime.fromisoformat(sys.argv[1])))
    print("cryptography" in sys.modules, "meshsdk.identity.examination" in sys.modules)
"""


@pytest.mark.parametrize(
    ("minutes", "library_and_examination"),
    [(60, "False False\nFalse False\n"), (4, "True False\nTrue True\n")],
    ids=["usual", "renewed every few minutes"],
)
def test_the_library_is_loaded_where_certificates_live_shortly_and_there_alone(
    ca: Pair, minutes: int, library_and_examination: str
):
    pair = leaf("web", ca, start=NOW - timedelta(minutes=minutes / 2), end=NOW + timedelta(minutes=minutes / 2))
    command = [sys.executable, "-P", "-c", LEAN, NOW.isoformat()]
    done = subprocess.run(command, input=json.dumps(texts(pair, ca)), capture_output=True, text=True, check=True)
    assert done.stdout == library_and_examination


def test_who_examines_loads_little_else():
    """Each renewal starts it: asyncio, ssl and the rest of the package would double its 0.2 s."""
    program = "import sys, json; import meshsdk.identity.apart, meshsdk.identity.examination; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "cryptography.x509" in loaded
    assert not loaded & {"asyncio", "ssl", "logging", "subprocess", "pydantic", "meshsdk.identity.holder"}
