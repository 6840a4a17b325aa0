"""The ways from a load to nginx that are measured side by side: through our sidecar, Envoy, haproxy; one hop or a pair.

nginx and Consul run on the core of the load, every proxy on the other: a way's requests per second are what its proxies
do with one core.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks import envoys
from benchmarks.load import Aim
from benchmarks.processes import usage
from benchmarks.servers import CLIENT_CORE, SERVER_CORE, on_core
from meshsdk.policy.document import parse
from meshsdk_registry import Consul, Registration
from tests.real_consul import RealConsul, free_ports
from tests.wire.real_servers import CACHE, Started, binary, envoy

__all__ = [
    "CONTESTANTS",
    "PAIR",
    "SINGLE",
    "TARGETS",
    "Ground",
    "Way",
    "ask",
    "compiled",
    "ground",
    "inbound",
    "interpreter",
    "nginx",
    "start",
    "ways",
]

SINGLE, PAIR = "single hop", "mTLS pair"
CONTESTANTS = {SINGLE: ("ours", "Envoy", "haproxy"), PAIR: ("ours", "Envoy")}
TARGETS = {"/1k": 1024, "/64k": 64 * 1024}

ROOT = CACHE.parent
COMPILED = CACHE / "compiled"

# What the sidecar's image has (sidecar/deploy/Dockerfile): an interpreter that was built with profiles, the OpenSSL of
# its Debian, AES-128 first (docs/decisions/0022).
_INTERPRETER = CACHE / "python" / "python"
_OPENSSL = ROOT / "sidecar" / "deploy" / "openssl.cnf"

_SETTLE = 0.7  # seconds after the start until memory is what an idle proxy takes


@dataclass(frozen=True)
class Way:
    """One way to nginx.

    Attributes:
        pids: of its proxies.
        idle: MiB before the first request of a load.
    """

    name: str
    hop: str
    port: int
    pids: tuple[int, ...]
    idle: float

    def aim(self, target: str) -> Aim:
        """What a load asks it for."""
        return Aim(self.port, target, "app" if self.hop == SINGLE else "api")


# --- what all of them need ----------------------------------------------------------------------------

_NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; open_file_cache max=10; keepalive_timeout 600s; keepalive_requests 1000000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=4096; root {folder};
    location = /served {{ stub_status; }}
  }}
}}
"""

_POLICIES = {
    "app": "version: 1\ntls: {mode: 'off'}\n",
    "api": """
version: 1
tls: {mode: strict}
authorization: {default: deny, rules: [{allow: {from: [web], methods: [GET]}}]}
""",
}
"""Retries, breaker, outlier detection, peak-ewma, limits, metrics and trace context are on without being asked for."""


@dataclass(frozen=True)
class Ground:
    """What the ways stand on: a folder for their files, a Consul, and nginx."""

    folder: Path
    consul: str
    nginx: int

    def sidecar(self, name: str, config: Mapping[str, Any]) -> list[str]:
        """Write the file of a sidecar; the command that runs it, with nothing of this process's settings."""
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump({**config, "consul": {"url": self.consul}}))
        settings = {"STATE_DIR": self.folder / f"{name}-state", "RUNTIME_DIR": self.folder / f"{name}-run"}
        given = [f"MESH_{key}={value}" for key, value in settings.items()]
        return ["env", *_settings(), *given, str(interpreter()), "-m", "meshsdk.cli", "sidecar", "-c", str(file)]


def compiled() -> bool:
    """Whether the sidecars run the compiled modules, as `make compiled` leaves them."""
    return (COMPILED / "meshsdk").is_dir()


def _settings() -> list[str]:
    """For `env`: the modules to run, and none of what this process was told."""
    theirs = ("MESH_", "CONSUL_", "PYTHON")
    ours = [COMPILED] if compiled() else [ROOT, ROOT / "registry", ROOT / "sidecar"]
    path = ":".join(map(str, [*ours, sysconfig.get_path("purelib")]))
    unset = [f"--unset={key}" for key in os.environ if key.startswith(theirs)]
    return [*unset, f"PYTHONPATH={path}", f"OPENSSL_CONF={_OPENSSL}"]


def _compile_lean() -> None:
    """Compile what serves without docstrings, as the image's file has it done (docs/decisions/0023)."""
    words = [str(interpreter()), "-P", "-OO", "-c", "import meshsdk_sidecar.__main__, meshsdk_sidecar.process, uvloop"]
    subprocess.run(["env", *_settings(), *words], check=True)


def interpreter() -> Path:
    """What runs the sidecars: that of `scripts/install-python`, else the one that runs this."""
    return _INTERPRETER if _INTERPRETER.exists() else Path(sys.executable)


