"""Puts the mesh around an application object of FastAPI, Starlette or Flask, through their public interfaces."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from meshsdk.server.asgi import ASGIApp
from meshsdk.server.wsgi import ROUTE, WSGIApp

__all__ = ["instrument"]

MARK = "_meshsdk_instrumented"


def instrument(app: Any, *, asgi: Callable[[ASGIApp], ASGIApp], wsgi: Callable[[WSGIApp], WSGIApp]) -> None:
    """Put the mesh around `app`, in place. A second time changes nothing.

    Args:
        app: a FastAPI, Starlette or Flask application.
        asgi, wsgi: wrap a bare callable.

    Raises:
        TypeError: it is none of them; says what to use instead.
    """
    if _is_a(app, "starlette.applications", "Starlette"):
        _once(app, lambda: _starlette(app, asgi))
    elif _is_a(app, "flask", "Flask"):
        _once(app, lambda: _flask(app, wsgi))
    else:
        raise TypeError(
            f"instrument() knows FastAPI, Starlette and Flask, not {type(app).__module__}.{type(app).__qualname__}: "
            "wrap an ASGI application with `app = mesh.asgi(app)`, a WSGI application with `app = mesh.wsgi(app)`"
        )


def _is_a(app: Any, module: str, name: str) -> bool:
    """Without an import of ours: while nobody has imported the framework, no application of it exists."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(app, kind)


def _once(app: Any, act: Callable[[], None]) -> None:
    if not getattr(app, MARK, False):
        act()
        setattr(app, MARK, True)


def _starlette(app: Any, asgi: Callable[[ASGIApp], ASGIApp]) -> None:
    """As the outermost middleware, and it stays outermost: probes and metrics must not end at somebody's login.

    Raises:
        RuntimeError: the application has served already (Starlette's own).
    """
    add = app.add_middleware
    add(asgi)
    ours = app.user_middleware[0]

    def add_inside(*args: Any, **kwargs: Any) -> None:
        add(*args, **kwargs)
        app.user_middleware.remove(ours)
        app.user_middleware.insert(0, ours)

    app.add_middleware = add_inside


def _flask(app: Any, wsgi: Callable[[WSGIApp], WSGIApp]) -> None:
    from flask import request, request_started

    def tell_route(_sender: Any, **_: Any) -> None:
        if request.url_rule is not None:
            request.environ[ROUTE] = request.url_rule.rule

    # The signal is sent before any hook of the application could answer; weak references would lose the closure.
    request_started.connect(tell_route, app, weak=False)
    app.wsgi_app = wsgi(app.wsgi_app)
