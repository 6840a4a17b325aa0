"""`instrument` on the frameworks: outermost, once, with route templates."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from flask import Blueprint, Flask
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from meshsdk.server.answers import Answer
from meshsdk.server.asgi import MeshASGI
from meshsdk.server.inbound import Intake
from meshsdk.server.instrument import instrument
from meshsdk.server.wsgi import MeshWSGI


def put_around(app: Any, intake: Intake) -> None:
    instrument(app, asgi=lambda inner: MeshASGI(inner, intake), wsgi=lambda inner: MeshWSGI(inner, intake))


def asgi_client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def fastapi_app() -> FastAPI:
    app = FastAPI()
    router = APIRouter(prefix="/shop")

    @router.get("/items/{item}")
    async def item(item: str) -> str:
        return item

    @app.get("/slow")
    async def slow() -> None:
        await asyncio.sleep(30)

    @app.get("/slow-thread")
    def slow_thread() -> str:
        import time

        time.sleep(0.15)
        return "done"

    sub = FastAPI()

    @sub.get("/leaf/{n}")
    async def leaf(n: int) -> int:
        return n

    app.include_router(router)
    app.mount("/sub", sub)
    return app


@pytest.mark.parametrize(
    ("path", "route", "status"),
    [
        ("/shop/items/7", "/shop/items/{item}", 200),
        ("/sub/leaf/3", "/sub/leaf/{n}", 200),
        ("/nowhere", "", 404),
    ],
)
async def test_fastapi_routes(intake: Intake, told: Any, path: str, route: str, status: int) -> None:
    app = fastapi_app()
    put_around(app, intake)
    async with asgi_client(app) as http:
        assert (await http.get(path)).status_code == status
    assert (told.only().route, told.only().status) == (route, status)


async def test_starlette_routes(intake: Intake, told: Any) -> None:
    async def answer(request: Any) -> PlainTextResponse:
        return PlainTextResponse("ok")

    deep = Mount("/n/{n}", routes=[Route("/e/{e}", answer)])
    inner = Mount("/m/{tenant}", routes=[Route("/c/{d}", answer), deep])
    app = Starlette(routes=[Route("/a/{b}", answer), inner])
    put_around(app, intake)
    async with asgi_client(app) as http:
        await http.get("/a/1")
        await http.get("/m/blue/c/2")
        await http.get("/m/m/n/n/e/e")
    assert [event.route for event in told.ended] == ["/a/{b}", "/m/{tenant}/c/{d}", "/m/{tenant}/n/{n}/e/{e}"]


@pytest.mark.parametrize("path", ["/slow", "/slow-thread"])
async def test_deadline_through_fastapi(intake: Intake, told: Any, path: str) -> None:
    app = fastapi_app()
    put_around(app, intake)
    async with asgi_client(app) as http:
        reply = await http.get(path, headers={"x-envoy-expected-rq-timeout-ms": "50"})
    assert reply.status_code == 504
    assert "50 ms" in reply.text
    assert (told.only().flag, told.only().route) == ("UT", path)


async def test_it_stays_outermost(make_intake: Any) -> None:
    app = fastapi_app()
    put_around(app, make_intake(pages={"/-/mesh/ready": lambda: Answer(200, b"ready\n")}))

    async def nobody_passes(request: Any, call_next: Any) -> Any:
        return PlainTextResponse("login first", 401)

    app.add_middleware(BaseHTTPMiddleware, dispatch=nobody_passes)
    app.middleware("http")(nobody_passes)
    async with asgi_client(app) as http:
        assert (await http.get("/-/mesh/ready")).text == "ready\n"
        assert (await http.get("/shop/items/7")).status_code == 401


async def test_twice_is_once(intake: Intake, told: Any) -> None:
    app = fastapi_app()
    put_around(app, intake)
    put_around(app, intake)
    async with asgi_client(app) as http:
        await http.get("/shop/items/7")
    assert told.only().status == 200
    flask = flask_app()
    put_around(flask, intake)
    put_around(flask, intake)
    assert flask.test_client().get("/items/7", buffered=True).status_code == 200
    assert len(told.ended) == 2


async def test_failure_in_fastapi(intake: Intake, told: Any) -> None:
    app = FastAPI()

    @app.get("/broken")
    async def broken() -> None:
        raise LookupError("x")

    put_around(app, intake)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await http.get("/broken")).status_code == 500
    assert (told.only().status, told.only().error_type, told.only().route) == (500, "LookupError", "/broken")


def flask_app() -> Flask:
    app = Flask(__name__)
    shop = Blueprint("shop", __name__, url_prefix="/shop")

    @shop.get("/orders/<int:order>")
    def order(order: int) -> str:
        return str(order)

    @app.get("/items/<item>")
    def item(item: str) -> str:
        return item

    @app.get("/broken")
    def broken() -> str:
        raise LookupError("x")

    app.register_blueprint(shop)
    return app


@pytest.mark.parametrize(
    ("path", "route", "status"),
    [
        ("/items/7", "/items/<item>", 200),
        ("/shop/orders/3", "/shop/orders/<int:order>", 200),
        ("/nowhere", "", 404),
        ("/broken", "/broken", 500),
    ],
)
def test_flask_routes(intake: Intake, told: Any, path: str, route: str, status: int) -> None:
    app = flask_app()
    put_around(app, intake)
    assert app.test_client().get(path, buffered=True).status_code == status
    assert (told.only().route, told.only().status) == (route, status)


def test_flask_route_is_told_although_a_hook_answers(intake: Intake, told: Any) -> None:
    app = flask_app()

    @app.before_request
    def nobody_passes() -> tuple[str, int]:
        return "login first", 401

    put_around(app, intake)
    assert app.test_client().get("/items/7", buffered=True).status_code == 401
    assert told.only().route == "/items/<item>"


def test_other_objects_are_refused_with_the_way_out(intake: Intake) -> None:
    async def bare(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    with pytest.raises(
        TypeError, match=r"not builtins.function: wrap an ASGI application with `app = mesh.asgi\(app\)`"
    ):
        put_around(bare, intake)


def test_no_framework_is_imported_by_itself() -> None:
    script = (
        "import sys, meshsdk.server.server; print([m for m in ('flask', 'starlette', 'fastapi') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
