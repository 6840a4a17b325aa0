"""An instance of the service `shop` under Flask."""

from __future__ import annotations

import os
import time

from flask import Flask

from meshsdk import Mesh

app = Flask("shop")
Mesh("shop").instrument(app)


@app.route("/work", methods=["GET", "POST"])
def work() -> dict[str, object]:
    time.sleep(0.02)
    return {"server": "gunicorn", "pid": os.getpid()}
