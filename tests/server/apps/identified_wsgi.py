"""A Flask application with a whole Mesh: says who calls."""

from __future__ import annotations

import os

from flask import Flask, request

from meshsdk import Mesh

mesh = Mesh()
app = Flask("shop")
mesh.instrument(app)


@app.get("/who")
@app.get("/admin/who")
def who() -> dict[str, str | int | None]:
    return {"peer": mesh.peer(), "pid": os.getpid(), "scheme": request.scheme}


@app.get("/only")
@mesh.allow(from_=["checkout"])
def only() -> dict[str, str | None]:
    return {"peer": mesh.peer()}


if __name__ == "__main__":
    app.run(port=mesh.settings.port, threaded=True, ssl_context=mesh.ssl_context())
