"""What a mesh client does around a call is what httpx's own does: each thing is done by both, on the same transport."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from meshsdk.client import MeshTransport, client, library
from tests.client.colours import Blocking, Colour, Mesh
from tests.wire.scripted import Server, answering, reply

Serve = Callable[..., Server]

URL = "http://payments/charge"
OUTSIDE = "http://shop.example.com/"
LATIN = reply("größe".encode("latin-1"), fields=b"content-type: text/plain\r\n")


@asynccontextmanager
async def clients(colour: Colour, mesh: Mesh, egress: Any = None, **options: Any) -> AsyncIterator[tuple[Any, Any]]:
    """A mesh client, and the library's own."""
    transport = colour.transport(mesh, egress=egress)
    kind = "Client" if isinstance(colour, Blocking) else "AsyncClient"
    ours, theirs = getattr(library(colour.httpx), kind), getattr(colour.httpx, kind)
    made = tuple(each(transport=transport, timeout=None, **options) for each in (ours, theirs))
    yield made
    for each in made:
        each.close() if isinstance(colour, Blocking) else await each.aclose()


async def sent(colour: Colour, http: Any, request: Any, **options: Any) -> Any:
    if isinstance(colour, Blocking):
        return await asyncio.to_thread(http.send, request, **options)
    return await http.send(request, **options)


def mock(colour: Colour, answer: Callable[[Any], Any]) -> Any:
    """A transport of the library's."""
    return colour.httpx.MockTransport(answer)


async def test_its_log_has_the_same_lines(colour: Colour, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    mesh = Mesh(serve(answering(b"HTTP/1.1 404 No Such Thing\r\ncontent-length: 0\r\n\r\n")))
    for level, lines in ((logging.INFO, 1), (logging.WARNING, 0)):
        found = []
        async with clients(colour, mesh) as both:
            for http in both:
                caplog.clear()
                with caplog.at_level(level, colour.httpx.__name__):
                    await sent(colour, http, http.build_request("GET", URL))
                found.append([(each.levelname, each.getMessage()) for each in caplog.records if "HTTP Req" in each.msg])
        assert found[0] == found[1]
        assert len(found[0]) == lines


@pytest.mark.parametrize("encoding", ["latin-1", lambda content: "latin-1" if content else "utf-8"])
async def test_text_is_decoded_as_the_client_says(colour: Colour, serve: Serve, encoding: Any) -> None:
    mesh = Mesh(serve(answering(LATIN)))
    async with clients(colour, mesh, default_encoding=encoding) as both:
        for http in both:
            assert (await sent(colour, http, http.build_request("GET", URL))).text == "größe"


@pytest.mark.parametrize("end", ["close", "read", "pieces"])
@pytest.mark.parametrize("url", [URL, OUTSIDE])
async def test_how_long_it_took_is_known_at_its_end(colour: Colour, serve: Serve, end: str, url: str) -> None:
    mesh = Mesh(serve(answering(reply(b"hello"))))
    egress = mock(colour, lambda request: colour.httpx.Response(200, content=colour.Pieces(b"hello")))
    async with clients(colour, mesh, egress) as both:
        for http in both:
            request = http.build_request("GET", url)
            response = await sent(colour, http, request, stream=True)
            assert response.request is request
            with pytest.raises(RuntimeError, match="elapsed"):
                _ = response.elapsed
            if end == "pieces":
                assert b"".join(await colour.pieces(response, "bytes")) == b"hello"
            else:
                await getattr(colour, end)(response)
            first = response.elapsed
            assert first.total_seconds() > 0
            await colour.close(response)
            assert response.elapsed == first
    assert len(mesh.calls) == (2 if url == URL else 0)
    mesh.assert_at_rest()


async def test_errors_know_their_request(colour: Colour, serve: Serve) -> None:
    def fail(request: Any) -> Any:
        raise colour.httpx.ConnectError("nobody")

    mesh = Mesh(serve(answering()))
    async with clients(colour, mesh, mock(colour, fail)) as both:
        for http in both:
            for url in (OUTSIDE, "http://nobody/"):
                request = http.build_request("GET", url)
                with pytest.raises(colour.httpx.ConnectError) as caught:
                    await sent(colour, http, request)
                assert caught.value.request is request


async def test_a_body_of_the_other_colour_is_refused(colour: Colour, serve: Serve) -> None:
    async def pieces() -> Any:
        yield b"x"

    mesh, told = Mesh(serve(answering())), []
    body: Any = pieces() if isinstance(colour, Blocking) else iter([b"x"])
    async with clients(colour, mesh) as both:
        for http in both:
            with pytest.raises(RuntimeError) as caught:
                await sent(colour, http, colour.httpx.Request("POST", URL, content=body))
            told.append(str(caught.value))
    assert told[0] == told[1]
    assert not mesh.calls


async def test_transports_for_some_urls_are_used_for_those(colour: Colour, serve: Serve) -> None:
    mesh = Mesh(serve(answering(reply(b"meshed"))))
    mounts = {"http://other": mock(colour, lambda request: colour.httpx.Response(200, content=b"mounted"))}
    async with clients(colour, mesh, mounts=mounts) as both:
        for http in both:
            for url, content in ((URL, b"meshed"), ("http://other/", b"mounted")):
                assert (await sent(colour, http, http.build_request("GET", url))).content == content


async def test_whoever_replaces_the_choice_of_a_transport_is_asked(
    colour: Colour, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As libraries that answer in place of servers do."""
    kind = colour.httpx.Client if isinstance(colour, Blocking) else colour.httpx.AsyncClient
    answer = mock(colour, lambda request: colour.httpx.Response(200, content=b"mocked"))
    monkeypatch.setattr(kind, "_transport_for_url", lambda self, url: answer)
    mesh = Mesh(serve(answering(reply(b"meshed"))))
    async with clients(colour, mesh) as both:
        for http in both:
            assert (await sent(colour, http, http.build_request("GET", URL))).content == b"mocked"
    assert not mesh.calls


@pytest.mark.parametrize("status", [200, 300, 301, 302, 303, 304, 307, 308, 399, 404])
@pytest.mark.parametrize("fields", [b"", b"location: http://payments/there\r\n"])
async def test_where_a_reply_sends_its_caller(colour: Colour, serve: Serve, status: int, fields: bytes) -> None:
    mesh, found = Mesh(serve(answering(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n%b\r\n" % (status, fields)))), []
    async with clients(colour, mesh) as both:
        for http in both:
            response = await sent(colour, http, http.build_request("GET", URL))
            plain = colour.httpx.Response(status, headers=response.headers)
            assert response.has_redirect_location == plain.has_redirect_location
            found.append(response.next_request and response.next_request.url)
    assert found[0] == found[1]


def test_a_reply_is_as_quickly_forgotten_as_its_caller_forgets_it(serve: Serve) -> None:
    """No circle holds it, also where it was not read."""
    mesh = Mesh(serve(answering(reply(b"hello"))))
    with client(MeshTransport(mesh.directory)) as http, pytest.warns(ResourceWarning, match="never closed"):
        http.send(http.build_request("GET", URL), stream=True)
    mesh.assert_at_rest()
    assert [call.flag for call in mesh.calls] == ["DC"]
