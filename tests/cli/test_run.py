"""`meshsdk run`: words for what is wrong, the server's command line, and applications with and without a Mesh."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from meshsdk.cli.run import arguments
from meshsdk.cli.target import load_target, spoken
from meshsdk.errors import ConfigError
from tests.cli.test_process import MESHSDK, environment
from tests.real_consul import free_ports

PLAIN_ASGI = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"asgi"})
"""
PLAIN_WSGI = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"wsgi"]
def make(): return app
number = 7
"""
MESHED = """
from flask import Flask
from meshsdk import Mesh
mesh = Mesh("meshed", port={port})
app = Flask("meshed")
mesh.instrument(app)
@app.get("/")
def hello(): return "flask"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with applications in it."""
    for name, text in {"plain_asgi": PLAIN_ASGI, "plain_wsgi": PLAIN_WSGI}.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def running(folder, agent, *words: str, **env: str):
    log = (folder / "log").open("wb")
    settings = {
        "CONSUL_HTTP_ADDR": agent.url,
        "MESH_ADDRESS": "127.0.0.1",
        "MESH_RUNTIME_DIR": str(folder / "run"),
        "MESH_STATE_DIR": str(folder / "state"),
        "MESH_DRAIN_WAIT": "0",
    }
    child = subprocess.Popen([*MESHSDK, "run", *words], cwd=folder, env=environment(**settings, **env), stderr=log)
    try:
        yield child
    finally:
        child.terminate()
        child.wait(20)
        log.close()


def instance(agent, service: str, folder: Path) -> dict:
    deadline = time.monotonic() + 20
    while True:
        with urllib.request.urlopen(f"{agent.url}/v1/health/service/{service}?passing=1", timeout=5) as answer:
            if found := json.load(answer):
                return found[0]["Service"]
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.05)


def body(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        return answer.read().decode()


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_application_without_a_mesh_gets_one(folder, agent, kind):
    (port,) = free_ports(1)
    with running(folder, agent, f"plain_{kind}:app", "--port", str(port), MESH_SERVICE="bare"):
        service = instance(agent, "bare", folder)
        own = port if kind == "wsgi" else service["Port"]
        assert (service["Port"], service["Meta"]["mesh-tls"]) == (own, "permissive")
        assert (service["Port"] == port) is (kind == "wsgi")
        assert body(port) == kind
        assert body(service["Port"]) == kind


def test_application_with_a_mesh_keeps_it_and_its_port(folder, agent):
    (port,) = free_ports(1)
    (folder / "meshed.py").write_text(MESHED.format(port=port))
    with running(folder, agent, "meshed:app", "--workers", "2", "--", "--timeout", "20"):
        service = instance(agent, "meshed", folder)
        assert (service["Port"], service["Meta"]["mesh-tls"]) == (port, "permissive")
        assert body(port) == "flask"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("plain_asgi", "write module:attribute"),
        ("plane_asgi:app", "did you mean plain_asgi"),
        ("plain_wsgi:ap", "did you mean 'app'"),
        ("plain_wsgi:number", "builtins.int, and not an ASGI or WSGI application"),
        ("plain_wsgi:make", "makes applications and is none"),
        ("plain_wsgi:app", "has no Mesh, and none can be made for it"),
    ],
)
def test_what_cannot_be_served_is_told(folder, run, monkeypatch, target, words):
    monkeypatch.delenv("MESH_SERVICE", raising=False)
    monkeypatch.syspath_prepend(str(folder))
    ran = run("run", target)
    assert ran.code == 2
    assert words in ran.err


def test_a_taken_port_is_told(folder, agent):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*MESHSDK, "run", "plain_asgi:app", "--port", port],
            cwd=folder,
            env=environment(MESH_SERVICE="bare", CONSUL_HTTP_ADDR=agent.url),
            capture_output=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert f"cannot listen at 127.0.0.1:{port}" in done.stderr.decode()


def test_another_port_than_the_mesh_says_is_refused(folder, agent):
    (folder / "meshed.py").write_text(MESHED.format(port=18123))
    done = subprocess.run(
        [*MESHSDK, "run", "meshed:app", "--port", "18124"],
        cwd=folder,
        env=environment(CONSUL_HTTP_ADDR=agent.url),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "--port 18124, and the application's Mesh says port=18123" in done.stderr.decode()


def test_command_lines_of_the_servers():
    asgi = arguments("asgi", "a:b", "127.0.0.1", 1, workers=2, threads=None, reload=False)
    assert asgi == ["uvicorn", "a:b", "--host", "127.0.0.1", "--port", "1", "--workers", "2"]
    assert arguments("asgi", "a:b", "::1", 1, workers=1, threads=None, reload=True)[-1] == "--reload"
    wsgi = arguments("wsgi", "a:b", "::1", 1, workers=2, threads=3, reload=True)
    assert wsgi[:4] == ["meshsdk.cli.gunicorned", "a:b", "--bind", "[::1]:1"]
    assert wsgi[-5:] == ["--workers", "2", "--threads", "3", "--reload"]
    assert "--threads" not in arguments("wsgi", "a:b", "::1", 1, workers=None, threads=None, reload=False)


OWN_CONF = """
import sys
workers = 2
threads = 3
def tell(server): print("own:", server.cfg.workers, server.cfg.threads, server.cfg.timeout, file=sys.stderr, flush=True)
when_ready = on_reload = tell
"""


def takes_tls(port: int) -> bool:
    """Whether a handshake comes as far as the certificates, of which there is none here."""
    nameless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nameless.check_hostname, nameless.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as plain:
            nameless.wrap_socket(plain).close()
    except ssl.SSLError:
        return False
    return True


@pytest.mark.parametrize(("name", "words"), [("my.conf.py", ["-c", "my.conf.py"]), ("gunicorn.conf.py", [])])
def test_gunicorns_own_configuration_holds_and_so_does_the_mesh(folder, agent, name, words):
    (folder / name).write_text(OWN_CONF)
    (port,) = free_ports(1)
    rest = ["--", *words, "--timeout", "21"]
    with running(folder, agent, "plain_wsgi:app", "--port", str(port), *rest, MESH_SERVICE="bare") as child:
        assert instance(agent, "bare", folder)["Meta"]["mesh-tls"] == "permissive"
        assert takes_tls(port)
        child.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while (folder / "log").read_text().count("Worker exiting") < 2:
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        assert takes_tls(port)
    assert (folder / "log").read_text().count("own: 2 3 21") == 2


def test_import_trouble_within_a_module_keeps_its_traceback(folder, monkeypatch):
    (folder / "broken_import.py").write_text("import no_such_thing_anywhere\n")
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(ModuleNotFoundError, match="no_such_thing_anywhere"):
        load_target("broken_import:app")
    assert "broken_import" not in sys.modules


def test_classes_are_no_applications():
    with pytest.raises(ConfigError, match="makes applications"):
        spoken(dict)