def nginx(folder: Path, port: int) -> Started:
    """An nginx of one process that serves the targets."""
    folder.mkdir(exist_ok=True)
    for target, size in TARGETS.items():
        (folder / target[1:]).write_bytes(bytes(range(256)) * (size // 256))
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port))
    return Started("nginx", [binary("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(config)], port, folder)


@contextmanager
def ground() -> Iterator[Ground]:
    """Start nginx and Consul, with the policies and `app` in it, and stay on their core meanwhile.

    SIGTERM ends the program in order from here on, with all that it has started.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(on_core(CLIENT_CORE))
        consul = stack.enter_context(RealConsul())
        (port,) = free_ports(1)
        stack.enter_context(nginx(folder / "nginx", port)).ready()
        asyncio.run(_tell(consul.url, port))
        if compiled():
            _compile_lean()
        yield Ground(folder, consul.url, port)


async def _tell(url: str, app: int) -> None:
    async with Consul(url) as consul:
        for service, document in _POLICIES.items():
            parse(document, f"mesh/policy/{service}")  # a mistake would leave the features off without a word here
            await consul.put(f"mesh/policy/{service}", document.encode())
        await consul.register(Registration("app", f"app-{app}", "127.0.0.1", app, ttl=86_400))


# --- the ways -----------------------------------------------------------------------------------------


def ways(stack: ExitStack, there: Ground, hops: Sequence[str]) -> list[Way]:
    """Start all of these hops, each ready to be loaded; they end with `stack`."""
    return [start(stack, there, name, hop) for hop in hops for name in CONTESTANTS[hop]]


def start(stack: ExitStack, there: Ground, name: str, hop: str) -> Way:
    """Start one, ready to be loaded; it ends with `stack`."""
    first, second, *spare = free_ports(5)
    folder = there.folder / f"{name}-{hop}".replace(" ", "-")
    folder.mkdir()
    commands = _COMMANDS[name, hop](there, folder, (first, second, *spare))
    started = []
    with on_core(SERVER_CORE):
        for number, (port, command) in enumerate(commands):
            one = stack.enter_context(Started(f"{name}-{number}", command, port, folder))
            one.ready()
            started.append(one)
    pids = tuple(one.process.pid for one in started)
    _until_carried(Way(name, hop, first, pids, 0.0), folder)
    time.sleep(_SETTLE)
    return Way(name, hop, first, pids, usage(pids).resident)


Commands = list[tuple[int, list[str]]]
"""By the port that is open when each is ready; the first port of those given is the one that is loaded."""


def _ours_single(there: Ground, folder: Path, ports: Sequence[int]) -> Commands:
    config = {"service": {"name": "web"}, "outbound": {"port": ports[0]}, "admin": {"port": ports[1]}}
    return [(ports[0], there.sidecar(folder.name, config))]


def _ours_pair(there: Ground, folder: Path, ports: Sequence[int]) -> Commands:
    called = inbound(there.nginx, *ports[1:4])
    caller = {"service": {"name": "web"}, "outbound": {"port": ports[0]}, "admin": {"port": ports[4]}}
    return [
        (ports[1], there.sidecar(f"{folder.name}-in", called)),
        (ports[0], there.sidecar(f"{folder.name}-out", caller)),
    ]


def inbound(app: int, port: int, outbound: int, admin: int) -> dict[str, Any]:
    """The file of the sidecar of `api`."""
    return {
        "service": {"name": "api", "port": app},
        "inbound": {"address": "127.0.0.1", "advertise": "127.0.0.1", "port": port},
        "outbound": {"port": outbound},
        "admin": {"port": admin},
    }


def _envoy_single(there: Ground, folder: Path, ports: Sequence[int]) -> Commands:
    return [(ports[0], envoy(folder / "envoy.json", envoys.single(ports[0], there.nginx)))]


def _envoy_pair(there: Ground, folder: Path, ports: Sequence[int]) -> Commands:
    envoys.certificates(folder)
    return [
        (ports[1], envoy(folder / "in.json", envoys.inbound(folder, ports[1], there.nginx))),
        (ports[0], envoy(folder / "out.json", envoys.outbound(folder, ports[0], ports[1]))),
    ]


_HAPROXY = """
global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 1s
  timeout client 600s
  timeout server 30s
  retries 2
  option redispatch
listen app
  bind 127.0.0.1:{port}
  http-reuse always
  server nginx 127.0.0.1:{app}
"""


def _haproxy(there: Ground, folder: Path, ports: Sequence[int]) -> Commands:
    program = CACHE / "haproxy/haproxy"
    if not program.exists():
        raise FileNotFoundError(f"no haproxy at {program}: run scripts/install-haproxy")
    config = folder / "haproxy.cfg"
    config.write_text(_HAPROXY.format(port=ports[0], app=there.nginx))
    return [(ports[0], [str(program), "-db", "-f", str(config)])]


_COMMANDS: dict[tuple[str, str], Callable[[Ground, Path, Sequence[int]], Commands]] = {
    ("ours", SINGLE): _ours_single,
    ("ours", PAIR): _ours_pair,
    ("Envoy", SINGLE): _envoy_single,
    ("Envoy", PAIR): _envoy_pair,
    ("haproxy", SINGLE): _haproxy,
}


# --- whether they work --------------------------------------------------------------------------------


def ask(aim: Aim, method: str = "GET") -> tuple[int, int]:
    """The status of one answer, and the size of its body; status 0 for none."""
    connection = http.client.HTTPConnection("127.0.0.1", aim.port, timeout=5)
    try:
        connection.request(method, aim.target, headers={"Host": aim.host})
        answer = connection.getresponse()
        return answer.status, len(answer.read())
    except (OSError, http.client.HTTPException):
        return 0, 0
    finally:
        connection.close()


def _until_carried(way: Way, folder: Path) -> None:
    """Wait until every target comes whole, and until our pair refuses what the authorization rule does not allow."""
    wanted = {("GET", target): (200, size) for target, size in TARGETS.items()}
    until = time.monotonic() + 30
    for (method, target), answer in wanted.items():
        while (found := ask(way.aim(target), method)) != answer:
            _in_time(until, f"{way.name}, {way.hop}: {method} {target}: {found} instead of {answer}", folder)
    while way.name == "ours" and way.hop == PAIR and (status := ask(way.aim("/1k"), "POST")[0]) != 403:
        _in_time(until, f"the authorization rule of api is not in force: POST is answered {status}", folder)


def _in_time(until: float, what: str, folder: Path) -> None:
    if time.monotonic() > until:
        logs = "\n".join(f"{log.name}: {log.read_text(errors='replace')[-2000:]}" for log in folder.glob("*.log"))
        raise RuntimeError(f"{what} after 30 s\n{logs}")
    time.sleep(0.1)
