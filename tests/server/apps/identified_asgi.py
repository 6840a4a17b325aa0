"""A FastAPI application with a whole Mesh: says who calls."""

from __future__ import annotations

import os

from fastapi import FastAPI

from meshsdk import Mesh

mesh = Mesh()
app = FastAPI()
mesh.instrument(app)


@app.get("/who")
@app.get("/admin/who")
async def who() -> dict[str, str | int | None]:
    return {"peer": mesh.peer(), "pid": os.getpid()}


@app.get("/only")
@mesh.allow(from_=["checkout"])
async def only() -> dict[str, str | None]:
    return {"peer": mesh.peer()}
