"""A mesh port in the test's own loop: certificates, an application that says who called, and raw clients."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from meshsdk.identity.contexts import client_context, server_context
from meshsdk.identity.material import Material
from meshsdk.identity.verifying import Refusals
from meshsdk.server.asgi import MeshASGI
from meshsdk.server.inbound import Intake
from meshsdk.server.listener import Listener
from meshsdk.server.protocol import Serving
from tests.identity.certificates import Pair, issue, leaf, material, unchecked
from tests.real_consul import free_ports

ROOT = issue("root")


def of(pair: Pair, *roots: Pair) -> ssl.SSLContext:
    """A client that shows whatever it has."""
    return client_context(unchecked(pair, *(roots or (ROOT,))))


CHECKOUT = of(leaf("checkout", ROOT))
GUEST = of(leaf("guest", ROOT))


@dataclass
class MeshPort:
    """An open mesh port."""

    port: int
    listener: Listener
    refusals: Refusals
    seen: list[Any] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Says who called; `/wait` waits until the test lets go."""
        self.seen.append(scope)
        if scope["path"] == "/wait":
            await self.release.wait()
        extensions = scope.get("extensions") or {}
        body = json.dumps(
            {
                "peer": str(extensions.get("meshsdk.peer", "")),
                "chain": len((extensions.get("tls") or {}).get("client_cert_chain", ())),
                "xfcc": [value.decode() for name, value in scope["headers"] if name == b"x-forwarded-client-cert"],
            }
        ).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def called(self) -> None:
        """Until the application has been."""
        async with asyncio.timeout(5):
            while not self.seen:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def connect(
        self, context: ssl.SSLContext | None = CHECKOUT
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        more: dict[str, Any] = {} if context is None else {"ssl": context, "server_hostname": "shop"}
        return await asyncio.open_connection("127.0.0.1", self.port, **more)

    async def raw(self, data: bytes, context: ssl.SSLContext | None = CHECKOUT) -> bytes:
        """Everything that comes back; empty where the connection is refused or broken off."""
        try:
            reader, writer = await self.connect(context)
        except (OSError, asyncio.IncompleteReadError):
            return b""
        try:
            writer.write(data)
            return await asyncio.wait_for(reader.read(), 10)
        except OSError:
            return b""
        finally:
            writer.close()

    async def get(self, target: str, context: ssl.SSLContext | None = CHECKOUT, headers: str = "") -> tuple[int, str]:
        request = f"GET {target} HTTP/1.1\r\nhost: shop\r\n{headers}connection: close\r\n\r\n"
        head, _, body = (await self.raw(request.encode(), context)).partition(b"\r\n\r\n")
        return (int(head.split()[1]) if head else 0), body.decode()


@asynccontextmanager
async def mesh_port(
    intake: Intake, *, strict: Callable[[], bool] = lambda: False, own: Material | None = None
) -> AsyncIterator[MeshPort]:
    """Open one around an application."""
    refusals = Refusals()
    context = server_context(own or material("shop", ROOT), refusals=refusals)
    found: list[MeshPort] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await found[0].app(scope, receive, send)

    serving = Serving(MeshASGI(app, intake), {})
    listener = Listener(serving, context=context, strict=strict, host="127.0.0.1", port=free_ports(1)[0])
    await listener.open(alone=True)
    found.append(MeshPort(listener.port, listener, refusals))
    try:
        yield found[0]
    finally:
        found[0].release.set()
        await listener.close(2.0)
