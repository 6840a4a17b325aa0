"""Listening sockets: all or none, with words about what to write; and how they are handed on."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys

import pytest

from meshsdk.errors import ConfigError
from meshsdk_sidecar.place import Place
from meshsdk_sidecar.sockets import adopt, close, descriptors, open_sockets
from tests.real_consul import free_ports


def test_each_name_listens(tmp_path):
    one, two = free_ports(2)
    path = str(tmp_path / "admin.sock")
    places = {"outbound": Place("127.0.0.1", one), "inbound": Place("0.0.0.0", two), "admin": Place(socket=path)}
    found = open_sockets(places)
    try:
        for where in (("127.0.0.1", one), ("127.0.0.1", two)):
            with socket.create_connection(where):
                pass
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        (listening,) = found["outbound"]
        assert not listening.getblocking()
        assert not listening.get_inheritable()
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    finally:
        close(found)


def test_localhost_is_two_addresses_where_there_are_two():
    (port,) = free_ports(1)
    found = open_sockets({"outbound": Place("localhost", port)})
    try:
        assert {one.getsockname()[0] for one in found["outbound"]} <= {"127.0.0.1", "::1"}
        with socket.create_connection(("127.0.0.1", port)):
            pass
    finally:
        close(found)


def test_every_place_that_is_taken_is_said_and_none_stays_open():
    (free,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        places = {
            "inbound": Place("127.0.0.1", free),
            "outbound": Place("127.0.0.1", port),
            "upstreams.db@192.0.2.1:5433": Place("192.0.2.1", 5433),
            "listeners.https[1]": Place("127.0.0.1", port),
            "admin": Place("no-such-host.invalid", 15000),
        }
        with pytest.raises(ConfigError) as caught:
            open_sockets(places)
    first, second, third, fourth = str(caught.value).splitlines()
    assert first == (
        f"cannot listen at 127.0.0.1:{port}: Address already in use; write another outbound.port or outbound.address,"
        " or end what listens there"
    )
    assert second.startswith("cannot listen at 192.0.2.1:5433: Cannot assign requested address; ")
    assert second.endswith("write an address of this machine as the upstream db@192.0.2.1:5433's address")
    assert "; write another listeners.https.port or listeners.https.address, or" in third
    assert fourth.startswith("cannot listen at no-such-host.invalid:15000: ")
    assert fourth.endswith("write an address of this machine as admin.address")
    with socket.create_server(("127.0.0.1", free)):
        pass  # what was opened before the mistake is free again


def test_a_unix_socket_left_by_a_process_that_was_killed_is_replaced(tmp_path):
    path = str(tmp_path / "s.sock")
    left = socket.socket(socket.AF_UNIX)
    left.bind(path)
    left.close()
    found = open_sockets({"admin": Place(socket=path)})
    try:
        with pytest.raises(ConfigError, match=r"Address already in use; write another admin\.socket"):
            open_sockets({"admin": Place(socket=path)})
    finally:
        close(found)


def test_a_file_or_a_folder_that_is_not_ours(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ConfigError, match="a file that is no socket is there"):
        open_sockets({"admin": Place(socket=str(tmp_path / "file"))})
    assert (tmp_path / "file").read_text() == "kept"
    with pytest.raises(ConfigError, match="No such file or directory"):
        open_sockets({"admin": Place(socket=str(tmp_path / "no" / "s.sock"))})


def test_several_processes_may_share_a_place():
    (port,) = free_ports(1)
    place = {"outbound": Place("127.0.0.1", port)}
    first, second = open_sockets(place, spread=True), open_sockets(place, spread=True)
    close(first)
    close(second)


def test_the_next_process_takes_over_what_stands_at_its_places_whatever_it_was_called(tmp_path):
    one, two, three = free_ports(3)
    path = str(tmp_path / "s")
    before = open_sockets({"a": Place("127.0.0.1", one), "b": Place("127.0.0.1", two), "c": Place(socket=path)})
    (first,), (second,), (unix,) = before.values()
    held = [first, second, unix]
    places = {"x": Place("127.0.0.1", three), "b": Place(socket=path), "c": Place("127.0.0.1", one)}
    after = open_sockets(places, held=held)
    try:
        assert (after["c"], after["b"]) == ([first], [unix])
        assert after["x"][0].getsockname()[1] == three
        assert held == [second], "nobody needs it"
    finally:
        close(after)
        second.close()


def test_an_address_that_is_not_held_is_opened_beside_the_one_that_is():
    (port,) = free_ports(1)
    before = open_sockets({"outbound": Place("127.0.0.1", port)})["outbound"]
    both = open_sockets({"outbound": Place("localhost", port)}, held=list(before))
    alone = open_sockets({"other": Place("localhost", free_ports(1)[0])})
    try:
        assert before[0] in both["outbound"]
        assert len(both["outbound"]) == len(alone["other"])
    finally:
        close(both)
        close(alone)


def test_descriptors_outlive_an_exec():
    (port,) = free_ports(1)
    found = open_sockets({"outbound": Place("127.0.0.1", port)})
    numbers = descriptors(found)
    program = (
        "from meshsdk_sidecar.sockets import adopt; import sys;"
        "(one,) = adopt({'outbound': [int(sys.argv[1])]})['outbound']; print(one.getsockname(), one.get_inheritable())"
    )
    (number,) = numbers["outbound"]
    done = subprocess.run(
        [sys.executable, "-c", program, str(number)], pass_fds=[number], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"('127.0.0.1', {port}) False\n"
    close(found)


def test_a_descriptor_that_is_no_socket():
    with open(os.devnull) as file, pytest.raises(OSError, match="non-socket"):
        adopt({"outbound": [file.fileno()]})
