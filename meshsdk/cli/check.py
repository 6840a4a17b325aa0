"""`meshsdk check`: what is wrong between this machine and Consul, each finding with its remedy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from meshsdk.cli.console import Exit, data, out
from meshsdk.cli.consul import PREFIX, documents
from meshsdk.config import Settings, load
from meshsdk.discovery.disk import problem_with as state_dir_problem
from meshsdk.discovery.endpoints import endpoints as usable_endpoints
from meshsdk.errors import ConfigError
from meshsdk.mesh import open_consul
from meshsdk_registry import Consul, Denied, Health, RegistryError

__all__ = ["check"]

PROBE_KEY = "mesh/check/probe"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: `ok`, `warn` or `fail`, what was seen, and the remedy where one is needed."""

    subject: str
    state: str
    seen: str
    remedy: str = ""


def check(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Look at everything between this machine and Consul, and say what to do about what is wrong."""
    findings = asyncio.run(_collect())
    if as_json:
        data([asdict(finding) for finding in findings], (), as_json=True)
    else:
        for finding in findings:
            _print(finding)
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(Exit.PROBLEM)


def _print(finding: Finding) -> None:
    colour = {"ok": "green", "warn": "yellow", "fail": "red"}[finding.state]
    out.print(f"[{colour}]{finding.state:<4}[/] [bold]{finding.subject}[/]: ", end="")
    out.print(finding.seen, markup=False)
    if finding.remedy:
        out.print(f"     {finding.remedy}", markup=False)


async def _collect() -> list[Finding]:
    try:
        settings = load({"service": "meshsdk-check"})
    except ConfigError as error:
        return [Finding("settings", "fail", str(error), "correct the MESH_* or CONSUL_* variable it names")]
    findings = [_settings(settings), _state(settings.state_dir)]
    async with open_consul(settings) as consul:
        findings += [finding async for finding in _consul(consul)]
    return findings


def _settings(settings: Settings) -> Finding:
    token = "a token file" if settings.consul_token_file else "a token" if settings.consul_token else "no token"
    return Finding("settings", "ok", f"Consul at {settings.consul_url}, with {token}")


def _state(folder: Path | None) -> Finding:
    problem = state_dir_problem(folder) if folder is not None else "no folder: a start without Consul knows nothing"
    if problem:
        return Finding("last known good on disk", "warn", problem, "set MESH_STATE_DIR to a folder only you can write")
    return Finding("last known good on disk", "ok", str(folder))


async def _consul(consul: Consul) -> AsyncIterator[Finding]:
    """Each step needs the one before it; the first failure ends the list."""
    for subject, step in (("consul", _agent), ("leader", _leader), ("kv", _write), ("policy", _policy)):
        try:
            findings = await step(consul)
        except Denied as error:
            yield Finding(subject, "fail", str(error), "give the token the rules in registry/README.md")
            return
        except RegistryError as error:
            yield Finding(subject, "fail", str(error), "start Consul there, or set CONSUL_HTTP_ADDR")
            return
        for finding in findings:
            yield finding
    try:
        for finding in await _services(consul):
            yield finding
    except RegistryError as error:
        yield Finding("services", "fail", str(error), "give the token service:read and node:read")


async def _agent(consul: Consul) -> list[Finding]:
    info = await consul.agent_info()
    return [Finding("consul", "ok", f"version {info.version}, datacenter {info.datacenter}, node {info.node}")]


async def _leader(consul: Consul) -> list[Finding]:
    leader = await consul.leader()
    if leader:
        return [Finding("leader", "ok", leader)]
    remedy = "wait for the election; callers go on with what they know"
    return [Finding("leader", "fail", "the servers have no leader", remedy)]


async def _write(consul: Consul) -> list[Finding]:
    await consul.put(PROBE_KEY, b"")
    await consul.delete(PROBE_KEY)
    return [Finding("kv", "ok", f"{PREFIX} can be read and written")]


async def _policy(consul: Consul) -> list[Finding]:
    found = await documents(consul)
    if not found.by_service:
        return [Finding("policy", "ok", "no documents: every service has the defaults")]
    good = [name for name in found.by_service if name not in found.mistakes]
    findings = [Finding("policy", "ok", f"{len(good)} documents in force: {', '.join(sorted(good))}")] if good else []
    for name, lines in sorted(found.mistakes.items()):
        seen = f"{PREFIX}{name} is rejected, the last good one stays in force: " + "; ".join(lines)
        findings.append(Finding("policy", "fail", seen, f"correct it: meshsdk policy get {name}, then apply"))
    return findings


async def _services(consul: Consul) -> list[Finding]:
    findings = []
    for name in sorted((await consul.services()).value):
        if name == "consul":
            continue
        instances = (await consul.instances(name)).value
        findings += [
            Finding(f"service {name}", "warn", refusal, "register it with an address and a port callers can reach")
            for refusal in usable_endpoints(instances)[1]
        ]
        if instances and all(instance.health is Health.CRITICAL for instance in instances):
            seen = f"all {len(instances)} instances are critical"
            findings.append(Finding(f"service {name}", "warn", seen, f"see meshsdk endpoints {name}"))
    return findings
