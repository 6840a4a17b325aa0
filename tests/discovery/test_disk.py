"""Files that may be believed, and those that may not."""

from __future__ import annotations

import logging
import os
import stat

import pytest

from meshsdk.core.model import Endpoint
from meshsdk.discovery.disk import MAX_BYTES, Disk, problem_with
from meshsdk.discovery.memory import KeptDocument, Memory

MEMORY = Memory((Endpoint("k", "10.0.0.1", 80),), {"web": KeptDocument("version: 1", 7)})


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "mesh" / "state"


@pytest.fixture
def disk(folder) -> Disk:
    return Disk(folder, "consul")


def test_kept_for_the_next_process(disk, folder):
    disk.save("web", MEMORY)
    found = Disk(folder, "consul").load("web")
    assert (found.endpoints, found.documents) == (MEMORY.endpoints, MEMORY.documents)
    assert found.age < 5


def test_only_the_owner_may_look(disk, folder):
    disk.save("web", MEMORY)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "web.json").stat().st_mode) == 0o600
    assert os.listdir(folder) == ["web.json"], "nothing is left beside it"


def test_the_age_is_that_of_the_last_confirmation(folder):
    now = [0.0]
    disk = Disk(folder, "consul", wall=lambda: now[0])
    disk.save("web", MEMORY)
    written = (folder / "web.json").stat()
    now[0] = written.st_mtime + 60
    assert disk.load("web").age == pytest.approx(60)
    os.utime(folder / "web.json", (0, 0))
    disk.save("web", MEMORY)
    confirmed = (folder / "web.json").stat()
    assert confirmed.st_mtime >= written.st_mtime
    assert confirmed.st_ino == written.st_ino, "the same content is not written again"


def test_nothing_kept_is_nothing_wrong(disk, caplog):
    assert disk.load("web") is None
    assert caplog.text == ""


@pytest.mark.parametrize("content", [b"", b"\0\xff", b"{", b'{"form":1}', b"null"])
def test_a_damaged_file_is_said_and_replaced(disk, folder, caplog, content):
    disk.save("web", MEMORY)
    (folder / "web.json").write_bytes(content)
    assert disk.load("web") is None
    assert "web.json is not used" in caplog.text
    fresh = Disk(folder, "consul")
    fresh.save("web", MEMORY)
    assert fresh.load("web").endpoints == MEMORY.endpoints


def test_a_file_that_others_may_write_is_not_believed(disk, folder, caplog):
    disk.save("web", MEMORY)
    (folder / "web.json").chmod(0o620)
    assert disk.load("web") is None
    assert "it is writable by others (mode 0620): take that away with chmod go-w" in caplog.text


def test_links_pipes_and_giants_are_not_believed(disk, folder, caplog):
    disk.save("other", MEMORY)
    (folder / "web.json").symlink_to(folder / "other.json")
    assert disk.load("web") is None
    os.mkfifo(folder / "pipe.json", 0o600)
    assert disk.load("pipe") is None
    assert "it is not an ordinary file" in caplog.text
    with (folder / "giant.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    (folder / "giant.json").chmod(0o600)
    assert disk.load("giant") is None
    assert f"more than {MAX_BYTES}" in caplog.text


def test_a_folder_that_others_may_write_is_refused(folder, caplog):
    folder.mkdir(parents=True)
    folder.chmod(0o770)
    assert "is writable by others (mode 0770)" in problem_with(folder)
    disk = Disk(folder, "consul")
    assert "a start without Consul will know nothing" in caplog.text
    disk.save("web", MEMORY)
    assert disk.load("web") is None
    assert list(folder.iterdir()) == []


def test_a_folder_of_another_user_is_refused(folder, monkeypatch):
    folder.mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    assert "belongs to user" in problem_with(folder)


def test_a_folder_below_one_that_everybody_may_write_is_refused(folder, tmp_path):
    tmp_path.chmod(0o777)
    assert problem_with(folder) == f"{tmp_path}, above it, is writable by everybody"
    tmp_path.chmod(0o1777)  # as /tmp
    assert problem_with(folder) == ""


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    assert problem_with(tmp_path / "file" / "state") == f"{tmp_path}/file/state: Not a directory"


def test_a_disk_that_cannot_be_written_is_said_once(disk, folder, caplog, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    disk.save("web", MEMORY)
    monkeypatch.setattr(os, "fsync", full)
    other = Memory((Endpoint("k2", "10.0.0.2", 80),))
    with caplog.at_level(logging.WARNING):
        disk.save("web", other)
        disk.save("web", other)
    assert caplog.text.count("No space left on device") == 1
    assert disk.load("web").endpoints == MEMORY.endpoints, "the old one is whole"
    assert os.listdir(folder) == ["web.json"]
    monkeypatch.undo()
    disk.save("web", other)
    assert (disk.load("web").endpoints, disk.problem) == (other.endpoints, "")


def test_no_folder_keeps_nothing():
    disk = Disk(None, "consul")
    disk.save("web", MEMORY)
    assert disk.load("web") is None
