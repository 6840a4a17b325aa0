"""Hot restart with real processes: no connection is refused, whoever comes and goes; and what is handed over how."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
from contextlib import ExitStack, asynccontextmanager, contextmanager

import pytest

from meshsdk_registry import Consul, Health
from meshsdk_sidecar import sockets
from meshsdk_sidecar.handover import Handover, NotReplaced, Predecessor
from tests.real_consul import free_ports
from tests.sidecar.conftest import ROOT, end, environment, wait
from tests.sidecar.restarts import app, called, load, running, successor, until_ended

# --- whole processes --------------------------------------------------------------------------------------


async def test_two_restarts_under_load_refuse_nothing_and_consul_never_hears_of_them(tmp_path, dev_agent):
    seen: set[Health | None] = set()
    service = "name: legacy, port: {}, health: {{tcp: true}}"
    async with Consul(dev_agent.url) as consul, called(consul), app() as port:
        with running(tmp_path, dev_agent.url, service.format(port)) as sidecar, ExitStack() as after:
            await asyncio.to_thread(sidecar.until_ready)
            async with load(sidecar.proxy, host="called") as out, load(f"http://127.0.0.1:{sidecar.inbound}/") as into:
                for log in ("next.log", "third.log"):
                    process, _ = after.enter_context(successor(tmp_path, dev_agent.url, log))
                    await until_ended(sidecar.process, consul, seen)
                    sidecar.process = process
                await asyncio.to_thread(sidecar.until_ready)
            assert (set(out), set(into)) == ({"200"}, {"200"}), (out, into)
            assert min(out.total(), into.total()) > 50
    assert seen == {Health.PASSING}
    for name in ("sidecar.log", "next.log", "third.log"):
        assert "Traceback" not in (tmp_path / name).read_text()
    assert "finished: the process that replaced this one serves alone" in (tmp_path / "next.log").read_text()


def test_the_last_process_leaves_consul_and_the_first_one_replaces_nobody(tmp_path, dev_agent):
    with listens() as port, running(tmp_path, dev_agent.url, f"name: legacy, port: {port}") as sidecar:
        sidecar.until_ready()
        with successor(tmp_path, dev_agent.url) as (process, log):
            assert sidecar.process.wait(15) == 0
            sidecar.process = process
            sidecar.until_ready()
            assert end(sidecar) == 0
            assert "deregistered" in log.read_text()
        assert "deregistered" not in sidecar.log.read_text()
        assert not list((tmp_path / "run").glob("*/handover.sock"))
        with successor(tmp_path, dev_agent.url, "third.log") as (process, log):
            wait(lambda: "no sidecar of this instance runs" in log.read_text(), log)


def test_one_that_is_told_to_end_before_the_new_one_is_ready_leaves_it_the_pages(tmp_path, dev_agent):
    pages = tmp_path / "admin.sock"
    with running(tmp_path, dev_agent.url, "name: legacy") as sidecar:
        sidecar.until_ready()
        file = tmp_path / "sidecar.yaml"
        file.write_text(file.read_text().replace(f"admin: {{port: {sidecar.admin}}}", f"admin: {{socket: {pages}}}"))
        with successor(tmp_path, dev_agent.url) as (second, log), socket.create_server(("127.0.0.1", 0)) as hole:
            assert sidecar.process.wait(15) == 0
            wait(lambda: pages.exists() and b'"ready": true' in asked(pages), log)
            silent = f"http://127.0.0.1:{hole.getsockname()[1]}"
            with successor(tmp_path, silent, "third.log", MESH_FIRST_WAIT="1") as (_, its_log):
                wait(lambda: "asks for the listening sockets" in log.read_text(), log)
                second.terminate()
                assert second.wait(15) == 0
                wait(lambda: "admin at" in its_log.read_text(), its_log)
                assert b'"live": true' in asked(pages, "/live")


def test_listeners_come_and_go_with_the_file_and_those_that_stay_are_handed_on(tmp_path, dev_agent):
    old, new, same = free_ports(3)
    pages = tmp_path / "admin.sock"

    def more(port: int, name: str) -> str:
        return f"upstreams: [{{service: called, port: {port}}}, {{service: {name}, port: {same}}}]\ndrain: {{app: 0s}}"

    with running(tmp_path, dev_agent.url, "name: legacy", more=more(old, "one")) as sidecar:
        sidecar.until_ready()
        file = tmp_path / "sidecar.yaml"
        text = file.read_text().replace(more(old, "one"), more(new, "another"))
        file.write_text(text.replace(f"admin: {{port: {sidecar.admin}}}", f"admin: {{socket: {pages}}}"))
        with successor(tmp_path, dev_agent.url) as (second, log):
            assert sidecar.process.wait(15) == 0
            wait(lambda: pages.exists() and connects(new), log)
            assert connects(sidecar.out)
            assert not connects(old)
            assert not connects(sidecar.admin)
            with successor(tmp_path, dev_agent.url, "third.log") as (third, its_log):
                assert second.wait(15) == 0
                assert pages.exists(), "the file of a socket goes with it"
                wait(lambda: b'"ready": true' in asked(pages), its_log)
                third.terminate()
                assert third.wait(15) == 0
    assert not pages.exists()


# --- who fails changes nothing ----------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["SIGTERM", "SIGKILL"])
def test_a_new_process_that_ends_before_it_is_ready_leaves_the_old_one_serving(tmp_path, dev_agent, by):
    variables = {"MESH_IDENTITY": "consul", "MESH_STATE_DIR": str(tmp_path / "other")}
    with listens() as port, running(tmp_path, dev_agent.url, f"name: legacy, port: {port}") as sidecar:
        sidecar.until_ready()
        with successor(tmp_path, "http://127.0.0.1:1", **variables) as (process, log):
            wait(lambda: "asks for the listening sockets" in sidecar.log.read_text(), log)
            wait(lambda: "meshsdk" in log.read_text(), log)
            process.send_signal(getattr(signal, by))
            assert process.wait(15) == (1 if by == "SIGTERM" else -signal.SIGKILL), log.read_text()
        if by == "SIGTERM":
            assert "error: told to end before it was ready (" in log.read_text()
            assert f"process {sidecar.process.pid} goes on serving" in log.read_text()
            assert "Traceback" not in log.read_text()
        wait(lambda: "did not take over, this one goes on serving: it hung up" in sidecar.log.read_text(), sidecar.log)
        sidecar.until_ready()
        assert connects(sidecar.inbound)
        if by == "SIGTERM":
            return
        with successor(tmp_path, dev_agent.url, "third.log") as (third, log):
            assert sidecar.process.wait(15) == 0, "the next one may replace it"
            sidecar.process = third
            sidecar.until_ready()


def test_a_new_file_whose_port_is_taken_leaves_the_old_one_serving(tmp_path, dev_agent):
    with listens() as taken, running(tmp_path, dev_agent.url, "name: legacy") as sidecar:
        sidecar.until_ready()
        file = tmp_path / "sidecar.yaml"
        file.write_text(file.read_text() + f"\nupstreams: [{{service: called, port: {taken}}}]\n")
        with successor(tmp_path, dev_agent.url) as (process, log):
            assert process.wait(15) == 2
        assert f"cannot listen at 127.0.0.1:{taken}: Address already in use" in log.read_text()
        assert f"process {sidecar.process.pid} goes on serving" in log.read_text()
        sidecar.until_ready()
        assert end(sidecar) == 0


def test_an_app_that_is_a_child_is_not_handed_over(tmp_path, dev_agent):
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with running(tmp_path, dev_agent.url, "name: legacy", command=command) as sidecar:
        sidecar.until_ready()
        with successor(tmp_path, dev_agent.url) as (process, log):
            assert process.wait(15) == 1
        said = f"error: process {sidecar.process.pid} goes on serving: the app is its child (--exec)"
        assert said in log.read_text()
        sidecar.until_ready()


def test_one_that_drains_is_not_replaced(tmp_path, dev_agent):
    with (
        listens() as port,
        running(tmp_path, dev_agent.url, f"name: legacy, port: {port}", more="drain: {wait: 1m}") as sidecar,
    ):
        sidecar.until_ready()
        sidecar.process.terminate()
        wait(lambda: "put into maintenance" in sidecar.log.read_text(), sidecar.log)
        with successor(tmp_path, dev_agent.url) as (process, log):
            assert process.wait(15) == 1
        assert "it is draining: start the new one when it has ended" in log.read_text()


def test_a_command_would_be_started_twice(tmp_path):
    (tmp_path / "s.yaml").write_text("service: {name: legacy}")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "meshsdk.cli",
            "sidecar",
            "-c",
            tmp_path / "s.yaml",
            "--replace",
            "--exec",
            "--",
            "true",
        ],
        env=environment(tmp_path, "http://127.0.0.1:1"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--replace and --exec exclude each other" in done.stderr


# --- the handover itself ----------------------------------------------------------------------------------


@asynccontextmanager
async def offered(place, listening, refusal=""):
    """A running process's side; `replaced` is set when another has taken over."""
    replaced = asyncio.Event()

    async def leave(pid: int) -> None:
        assert pid == os.getpid()
        replaced.set()

    handover = Handover(place, listening, refusal=lambda: refusal, replaced=leave)
    task = asyncio.create_task(handover.run())
    try:
        yield replaced
    finally:
        task.cancel()
        await asyncio.wait({task})
        handover.close()


