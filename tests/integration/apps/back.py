"""A Flask service that says what it was sent, and can call the service named in BACK itself."""

from __future__ import annotations

import os
import time
from typing import Any

import spans
from flask import Flask, request

from meshsdk import Mesh

spans.to_file()
mesh = Mesh()
http = mesh.client()
app = Flask("back")
mesh.instrument(app)


@app.get("/who")
def who() -> dict[str, Any]:
    return {"pid": os.getpid(), "port": mesh.settings.port}


@app.get("/echo")
def echo() -> dict[str, Any]:
    return {"pid": os.getpid(), **{name.lower(): value for name, value in request.headers.items()}}


@app.get("/slow/<float:seconds>")
def slow(seconds: float) -> dict[str, Any]:
    left = mesh.deadline()
    time.sleep(seconds)
    return {"deadline": left}


@app.get("/call")
def call() -> dict[str, Any]:
    """Make a mesh call from this worker."""
    status = http.get(f"http://{os.environ['BACK']}/who").status_code
    return {"pid": os.getpid(), "status": status, "connected": [s.service for s in mesh.status() if s.connected]}
