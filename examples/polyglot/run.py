"""Runs the example: registry, Node service with its sidecar, Flask service; one request there and back; the end.

    python examples/polyglot/run.py

Every port is a free one. The exit code is 0 if the request went both ways over mutual TLS and its trace is unbroken;
otherwise it is 1, and what went wrong comes last, after all that the processes wrote.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from meshsdk_registry.agent import running_agent

HERE = Path(__file__).resolve().parent
READY = 30.0  # seconds for everything to be up
LATE = 3.0  # seconds for what is written about a request after its answer is out
LEAST = 5  # spans: Node's request, Flask's, its call, the one try of that, Node's request again
ORDER = 7


class Broken(Exception):
    """Something is not as it should be."""


class Process:
    """One program of the example, its output in a file.

    Args:
        name: what it is called in what is printed.
        command, environment: how it is started; the environment comes on top of ours.
        folder: where its output goes.
    """

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str], folder: Path) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        # Settings of the shell's own would lead elsewhere.
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MESH_", "CONSUL_", "OTEL_"))}
        with self._log.open("wb") as log:
            self._running = subprocess.Popen(command, cwd=HERE, env=kept | environment, stdout=log, stderr=log)

    @property
    def output(self) -> str:
        """All it has written so far."""
        return self._log.read_text(errors="replace")

    def check(self) -> None:
        """Raises `Broken` if it has ended."""
        if (code := self._running.poll()) is not None:
            raise Broken(f"{self.name} has ended with {code}")

    def end(self) -> int:
        """Tell it to end, and return its exit code; raises `Broken` if it had to be killed."""
        self._running.terminate()
        try:
            return self._running.wait(20)
        except subprocess.TimeoutExpired:
            raise Broken(f"{self.name} has not ended within 20 s of SIGTERM") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """Whatever happened, it goes."""
        if self._running.poll() is None:
            self._running.kill()
            self._running.wait()


# --- the parts ----------------------------------------------------------------------------------------


def begin_orders(stack: ExitStack, folder: Path, shared: dict[str, str], app: int, ports: Sequence[int]) -> Process:
    """The Node service as the child of its sidecar, by orders.yaml with other ports."""
    config = yaml.safe_load((HERE / "orders.yaml").read_text())
    config["service"]["port"] = app
    for section, port in zip(("outbound", "inbound", "admin"), ports, strict=True):
        config[section]["port"] = port
    file = folder / "orders.yaml"
    file.write_text(yaml.safe_dump(config))
    told = {
        "MESH_FORWARD_CLIENT_CERT": "true",
        "MESH_STATE_DIR": str(folder / "orders"),
        "PORT": str(app),
        "SIDECAR_PORT": str(ports[0]),
    }
    command = [sys.executable, "-m", "meshsdk.cli", "sidecar", "-c", str(file), "--exec", "--", "node", "orders.js"]
    return begin(stack, "orders", command, shared | told, folder)


def begin_prices(stack: ExitStack, folder: Path, shared: dict[str, str], port: int) -> Process:
    """The Flask service, under gunicorn."""
    told = {"MESH_STATE_DIR": str(folder / "prices"), "MESH_IDENTITY": "consul", "MESH_PORT": str(port)}
    words = [
        "prices:app",
        "--config",
        "python:meshsdk.server.gunicorn",
        "--bind",
        f"127.0.0.1:{port}",
        "--threads",
        "4",
    ]
    return begin(stack, "prices", [sys.executable, "-m", "gunicorn", *words], shared | told, folder)


def begin(stack: ExitStack, name: str, command: Sequence[str], environment: dict[str, str], folder: Path) -> Process:
    process = Process(name, command, environment, folder)
    stack.callback(process.kill)
    return process


def check_node() -> None:
    """Before anything is started."""
    if shutil.which("node") is None:
        raise Broken("no node on the PATH: install Node 18 or later")


def free_ports(count: int) -> list[int]:
    """Ports nobody has; all are held until the last is found, so that they differ."""
    with ExitStack() as held:
        found = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in found]


# --- asking -------------------------------------------------------------------------------------------


def ask(url: str, method: str = "GET", body: bytes | None = None, seconds: float = 20.0) -> Any:
    """The JSON at a page; raises `Broken` with the answer, `OSError` without one."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, body, method=method)
    try:
        with direct.open(request, timeout=seconds) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as refused:
        raise Broken(f"{method} {url}: {refused.code} {refused.read().decode(errors='replace')}") from None


def await_serving(consul: str, processes: Sequence[Process]) -> None:
    """Wait until the registry sends callers to every service."""
    end = time.monotonic() + READY
    while missing := [each for each in processes if not ask(f"{consul}/v1/health/service/{each.name}?passing=1")]:
        for each in processes:
            each.check()
        if time.monotonic() > end:
            raise Broken(f"{missing[0].name} does not serve after {READY:g} s")
        time.sleep(0.05)