@pytest.fixture
def many():
    """More listeners than descriptors fit one parcel."""
    found = {f"upstreams.s:{n}": [listener(), listener()] for n in range(40)}
    yield found
    sockets.close(found)


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


async def test_every_socket_arrives_under_its_name(tmp_path, many):
    place = tmp_path / "handover.sock"
    async with offered(place, many) as replaced:
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        before = await asyncio.to_thread(Predecessor.find, place)
        assert before is not None
        assert before.pid == os.getpid()
        addresses = {name: [one.getsockname() for one in each] for name, each in many.items()}
        assert {name: [one.getsockname() for one in each] for name, each in before.held.items()} == addresses
        assert not any(one.get_inheritable() or one.getblocking() for each in before.held.values() for one in each)
        assert not replaced.is_set()
        await before.dismiss()
        assert replaced.is_set()
        sockets.close(before.held)


async def test_nobody_is_there(tmp_path):
    place = tmp_path / "handover.sock"
    assert Predecessor.find(place) is None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))
    assert Predecessor.find(place) is None, "the file of one that was killed"
    async with offered(place, {}):
        assert await found(place)


async def test_a_refusal_says_why(tmp_path):
    place = tmp_path / "handover.sock"
    async with offered(place, {}, "not today") as replaced:
        with pytest.raises(NotReplaced, match="goes on serving: not today"):
            await asyncio.to_thread(Predecessor.find, place)
        assert not replaced.is_set()


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (json.dumps({"take": 2}).encode(), b"by version 2 of the handover, and this process knows 1"),
        (b"[]", b""),
        (b"{", b""),
    ],
)
async def test_who_speaks_otherwise_is_sent_away_and_the_next_is_served(tmp_path, sent, answered):
    place = tmp_path / "handover.sock"
    async with offered(place, {}) as replaced:
        reader, writer = await asyncio.open_unix_connection(place)
        writer.write(struct.pack(">I", len(sent)) + sent)
        assert answered in await reader.read()
        writer.close()
        reader, writer = await asyncio.open_unix_connection(place)
        writer.write(b"\xff\xff\xff\xff")
        assert not await reader.read()
        writer.close()
        assert await found(place)
        assert not replaced.is_set()


