"""A caller that forks a child with multiprocessing: both make mesh calls at the same time; prints what came of them."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
from typing import Any

from meshsdk import Mesh

TARGET = os.environ["BACK"]


def calls(mesh: Mesh, count: int) -> list[str]:
    found = []
    with mesh.client() as http:
        for _ in range(count):
            try:
                found.append(str(http.get(f"http://{TARGET}/who").status_code))
            except Exception as error:
                found.append(repr(error))
    return found


def child(mesh: Mesh, pipe: Any) -> None:
    found = calls(mesh, 200)
    watchers = [thread.name for thread in threading.enumerate()]
    pipe.send({"calls": found, "connected": [s.service for s in mesh.status() if s.connected], "threads": watchers})


def main() -> None:
    mesh = Mesh("forking", port=None)
    before = calls(mesh, 20)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(mesh, theirs))
    process.start()
    during = calls(mesh, 200)
    told = ours.recv()
    process.join(10)
    after = calls(mesh, 20)
    connected = [status.service for status in mesh.status() if status.connected]
    json.dump(
        {"parent": before + during + after, "child": told, "code": process.exitcode, "connected": connected}, sys.stdout
    )
    mesh.close()


if __name__ == "__main__":
    main()