# --- what came of it ----------------------------------------------------------------------------------


def expect(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise Broken(f"{what}: {found!r}, not {wanted!r}")


def identity(text: str | None, service: str) -> str:
    """The SPIFFE id in what a service was told of its caller; raises `Broken` unless it is that service's."""
    found = re.search(rf"spiffe://[^;,]+/svc/{service}$", text or "")
    if found is None:
        raise Broken(f"the caller is {text!r}, not {service}")
    return found[0]


def spans(processes: Sequence[Process], trace: str) -> list[dict[str, Any]]:
    """The spans of one trace, from its first to its last; raises `Broken` where it is not one line of them."""
    end = time.monotonic() + LATE
    while True:
        lines = [line for each in processes for line in each.output.splitlines() if line.startswith('{"span"')]
        found = [json.loads(line)["span"] for line in lines]
        try:
            return in_order([span for span in found if span["trace"] == trace])
        except Broken:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def in_order(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """From parent to child; raises `Broken` where one's parent is missing, or one has two children."""
    below = {span["parent"]: span for span in found}
    ordered: list[dict[str, Any]] = []
    while (span := below.get(ordered[-1]["id"] if ordered else None)) is not None:
        ordered.append(span)
    if len(ordered) < LEAST or len(ordered) != len(found):
        raise Broken(f"the trace is broken: {len(ordered)} of its {len(found)} spans hang together: {found}")
    return ordered


def let_in(process: Process, trace: str) -> tuple[str, str]:
    """Who was let in with this trace, and to what, as the mesh beside a service has logged it.

    Raises:
        Broken: nobody was.
    """
    end = time.monotonic() + LATE
    line = rf"direction=inbound source=(\S+) .*path=(\S+) .*trace_id={trace}"
    while (found := re.search(line, process.output)) is None:
        if time.monotonic() > end:
            raise Broken(f"no line in the access log of {process.name} has the trace")
        time.sleep(0.05)
    return found[1], found[2]


@contextmanager
def telling(processes: Sequence[Process]) -> Iterator[None]:
    """Show what the processes wrote if the block fails."""
    try:
        yield
    except BaseException:
        for each in processes:
            print(f"--- {each.name}\n{each.output}", file=sys.stderr)
        raise


def show(answer: dict[str, Any], processes: Sequence[Process]) -> None:
    """Check and print what the one request brought."""
    price = answer["price"]
    expect((price["price"], price["stock"]["left"]), (100 + ORDER, ORDER % 5), "price and stock")
    print(f"orders (Node)   called prices (Flask) as {identity(price['caller'], 'orders')}")
    print(f"prices (Flask)  called orders (Node)  as {identity(price['stock']['caller'], 'prices')}")
    print(f"trace {answer['trace']}, from span to span:")
    found = spans(processes, answer["trace"])
    for span in found:
        print(f"  {span['service']:<8}{span['id']}  parent {span['parent'] or '-':<16}  {span['name']}")
    expect(found[0]["service"] + found[-1]["service"], "ordersorders", "where the trace begins and ends")
    expect([span["service"] for span in found[1:-1]], ["prices"] * (len(found) - 2), "what lies between")
    print("and the same id where the mesh let each of them in:")
    for each, caller, carried in zip(processes, ("prices", "orders"), ("SDK → sidecar", "sidecar → SDK"), strict=True):
        source, path = let_in(each, answer["trace"])
        identity(source, caller)
        print(f"  {carried:<14}{caller} asks {each.name} for {path}")


def run(folder: Path, consul: str) -> None:
    ask(f"{consul}/v1/kv/mesh/policy/_mesh", "PUT", (HERE / "_mesh.yaml").read_bytes())
    shared = {
        "CONSUL_HTTP_ADDR": consul,
        "MESH_ADDRESS": "127.0.0.1",
        "MESH_DRAIN_WAIT": "0.2",  # one caller that hears of everything within milliseconds
        "MESH_RUNTIME_DIR": str(folder / "run"),
        "PYTHONUNBUFFERED": "1",
    }
    node, flask, *ports = free_ports(5)
    with ExitStack() as stack:
        processes = [
            begin_orders(stack, folder, shared, node, ports),
            begin_prices(stack, folder, shared, flask),
        ]
        with telling(processes):
            await_serving(consul, processes)
            show(ask(f"http://127.0.0.1:{node}/orders/{ORDER}"), processes)
            for each in reversed(processes):
                expect(each.end(), 0, f"the exit code of {each.name}")


def main() -> int:
    # As Ctrl-C: what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        check_node()
        with tempfile.TemporaryDirectory() as folder, running_agent() as agent:
            run(Path(folder), agent.url)
    except (Broken, OSError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    print("both calls were made over mutual TLS, and the trace is unbroken")
    return 0


if __name__ == "__main__":
    sys.exit(main())
