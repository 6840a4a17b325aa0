"""Flask's development server, a forked child of a serving process, and metrics on a port of their own."""

from __future__ import annotations

import multiprocessing
import os
import time

from wsgi_app import app


def idle(seconds: float) -> None:
    """What a child does that is no worker: something else, and then it ends."""
    time.sleep(seconds)


@app.get("/fork")
def fork() -> dict[str, int | None]:
    child = multiprocessing.get_context("fork").Process(target=idle, args=(30,))
    child.start()
    return {"pid": child.pid}


if __name__ == "__main__":
    app.run(port=int(os.environ["MESH_PORT"]), threaded=True)
