"""What the application gets of a request's headers: what was judged, and nothing that looks like the mesh's word."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from meshsdk.core.access import Access, Rule
from meshsdk.core.request import Header
from meshsdk.server.forwarded import SPELLINGS, XFCC
from tests.server import mesh_port as mp
from tests.server.test_guard import Asgi, Wsgi, guard

FORGED = "URI=spiffe://test.consul/admin"
NO_BETA = Access("allow", (Rule("no beta", "deny", headers=(Header("x-beta", present=True),)),))


async def answering(scope: Any, receive: Any, send: Any) -> None:
    """Says which headers there are once all of the body is here."""
    while (await receive()).get("more_body"):
        pass
    body = json.dumps([name.decode() for name, _ in scope["headers"]]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def test_trailers_are_not_shown_as_headers_nobody_judged(make_intake: Any) -> None:
    async with mp.mesh_port(make_intake(guard=guard(access=NO_BETA))) as port:
        reached = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            reached.set()
            await answering(scope, receive, send)

        port.app = app  # type: ignore[method-assign]
        reader, writer = await port.connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n")
        async with asyncio.timeout(10):
            await reached.wait()
            writer.write(b"2\r\nhi\r\n0\r\nx-forwarded-client-cert: URI=spiffe://x/admin\r\nx-beta: 1\r\n\r\n")
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    assert head.split()[1] == b"200"
    assert json.loads(body) == ["host", "transfer-encoding", "connection"]


@pytest.mark.parametrize("name", sorted(SPELLINGS))
async def test_no_spelling_of_the_certificates_header_is_shown(make_intake: Any, name: bytes) -> None:
    assert name.replace(b"_", b"-") == XFCC
    asking = Asgi(make_intake())
    await asking.ask("/", ((b"x-a", b"1"), (name, FORGED.encode())))
    assert asking.scopes[0]["headers"] == [(b"x-a", b"1")]


async def test_what_a_framework_leaves_in_the_scope_is_seen_around_the_mesh(make_intake: Any) -> None:
    asking = Asgi(make_intake())
    given: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [[b"x-a", b"1"]],
        "scheme": "http",
    }

    async def nothing(*_: Any) -> Any:
        return {"type": "http.request"}

    await asking.app(given, nothing, nothing)
    assert asking.scopes[0] is given


async def test_a_rule_sees_a_header_that_is_written_with_underscores(make_intake: Any) -> None:
    asking = Asgi(make_intake(guard=guard(access=NO_BETA)))
    for name in (b"x-beta", b"x_beta"):
        assert (await asking.ask("/", ((name, b"1"),)))[0] == 403
    assert (await asking.ask("/", ((b"xbeta", b"1"), (b"x-beta-2", b"1"))))[0] == 200
    with_role = Access("allow", (Rule("role", "allow", headers=(Header("x-role", exact="admin"),)),))
    asking = Asgi(make_intake(guard=guard(access=with_role)))
    assert (await asking.ask("/", ((b"x-role", b"admin"),)))[0] == 200
    assert (await asking.ask("/", ((b"x_role", b"admin"),)))[0] == 403
    assert (await asking.ask("/", ((b"x-role", b"admin"), (b"x_role", b"guest"))))[0] == 403


def test_wsgi_rules_see_content_type_and_length(make_intake: Any) -> None:
    xml = Rule("no xml", "deny", headers=(Header("content-type", prefix="application/xml"),))
    empty = Rule("no length", "deny", headers=(Header("content-length", present=False),))
    asking = Wsgi(make_intake(guard=guard(access=Access("allow", (xml, empty)))))
    assert asking.ask("/", CONTENT_TYPE="application/xml", CONTENT_LENGTH="2")[0] == "403 Forbidden"
    assert asking.ask("/", CONTENT_TYPE="application/json", CONTENT_LENGTH="2")[0] == "200 OK"
    assert asking.ask("/", CONTENT_TYPE="", CONTENT_LENGTH="0")[0] == "200 OK"
    assert asking.ask("/", CONTENT_TYPE="", CONTENT_LENGTH="")[0] == "403 Forbidden"
