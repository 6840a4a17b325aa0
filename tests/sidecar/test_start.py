"""How a serving process begins and ends: which sockets are its own, and whose the file of its pages' is."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from meshsdk.errors import ConfigError
from meshsdk_sidecar.config import Admin, Config, Outbound, Service
from meshsdk_sidecar.place import Place
from meshsdk_sidecar.sockets import close, open_sockets
from meshsdk_sidecar.start import _listen, serve
from tests.real_consul import free_ports


class Serving:
    """What serves, for as long as nothing takes time; `shared` is as of `Lifecycle`."""

    def __init__(self, *, shared: bool = False, work=lambda: None) -> None:
        self.shared = shared
        self._work = work

    async def run(self) -> int:
        self._work()
        return 7


def served(path, process=None) -> int:
    config = Config(
        service=Service(name="legacy"), outbound=Outbound(port=free_ports(1)[0]), admin=Admin(socket=str(path))
    )
    serving: Any = process or Serving()
    return serve(config, lambda _listening, _before: serving, replace=False, kind="sidecar")


def listens(path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    found.bind(str(path))
    found.listen()
    return found


def test_the_file_of_our_socket_goes_with_us(tmp_path):
    path = tmp_path / "s"
    there: list[bool] = []
    assert served(path, Serving(work=lambda: there.append(path.is_socket()))) == 7
    assert there == [True]
    assert not path.exists()


def test_one_that_another_process_holds_too_stays(tmp_path):
    assert served(tmp_path / "s", Serving(shared=True)) == 7
    assert (tmp_path / "s").is_socket()


def test_a_second_start_by_mistake_leaves_the_first_its_place(tmp_path):
    with listens(tmp_path / "s"), pytest.raises(ConfigError, match="Address already in use"):
        served(tmp_path / "s")
    assert (tmp_path / "s").is_socket()


def test_a_wrong_path_costs_nobody_a_file(tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder"):
        with pytest.raises(ConfigError, match="a file that is no socket is there"):
            served(tmp_path / name)
    assert (tmp_path / "file").read_text() == "kept"
    assert (tmp_path / "folder").is_dir()


def test_what_another_has_put_there_meanwhile_is_that_ones(tmp_path):
    path, others = tmp_path / "s", []

    def taken() -> None:
        path.rename(tmp_path / "old")
        others.append(listens(path))

    try:
        assert served(path, Serving(work=taken)) == 7
        assert path.is_socket()
    finally:
        others[0].close()


def test_workers_take_over_what_is_held_wherever_the_file_has_it_now():
    pages, calls, old = free_ports(3)
    before = open_sockets({name: Place("127.0.0.1", port) for name, port in (("a", pages), ("b", calls), ("c", old))})
    (one,), (two,), (three,) = before.values()
    config = Config(service=Service(name="legacy"), outbound=Outbound(port=pages), admin=Admin(port=calls), workers=2)
    held = [one, two, three]
    try:
        assert _listen(config, held) == {"outbound": [one], "admin": [two]}
        assert held == [three]
    finally:
        close(before)
