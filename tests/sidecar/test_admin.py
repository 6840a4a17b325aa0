"""The sidecar's own pages: what they show, what they change, and who may ask."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time

import pytest

from meshsdk.wire.aio.watch import Watch
from meshsdk_sidecar import pages as shown
from meshsdk_sidecar.admin import CROWD, Admin, Pages
from meshsdk_sidecar.file import load
from meshsdk_sidecar.mesh import SidecarMesh


class Asking:
    """Pages of a sidecar that runs nothing else, and a client of theirs."""

    def __init__(self, mesh: SidecarMesh, sock: socket.socket, *, anyone: bool = False) -> None:
        self.mesh = mesh
        self.unready = ""
        self.drains = 0
        self.sock = sock
        self.pages = Pages(mesh, unready=lambda: self.unready, drain=self._drain)
        self.admin = Admin(self.pages, self.pages.seen if anyone else self.pages.all, anyone=anyone)

    def _drain(self) -> None:
        self.drains += 1

    async def raw(self, text: bytes) -> bytes:
        where = self.sock.getsockname()
        reader, writer = await (
            asyncio.open_unix_connection(where) if isinstance(where, str) else asyncio.open_connection(*where)
        )
        writer.write(text)
        answer = await reader.read()
        writer.close()
        return answer

    async def __call__(self, method: str, target: str, body: bytes = b"", *fields: str, host: str = "localhost"):
        head = "".join(f"{field}\r\n" for field in (f"Host: {host}", "Connection: close", *fields))
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        answer = await self.raw(f"{method} {target} HTTP/1.1\r\n{head}{length}\r\n".encode() + body)
        first, _, rest = answer.partition(b"\r\n")
        return int(first.split()[1]), rest


def value(answer: bytes):
    return json.loads(answer.partition(b"\r\n\r\n")[2])


@pytest.fixture
async def mesh(tmp_path, monkeypatch):
    monkeypatch.setenv("MESH_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "http://127.0.0.1:1")
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "very-secret")
    monkeypatch.setattr("meshsdk_sidecar.admin.is_ours", lambda *_: False)  # the client here is in this process
    (tmp_path / "s.yaml").write_text("service: {name: legacy, port: 8080, meta: {a: b}}\nidentity: {source: 'off'}")
    async with SidecarMesh(load(tmp_path / "s.yaml")) as made:
        yield made


async def opened(asking: Asking) -> Asking:
    await asking.admin.open([asking.sock], Watch(asyncio.get_running_loop(), time.monotonic), time.monotonic)
    return asking


@pytest.fixture
async def ask(mesh):
    asking = await opened(Asking(mesh, socket.create_server(("127.0.0.1", 0))))
    yield asking
    asking.admin.close()


async def test_readiness_and_life(ask):
    assert value((await ask("GET", "/live"))[1]) == {"live": True}
    assert (await ask("GET", "/ready"))[0] == 200
    ask.unready = "nothing listens at 127.0.0.1:8080"
    status, answer = await ask("GET", "/ready")
    assert (status, value(answer)) == (503, {"ready": False, "why": ask.unready})
    assert b"cache-control: no-store" in answer
    status, answer = await ask("HEAD", "/ready")
    assert status == 503
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("page", ["/live", "/ready", "/clusters", "/config", "/certs", "/policy", "/log"])
async def test_pages_are_json(ask, page):
    status, answer = await ask("GET", page)
    assert status == 200
    assert b"content-type: application/json" in answer
    value(answer)


async def test_metrics_are_prometheus_text(ask):
    status, answer = await ask("GET", "/metrics")
    assert status == 200
    assert b"content-type: text/plain; version=0.0.4" in answer


async def test_what_they_show(ask):
    config = value((await ask("GET", "/config"))[1])
    assert config["file"]["service"]["meta"] == {"a": "b"}
    assert config["file"]["limits"]["head"] == 65536
    assert (config["settings"]["port"], config["settings"]["consul_token"]) == (15006, "(hidden)")
    assert "very-secret" not in str(config)
    assert value((await ask("GET", "/certs"))[1])["state"] == "off"
    policy = value((await ask("GET", "/policy"))[1])
    assert policy["own"]["version"] == "defaults"
    assert policy["own"]["timeouts"]["request"] == 15.0
    assert policy["own"]["access"] == {"default": "allow", "rules": []}


async def test_a_service_that_is_called(ask):
    with pytest.raises(Exception, match="payments"):
        await ask.mesh.directory.acluster("payments")
    (found,) = value((await ask("GET", "/clusters"))[1])
    assert (found["service"], found["connected"], found["source"]) == ("payments", False, "nothing is known yet")
    assert found["age"] is None
    assert "127.0.0.1:1" in found["error"]


async def test_unknown_pages_are_answered_with_the_known_ones(ask):
    for target, expected in (("/", 200), ("/other", 404), ("/ready/", 404), ("*", 404)):
        method = "OPTIONS" if target == "*" else "GET"
        status, answer = await ask(method, target)
        assert status == expected
        found = value(answer)["pages"]
        assert found["/drain"] == ["POST"]
        assert found["/log"] == ["GET", "PUT"]
        assert set(found) == {
            "/live", "/ready", "/metrics", "/clusters", "/config", "/certs", "/policy", "/drain", "/log",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "page", "allow"),
    [
        ("POST", "/ready", b"GET"),
        ("GET", "/drain", b"POST"),
        ("DELETE", "/log", b"GET, PUT"),
        ("HEAD", "/drain", b"POST"),
    ],
)
async def test_other_methods(ask, method, page, allow):
    status, answer = await ask(method, page)
    assert status == 405
    assert b"\r\nallow: " + allow + b"\r\n" in answer
    assert ask.drains == 0


async def test_drain(ask):
    status, answer = await ask("POST", "/drain")
    assert (status, value(answer)["draining"], ask.drains) == (202, True, 1)


@pytest.fixture
def levels():
    logger = logging.getLogger("meshsdk")
    before = logger.level
    yield logger
    logger.setLevel(before)


async def test_the_log_level(ask, levels):
    for target, body in (("/log", b'{"level": "debug"}'), ("/log?level=error", b"")):
        status, answer = await ask("PUT", target, body)
        assert status == 200
        level = "debug" if body else "error"
        assert value(answer)["meshsdk.sidecar"] == level
        assert levels.getEffectiveLevel() == getattr(logging, level.upper())
        assert value((await ask("GET", "/log"))[1])["meshsdk"] == level
    assert shown.levels()["meshsdk"] == "error"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"level": "loud"}', b"[1]", b"{", b"\xff", b'{"level": 3}'])
async def test_no_log_level(ask, levels, body):
    status, answer = await ask("PUT", "/log", body)
    assert status == 400
    assert "the levels are debug, info, warning, error" in value(answer)["error"]


async def test_a_body_in_pieces_and_one_that_is_too_long(ask, levels):
    where = ask.sock.getsockname()
    reader, writer = await asyncio.open_connection(*where)
    head = b"PUT /log HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    for piece in (head, b'12\r\n{"level": "de', b'bug"}\r\n', b"0\r\n\r\n"):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert (await ask("PUT", "/log", b" " * 5000))[0] == 413


async def test_a_page_that_breaks_is_500_and_logged(ask, monkeypatch, caplog):
    monkeypatch.setattr(shown, "clusters", lambda mesh: 1 / 0)
    status, answer = await ask("GET", "/clusters")
    assert (status, value(answer)) == (500, {"error": "ZeroDivisionError: division by zero"})
    assert "the page /clusters broke off" in caplog.text


# --- who may ask --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:15000", 200),
        ("127.0.0.1", 200),
        ("[::1]:15000", 200),
        ("evil.example", 403),
        ("evil.example:15000", 403),
        ("10.0.0.7", 403),
        ("localhost.evil.example", 403),
    ],
)
async def test_a_page_elsewhere_cannot_ask_by_a_name_of_its_own(ask, host, status):
    """A name that someone else's DNS points at 127.0.0.1 (DNS rebinding)."""
    assert (await ask("GET", "/config", host=host))[0] == status


