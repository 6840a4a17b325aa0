"""A body that is here already is read in one step; nobody can tell, by what is there afterwards."""

from __future__ import annotations

import asyncio
import gc
import gzip
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.colours import Colour, Mesh
from tests.wire.scripted import Server, answering, eventually, reply

Serve = Callable[..., Server]


URL = "http://payments/charge"

# Facts of a reply that was read; `elapsed` is looked at by itself, as it differs from run to run.
FACTS = ("status_code", "content", "text", "encoding", "num_bytes_downloaded", "is_closed", "is_stream_consumed")


def facts(response: Any) -> dict[str, Any]:
    return {name: getattr(response, name) for name in FACTS}


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read as httpx does."""
    monkeypatch.setattr("meshsdk.client.response._Whole._take_whole", lambda self: False)


BODIES = {
    "bytes": reply(b"hello"),
    "none": reply(b""),
    "encoded": reply(gzip.compress(b"hello"), fields=b"content-encoding: gzip\r\n"),
    "text": reply("größe".encode(), fields=b"content-type: text/plain; charset=utf-8\r\n"),
    "chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("body", BODIES)
async def test_the_same_facts_either_way(
    colour: Colour, serve: Serve, body: str, request: pytest.FixtureRequest
) -> None:
    mesh = Mesh(serve(answering(BODIES[body])))
    async with colour.client(mesh) as http:
        quick = await http.get(URL)
        request.getfixturevalue("slow")
        usual = await http.get(URL)
    assert facts(quick) == facts(usual)
    assert quick.elapsed.total_seconds() > 0
    assert len(mesh.calls) == 2
    mesh.assert_at_rest()


@pytest.mark.parametrize("body", BODIES)
async def test_all_of_a_call_goes_with_its_reply(colour: Colour, serve: Serve, body: str) -> None:
    """Nothing waits for the collector of circles."""
    async with colour.client(Mesh(serve(answering(BODIES[body])))) as http:
        await http.get(URL)
        gc.collect()
        gc.disable()
        try:
            response = await http.get(URL)
            there = [weakref.ref(each) for each in (response, response.request, response.stream)]
            del response
            # A thread may hold on to what it did for a moment more.
            await asyncio.to_thread(eventually, lambda: not any(ref() for ref in there))
        finally:
            gc.enable()


async def test_it_has_what_every_reply_of_the_library_has(colour: Colour, serve: Serve) -> None:
    """And nothing of another one's."""
    async with colour.client(Mesh(serve(answering(reply(b"hello"))))) as http:
        first, second = await http.begin("GET", URL), await http.begin("GET", URL)
        plain = colour.httpx.Response(200, headers=first.headers.raw, stream=first.stream, request=first.request)
        assert vars(first).keys() - {"reply", "started"} == vars(plain).keys()
        names = {*vars(plain)} - {"headers", "extensions", "stream"}
        assert {name: vars(first)[name] for name in names} == {name: vars(plain)[name] for name in names}
        assert first.headers == plain.headers
        assert vars(first.headers) == vars(plain.headers)
        for name in ("headers", "extensions", "history"):
            assert getattr(first, name) is not getattr(second, name)
        await colour.close(first)
        await colour.close(second)


async def test_a_reply_that_is_kept_keeps_no_connection(colour: Colour, serve: Serve) -> None:
    async with colour.client(Mesh(serve(answering(reply(b"hello"))))) as http:
        response = await http.get(URL)
    assert type(response.stream) is colour.httpx.ByteStream
    assert (await colour.read(response), response.content) == (b"hello", b"hello")


async def test_a_reply_travels(colour: Colour, serve: Serve) -> None:
    async with colour.client(Mesh(serve(answering(reply(b"hello"))))) as http:
        response = await http.get(URL)
    copy = pickle.loads(pickle.dumps(response))
    assert type(copy) is colour.httpx.Response
    assert (copy.status_code, copy.content, copy.headers) == (200, b"hello", response.headers)


async def test_cookies_are_kept_where_a_reply_sets_some(colour: Colour, serve: Serve) -> None:
    server = serve(answering(reply(b""), reply(b"", fields=b"set-cookie: a=b\r\n"), reply(b"")))
    async with colour.client(Mesh(server), cookies={"mine": "1"}) as http:
        for _ in range(3):
            await http.get(URL)
    assert [b"a=b" in head for head in server.heads] == [False, False, True]
    assert all(b"mine=1" in head for head in server.heads)
