"""Keys in files that leave nothing behind."""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from meshsdk.identity import secret_file
from meshsdk.identity.contexts import client_context
from tests.identity.certificates import Pair, material
from tests.identity.conftest import Held


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As on a platform without memfd; returns where files on disk are made."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="memfd is Linux's")
def test_in_memory_nothing_reaches_the_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "mkstemp", lambda **_: pytest.fail("a file on disk was made"))
    before = descriptors()
    with secret_file.secret_file("secret\n" * 10_000) as path:
        assert Path(path).read_text() == "secret\n" * 10_000
        assert os.readlink(path).startswith("/memfd:meshsdk")
        child = subprocess.run(["ls", path], capture_output=True, check=False)  # a started program inherits none
        assert child.returncode != 0
    assert descriptors() == before
    assert not list(tmp_path.iterdir())


def test_on_disk_it_is_the_owners_and_goes(no_memory: Path):
    with secret_file.secret_file("secret") as path:
        assert Path(path).parent == no_memory
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert Path(path).read_text() == "secret"
    assert not list(no_memory.iterdir())


def test_it_goes_whatever_happens_inside(no_memory: Path):
    with pytest.raises(ssl.SSLError), secret_file.secret_file("secret") as path:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path)
    assert not list(no_memory.iterdir())


def test_a_sandbox_that_forbids_memory_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def forbidden(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "memfd_create", forbidden, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with secret_file.secret_file("secret") as path:
        assert Path(path).parent == tmp_path


def test_a_system_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(Path, "exists", lambda path: False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = descriptors()
    with secret_file.secret_file("secret") as path:
        assert Path(path).parent == tmp_path
    assert descriptors() == before


def test_contexts_work_without_memory_files(no_memory: Path, ca: Pair):
    client_context(material("web", ca))
    assert not list(no_memory.iterdir())


def test_rotations_leak_no_descriptor(held: Held, ca: Pair):
    """One a rotation would show as well as a thousand would; making keys' contexts takes milliseconds each."""
    first, second = material("web", ca), material("web", ca)
    held.publish(second)
    before = descriptors()
    for _ in range(50):
        held.publish(first)
        held.publish(second)
    assert held.renewals == 101
    assert descriptors() == before
