"""WebSockets through a real sidecar: Python's `websockets` on both ends, the upgrade carried out and in again."""

from __future__ import annotations

import asyncio
import http
from functools import partial

import pytest
from websockets.asyncio.client import connect as connect_directly
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.sidecar.clients import in_thread, way_to
from tests.sidecar.conftest import short_folder

connect = partial(connect_directly, subprotocols=["chat"], max_size=None, proxy=None)
LARGE = bytes(range(256)) * 8192  # 2 MiB


def echo(port: int) -> serve:
    async def answer(connection) -> None:
        async for message in connection:
            if message == "close":
                await connection.close(4001, "as asked")
            else:
                await connection.send(message)

    def refused(connection, request):
        if request.path == "/forbidden":
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "not you\n")
        return None

    return serve(answer, "127.0.0.1", port, max_size=None, subprotocols=["chat"], process_request=refused)


@pytest.fixture(scope="module")
def way(shared_agent):
    with in_thread(echo) as app, short_folder() as folder, way_to(app, shared_agent, folder) as found:
        yield found


async def test_messages_pings_and_the_close_go_both_ways(way):
    async with connect(f"ws://127.0.0.1:{way.upstream}/chat") as socket:
        assert socket.subprotocol == "chat"
        for message in ("hello", "", LARGE):
            await socket.send(message)
            assert await socket.recv() == message
        assert await (await socket.ping()) > 0
        await socket.send("close")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as asked")


async def test_many_at_a_time_by_the_upstreams_port_and_by_the_one_for_all(way):
    """The latter as a client does whose name for the service leads there: the Host field says which one."""

    async def one(number: int) -> None:
        port = way.out if number % 2 else way.upstream
        async with connect("ws://api/", host="127.0.0.1", port=port) as socket:
            for turn in range(10):
                await socket.send(f"{number}.{turn}")
                assert await socket.recv() == f"{number}.{turn}"

    await asyncio.gather(*(one(number) for number in range(20)))


async def test_an_upgrade_that_the_app_refuses(way):
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"ws://127.0.0.1:{way.upstream}/forbidden"):
            pass
    assert (refused.value.response.status_code, refused.value.response.body) == (401, b"not you\n")
