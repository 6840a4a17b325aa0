"""Real servers that say what they read: Node, and nginx, whose words are those of the Node behind it."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from tests.real_consul import free_ports
from tests.wire.real_servers import Started, binary

__all__ = ["Seen", "Witness", "witnesses"]

_NGINX = """
daemon off; master_process off; pid nginx.pid; error_log stderr crit;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server {{
    listen 127.0.0.1:{port} backlog=512;
    keepalive_timeout 5s;
    client_header_buffer_size 64k; large_client_header_buffers 4 64k;
    location / {{
      proxy_pass http://127.0.0.1:{node};
      proxy_http_version 1.1;
      proxy_set_header Host $host:$server_port;
      proxy_set_header X-Host $host;
      proxy_ignore_client_abort on;
      proxy_buffer_size 512k; proxy_buffers 4 512k; proxy_busy_buffers_size 512k;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Seen:
    """One request as a server read it; `names` of its fields in lower case."""

    method: str
    target: str
    host: str
    body: bytes
    names: frozenset[str]


class Witness:
    """A server that is asked, one connection each time, what it reads."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self._port = name, port

    def read(self, data: bytes) -> list[Seen | int]:
        """Its requests in order; the status instead where it refused one."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=10) as connection:
            answers = b""
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(1 << 18):
                    answers += piece
            except ConnectionError:  # it closed with bytes unread: those are the refused
                pass
        return [self._seen(answer) for answer in re.split(rb"(?m)^(?=HTTP/1\.1 (?!100))", answers) if answer.strip()]

    def _seen(self, answer: bytes) -> Seen | int:
        found = re.search(rb"^x-seen: (\S+)\r$", answer, re.MULTILINE)
        if found is None:
            status = re.match(rb"HTTP/1\.1 (\d+)|", answer)
            assert status is not None
            return int(status[1] or b"0")
        seen = json.loads(unquote(found[1].decode()))
        fields = seen["rawHeaders"]
        pairs = {name.lower(): value for name, value in zip(fields[::2], fields[1::2], strict=True)}
        host = pairs.get("x-host" if self.name == "nginx" else "host", "")
        return Seen(seen["method"], seen["url"], host, seen["body"].encode("latin-1"), frozenset(pairs))


@contextmanager
def witnesses(folder: Path) -> Iterator[list[Witness]]:
    """nginx and Node, running."""
    nginx, node = free_ports(2)
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(port=nginx, node=node))
    script = Path(__file__).parent / "witness.js"
    commands = {
        "node": ([binary("node"), str(script), str(node)], node),
        "nginx": ([binary("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(config)], nginx),
    }
    with ExitStack() as stack:
        started = [
            stack.enter_context(Started(name, command, port, folder)) for name, (command, port) in commands.items()
        ]
        for server in started:
            server.ready()
        yield [Witness("nginx", nginx), Witness("node", node)]
