"""A FastAPI service that calls the one named in BACK, in every way a handler can."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import spans
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from meshsdk import Mesh

spans.to_file()
mesh = Mesh()
http, blocking = mesh.async_client(), mesh.client()
executor = ThreadPoolExecutor(2)
seen: list[dict[str, Any]] = []
BACK = os.environ.get("BACK", "nobody")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with http:
        yield
    blocking.close()
    executor.shutdown()


app = FastAPI(lifespan=lifespan)
mesh.instrument(app)


@app.get("/who")
async def who() -> dict[str, Any]:
    return {"pid": os.getpid(), "port": mesh.settings.port}


def call_blocking() -> Any:
    return blocking.get(f"http://{BACK}/echo").json()


async def call() -> Any:
    return (await http.get(f"http://{BACK}/echo")).json()


async def in_plain_thread() -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call_blocking()))
    thread.start()
    await asyncio.to_thread(thread.join)
    return found[0]


WAYS: dict[str, Callable[[], Any]] = {
    "await": call,
    "task": lambda: asyncio.create_task(call()),
    "to-thread": lambda: asyncio.to_thread(call_blocking),
    "executor": lambda: asyncio.wrap_future(executor.submit(call_blocking)),
    "thread": in_plain_thread,
}


@app.get("/through/{way}")
async def through(way: str) -> Any:
    return await WAYS[way]()


@app.get("/sync-handler")
def sync_handler() -> Any:
    return call_blocking()


@app.get("/slow/{seconds}")
async def slow(seconds: float) -> Any:
    seen.append(note := {"deadline": mesh.deadline(), "ended": ""})
    try:
        answer = await http.get(f"http://{BACK}/slow/{seconds}")
    except BaseException as error:
        note["ended"] = type(error).__name__
        raise
    note["ended"] = "answered"
    return answer.json()


@app.get("/seen")
async def get_seen() -> list[dict[str, Any]]:
    return seen


@app.api_route("/die", methods=["GET", "POST"])
async def die(request: Request) -> None:
    """Read the request to its end, say so where DIARY says, and be gone."""
    await request.body()
    with open(os.environ["DIARY"], "a") as diary:  # noqa: ASYNC230 - this process has nothing else left to do
        diary.write(f"{request.method} {mesh.settings.port}\n")
    os._exit(9)


@app.get("/fork")
def fork() -> dict[str, int | None]:
    """Have a child by fork, which makes a call and ends as a Python program ends."""
    child = multiprocessing.get_context("fork").Process(target=call_blocking)
    child.start()
    child.join(10)
    return {"code": child.exitcode}


@app.post("/upload")
async def upload(request: Request) -> dict[str, int]:
    return {"bytes": sum([len(piece) async for piece in request.stream()])}


@app.get("/download/{mebibytes}")
async def download(mebibytes: int) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(mebibytes * 16):
            yield b"x" * 65536

    return StreamingResponse(pieces())
