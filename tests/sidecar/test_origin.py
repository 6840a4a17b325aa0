"""Whose the other end of a connection is: ours, another process's, or nobody's any more."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
import time

import pytest
import uvloop

from meshsdk.wire.aio.watch import Watch
from meshsdk_sidecar.admin import Admin, Pages
from meshsdk_sidecar.origin import is_ours

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

OTHER = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as client:
    print(client.getsockname()[1], flush=True)
    sys.stdin.read()
"""


def test_a_connection_of_our_own_is_known():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        here = listening.getsockname()
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::ffff:127.0.0.1")):
            with socket.socket(family) as client:
                client.connect((address, here[1]))
                assert is_ours(("127.0.0.1", client.getsockname()[1]), here)
        command = [sys.executable, "-S", "-c", OTHER, str(here[1])]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            port = int(other.stdout.readline())
            assert not is_ours(("127.0.0.1", port), here)
            assert is_ours(("127.0.0.1", port), here, [other.pid])
            assert is_ours(("127.0.0.1", port), ("127.0.0.1", 1)), "no such connection is open: it may have been ours"
            other.communicate(b"end")


def test_what_is_closed_already_counts_as_ours():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        for how in (_left, _reset):
            client = socket.create_connection(listening.getsockname())
            peer = client.getsockname()
            how(client)
            assert is_ours(peer, listening.getsockname())


@pytest.mark.parametrize("how", ["left", "reset"])
@pytest.mark.parametrize("loop", LOOPS)
def test_its_request_can_be_read_and_changes_nothing(loop, how):
    listening = socket.create_server(("127.0.0.1", 0))
    drains: list[str] = []
    pages = Pages(None, unready=str, drain=lambda: drains.append("began"))
    asked = b"POST /drain HTTP/1.1\r\nHost: localhost\r\n\r\n"

    async def main() -> None:
        early = socket.create_connection(listening.getsockname())
        early.sendall(asked)
        {"left": _left, "reset": _reset}[how](early)
        admin = Admin(pages, pages.all)
        await admin.open([listening], Watch(asyncio.get_running_loop(), time.monotonic), time.monotonic)
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(asked)
        assert b" 403 " in await reader.readline()  # the one before was looked at before
        writer.close()
        admin.close()
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())
    assert drains == []


def _left(client: socket.socket) -> None:
    client.close()


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
