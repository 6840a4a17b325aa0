"""`meshsdk dev`: a registry for this machine, embedded or a real Consul in development mode."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from typing import Annotated

import typer

from meshsdk.cli.console import Exit, fail, say

__all__ = ["dev"]


def dev(
    port: Annotated[int, typer.Option(help="Port of Consul's HTTP API.")] = 8500,
    consul: Annotated[
        bool, typer.Option("--consul", help="Start the `consul` found on the PATH instead (agent -dev).")
    ] = False,
) -> None:
    """Run a registry for laptops and tests: state in memory, loopback only, gone when it stops."""
    if consul:
        raise typer.Exit(_real_consul(port))
    from meshsdk_registry.agent import running_agent

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with running_agent(port=port) as agent:
            say(f"dev agent at {agent.url}: Consul's HTTP API, in memory, for laptops and tests, not for production")
            say(f"  export CONSUL_HTTP_ADDR={agent.url}" if port != 8500 else "  services find it without settings")
            say("  meshsdk services · meshsdk policy apply FILE · Ctrl-C ends it")
            stop.wait()
    except OSError as error:
        hint = "give another --port, or end what uses it"
        fail(f"cannot listen on 127.0.0.1:{port}: {error.strerror or error}", hint)
        raise typer.Exit(Exit.PROBLEM) from error


def _real_consul(port: int) -> int:
    binary = shutil.which("consul")
    if binary is None:
        fail("no `consul` on the PATH", "install Consul, or run `meshsdk dev` without --consul")
        return Exit.PROBLEM
    say(f"starting {binary} agent -dev with its HTTP API at http://127.0.0.1:{port}")
    command = [binary, "agent", "-dev", f"-http-port={port}", "-bind=127.0.0.1", "-log-level=warn"]
    child = subprocess.Popen(command, stdout=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.terminate()
        return child.wait()
