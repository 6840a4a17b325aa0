"""Whole gateways: processes with real ports, and clients that connect anew or stay."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.real_consul import free_ports
from tests.sidecar.conftest import ROOT, environment, wait
from tests.sidecar.proxy.ends import Client, Message

HOST = "shop.example.com"


@dataclass
class Edge:
    """A running `meshsdk gateway`."""

    process: subprocess.Popen[bytes]
    https: int
    http: int
    admin: int
    log: Path

    def page(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            return answer.code, answer.read().decode()

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.page("/ready")[0] == 200
        except OSError:
            return False

    async def until_ready(self) -> None:
        await asyncio.to_thread(wait, self.ready, self.log, 30.0)

    async def shown(self, path: str) -> str:
        status, text = await asyncio.to_thread(self.page, path)
        assert status == 200, text
        return text

    def workers(self) -> set[int]:
        pid = self.process.pid
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    async def callers(self, service: str) -> set[int]:
        """The workers that have called a service."""
        found = json.loads(await self.shown("/clusters"))
        return {worker["pid"] for each in found if each["service"] == service for worker in each["workers"]}

    async def connect(self, context: ssl.SSLContext) -> Client:
        return await Client.open(self.https, ssl=context, server_hostname=HOST)

    async def ask(self, context: ssl.SSLContext, path: str = "/") -> Message:
        """One request, on a connection of its own."""
        client = await self.connect(context)
        try:
            return await client.ask(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        finally:
            client.reset()


def write(folder: Path, file: dict[str, Any], to: str, **more: Any) -> tuple[int, int, int]:
    """Write the file, with ports of its own: of https, http and the pages."""
    https, http, admin = ports = free_ports(3)
    listeners = {"https": {"address": "127.0.0.1", "port": https}, "http": {"address": "127.0.0.1", "port": http}}
    routes = [{"host": HOST, "to": to}]
    told = {**file, "listeners": listeners, "admin": {"port": admin}, "routes": routes, **more}
    (folder / "gateway.yaml").write_text(yaml.safe_dump(told))
    return ports[0], ports[1], ports[2]


@contextmanager
def started(
    folder: Path, consul: str, ports: tuple[int, int, int], *words: str, log: str = "gateway.log", **variables: str
) -> Iterator[Edge]:
    """A process of the file that was written; it is killed at last, where it has not ended."""
    with (folder / log).open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "meshsdk_sidecar.gateway", "-c", str(folder / "gateway.yaml"), *words],
            env=environment(folder, consul) | variables,
            cwd=ROOT,
            stdout=file,
            stderr=file,
        )
    try:
        yield Edge(process, *ports, folder / log)
    finally:
        process.kill()
        process.wait()
