"""Real HTTP servers as processes on free ports of the loopback: nginx, uvicorn, gunicorn, Node and Envoy."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from tests.real_consul import free_ports
from tests.wire.apps.answers import FIELDS, HUGE, LARGE, LONG, SMALL, TEXT

__all__ = [
    "KEEP_ALIVE",
    "ROUTER",
    "TYPES",
    "Started",
    "binary",
    "envoy",
    "envoy_cluster",
    "envoy_config",
    "envoy_listener",
    "fleet",
]

APPS = Path(__file__).parent / "apps"
CACHE = Path(__file__).parents[2] / ".cache"
KEEP_ALIVE = 1  # seconds; the least that gunicorn can be told


class Started:
    """A server in a process of its own; what it says goes to `<name>.log` in its folder."""

    def __init__(self, name: str, command: list[str], port: int, folder: Path) -> None:
        self.name, self.port, self._command = name, port, command
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, "PYTHONPATH": str(APPS)}, stdout=log, stderr=log
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ready(self, seconds: float = 20.0) -> None:
        """Wait until it accepts connections."""
        deadline = time.monotonic() + seconds
        while not self._accepts():
            told = f"{' '.join(self._command)}\n{self._log.read_text(errors='replace')}"
            assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}: {told}"
            assert time.monotonic() < deadline, f"{self.name} was not ready within {seconds:g} s: {told}"
            time.sleep(0.02)

    def established(self) -> int:
        """How many connections the server holds open on its side, as the kernel counts them."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(row[1].endswith(f":{self.port:04X}") and row[3] == "01" for row in rows)

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


def binary(name: str) -> str:
    """Where a server's program is; raises `FileNotFoundError`, which says how to get it."""
    if name == "node":
        found = shutil.which(name)
        if found is None:
            raise FileNotFoundError("no node on the PATH: install Node 20 or later")
        return found
    path = CACHE / {"nginx": "nginx/nginx", "wrk": "nginx/wrk", "envoy": "envoy/envoy"}[name]
    if not path.exists():
        target = "envoy/envoy" if name == "envoy" else "nginx/nginx"  # which brings wrk along
        raise FileNotFoundError(f"no {name} at {path}: run `make .cache/{target}`")
    return str(path)


@contextmanager
def fleet(folder: Path) -> Iterator[dict[str, Started]]:
    """One of each, all answering as `apps/answers.py` says; Envoy and part of nginx stand before Node."""
    names: list[str] = ["node", "nginx", "envoy", "uvicorn", "gunicorn-sync", "gunicorn-gthread"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    gunicorn = ["gunicorn", "wsgi_app:app", "--limit-request-fields", "200", "--keep-alive", str(KEEP_ALIVE)]
    gunicorn += ["--log-level", "warning", "--no-control-socket"]
    commands = {
        "node": [binary("node"), str(APPS / "node_app.js"), str(ports["node"]), str(KEEP_ALIVE)],
        "nginx": _nginx(folder, ports["nginx"], ports["node"]),
        "envoy": envoy(folder / "envoy.json", _proxy(ports["envoy"], ports["node"])),
        "uvicorn": [sys.executable, str(APPS / "asgi_app.py"), str(ports["uvicorn"]), str(KEEP_ALIVE)],
        "gunicorn-sync": [sys.executable, "-m", *gunicorn, "--bind", f"127.0.0.1:{ports['gunicorn-sync']}"],
        "gunicorn-gthread": [
            *(sys.executable, "-m", *gunicorn, "--bind", f"127.0.0.1:{ports['gunicorn-gthread']}"),
            *("--worker-class", "gthread", "--threads", "4"),
        ],
    }
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(Started(name, command, ports[name], folder)) for name, command in commands.items()
        }
        for server in started.values():
            server.ready()
        yield started


# --- nginx --------------------------------------------------------------------------------------------

