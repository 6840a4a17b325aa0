"""An instance of the service `shop` under FastAPI."""

from __future__ import annotations

import asyncio
import os

from fastapi import FastAPI

from meshsdk import Mesh

app = FastAPI()
Mesh("shop").instrument(app)


@app.api_route("/work", methods=["GET", "POST"])
async def work() -> dict[str, object]:
    await asyncio.sleep(0.02)
    return {"server": "uvicorn", "pid": os.getpid()}
