"""A Flask application with a slow path."""

from __future__ import annotations

import os
import time

from flask import Flask
from meshed import SERVER

app = Flask(__name__)
SERVER.instrument(app)


@app.get("/who")
def who() -> dict[str, int]:
    return {"pid": os.getpid()}


@app.get("/slow/<float:seconds>")
def slow(seconds: float) -> dict[str, int]:
    time.sleep(seconds)
    return {"pid": os.getpid()}
