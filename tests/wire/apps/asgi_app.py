"""`answers` for uvicorn: `python asgi_app.py PORT KEEP_ALIVE`."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from answers import answer


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    pieces = []
    if scope["path"] == "/echo":
        while True:
            message = await receive()
            pieces.append(message["body"])
            if not message.get("more_body"):
                break
    found = answer(scope["path"], fields.get("if-none-match", ""), iter(pieces))
    peer = ":".join(map(str, scope["client"]))
    headers = [(name.encode(), value.encode()) for name, value in [*found.headers, ("x-peer", peer)]]
    await send({"type": "http.response.start", "status": found.status, "headers": headers})
    for piece in found.pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    port, keep_alive = map(int, sys.argv[1:])
    uvicorn.run(app, port=port, timeout_keep_alive=keep_alive, lifespan="off", log_level="warning")
