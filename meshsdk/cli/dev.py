"""`meshsdk dev`: a registry for this machine, embedded or a real Consul in development mode."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from typing import Annotated

import typer

from meshsdk.cli.console import Exit, codes, fail, part_of, say
from meshsdk.config import load
from meshsdk.errors import ConfigError
from meshsdk.policy.durations import seconds

__all__ = ["EXITS", "dev"]

EXITS = codes("stopped by SIGTERM or Ctrl-C", "the port is taken, or `consul` ended", consul=False)


def dev(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of Consul's HTTP API; 0 takes a free one.")] = 8500,
    consul: Annotated[
        bool, typer.Option("--consul", help="Start the `consul` found on the PATH instead (agent -dev).")
    ] = False,
    leaf_ttl: Annotated[
        str | None,
        typer.Option("--leaf-ttl", help="How long a service's certificate lives, such as 5s; 72h if left out."),
    ] = None,
    root_ttl: Annotated[
        str | None, typer.Option("--root-ttl", help="How long the CA's root lives, such as 1h; 10 years if left out.")
    ] = None,
) -> None:
    """Run a registry for laptops and tests: state in memory, loopback only, gone when it stops."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    lifetimes = {
        name: _seconds(f"--{name.replace('_', '-')}", text)
        for name, text in (("leaf_ttl", leaf_ttl), ("root_ttl", root_ttl))
        if text is not None
    }
    if consul and lifetimes:
        raise ConfigError(
            "--leaf-ttl and --root-ttl are the dev agent's: leave them out, or leave --consul out; real Consul takes"
            ' `connect { ca_config { leaf_cert_ttl = "1h" } }`'
        )
    if consul:
        _real_consul(port, stop)
    else:
        _embedded(port, lifetimes, stop)


def _seconds(option: str, text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text!r}: {error}") from error


def _embedded(port: int, lifetimes: dict[str, float], stop: threading.Event) -> None:
    with part_of("server"):
        from meshsdk_registry.agent import running_agent
    try:
        with running_agent(port=port, **lifetimes) as agent:
            say(f"dev agent at {agent.url}: Consul's HTTP API, in memory, for laptops and tests, not for production")
            _guide(agent.url)
            stop.wait()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        reason = (error.strerror or str(error)).rpartition(": ")[2]
        fail(f"cannot listen at http://127.0.0.1:{port}: {reason}", "give another --port, or end what uses this one")
        raise typer.Exit(Exit.PROBLEM) from error


def _real_consul(port: int, stop: threading.Event) -> None:
    binary = shutil.which("consul")
    if binary is None:
        raise ConfigError("no `consul` on the PATH: install Consul, or run `meshsdk dev` without --consul")
    if port == 0:
        raise ConfigError("--port 0: Consul wants a port; give one, or leave --consul out")
    say(f"starting {binary} agent -dev with its HTTP API at http://127.0.0.1:{port}: for laptops and tests")
    _guide(f"http://127.0.0.1:{port}")
    command = [binary, "agent", "-dev", f"-http-port={port}", "-bind=127.0.0.1", "-log-level=warn"]
    # A session of its own: Ctrl-C reaches us alone, and we end it.
    child = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
    while child.poll() is None and not stop.wait(0.1):
        pass
    if stop.is_set():
        child.terminate()
        child.wait()
        return
    fail(f"consul ended with {child.returncode}", "its own words are above; another one may run on this machine")
    raise typer.Exit(Exit.PROBLEM)


def _guide(url: str) -> None:
    known = load({"service": "meshsdk-dev"}).consul_url == url
    say("  services find it without settings" if known else f"  export CONSUL_HTTP_ADDR={url}")
    say("  meshsdk services · meshsdk policy apply FILE · meshsdk ca show · Ctrl-C ends it")