async def test_a_web_page_cannot_change_anything(ask):
    for origin in ("http://evil.example", "http://localhost:3000", "null"):
        status, answer = await ask("POST", "/drain", b"", f"Origin: {origin}")
        assert (status, value(answer)) == (403, {"error": "web pages may not change anything here"})
    assert ask.drains == 0
    assert (await ask("GET", "/ready", b"", "Origin: http://localhost:3000"))[0] == 200


async def test_what_is_no_request_is_refused(ask):
    assert (await ask.raw(b"GET /ready HTTP/1.1\r\nHost : x\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    assert (await ask.raw(b"\x16\x03\x01\x02\x00")).startswith(b"HTTP/1.1 400 ")


async def test_several_requests_of_one_connection(ask):
    text = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = await ask.raw(text + text + text.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert answer.count(b'"live": true') == 3


async def test_where_many_hold_on_the_oldest_goes(ask):
    host, port = ask.sock.getsockname()
    held = [await asyncio.open_connection(host, port) for _ in range(CROWD + 5)]
    assert (await ask("GET", "/live"))[0] == 200
    for reader, _ in held[:5]:
        assert await reader.read() == b""
    last, to_last = held[-1]
    to_last.write(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await last.readline()).startswith(b"HTTP/1.1 200")
    for _, writer in held:
        writer.close()
        await writer.wait_closed()


async def test_others_on_the_network_see_readiness_and_metrics_only(mesh):
    ask = await opened(Asking(mesh, socket.create_server(("127.0.0.1", 0)), anyone=True))
    try:
        for page in ("/ready", "/live", "/metrics"):
            assert (await ask("GET", page, host="10.1.2.3:15020"))[0] == 200
        for page in ("/config", "/drain", "/clusters", "/log", "/policy", "/certs"):
            status, answer = await ask("GET", page)
            assert status == 404
            assert set(value(answer)["pages"]) == {"/ready", "/live", "/metrics"}
        assert (await ask("POST", "/drain"))[0] == 404
        assert ask.drains == 0
    finally:
        ask.admin.close()


async def test_at_a_unix_socket(mesh, tmp_path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "admin.sock"))
    sock.listen()
    ask = await opened(Asking(mesh, sock))
    try:
        assert (await ask("GET", "/ready"))[0] == 200
    finally:
        ask.admin.close()


@pytest.mark.parametrize(
    "request_",
    [
        "GET /config HTTP/1.1\r\nHost: legacy\r\n",
        "GET /config HTTP/1.1\r\nHost: localhost:OUT\r\n",
        "GET /config HTTP/1.1\r\nHost: localhost:ADMIN\r\n",
        "GET /config HTTP/1.1\r\nHost: 127.0.0.1:ADMIN\r\n",
        "GET /config HTTP/1.1\r\nHost: 127.1:ADMIN\r\n",
        "POST /drain HTTP/1.1\r\nHost: 127.0.0.1:ADMIN\r\n",
        "GET http://127.0.0.1:ADMIN/config HTTP/1.1\r\nHost: x\r\n",
        "CONNECT localhost:ADMIN HTTP/1.1\r\nHost: localhost:ADMIN\r\n\r\nGET /config HTTP/1.1\r\nHost: localhost\r\n",
    ],
)
async def test_it_is_not_reached_through_the_mesh(sidecar, request_):
    """The way out leads to hosts outside, this machine included, by any name; not to these pages."""
    text = request_.replace("OUT", str(sidecar.out)).replace("ADMIN", str(sidecar.admin))
    reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.out)
    writer.write(f"{text}Connection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    last = answer.rpartition(b"HTTP/1.1 ")[2]
    assert last[:3] in {b"400", b"403", b"421", b"503"}, answer
    assert b"settings" not in answer
    assert b"draining" not in answer
    assert sidecar.page("/ready")[0] == 200
