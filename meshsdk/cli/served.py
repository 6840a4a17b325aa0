"""What the servers import for `meshsdk run` where an application has no Mesh: the application with one around it.

The attribute `app` is made when it is first asked for, in each worker, from MESH_* settings.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from meshsdk.cli.target import load_target, spoken
from meshsdk.config import run_target
from meshsdk.mesh import Mesh

__all__: list[str] = []


def __getattr__(name: str) -> Any:
    if name == "app":
        return _app()
    raise AttributeError(name)


@cache
def _app() -> Any:
    app, mesh = load_target(run_target()), Mesh()
    return mesh.asgi(app) if spoken(app) == "asgi" else mesh.wsgi(app)
