"""A gateway that replaces another: under load nothing is refused and nothing fails, and systemd is told who serves."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.sidecar.conftest import wait
from tests.sidecar.gateway.edges import HOST, Edge, started, write
from tests.sidecar.restarts import hello, load

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="workers are found in /proc"),
    pytest.mark.asyncio(loop_factories=["asyncio"]),
]


async def ended(edge: Edge, by: Edge) -> None:
    """One process has given way to another."""
    code = await asyncio.to_thread(edge.process.wait, 40)
    assert code == 0, by.log.read_text()
    await by.until_ready()


async def test_restarts_under_load_refuse_nothing(tmp_path, shared_agent, upstream, issuer, file):
    """One process, then two workers, then one that shares with nobody what they had."""
    secured = {"verify": issuer.client(), "sni": HOST, "host": HOST}
    async with upstream(hello) as service:
        ports = write(tmp_path, file, service.name)
        with started(tmp_path, shared_agent, ports) as first, ExitStack() as after:
            await first.until_ready()
            async with (
                load(f"https://127.0.0.1:{first.https}/", **secured) as carried,
                load(f"http://127.0.0.1:{first.http}/", host=HOST) as moved,
            ):
                words = "--workers", "2", "--replace"
                second = after.enter_context(started(tmp_path, shared_agent, ports, *words, log="second.log"))
                await ended(first, second)
                assert len(second.workers()) == 2
                third = after.enter_context(started(tmp_path, shared_agent, ports, "--replace", log="third.log"))
                await ended(second, third)
                assert not third.workers()
            assert "http_client_request_duration_seconds_count" in await third.shown("/metrics"), "it served too"
    assert carried.keys() == {"200"}, carried
    assert moved.keys() == {"301"}, moved
    assert min(carried.total(), moved.total()) > 100
    for log in tmp_path.glob("*.log"):
        assert "Traceback" not in log.read_text(), log
    assert "finished: the process that replaced this one serves alone" in (tmp_path / "second.log").read_text()


async def test_who_cannot_begin_changes_nothing(tmp_path, shared_agent, upstream, issuer, file):
    async with upstream(hello) as service:
        ports = write(tmp_path, file, service.name)
        with started(tmp_path, shared_agent, ports) as edge:
            await edge.until_ready()
            config = tmp_path / "gateway.yaml"
            good = config.read_text()

            # A certificate that is not there.
            config.write_text(good.replace("shop.pem", "nothing.pem"))
            with started(tmp_path, shared_agent, ports, "--replace", log="bad.log") as bad:
                assert await asyncio.to_thread(bad.process.wait, 15) == 2
            assert "certificates[0].cert: " in bad.log.read_text()
            assert "nothing.pem cannot be read: No such file or directory (line " in bad.log.read_text()

            # A Consul that is not there, and an identity that only it gives.
            config.write_text(good)
            variables = {"MESH_IDENTITY": "consul", "MESH_STATE_DIR": str(tmp_path / "other")}
            lost = started(tmp_path, "http://127.0.0.1:1", ports, "--replace", log="lost.log", **variables)
            with lost as late:
                await asyncio.to_thread(
                    wait, lambda: "asks for the listening sockets" in edge.log.read_text(), late.log
                )
                await asyncio.to_thread(wait, lambda: "meshsdk" in late.log.read_text(), late.log)
                late.process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(late.process.wait, 15) == 1, late.log.read_text()
            assert f"process {edge.process.pid} goes on serving" in late.log.read_text()
            assert (await edge.ask(issuer.client())).status == 200
            assert edge.ready()
            edge.process.terminate()
            assert await asyncio.to_thread(edge.process.wait, 15) == 0
            assert not list((tmp_path / "run").glob("*/handover.sock"))


# --- systemd ----------------------------------------------------------------------------------------------


@pytest.fixture
def heard(tmp_path, monkeypatch) -> Iterator[socket.socket]:
    """What systemd has: a socket for datagrams, each with the number of its sender (unix(7), SCM_CREDENTIALS)."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        sock.settimeout(30)
        yield sock


def told(sock: socket.socket) -> tuple[int, list[bytes]]:
    """Who says what: assignments on lines of their own (sd_notify(3))."""
    text, ancillary, _, _ = sock.recvmsg(4096, socket.CMSG_SPACE(12))
    ((_, _, credentials),) = ancillary
    pid, uid, _ = struct.unpack("iII", credentials)
    assert uid == os.getuid()
    return pid, text.split(b"\n")


async def test_systemd_is_told_by_the_main_process_who_the_main_process_is(
    tmp_path, shared_agent, upstream, file, heard
):
    """By `NotifyAccess=main` only the unit's main process is believed (systemd.service(5)): so the one before names the
    next, which says that it is ready when it is the main one. Workers say nothing."""
    async with upstream(hello) as service:
        ports = write(tmp_path, file, service.name, workers=2)
        with started(tmp_path, shared_agent, ports) as first:
            pid = first.process.pid
            assert await asyncio.to_thread(told, heard) == (pid, [b"READY=1"])
            assert len(first.workers()) == 2, "ready is when they serve"
            with started(tmp_path, shared_agent, ports, "--replace", log="next.log") as second:
                new = second.process.pid
                assert await asyncio.to_thread(told, heard) == (pid, [b"MAINPID=%d" % new, b"READY=1"])
                assert await asyncio.to_thread(told, heard) == (new, [b"READY=1"])
                await ended(first, second)
                second.process.terminate()
                assert await asyncio.to_thread(told, heard) == (new, [b"STOPPING=1"])
                assert await asyncio.to_thread(second.process.wait, 15) == 0
                heard.setblocking(False)
                with pytest.raises(BlockingIOError):
                    told(heard)