_NGINX = """
daemon off; master_process off; pid nginx.pid; error_log stderr warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server {{
    listen 127.0.0.1:{port} backlog=512;
    root {root};
    keepalive_timeout {keep_alive}s;
    client_max_body_size 2m;
    large_client_header_buffers 4 16k;
    add_header x-peer $remote_addr:$remote_port always;
    location = /empty {{ return 204; }}
    location = /refuse {{ client_max_body_size 1k; proxy_pass http://127.0.0.1:{node}; }}
    location = /gzip {{ gzip on; gzip_types *; }}
    location = /fields {{
      set $half {half};
      {fields} add_header x-long $half$half;
      try_files /small =404;
    }}
    location ~ ^/(echo|chunked)$ {{ proxy_http_version 1.1; proxy_pass http://127.0.0.1:{node}; }}
    location = /until-close {{
      chunked_transfer_encoding off;
      proxy_http_version 1.1; proxy_pass http://127.0.0.1:{node};
    }}
  }}
}}
"""


def _nginx(folder: Path, port: int, node: int) -> list[str]:
    root = folder / "static"
    root.mkdir()
    for name, body in {"small": SMALL, "large": LARGE, "huge": HUGE, "gzip": TEXT}.items():
        (root / name).write_bytes(body)
    fields = " ".join(f'add_header {name} "{value}";' for name, value in FIELDS)
    half = LONG[: len(LONG) // 2]  # nginx reads no longer word than 4 KiB
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(port=port, root=root, keep_alive=KEEP_ALIVE, node=node, fields=fields, half=half))
    return [binary("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(config)]


# --- Envoy --------------------------------------------------------------------------------------------

TYPES = "type.googleapis.com/envoy.extensions"
ROUTER = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}}


def envoy(path: Path, config: dict[str, Any]) -> list[str]:
    """Write `config` to `path`; the command that runs one Envoy on it, with one worker thread."""
    path.write_text(json.dumps(config))
    return [binary("envoy"), "--config-path", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]


def envoy_config(listeners: list[dict[str, Any]], clusters: list[dict[str, Any]]) -> dict[str, Any]:
    """A static configuration without an admin port."""
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


def envoy_listener(
    port: int,
    to: str,
    *,
    manager: dict[str, Any] | None = None,
    routes: dict[str, Any] | None = None,
    action: dict[str, Any] | None = None,
    **chain: Any,
) -> dict[str, Any]:
    """A listener that sends every request to the cluster `to`.

    Args:
        manager, routes, action: more of the connection manager, of its route configuration, of the one route's action.
        chain: more of the filter chain, such as a transport socket.
    """
    route = {"match": {"prefix": "/"}, "route": {"cluster": to, "timeout": "30s", **(action or {})}}
    connections = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": to,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}], **(routes or {})},
        "http_filters": [ROUTER],
        **(manager or {}),
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": connections}]
    return {"name": to, "address": _address(port), "filter_chains": [{"filters": filters, **chain}]}


def envoy_cluster(name: str, *ports: int, **more: Any) -> dict[str, Any]:
    """A cluster of instances on the loopback; `more` is further configuration, such as a transport socket."""
    endpoints = [{"endpoint": {"address": _address(port)}} for port in ports]
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
    return {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": assignment, **more}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _proxy(port: int, node: int) -> dict[str, Any]:
    """A plain reverse proxy that lets trailers and many header fields pass."""
    protocol = {"enable_trailers": True}
    bounds = {"max_headers_count": 200}
    peer = {"key": "x-peer", "value": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%"}
    listener = envoy_listener(
        port,
        "node",
        manager={
            "http_protocol_options": protocol,
            "drain_timeout": "0.1s",  # between the idle timeout and the close; 5 s otherwise
            "common_http_protocol_options": {**bounds, "idle_timeout": f"{KEEP_ALIVE}s"},
        },
        routes={"response_headers_to_add": [{"header": peer, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]},
    )
    upstream = {
        "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http_protocol_options": protocol},
        # Node closes what was idle for a second; well below that, Envoy never writes to what is just closing.
        "common_http_protocol_options": {**bounds, "idle_timeout": "0.2s"},
    }
    options = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": upstream}
    return envoy_config([listener], [envoy_cluster("node", node, typed_extension_protocol_options=options)])
