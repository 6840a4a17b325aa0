"""Tokens of end users in both adapters: what is answered, what the application sees, and what is told of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from meshsdk import Mesh
from meshsdk.core.access import Access, Rule
from meshsdk.core.plan import Plan
from meshsdk.core.tokens import Issuer, Jwt
from meshsdk.discovery.background import Background
from meshsdk.policy.effective import effective
from meshsdk.server.asgi import MeshASGI
from meshsdk.server.guard import Guard
from meshsdk.server.wsgi import MeshWSGI
from meshsdk.telemetry.context import current
from meshsdk.tokens import Tokens
from tests.tokens.issuing import AUDIENCE, NAME, by_hand, claims, jwk, jwks, token

OPEN = effective("", "shop", None, None)


@dataclass
class Service:
    """A service of both kinds whose policy the test changes."""

    intake: Any
    tokens: Tokens
    policy: Jwt
    plan: Plan = OPEN

    def ask_for(self, **more: Any) -> None:
        self.plan = replace(OPEN, jwt=replace(self.policy, **more))

    async def known(self) -> None:
        await self.tokens.await_known(self.plan.jwt, 10)

    async def get(self, path: str, *values: str, asgi: bool) -> httpx.Response:
        headers = [("authorization", value) for value in values]
        transport: Any = httpx.ASGITransport(MeshASGI(asgi_app, self.intake))
        if asgi:
            async with httpx.AsyncClient(transport=transport, base_url="http://shop") as http:
                return await http.get(path, headers=headers)
        joined = {"authorization": ",".join(values)} if values else {}  # as WSGI servers do
        with httpx.Client(
            transport=httpx.WSGITransport(MeshWSGI(wsgi_app, self.intake)), base_url="http://shop"
        ) as http:
            return http.get(path, headers=joined)


def says() -> str:
    inbound = current.get()
    return "nobody" if inbound is None or inbound.claims is None else inbound.claims["sub"]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": says().encode()})


def wsgi_app(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    return [says().encode()]


@pytest.fixture
def service(make_intake: Any, tmp_path: Path) -> Iterator[Service]:
    background = Background("bearer-test")
    (tmp_path / "keys.json").write_bytes(jwks())
    tokens = Tokens(background, file_period=0.01)
    policy = Jwt((Issuer(NAME, str(tmp_path / "keys.json"), (AUDIENCE,)),), required=True)
    made: Any = None
    intake = make_intake(guard=Guard(lambda: made.plan, tokens=tokens))
    made = Service(intake, tokens, policy)
    made.ask_for()
    yield made
    background.stop()


both = pytest.mark.parametrize("asgi", [True, False], ids=["asgi", "wsgi"])


@both
async def test_a_good_token_tells_the_application_who_it_is(service: Service, told: Any, asgi: bool) -> None:
    await service.known()
    answer = await service.get("/", f"Bearer {token()}", asgi=asgi)
    assert (answer.status_code, answer.text) == (200, "ada")
    assert (told.only().rule, told.only().flag, told.only().refused) == ("", "", False)


@both
async def test_a_request_without_one_is_refused_where_one_is_required(service: Service, told: Any, asgi: bool) -> None:
    await service.known()
    answer = await service.get("/", asgi=asgi)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.text == "access denied: no token came with the request\n"
    event = told.only()
    assert (event.rule, event.reason) == ("authentication.jwt.missing", "no token came with the request")
    assert (event.flag, event.refused, event.status) == ("UAEX", True, 401)
    assert (await service.get("/", "Basic YTpi", asgi=asgi)).status_code == 401


PREFLIGHT = [("origin", "https://page.example"), ("access-control-request-method", "PUT")]


async def ask(service: Service, method: str, headers: list[tuple[str, str]], *, asgi: bool) -> httpx.Response:
    transport: Any = httpx.ASGITransport(MeshASGI(asgi_app, service.intake))
    if asgi:
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as http:
            return await http.request(method, "/", headers=headers)
    with httpx.Client(
        transport=httpx.WSGITransport(MeshWSGI(wsgi_app, service.intake)), base_url="http://shop"
    ) as blocking:
        return await asyncio.to_thread(blocking.request, method, "/", headers=headers)


@both
async def test_a_preflight_passes_without_a_token_only_where_it_may(service: Service, told: Any, asgi: bool) -> None:
    await service.known()
    answer = await ask(service, "OPTIONS", PREFLIGHT, asgi=asgi)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert told.only().rule == "authentication.jwt.preflight"
    assert "authentication.jwt.allow_preflight" in told.only().reason
    service.ask_for(allow_preflight=True)
    answer = await ask(service, "OPTIONS", PREFLIGHT, asgi=asgi)
    assert (answer.status_code, answer.text) == (200, "nobody")
    for method, headers in (
        ("OPTIONS", []),
        ("OPTIONS", PREFLIGHT[:1]),
        ("OPTIONS", PREFLIGHT[1:]),
        ("GET", PREFLIGHT),
        ("PUT", PREFLIGHT),
    ):
        assert (await ask(service, method, headers, asgi=asgi)).status_code == 401, (method, headers)
    bad = [*PREFLIGHT, ("authorization", f"Bearer {token(exp=1)}")]
    assert (await ask(service, "OPTIONS", bad, asgi=asgi)).status_code == 401, "one that shows a token is judged by it"


@both
async def test_a_preflight_that_may_pass_obeys_the_rules_all_the_same(service: Service, asgi: bool) -> None:
    await service.known()
    service.ask_for(allow_preflight=True)
    service.plan = replace(service.plan, access=Access("allow", (Rule("no options", "deny", methods=("OPTIONS",)),)))
    assert (await ask(service, "OPTIONS", PREFLIGHT, asgi=asgi)).status_code == 403


BAD = {
    "expired": (lambda: [f"Bearer {token(exp=1)}"], "invalid_token"),
    "early": (lambda: [f"Bearer {token(nbf=int(time.time()) + 999)}"], "invalid_token"),
    "audience": (lambda: [f"Bearer {token(aud='other')}"], "invalid_token"),
    "issuer": (lambda: [f"Bearer {token(iss='other')}"], "invalid_token"),
    "key": (lambda: [f"Bearer {token('RSA', 1)}"], "invalid_token"),
    "signature": (lambda: [f"Bearer {token('RSA', 1, head={'kid': 'RSA#0'})}"], "invalid_token"),
    "algorithm": (lambda: [f"Bearer {by_hand({'alg': 'none', 'kid': 'RSA#0'}, claims())}"], "invalid_token"),
    "malformed": (lambda: ["Bearer garbage"], "invalid_request"),
    "oversize": (lambda: [f"Bearer {token()}{'A' * 9000}"], "invalid_request"),
}


@both
@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("code", BAD)
async def test_a_bad_one_is_refused_required_or_not(
    service: Service, told: Any, asgi: bool, required: bool, code: str
) -> None:
    service.ask_for(required=required)
    await service.known()
    values, error = BAD[code]
    answer = await service.get("/", *values(), asgi=asgi)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith(f'Bearer error="{error}", error_description="')
    assert told.only().rule == f"authentication.jwt.{code}"
    assert told.only().reason in answer.headers["www-authenticate"]


@both
async def test_two_headers_are_none(service: Service, told: Any, asgi: bool) -> None:
    await service.known()
    good = f"Bearer {token()}"
    assert (await service.get("/", good, good, asgi=asgi)).status_code == 401
    assert told.only().rule == f"authentication.jwt.{'ambiguous' if asgi else 'malformed'}"


@both
async def test_where_none_is_required_one_may_be_absent(service: Service, asgi: bool) -> None:
    service.ask_for(required=False)
    await service.known()
    assert (await service.get("/", asgi=asgi)).text == "nobody"
    assert (await service.get("/", "Basic YTpi", asgi=asgi)).text == "nobody"
    assert (await service.get("/", f"Bearer {token()}", asgi=asgi)).text == "ada"


@both
async def test_paths_say_where(service: Service, asgi: bool) -> None:
    service.ask_for(paths=("/api/*",))
    await service.known()
    for path in ("/api", "/api/x", "/x/../api/y", "/%61pi/x", "http://shop//api/x", "/api%2fx", "/x%00"):
        assert (await service.get(path, asgi=asgi)).status_code == 401, path
    assert (await service.get("/apis", asgi=asgi)).text == "nobody"
    assert (await service.get("/apis", "Bearer garbage", asgi=asgi)).text == "nobody"


@both
async def test_as_long_as_keys_are_unknown_the_answer_is_try_again(
    service: Service, told: Any, tmp_path: Path, asgi: bool
) -> None:
    late = tmp_path / "late.json"
    service.ask_for(issuers=(Issuer(NAME, str(late), (AUDIENCE,)),))
    answer = await service.get("/", f"Bearer {token()}", asgi=asgi)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert told.only().rule == "authentication.jwt.unavailable"
    assert (await service.get("/", asgi=asgi)).status_code == 401  # that much is known
    late.write_bytes(jwks())
    await until(lambda: service.get("/", f"Bearer {token()}", asgi=asgi), 200)


@both
async def test_required_of_nobody_lets_nobody_in(service: Service, asgi: bool) -> None:
    service.ask_for(issuers=())
    assert (await service.get("/", asgi=asgi)).status_code == 401
    assert (await service.get("/", f"Bearer {token()}", asgi=asgi)).status_code == 401


@both
async def test_a_guard_without_keys_takes_no_token(make_intake: Any, service: Service, asgi: bool) -> None:
    service.intake = make_intake(guard=Guard(lambda: service.plan))
    assert (await service.get("/", f"Bearer {token()}", asgi=asgi)).status_code == 503


@both
async def test_whom_the_rules_refuse_is_asked_for_no_token(service: Service, told: Any, asgi: bool) -> None:
    service.plan = replace(service.plan, access=Access("deny", (Rule("only", "deny"),)))
    assert (await service.get("/", f"Bearer {token()}", asgi=asgi)).status_code == 403
    assert told.only().rule == "only"


@both
async def test_a_changed_policy_holds_for_the_next_request(service: Service, tmp_path: Path, asgi: bool) -> None:
    await service.known()
    service.plan = OPEN
    assert (await service.get("/", "Bearer garbage", asgi=asgi)).text == "nobody"
    service.ask_for()
    await service.known()
    assert (await service.get("/", "Bearer garbage", asgi=asgi)).status_code == 401
    assert (await service.get("/", f"Bearer {token()}", asgi=asgi)).text == "ada"
    service.ask_for(issuers=(Issuer(NAME, str(tmp_path / "keys.json"), ("other",)),))
    assert (await service.get("/", f"Bearer {token()}", asgi=asgi)).status_code == 401
    assert (await service.get("/", f"Bearer {token(aud='other')}", asgi=asgi)).text == "ada"


async def test_a_websocket_needs_one_too(service: Service, told: Any) -> None:
    await service.known()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/ws", "raw_path": b"/ws", "headers": [], "scheme": "ws"}
    await MeshASGI(asgi_app, service.intake)(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert told.only().rule == "authentication.jwt.missing"


# --- the whole way: a policy in Consul, keys at a URL, mesh.claims() --------------------------------------


class Keys:
    """An issuer's key set behind a URL, on the test's loop."""

    def __init__(self) -> None:
        self.body = jwks()
        self.asked = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(self.body)}\r\n\r\n"
        writer.write(head.encode() + self.body)
        await writer.drain()
        writer.close()


async def until(ask: Callable[[], Any], status: int) -> httpx.Response:
    async with asyncio.timeout(20):
        while (answer := await ask()).status_code != status:  # noqa: ASYNC110  # no event tells of it
            await asyncio.sleep(0.02)
    return answer  # type: ignore[no-any-return]


async def test_the_policy_of_consul_asks_for_tokens_live(dev_agent: Any, tmp_path: Path) -> None:
    issuer = Keys()
    server = await asyncio.start_server(issuer.answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"
    settings = {"consul_url": dev_agent.url, "identity": "off", "runtime_dir": tmp_path, "state_dir": tmp_path}
    async with server, Mesh("shop", **settings) as mesh, httpx.AsyncClient() as consul:
        mesh._tokens._timing["gap"] = 0.2

        async def who(_request: Any) -> JSONResponse:
            return JSONResponse(dict(mesh.claims() or {}).get("sub"))

        app = Starlette(routes=[Route("/", who)])
        mesh.instrument(app)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as http:

            def asking(*args: Any, **more: Any) -> Callable[[], Any]:
                return lambda: http.get("/", headers={"authorization": f"Bearer {token(*args, **more)}"})

            assert (await http.get("/")).json() is None
            assert mesh.claims() is None
            policy = f'{{"issuer": "{NAME}", "jwks": "{url}", "audiences": ["{AUDIENCE}"]}}'
            document = f'{{"version": 1, "authentication": {{"jwt": {{"required": true, "issuers": [{policy}]}}}}}}'
            key = f"{dev_agent.url}/v1/kv/mesh/policy/shop"
            assert (await consul.put(key, content=document)).status_code == 200
            await until(lambda: http.get("/"), 401)
            assert (await until(asking(), 200)).json() == "ada"
            issuer.body = jwks(jwk("RSA", 1))  # rotated without notice: found by the unknown key
            assert (await until(asking("RSA", 1), 200)).json() == "ada"
            assert (await asking()()).status_code == 401
            assert issuer.asked <= 3
            shown = (await http.get(mesh.settings.metrics_path or "")).text
            assert 'mesh_rule="authentication.jwt.missing"' in shown
            await consul.delete(key)
            assert (await until(lambda: http.get("/"), 200)).json() is None
