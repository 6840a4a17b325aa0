"""A FastAPI application with a slow path and a shutdown hook that says it ran."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from meshed import SERVER


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    if name := os.environ.get("TEST_HOOK_FILE"):
        await asyncio.to_thread(Path(name).write_text, "ran")


app = FastAPI(lifespan=lifespan)
SERVER.instrument(app)


@app.get("/who")
async def who() -> dict[str, int]:
    return {"pid": os.getpid()}


@app.get("/slow/{seconds}")
async def slow(seconds: float) -> dict[str, int]:
    await asyncio.sleep(seconds)
    return {"pid": os.getpid()}