async def test_the_place_of_the_next_process_is_left_to_it(tmp_path):
    place = tmp_path / "handover.sock"
    async with offered(place, {}):
        async with offered(place, {}, "the second"):
            pass
        assert not place.exists(), "the second took the name, and removed it"
    async with offered(place, {}):
        first = place.stat().st_ino
        other = Handover(place, {}, refusal=str, replaced=asyncio.sleep)
        assert place.stat().st_ino != first
    assert place.exists(), "it is the other's"
    other.close()
    assert not place.exists()


async def test_descriptors_that_are_short_for_a_while_do_not_end_it(tmp_path, monkeypatch, caplog):
    class Short(socket.socket):
        left = 3

        def accept(self):
            if Short.left:
                Short.left -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    monkeypatch.setattr("meshsdk_sidecar.handover._PAUSE", 0.0)
    monkeypatch.setattr("meshsdk_sidecar.handover.socket.socket", Short)
    async with offered(tmp_path / "s", {}):
        assert await found(tmp_path / "s")
    assert caplog.text.count("no new process can be heard, and so replace this one, for now: [Errno 24]") == 3


async def test_one_that_cannot_even_ask_says_why(tmp_path):
    place = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as busy, ExitStack() as waiting:
        busy.bind(str(place))
        busy.listen(0)
        waiting.enter_context(socket.socket(socket.AF_UNIX)).connect(str(place))
        with pytest.raises(NotReplaced, match="others ask already to replace it"):
            Predecessor.find(place)
    (tmp_path / "file").touch()
    with pytest.raises(NotReplaced, match=r"cannot be asked for anything: .*/file/s: \[Errno 20\] Not a directory"):
        Predecessor.find(tmp_path / "file" / "s")


async def test_what_another_holds_is_known_when_we_end(tmp_path):
    place = tmp_path / "handover.sock"
    handover = Handover(place, {}, refusal=str, replaced=asyncio.sleep)
    task = asyncio.create_task(handover.run())
    assert not handover.under_way
    before = await asyncio.to_thread(Predecessor.find, place)
    assert before is not None
    assert handover.under_way
    before.close()
    while handover.under_way:  # noqa: ASYNC110 - until it is noticed that it gave up
        await asyncio.sleep(0)
    before = await asyncio.to_thread(Predecessor.find, place)
    task.cancel()
    await asyncio.wait({task})
    handover.close()
    assert handover.under_way
    assert before is not None
    before.close()


# --- means ------------------------------------------------------------------------------------------------


async def found(place) -> bool:
    """Whether sockets are handed over; nothing is taken."""
    before = await asyncio.to_thread(Predecessor.find, place)
    if before is not None:
        before.close()
    return before is not None


@contextmanager
def listens():
    with listener() as found:
        yield found.getsockname()[1]


def connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except ConnectionRefusedError:
        return False
    return True


def asked(pages, page: str = "/ready") -> bytes:
    """What a page says at a unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(pages))
        client.sendall(f"GET {page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(4096), b""))
