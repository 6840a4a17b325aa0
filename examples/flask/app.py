"""payments: a Flask service that charges orders and asks `checkout` for their amount."""

from __future__ import annotations

import os
import time

from flask import Flask, request

from meshsdk import Mesh

mesh = Mesh("payments")
app = Flask("payments")
mesh.instrument(app)
checkout = mesh.client()


@app.get("/charge/<int:order>")
def charge(order: int) -> dict[str, object]:
    found = checkout.get(f"http://checkout/orders/{order}").raise_for_status().json()
    return {"order": order, "charged": found["amount"], "by": mesh.settings.port}


@app.get("/whoami")
def whoami() -> dict[str, object]:
    return {"service": "payments", "port": mesh.settings.port, "pid": os.getpid()}


@app.get("/slow")
def slow() -> dict[str, object]:
    seconds = min(request.args.get("seconds", 0.1, type=float), 10.0)
    time.sleep(seconds)
    return {"slept": seconds, "left": mesh.deadline()}
