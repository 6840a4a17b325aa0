"""checkout: a FastAPI service that takes orders and has `payments` charge them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from meshsdk import Mesh

mesh = Mesh("checkout")
payments = mesh.async_client()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with payments:
        yield


app = FastAPI(lifespan=lifespan)
mesh.instrument(app)


@app.get("/orders/{order}")
async def get_order(order: int) -> dict[str, int]:
    return {"order": order, "amount": 100 + order % 900}


@app.get("/buy/{order}")
async def buy(order: int) -> dict[str, object]:
    answer = await payments.get(f"http://payments/charge/{order}")
    return {"order": order, "payment": answer.raise_for_status().json()}


@app.get("/whoami")
async def whoami() -> dict[str, object]:
    return {"service": "checkout", "port": mesh.settings.port, "pid": os.getpid()}
