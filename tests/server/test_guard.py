"""Who may pass, in both adapters: modes, rules, intentions, what is told of it, and headers nobody may forge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from meshsdk.core.access import Access, Rule
from meshsdk.core.intentions import Intentions
from meshsdk.identity.spiffe import SpiffeId
from meshsdk.policy.effective import effective
from meshsdk.server.answers import Answer
from meshsdk.server.asgi import MeshASGI
from meshsdk.server.guard import STRICT, Guard
from meshsdk.server.wsgi import MeshWSGI
from meshsdk_registry import Intention
from tests.identity.certificates import DOMAIN, id_of

OPEN = effective("", "shop", None, None)
ONLY_PUBLIC = Access("allow", (Rule("public", "allow", (), (), ("/public/*",)),))
NO_ADMIN = Access("allow", (Rule("no admin", "deny", (), (), ("/admin/*",)),))
ON_TRIAL = Access("allow", (Rule("trial", "deny", (), (), ("/admin/*",), (), True),))
CHECKOUT = SpiffeId.parse(id_of("checkout"))


def guard(intentions: Intentions | None = None, **plan: Any) -> Guard:
    return Guard(
        lambda: replace(OPEN, **plan) if plan else OPEN, intentions=lambda: intentions, trust_domain=lambda: DOMAIN
    )


def intentions(*entries: tuple[str, str], default_allow: bool = True) -> Intentions:
    made = [Intention("", source, "shop", action, 9 - 4 * (source == "*")) for source, action in entries]  # type: ignore[arg-type]
    return Intentions(made, "shop", default_allow=default_allow)


class Asgi:
    """Asks the ASGI adapter; the raw path goes as it is."""

    def __init__(self, intake: Any, peer: SpiffeId | None = None) -> None:
        self.scopes: list[Any] = []
        self.app = MeshASGI(self._app, intake)
        self.peer = peer

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})

    async def ask(self, target: str, headers: tuple[tuple[bytes, bytes], ...] = (), **more: Any) -> tuple[int, str]:
        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/decoded", "headers": list(headers)}
        scope |= {"raw_path": target.encode(), "scheme": "http", **more}
        if self.peer is not None:
            scope["extensions"] = {"meshsdk.peer": self.peer}
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request"}

        await self.app(scope, receive, send)
        return sent[0]["status"], b"".join(message["body"] for message in sent[1:]).decode()


async def test_strict_refuses_whoever_has_no_identity_with_a_hint(make_intake: Any, told: Any) -> None:
    strict = guard(tls="strict")
    status, body = await Asgi(make_intake(guard=strict)).ask("/")
    assert status == 403
    assert "mutual TLS only" in body
    assert (told.only().rule, told.only().flag) == (STRICT, "UAEX")
    assert await Asgi(make_intake(guard=strict), CHECKOUT).ask("/") == (200, "fine")


async def test_pages_of_the_mesh_answer_in_clear_text_of_a_strict_service(make_intake: Any) -> None:
    intake = make_intake(guard=guard(tls="strict"), pages={"/-/mesh/ready": lambda: Answer(200, b"ready")})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(Asgi(intake).app), base_url="http://x") as http:
        assert (await http.get("/-/mesh/ready")).text == "ready"
        assert (await http.get("/")).status_code == 403


@pytest.mark.parametrize("mode", ["permissive", "off"])
async def test_callers_without_identity_pass_where_nothing_is_restricted(make_intake: Any, mode: str) -> None:
    assert await Asgi(make_intake(guard=guard(tls=mode))).ask("/") == (200, "fine")


async def test_rules_see_the_target_as_it_was_sent(make_intake: Any, told: Any) -> None:
    asking = Asgi(make_intake(guard=guard(access=NO_ADMIN)), CHECKOUT)
    for target in ("/admin/x", "/%61dmin/x", "/a/../admin/x", "/admin%"):
        status, body = await asking.ask(target)
        assert status == 403
        assert "no admin" not in body
        assert str(CHECKOUT) in body
    assert await asking.ask("/decoded") == (200, "fine")
    assert [event.rule for event in told.ended] == ["no admin"] * 4 + [""]
    assert told.ended[0].reason


@pytest.mark.parametrize(
    ("target", "path"),
    [("/api/admin/x", "/api/admin/x"), ("/%61pi/admin/x", "/api/admin/x"), ("/apiadmin/x", "/apiadmin/x")],
)
async def test_rules_see_what_is_left_below_a_prefix(make_intake: Any, target: str, path: str) -> None:
    asking = Asgi(make_intake(guard=guard(access=NO_ADMIN)))
    assert (await asking.ask(target, path=path))[0] == 200
    assert (await asking.ask(target, path=path, root_path="/api"))[0] == 403
    assert (await asking.ask(target, path=path, root_path="/ap"))[0] == 200
    published = FastAPI()
    published.root_path = "/api"
    asking.app = MeshASGI(published, make_intake(guard=guard(access=NO_ADMIN)))
    assert (await asking.ask(target, path=path))[0] == 403


async def test_an_allow_rule_must_match_with_the_prefix_and_without(make_intake: Any) -> None:
    asking = Asgi(make_intake(guard=guard(access=ONLY_PUBLIC)))
    for path, status in (("/public/x", 200), ("/public/admin", 403), ("/public/public/x", 200)):
        assert (await asking.ask(path, path=path, root_path="" if status == 200 else "/public"))[0] == status
    assert (await asking.ask("/public/public/x", path="/public/public/x", root_path="/public"))[0] == 200
    assert (await asking.ask("/public/%", path="/public/%", root_path="/nowhere"))[0] == 403


def test_wsgi_rules_see_what_is_left_below_a_prefix_that_a_caller_names(make_intake: Any) -> None:
    """gunicorn takes SCRIPT_NAME as a header, and RAW_URI stays as it was sent."""
    asking = Wsgi(make_intake(guard=guard(access=ONLY_PUBLIC)))
    assert asking.ask("/public/x", RAW_URI="/public/x")[0] == "200 OK"
    assert asking.ask("/admin", RAW_URI="/public/admin", SCRIPT_NAME="/public")[0] == "403 Forbidden"
    asking = Wsgi(make_intake(guard=guard(access=NO_ADMIN)))
    assert asking.ask("/admin/x", RAW_URI="/x/admin/x", SCRIPT_NAME="/x")[0] == "403 Forbidden"
    assert asking.ask("admin/x", RAW_URI="/xadmin/x", SCRIPT_NAME="/x")[0] == "403 Forbidden"
    assert asking.ask("/caf\xc3\xa9", RAW_URI="/x/caf%c3%a9", SCRIPT_NAME="/x")[0] == "200 OK"


async def test_pages_of_the_mesh_are_found_below_a_prefix(make_intake: Any) -> None:
    intake = make_intake(guard=guard(tls="strict"), pages={"/-/mesh/ready": lambda: Answer(200, b"ready")})
    below = "/api/-/mesh/ready"
    assert await Asgi(intake).ask(below, path=below, root_path="/api") == (200, "ready")
    assert await Asgi(intake).ask(below, path="/-/mesh/ready", root_path="/api") == (200, "ready")
    assert (await Asgi(intake).ask(below, path=below))[0] == 403
    assert Wsgi(intake).ask("/-/mesh/ready", SCRIPT_NAME="/api") == ("200 OK", "ready")


async def test_the_rule_is_named_to_the_caller_only_where_asked_for(make_intake: Any) -> None:
    _, body = await Asgi(make_intake(guard=guard(access=NO_ADMIN), explain=True)).ask("/admin/x")
    assert "no admin: a deny rule matches" in body


async def test_a_rule_on_trial_is_told_and_lets_pass(make_intake: Any, told: Any) -> None:
    assert await Asgi(make_intake(guard=guard(access=ON_TRIAL)), CHECKOUT).ask("/admin/x") == (200, "fine")
    assert (told.only().audited, told.only().rule, told.only().status) == ("trial", "", 200)


async def test_intentions_come_before_the_policy_and_change_at_once(make_intake: Any, told: Any) -> None:
    current: list[Intentions | None] = [intentions(("checkout", "deny"))]
    watched = Guard(lambda: OPEN, intentions=lambda: current[0], trust_domain=lambda: DOMAIN)
    asking = Asgi(make_intake(guard=watched), CHECKOUT)
    assert (await asking.ask("/"))[0] == 403
    assert "checkout" in told.ended[0].rule
    current[0] = intentions(("*", "deny"), ("checkout", "allow"))
    assert (await asking.ask("/"))[0] == 200
    assert (await Asgi(make_intake(guard=watched)).ask("/"))[0] == 403  # nobody we know
    current[0] = None
    assert (await asking.ask("/"))[0] == 200


async def test_a_changed_plan_is_obeyed_by_the_next_request(make_intake: Any) -> None:
    plans = [OPEN]
    asking = Asgi(make_intake(guard=Guard(lambda: plans[-1], trust_domain=lambda: DOMAIN)), CHECKOUT)
    assert (await asking.ask("/admin/x"))[0] == 200
    plans.append(replace(OPEN, access=NO_ADMIN))
    assert (await asking.ask("/admin/x"))[0] == 403
    plans.append(OPEN)
    assert (await asking.ask("/admin/x"))[0] == 200


async def test_a_refused_websocket_is_closed_before_it_is_accepted(make_intake: Any, told: Any) -> None:
    intake = make_intake(guard=guard(tls="strict"))
    asking, sent = Asgi(intake), []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/ws", "raw_path": b"/ws", "headers": [], "scheme": "ws"}
    await asking.app(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert asking.scopes == []
    assert (told.only().status, told.only().rule) == (403, STRICT)
    assert intake.in_flight == 0


class Wsgi:
    """Asks the WSGI adapter."""

    def __init__(self, intake: Any) -> None:
        self.environs: list[Any] = []
        self.app = MeshWSGI(self._app, intake)

    def _app(self, environ: Any, start_response: Any) -> list[bytes]:
        self.environs.append(environ)
        start_response("200 OK", [])
        return [b"fine"]

    def ask(self, path: str, **environ: Any) -> tuple[str, str]:
        statuses: list[str] = []
        given = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "wsgi.url_scheme": "http", "SERVER_PORT": "80", **environ}
        body: Any = self.app(given, lambda status, headers, *_: statuses.append(status))
        text = b"".join(body).decode()
        if hasattr(body, "close"):
            body.close()
        return statuses[0], text


def test_wsgi_rules_see_the_target_where_the_server_keeps_it(make_intake: Any, told: Any) -> None:
    asking = Wsgi(make_intake(guard=guard(access=NO_ADMIN)))
    assert asking.ask("/harmless", RAW_URI="/x/../admin/y?z=1")[0] == "403 Forbidden"
    assert asking.ask("/harmless", REQUEST_URI="/%61dmin/y")[0] == "403 Forbidden"
    assert asking.ask("/admin/y")[0] == "403 Forbidden"
    assert asking.ask("/min/y", SCRIPT_NAME="/ad")[0] == "200 OK"
    assert asking.ask("/y", SCRIPT_NAME="/admin")[0] == "403 Forbidden"
    assert asking.ask("/caf\xc3\xa9")[0] == "200 OK"
    assert [event.rule for event in told.ended] == ["no admin"] * 3 + ["", "no admin", ""]


def test_wsgi_never_shows_a_forged_certificate(make_intake: Any) -> None:
    asking = Wsgi(make_intake())
    asking.ask("/", HTTP_X_FORWARDED_CLIENT_CERT="URI=spiffe://test.consul/admin")
    assert "HTTP_X_FORWARDED_CLIENT_CERT" not in asking.environs[0]


async def test_deadline_of_a_refused_caller_changes_nothing(make_intake: Any) -> None:
    headers = ((b"x-envoy-expected-rq-timeout-ms", b"0"),)
    assert (await Asgi(make_intake(guard=guard(tls="strict"))).ask("/", headers))[0] == 403
    assert (await Asgi(make_intake(guard=guard())).ask("/", headers))[0] == 504
