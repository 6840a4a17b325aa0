"""`@mesh.allow` on handlers of each framework: 403 in the framework's own words, and told as a refusal."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from meshsdk.errors import AccessDenied
from meshsdk.identity.spiffe import SpiffeId
from meshsdk.server.allow import narrowed
from meshsdk.server.asgi import MeshASGI
from meshsdk.server.wsgi import MeshWSGI
from tests.identity.certificates import DOMAIN, id_of


def allow(*sources: str) -> Any:
    return lambda handler: narrowed(handler, sources, lambda: DOMAIN)


def called_by(app: Any, service: str | None) -> Any:
    """The application as a server of ours would call it."""

    async def served(scope: Any, receive: Any, send: Any) -> None:
        extensions = {} if service is None else {"meshsdk.peer": SpiffeId.parse(id_of(service))}
        await app({**scope, "extensions": extensions}, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(served), base_url="http://x")


def fastapi() -> Any:
    app = FastAPI()

    @app.get("/sync/{item}")
    @allow("checkout")
    def of_threads(item: int) -> dict[str, int]:
        return {"item": item}

    @app.get("/async/{item}")
    @allow("checkout")
    async def of_tasks(item: int) -> dict[str, int]:
        return {"item": item}

    return app


def starlette() -> Any:
    @allow("checkout")
    async def handler(request: Any) -> Any:
        return PlainTextResponse(request.path_params["item"])

    return Starlette(routes=[Route("/sync/{item}", handler), Route("/async/{item}", handler)])


async def bare(scope: Any, receive: Any, send: Any) -> None:
    @allow("checkout")
    async def handler() -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})

    await handler()


@pytest.mark.parametrize("app", [fastapi, starlette, lambda: bare], ids=["fastapi", "starlette", "bare"])
async def test_handlers_of_asgi(app: Any, make_intake: Any, told: Any) -> None:
    meshed = MeshASGI(app(), make_intake())
    for path in ("/sync/7", "/async/7"):
        async with called_by(meshed, "checkout") as http:
            assert (await http.get(path)).status_code == 200
        for service in ("guest", None):
            async with called_by(meshed, service) as http:
                reply = await http.get(path)
            assert reply.status_code == 403
            assert "may not do this here" in reply.text
    assert [(event.status, event.flag) for event in told.ended] == [(200, ""), (403, "UAEX"), (403, "UAEX")] * 2
    assert told.ended[1].rule.startswith("@mesh.allow on ")


def flask_app() -> Any:
    app = Flask("shop")

    @app.get("/<int:item>")
    @allow("checkout", "anonymous")
    def either(item: int) -> dict[str, int]:
        return {"item": item}

    @app.get("/only")
    @allow("checkout")
    def only() -> str:
        return "fine"

    return app


def bare_wsgi(environ: Any, start_response: Any) -> Any:
    if environ["PATH_INFO"] == "/only":
        allow("checkout")(lambda: None)()
    start_response("200 OK", [])
    return [b"fine"]


@pytest.mark.parametrize("app", [flask_app, lambda: bare_wsgi], ids=["flask", "bare"])
def test_handlers_of_wsgi(app: Any, make_intake: Any, told: Any) -> None:
    with httpx.Client(transport=httpx.WSGITransport(MeshWSGI(app(), make_intake())), base_url="http://x") as http:
        assert http.get("/7").status_code == 200
        reply = http.get("/only")
    assert reply.status_code == 403
    assert "may not do this here" in reply.text
    assert [(event.status, event.flag) for event in told.ended] == [(200, ""), (403, "UAEX")]


def test_outside_of_a_request_nobody_calls() -> None:
    with pytest.raises(AccessDenied, match="without a verified identity"):
        allow("checkout")(lambda: 1)()
    assert allow("anonymous")(lambda: 1)() == 1


@pytest.mark.parametrize("source", ["", "Check out", "spiffe://", "https://x"])
def test_sources_that_name_nobody_are_refused_at_once(source: str) -> None:
    with pytest.raises(ValueError, match=r"@mesh\.allow on"):
        allow(source)(lambda: 1)
